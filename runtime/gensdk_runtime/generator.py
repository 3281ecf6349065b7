"""One ``sample()`` for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Backend, Session
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.inputs import check_batch_size, check_count, check_images, check_labels, check_latents
from gensdk_runtime.manifest import ModelSpec, Precision, SolverName, TimestepSpacing
from gensdk_runtime.noise import SampleKey, Seed, sample_keys
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.autoregressive import AutoregressiveProgram
from gensdk_runtime.programs.base import Program, Run, StepEnd
from gensdk_runtime.progress import Progress
from gensdk_runtime.samples import Samples, Timings

Label = int | str | Sequence[int | str]

MAX_BATCH_ELEMENTS = 2**27
"""Elements of the largest tensor of a batch whose size the caller left open; a bundle may ask for far more."""


class Generator:
    """A model ready to sample. Threads may share it; use it in ``with``, or call :meth:`close`."""

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session], record: Mapping[str, Any]) -> None:
        self.model = model
        self.sessions = sessions
        self._record = dict(record)
        self._program: Program[Any] = make_program(model, sessions)

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        *,
        backend: str | Backend = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> Self:
        """Opens a bundle (a folder, a ``.gsdk`` file, or the name of an embedded one) and loads its graphs.

        `backend`: ``"auto"``, ``"onnxruntime"``, ``"onnxruntime:cuda"``, ``"fake"``, or a Backend of your own.
        `precision`: ``"fp32"``, or ``"fp16"`` where the bundle was exported with it. `threads`: CPU threads
        inside one graph; None leaves it to the backend. Raises BundleError, BackendError or InputError.
        """
        with ExitStack() as undo:
            opened = bundle if isinstance(bundle, Bundle) else undo.enter_context(Bundle.open(bundle))
            engine = backend if isinstance(backend, Backend) else create_backend(backend, threads=threads)
            model = opened.manifest.model
            sessions: dict[str, Session] = {}
            with ExitStack() as loaded:
                for graph in model.graphs:
                    source = opened.graph_source(graph.name, precision)
                    session = engine.open(graph, source, precision=precision)
                    sessions[graph.name] = loaded.enter_context(session)
                generator = cls(model, sessions, {"backend": engine.label, "precision": precision})
                loaded.pop_all()
        return generator

    @classmethod
    def from_sessions(cls, model: ModelSpec, sessions: Mapping[str, Session]) -> Self:
        """A generator over sessions that were opened elsewhere, such as live torch modules."""
        first = next(iter(sessions.values()))
        return cls(model, sessions, {"backend": first.backend, "precision": first.precision})

    def sample(
        self,
        n: int = 1,
        *,
        seed: int | Sequence[Seed] | NDArray[np.integer] | None = None,
        label: Label | None = None,
        latents: NDArray[np.float32] | None = None,
        num_inference_steps: int | None = None,
        solver: SolverName | None = None,
        eta: float | None = None,
        guidance_scale: float | None = None,
        timestep_spacing: TimestepSpacing | None = None,
        clip_sample: bool | None = None,
        use_clipped_model_output: bool | None = None,
        callback_on_step_end: Callable[[StepEnd], bool] | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
    ) -> Samples:
        """Draws `n` samples.

        Sample i depends on the seed, on i and on the settings alone: not on `n`, the batch split or the thread.

        - `seed`: an int, a list or array with one entry for each sample (an int or a (seed, position) pair), or
          None to draw one; :attr:`Samples.seeds` reports it.
        - `label`: a class number or name for all samples, or a list with one for each. Left open, a diffusion
          model samples without a class and other models draw one for each sample from its seed.
        - `latents`: float32 [n, ...], the first noise (z, or x_T), instead of noise from the seed.
        - Diffusion only, as in diffusers: `num_inference_steps`, `solver` ("ddim", "ddpm", "dpmsolver++"), `eta`
          in [0, 1] for DDIM, `guidance_scale` (1: none; it counts where there is a label), `timestep_spacing`
          ("leading", "linspace", "trailing"), `clip_sample` (clip the estimate of x_0 to the value range),
          `use_clipped_model_output` (DDIM goes on from the clipped estimate). None takes the bundle's default.
        - `callback_on_step_end`: called with a :class:`StepEnd` after each step (of each batch); returning True
          stops, and the result holds what there is.
        - `progress`: a progress bar; None shows one on long work, where stderr is a terminal.
        - `batch_size`: samples in one run of the graphs, at most the bundle's `max_batch`; None: as many, or
          fewer where one tensor of the batch would be over 512 MiB.

        Raises :class:`InputError` for arguments that don't fit, :class:`BackendError` where the backend fails,
        returns NaN or was closed, and :class:`ManifestError` where a graph does not fit its program.
        """
        start = perf_counter()
        n = check_count(n)
        given = {
            "num_inference_steps": num_inference_steps,
            "solver": solver,
            "eta": eta,
            "guidance_scale": guidance_scale,
            "timestep_spacing": timestep_spacing,
            "clip_sample": clip_sample,
            "use_clipped_model_output": use_clipped_model_output,
        }
        settings = self._program.resolve(self._understood(given))
        keys = sample_keys(n, seed)
        labels = self._labels(label, keys)
        if latents is not None:
            latents = check_latents(latents, n, self._program.latent_shape)
        runs = [
            Run(
                keys=keys[first : first + size],
                labels=None if labels is None else labels[first : first + size],
                latents=None if latents is None else latents[first : first + size],
                first=first,
                on_step_end=callback_on_step_end,
            )
            for first, size in self._split(n, batch_size)
        ]
        arrays, seconds = self._run_all(runs, settings, progress)
        array = np.concatenate(arrays)
        done, stopped = len(array), any(run.stopped for run in runs)
        unlabelled = labels is None or (label is None and self._program.null_label is not None)
        record = {
            "model": self.model.name,
            "n": done,
            "seeds": [list(key) for key in keys[:done]],
            "labels": None if unlabelled or labels is None else labels[:done].tolist(),
            **self._program.describe(settings),
            **self._record,
            **({"stopped": True} if stopped else {}),
        }
        return Samples(
            array=array,
            seeds=keys[:done],
            labels=None if labels is None else labels[:done],
            value_range=self.model.image.value_range,
            settings=record,
            timings=Timings(perf_counter() - start, sum(run.graph_seconds for run in runs), tuple(seconds)),
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
        pixels = check_images(images, self.model.image, levels=self._program.spec.levels)
        labels = check_labels(label, len(pixels), self.model)
        if labels is None and self.model.num_classes is not None:
            raise InputError(f"model {self.model.name!r} is conditional: pass label, one for each image")
        parts = [
            self._program.log_likelihood(
                pixels[first : first + size], None if labels is None else labels[first : first + size]
            )
            for first, size in self._split(len(pixels), batch_size)
        ]
        return np.concatenate(parts)

    def close(self) -> None:
        """Frees the graphs; sampling afterwards is an error. May be called twice."""
        for session in self.sessions.values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _understood(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options that were set; an option that this program does not have is an error."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        options = {name: value for name, value in plain.items() if value is not None}
        for name in options:
            if name not in self._program.options:
                raise InputError(f"{name} means nothing to a {self.model.program.kind} model; leave it out")
        return options

    def _labels(self, label: Label | None, keys: tuple[SampleKey, ...]) -> NDArray[np.int64] | None:
        labels = check_labels(label, len(keys), self.model)
        if labels is not None or self.model.num_classes is None:
            return labels
        if self._program.null_label is not None:
            return np.full(len(keys), self._program.null_label, np.int64)
        drawn = noise.uniform(keys, noise.LABEL_STREAM, (1,))[:, 0]
        return np.minimum(drawn * self.model.num_classes, self.model.num_classes - 1).astype(np.int64)

    def _split(self, n: int, batch_size: int | None) -> list[tuple[int, int]]:
        """(first, size) of each batch."""
        limit = self.model.max_batch
        if batch_size is None:
            step = max(1, min(limit, MAX_BATCH_ELEMENTS // self.model.largest_tensor))
        else:
            step = check_batch_size(batch_size, limit)
        return [(first, min(step, n - first)) for first in range(0, n, step)]

    def _run_all(
        self, runs: list[Run], settings: Any, progress: bool | None
    ) -> tuple[list[NDArray[np.float32]], list[float]]:
        """Runs batch after batch until done or stopped; the images and seconds of each."""
        arrays: list[NDArray[np.float32]] = []
        seconds: list[float] = []
        with Progress(len(runs), f"sampling {self.model.name}", show=progress) as bar:
            for run in runs:
                run.on_progress = bar.part
                start = perf_counter()
                array = self._program.run(run, settings)
                seconds.append(perf_counter() - start)
                arrays.append(self._checked(array, run))
                bar.advance()
                if run.stopped:
                    break
        return arrays, seconds

    def _checked(self, array: NDArray[np.float32], run: Run) -> NDArray[np.float32]:
        expected = (len(run), *self.model.image.shape)
        if array.shape != expected:
            raise BackendError(f"expected images {list(expected)}, the graph gave {list(array.shape)}")
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            bad = int((~finite).sum())
            raise BackendError(
                f"{bad} of {len(array)} samples came out NaN or infinite ({self._record['backend']}, "
                f"{self._record['precision']}); run gensdk verify, and use precision='fp32' meanwhile"
            )
        return array
