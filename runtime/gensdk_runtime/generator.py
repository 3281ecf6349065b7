"""One ``sample()`` for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from math import isfinite, prod
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import check_callback, check_word
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Backend, Session
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.conditions.inputs import check_images, check_labels, check_latents, check_sources
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.host.forking import new_lock, renew_in_children
from gensdk_runtime.host.memory import Room, check_room
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.media.images import to_uint8
from gensdk_runtime.methods.latent_methods import LatentMethods
from gensdk_runtime.methods.translation_methods import TranslationMethods
from gensdk_runtime.noise import SampleKey, Seeds, sample_keys
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.lineup import Lineup
from gensdk_runtime.plan.origin import Origin, still_open
from gensdk_runtime.plan.request import Asked, Label, Request, Requests, batch_limit
from gensdk_runtime.plan.runner import Runner, open_runner, runner_of
from gensdk_runtime.programs.autoregressive import AutoregressiveProgram
from gensdk_runtime.programs.base import Program, Run, StepCallback
from gensdk_runtime.programs.translation import source_size
from gensdk_runtime.samples import Samples, Timings
from gensdk_runtime.spec.manifest import ModelSpec
from gensdk_runtime.spec.settings import OptimizerName, SolverName, TimestepSpacing
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.tuning.auto import auto_lineup

OutputType = Literal["float32", "uint8"]
OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)

DEVICES = ("cuda", "gpu", "tensorrt", "dml", "coreml")
"""What is in the names of backends that run in the memory of a device."""
PRECISIONS = ("fp32", "fp16", "auto")
FEW = 64
"""Samples that fit into memory wherever the model does."""
MAX_WORKERS = 256


class Generator(LatentMethods, TranslationMethods):
    """A model ready to sample. Threads may share it; use it in ``with``, or call :meth:`close`.

    Forked processes may go on with it: each opens the graphs again at its first call, from the bundle as it was.
    Pickled or copied (``copy.deepcopy``) it is loaded again from its path, with the arguments of :meth:`load`.
    """

    def __init__(
        self,
        model: ModelSpec,
        lineup: Lineup,
        *,
        owned: Bundle | None = None,
        origin: Callable[[], Origin] | None = None,
    ) -> None:
        self.model = model
        self._lineup = lineup
        self._owned = owned
        self._program: Program[Any] = lineup.first.program
        self._room = Room(host=not any(device in lineup.first.label for device in DEVICES))
        self._requests = Requests(model, self._program, lineup)
        self._workers: ThreadPoolExecutor | None = None
        self._origin = origin
        self._closed = False
        self._lock = new_lock()
        renew_in_children(self)

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        *,
        backend: str | Backend = "auto",
        precision: Precision | Literal["auto"] = "fp32",
        threads: int | None = None,
        trust_engines: bool = False,
    ) -> Self:
        """Opens a bundle (a folder, a ``.gsdk`` file, or the name of an embedded one) and loads its graphs.

        `backend`: ``"onnxruntime"``, ``"onnxruntime:cuda"``, ``"openvino"``, ``"tensorrt"``, ``"fake"`` or a
        Backend of your own; ``"auto"``: what measured fastest on this machine. The first ``"auto"`` of a bundle
        measures for a few seconds and keeps the result (:func:`gensdk_runtime.tuning.tune.tuned`); GENSDK_TUNE=off
        in the environment takes ONNX Runtime instead. With ``:background`` at its end, as in
        ``"tensorrt:background"``, ONNX Runtime serves until the other is ready. `precision`: ``"fp32"``,
        ``"fp16"`` where the bundle was exported with it, or ``"auto"``: the faster one of those. `threads`: CPU
        threads inside one graph; None leaves it to the backend. `trust_engines`: TensorRT takes engines that the
        bundle brings along wherever they were made (see :meth:`Bundle.open`). Raises BundleError, BackendError or
        InputError.
        """
        check_word(precision, "precision", PRECISIONS)
        chosen: object = backend  # callers without a type checker pass anything
        if not isinstance(chosen, str | Backend):
            kind = type(chosen).__name__
            raise InputError(
                f"expected backend as a name, such as 'auto' or 'onnxruntime', or a Backend, got {kind}"
            )
        with ExitStack() as undo:
            owned = None if isinstance(bundle, Bundle) else undo.enter_context(Bundle.open(bundle))
            opened = bundle if isinstance(bundle, Bundle) else owned
            assert opened is not None  # noqa: S101 - one of the two it is
            if trust_engines:
                opened = replace(opened, trust_engines=True)
            if backend == "auto":
                lineup = undo.enter_context(closing(auto_lineup(opened, precision, threads)))
                if owned is None:
                    lineup.open_all()  # the caller may close the bundle
            else:
                if precision == "auto":
                    raise InputError("precision='auto' is chosen by measurement; it needs backend='auto'")
                engine = backend if isinstance(backend, Backend) else create_backend(backend, threads=threads)
                if threads is not None and isinstance(backend, Backend):
                    raise InputError("threads goes with a backend's name; give your Backend its own")

                def again(choice: Choice) -> Runner:
                    fresh = create_backend(backend, threads=threads) if isinstance(backend, str) else backend
                    with still_open(opened) as files:
                        return open_runner(files, fresh, precision)

                lineup = Lineup(
                    {Choice(backend=engine.name): open_runner(opened, engine, precision)}, opener=again
                )
            origin = partial(Origin.of, opened, backend, precision, threads)
            generator = cls(_model_of(opened), lineup, owned=owned, origin=origin)
            undo.pop_all()
        return generator

    @classmethod
    def from_sessions(cls, model: ModelSpec, sessions: Mapping[str, Session]) -> Self:
        """A generator over sessions that were opened elsewhere, such as live torch modules."""
        runner = runner_of(model, sessions)
        return cls(model, Lineup({Choice(backend=runner.label): runner}))

    def after_fork(self) -> None:
        """See :class:`gensdk_runtime.host.forking.Renewable`: the threads stayed behind."""
        self._workers = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._closed:
            raise InputError("this Generator was closed; load the bundle again")
        if self._origin is None:
            raise InputError("a Generator over open sessions can't be copied or sent to another process")
        return _load_again, (self._origin(),)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The open graphs by name; with ``backend="auto"`` those of the choice for small batches."""
        return self._lineup.steps.sessions

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample's `latents` in :meth:`sample`; None for a model that takes none."""
        return self._program.latent_shape

    def every_session(self) -> tuple[Mapping[str, Session], ...]:
        """The open graphs of each choice that ``backend="auto"`` may take, by name; otherwise :attr:`sessions`."""
        return tuple(runner.sessions for runner in self._lineup.every())

    def sample(
        self,
        n: int | None = None,
        *,
        seed: Seeds | None = None,
        label: Label | None = None,
        latents: NDArray[np.float32] | None = None,
        image: Any = None,
        num_inference_steps: int | None = None,
        solver: SolverName | None = None,
        eta: float | None = None,
        guidance_scale: float | None = None,
        timestep_spacing: TimestepSpacing | None = None,
        clip_sample: bool | None = None,
        use_clipped_model_output: bool | None = None,
        cache_interval: int | None = None,
        layer: str | None = None,
        channel: int | None = None,
        optimizer: OptimizerName | None = None,
        learning_rate: float | None = None,
        patience: int | None = None,
        jitter: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
    ) -> Samples:
        """Draws `n` samples: by default one, or one for each `image`.

        Sample i depends on the seed, on i and on the settings alone: not on `n`, the batch split or the thread.

        - `seed`: an int, a list or array with one entry for each sample (an int or a (seed, position) pair), or
          None to draw one; :attr:`Samples.seeds` reports it.
        - `label`: a class number or name for all samples, or a list with one for each. Left open, a diffusion
          model samples without a class and other models draw one for each sample from its seed.
        - `latents`: float32 [n, ...], the first noise (z, or x_T), instead of noise from the seed.
        - `image`, for a model that translates images: one for each of the `n` samples, uint8 [n, H, W, C] (or
          [n, H, W] in grey), or float [n, C, H, W] in its source's value range, which a graph that takes bytes
          (``--uint8``, the default of such models) gets rounded to 256 levels.
        - Diffusion only, as in diffusers: `num_inference_steps`, `solver` ("ddim", "ddpm", "dpmsolver++"), `eta`
          in [0, 1] for DDIM, `guidance_scale` (1: none; it counts where there is a label), `timestep_spacing`
          ("leading", "linspace", "trailing", "quadratic"), `clip_sample` (clip the estimate of x_0 to the range),
          `use_clipped_model_output` (DDIM goes on from the clipped estimate). None takes the bundle's default.
        - `cache_interval`, as DeepCache calls it (Ma, Fang & Wang 2023), for bundles exported with
          ``--share-features``: only every so many steps are computed in full, those between take the deep features
          of the last full one. Faster, but not the same images: 1, the default, is exact.
        - Models that optimize their input only: `layer`, by name, and `channel`, what is to be excited; the
          `optimizer` ("adam", "sgd", "lbfgs") with its `learning_rate`; `patience`, steps without progress after
          which a sample stops (0: never); `jitter` in pixels.
        - `callback_on_step_end`: called with a :class:`StepEnd` after each step (of each batch); returning True
          stops, and the result holds what there is.
        - `progress`: a progress bar; None shows one on long work, where stderr is a terminal.
        - `batch_size`: samples in one run of the graphs, at most the bundle's `max_batch`; None: as many, or
          fewer where one tensor of the batch would be over 512 MiB.
        - `output_type`: "uint8" draws bytes; a model exported with ``--uint8`` makes them inside its graph.
          For images only.

        Raises :class:`InputError` for arguments that don't fit, :class:`BackendError` where the backend fails,
        returns NaN or was closed, and :class:`ManifestError` where a graph does not fit its program.
        """
        start = perf_counter()
        if callback_on_step_end is not None:
            check_callback(callback_on_step_end, "callback_on_step_end")
        options = {
            "num_inference_steps": num_inference_steps,
            "solver": solver,
            "eta": eta,
            "guidance_scale": guidance_scale,
            "timestep_spacing": timestep_spacing,
            "clip_sample": clip_sample,
            "use_clipped_model_output": use_clipped_model_output,
            "cache_interval": cache_interval,
            "layer": layer,
            "channel": channel,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "patience": patience,
            "jitter": jitter,
        }
        sources = self._sources(image, n)
        size = None if sources is None else source_size(sources)
        if n is None:
            n = 1 if sources is None else len(sources)
        request = self._requests.get(Asked(n, label, batch_size, callback_on_step_end is not None, size), options)
        data = self._empty(request.n, output_type, size)
        keys = sample_keys(request.n, seed)
        labels = self._drawn_labels(keys) if request.draws_labels else request.labels
        if latents is not None:
            latents = check_latents(latents, request.n, self._program.latent_shape)
        # Asked before it runs: a batch ends on the backend that it began on.
        record = {**request.record, **self._lineup.record(request.rounds)}
        batches = Batches(keys, labels, latents, data, sources, callback_on_step_end)
        try:
            runs = self._run_all(request, batches, progress)
        except MemoryError:
            raise BackendError(
                f"out of memory while sampling {request.n} of {self.model.name!r}; pass a smaller batch_size, "
                "draw fewer at a time, or give more memory"
            ) from None
        done, stopped = sum(len(run.images) for run in runs), any(run.stopped for run in runs)
        if done < len(data):
            data, keys = data[:done], keys[:done]
        return Samples(
            data=data if data.dtype == output_type else to_uint8(data, self.model.require_image().value_range),
            seeds=keys,
            labels=None if labels is None else labels[:done].copy(),  # a request keeps its own
            value_range=self.model.output.value_range,
            settings={
                "model": self.model.name,
                "n": done,
                "seeds": [list(key) for key in keys],
                "labels": None if labels is None or request.unlabelled else labels[:done].tolist(),
                **record,
                **({} if latents is None else {"latents": "given"}),
                **({"stopped": True} if stopped else {}),
            },
            timings=Timings(
                perf_counter() - start,
                sum(run.graph_seconds for run in runs),
                tuple(run.seconds for run in runs),
            ),
            stopped=stopped,
        )

    def log_likelihood(
        self, images: NDArray[Any], label: Label | None = None, *, batch_size: int | None = None
    ) -> NDArray[np.float64]:
        """Bits per dimension, float64 [n], of images under an autoregressive model.

        `images`: uint8 [n, H, W, C] (or [n, H, W] for one channel), or float [n, C, H, W] in the model's value
        range; they are rounded to the model's grey levels. A conditional model needs `label`. Raises
        :class:`InputError` for other programs, other shapes, and values out of range, and :class:`BackendError`
        where the backend fails or gives NaN.
        """
        if not isinstance(self._program, AutoregressiveProgram):
            raise InputError(
                f"log_likelihood needs an autoregressive model; {self.model.name!r} is {self.model.program.kind}"
            )
        program = self._lineup.steps.program
        assert isinstance(program, AutoregressiveProgram)  # noqa: S101 - both forms are of one kind
        pixels = check_images(images, self.model.require_image(), levels=program.spec.levels)
        labels = check_labels(label, len(pixels), self.model)
        if labels is None and self.model.num_classes is not None:
            raise InputError(f"model {self.model.name!r} is conditional: pass label, one for each image")
        size = batch_limit(self.model, batch_size)
        parts = [
            program.log_likelihood(
                pixels[first : first + size], None if labels is None else labels[first : first + size]
            )
            for first in range(0, len(pixels), size)
        ]
        return np.concatenate(parts)

    def _draw(self, n: int | None, options: Mapping[str, Any]) -> Samples:
        return self.sample(n, **options)

    def close(self) -> None:
        """Frees the graphs; calls that are under way in other threads end, at the latest with
        :class:`BackendError`, which sampling afterwards raises too. May be called twice."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, None
        self._lineup.close()
        if workers is not None:
            workers.shutdown(wait=False)
        if self._owned is not None:
            self._owned.close()

    def _drawn_labels(self, keys: tuple[SampleKey, ...]) -> NDArray[np.int64]:
        """A class for each sample, from its seed."""
        classes = self.model.num_classes or 1
        drawn = noise.uniform(keys, noise.LABEL_STREAM, (1,))[:, 0]
        return np.minimum(drawn * classes, classes - 1).astype(np.int64)

    def _sources(self, image: Any, n: int | None) -> NDArray[Any] | None:
        """The checked images of a translation model; None for a model that takes none."""
        if self.model.source is None:
            if image is not None:
                raise InputError(f"model {self.model.name!r} takes no image; leave image out")
            return None
        if image is None:
            raise InputError(f"model {self.model.name!r} translates images: pass image, one for each sample")
        return check_sources(image, self.model, n)

    def _empty(self, n: int, output_type: str, size: tuple[int, int] | None) -> NDArray[Any]:
        """What the samples are drawn into: bytes only where the graph makes them."""
        if type(output_type) is not str or output_type not in OUTPUT_TYPES:
            check_word(output_type, "output_type", OUTPUT_TYPES)
        if n > FEW and size is None:
            check_room(n, prod(self.model.output.shape))
        if self.model.points is not None:
            if output_type == "uint8":
                raise InputError(
                    f"model {self.model.name!r} makes points, which have no bytes; leave output_type out"
                )
            return np.empty((n, *self.model.points.shape), np.float32)
        channels, height, width = self.model.require_image().shape
        if size is not None and self.model.source is not None:
            height, width = (side * self.model.source.scale for side in size)
            check_room(n, channels * height * width)
        if output_type == "uint8" and self._program.makes_uint8:
            return np.empty((n, height, width, channels), np.uint8)
        return np.empty((n, channels, height, width), np.float32)

    def _run_all(self, request: Request, batches: Batches, progress: bool | None) -> list[Run]:
        """Runs round after round until done or stopped; all runs that began."""
        runs: list[Run] = []
        with Progress(request.n, f"sampling {self.model.name}", show=progress) as bar:
            for each, runner in request.rounds:
                fresh = batches.next(each)
                for run in fresh if bar.shown else ():
                    run.on_progress = bar.share(len(run))
                begun = self._run_round(fresh, runner, request.settings)
                self._check_finite(begun, runner)
                runs += begun
                for run in begun:
                    if run.on_progress is not None:
                        run.on_progress(1.0)  # not every program tells its steps
                if runs[-1].stopped:
                    break
        return runs

    def _run_round(self, runs: Sequence[Run], runner: Runner, settings: Any) -> Sequence[Run]:
        """Runs batches side by side, or one after another where a callback listens; those that began."""

        def work(run: Run) -> None:
            runner.program.run_timed(run, settings)

        if len(runs) > 1 and runs[0].on_step_end is None:
            waiting: list[Future[None]] = []
            try:
                for run in runs[1:]:
                    waiting.append(self._submit(work, run))
                work(runs[0])  # in this thread: it would only wait
            finally:
                wait(waiting)  # all of them, so that none still writes where another failed
            for each in waiting:
                each.result()
            for run in runs:
                run.graph_seconds /= len(runs)  # they spent it at the same time
            return runs
        for begun, run in enumerate(runs, start=1):
            work(run)
            if run.stopped:
                return runs[:begun]
        return runs

    def _submit(self, work: Callable[[Run], None], run: Run) -> Future[None]:
        """To threads for batches that run side by side; kept, as starting them costs as much as a small batch."""
        with self._lock:
            if self._closed:
                raise BackendError("the generator was closed; load the bundle again")
            if self._workers is None:  # it starts threads only as they are needed
                self._workers = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="gensdk")
            try:
                return self._workers.submit(work, run)
            except RuntimeError as failure:  # the interpreter is ending, or the system has no more threads
                raise BackendError(f"no thread can be started ({failure})") from None

    def _check_finite(self, runs: Sequence[Run], runner: Runner) -> None:
        for run in runs:
            images = run.images
            if images.dtype == np.uint8:  # the program checked
                continue
            if isfinite(np.add.reduce(images, axis=None)):  # one pass; NaN and infinity survive a sum
                continue
            bad = int((~np.isfinite(images).reshape(len(images), -1).all(axis=1)).sum())
            if bad:
                raise BackendError(
                    f"{bad} of {len(images)} samples came out NaN or infinite ({runner.label}, "
                    f"{runner.precision}); run gensdk verify, and use precision='fp32' meanwhile"
                )


def _model_of(bundle: Bundle) -> ModelSpec:
    """The bundle's model; one that translates images with what its graph says of tiles."""
    model = bundle.manifest.model
    if model.source is None:
        return model
    from gensdk_runtime.receptive_field.field import seen  # here: other models need none of it

    return seen(bundle)


def _load_again(origin: Origin) -> Generator:
    """What a pickled or copied generator becomes."""
    with origin.opened():
        return Generator.load(
            origin.path,
            backend=origin.backend,
            precision=origin.precision,
            threads=origin.threads,
            trust_engines=origin.trust_engines,
        )
