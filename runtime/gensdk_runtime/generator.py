"""One ``sample()`` for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import methods
from gensdk_runtime.arguments import check_flag, check_word
from gensdk_runtime.backends.base import Backend, Session
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.model_files import Files, HeldFiles, ModelFiles
from gensdk_runtime.conditions.given_images import Picture, check_size
from gensdk_runtime.conditions.label import Label
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.closable import Closable
from gensdk_runtime.methods.walking import Walking
from gensdk_runtime.noise import Seeds
from gensdk_runtime.outputs.base import OutputType
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.executor import Executor
from gensdk_runtime.plan.origin import Origin
from gensdk_runtime.plan.request import ARGUMENTS, Asked
from gensdk_runtime.plan.runner import runner_of
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.programs import ABILITIES, abilities
from gensdk_runtime.programs.run import StepCallback
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.option_docs import takes_options
from gensdk_runtime.spec.settings import AscentOptions, ProgramSettings, SampleOptions
from gensdk_runtime.tuning.loading import described, open_runners

if TYPE_CHECKING:
    from gensdk_runtime.conditions.audio import Audio
    from gensdk_runtime.conditions.prompt import Prompt
    from gensdk_runtime.methods.inversion import Detection, Inversion, InvertArguments
    from gensdk_runtime.methods.prepared import Prepared


class Generator(Walking, Closable):
    """A model ready to sample. Threads may share it; use it in ``with``, or call :meth:`close`.

    Forked processes may go on with it: each opens the graphs again at its first call, from the bundle as it was.
    Pickled or copied (``copy.deepcopy``) it is loaded again from its path, with the arguments of :meth:`load`.
    """

    def __init__(
        self,
        model: ModelSpec,
        runners: Runners,
        *,
        owned: Bundle | None = None,
        origin: Callable[[], Origin] | None = None,
        files: ModelFiles | None = None,
    ) -> None:
        self.model = model
        self._executor = Executor(model, runners)
        self._sampling = Sampling(self._executor, files)
        self._owned = owned
        self._origin = origin

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
        measures for a few seconds and keeps the result (:mod:`gensdk_runtime.tuning.auto`); GENSDK_TUNE=off
        in the environment takes ONNX Runtime instead. With ``:background`` at its end, as in
        ``"tensorrt:background"``, ONNX Runtime serves until the other is ready; with ``:tf32``, as in
        ``"onnxruntime:cuda:tf32"``, an NVIDIA GPU may round fp32 products to TF32, and with ``:graphs`` behind
        ``"onnxruntime:cuda"`` runs are launched as CUDA graphs. `precision`: ``"fp32"``,
        ``"fp16"`` where the bundle was exported with it, or ``"auto"``: the faster one of those. `threads`: CPU
        threads inside one graph; None leaves it to the backend. `trust_engines`: TensorRT takes engines that the
        bundle brings along wherever they were made (see :meth:`Bundle.open`). Raises BundleError, BackendError or
        InputError.
        """
        check_flag(trust_engines, "trust_engines")
        with ExitStack() as undo:
            opened = bundle if isinstance(bundle, Bundle) else undo.enter_context(Bundle.open(bundle))
            owned = None if opened is bundle else opened
            if trust_engines:
                opened = replace(opened, trust_engines=True)
            runners = undo.enter_context(closing(open_runners(opened, backend, precision, threads)))
            if owned is None:
                runners.open_all()  # the caller may close the bundle
            origin = partial(Origin.of, opened, backend, precision, threads)
            generator = cls(described(opened), runners, owned=owned, origin=origin, files=opened)
            undo.pop_all()
        return generator

    @takes_options()
    def prepare(
        self,
        n: int = 1,
        *,
        label: Label | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
        warm: bool = True,
        settings: ProgramSettings | Mapping[str, Any] | None = None,
        **options: Unpack[SampleOptions],
    ) -> Prepared:
        """A call of :meth:`sample` that is checked, planned and bound now, and made with ``draw(seed)`` later.

        `size`: height and width of the images of a translation model, for ``translate(image)``; None: its own.
        `warm`: run it once now. The rest, and what is raised, as in :meth:`sample`, but that `settings` gives
        options alone.
        """
        for name in (name for name in ARGUMENTS if name in options):
            raise InputError(f"prepare() takes no {name}; pass it to draw(), or to sample()")
        asked = Asked(n, batch_size, size=check_size(size, "size"))
        conditions, others = self._sampling.asked_for({"label": label}, dict(options))
        chosen = self._sampling.options(settings, others)
        return methods.prepared.Prepared(self._sampling, asked, conditions, chosen, output_type, warm=warm)

    @classmethod
    def from_sessions(cls, model: ModelSpec, sessions: Mapping[str, Session], files: Files | None = None) -> Self:
        """A generator over sessions that were opened elsewhere, such as live torch modules. `files`: those that
        output and conditions need, such as a vocabulary; without it tokens are drawn, and can't be said."""
        runner = runner_of(model, sessions)
        held = HeldFiles(files) if files else None
        return cls(model, Runners({Choice(backend=runner.label): runner}), files=held)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._executor.closed:
            raise InputError("this Generator was closed; load the bundle again")
        if self._origin is None:
            raise InputError("a Generator over open sessions can't be copied or sent to another process")
        return _load_again, (self._origin(),)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The open graphs by name; with ``backend="auto"`` those of the choice for small batches."""
        return self._executor.runners.steps.sessions

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample's `latents` in :meth:`sample`; None for a model that takes none."""
        return self._sampling.program.latent_shape

    def every_session(self) -> tuple[Mapping[str, Session], ...]:
        """The open graphs of each choice that ``backend="auto"`` may take, by name; otherwise :attr:`sessions`."""
        return tuple(runner.sessions for runner in self._executor.runners.every())

    def can(self, ability: str) -> bool:
        """True if the model has what the method `ability` needs, one of
        :data:`gensdk_runtime.programs.ABILITIES` or "sample"; :class:`InputError` for another name."""
        check_word(ability, "ability", ("sample", *ABILITIES))
        return ability in ("sample", *abilities(self.model))

    @takes_options()
    def sample(
        self,
        n: int | None = None,
        *,
        seed: Seeds | None = None,
        label: Label | None = None,
        latents: NDArray[np.float32] | None = None,
        image: Any = None,
        mask_image: Any = None,
        prompt: Prompt | None = None,
        negative_prompt: Prompt | None = None,
        audio: Audio | None = None,
        prefix: Any = None,
        settings: ProgramSettings | Mapping[str, Any] | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
        **options: Unpack[SampleOptions],
    ) -> Samples:
        """Draws `n` samples: by default one, or one for each `image`, `prompt`, `audio` or `prefix`.

        Sample i depends on the seed, on i and on the settings alone: not on `n`, the batch split or the thread.

        - `seed`: an int, a list or array with one entry for each sample (an int or a (seed, position) pair), or
          None to draw one; :attr:`Samples.seeds` reports it.
        - `label`: a class number or name for all samples, or a list. Left open, a diffusion model samples without
          a class and other models draw one for each sample from its seed.
        - `latents`: float32 [n, ...], the first noise (z, or x_T), instead of noise from the seed.
        - `image`, for a model that translates images: one for each sample (or one for all `audio`), uint8 [n, H,
          W, C] (or [n, H, W] in grey), or float [n, C, H, W] in its source's value range, rounded where the graph
          takes bytes. For a diffusion model what samples start from, one for all or one for each, of the size of
          its images, with the noise of the first step that `strength` leaves; with 1 a sample is the one without
          an image.
        - `mask_image`: where such an `image` is painted anew, bool, float or uint8 [H, W], [n, H, W] or [n, H, W,
          1], 1 (in bytes 255) for anew, 0 for kept as it was given; values between are cut in the middle.
        - `prompt`, for a model that makes samples from texts: a text for all samples, or a list with one for each;
          or tokens, int64 [n, up to the model's length], filled up behind.
        - `negative_prompt`, for a diffusion model with prompts: the text that guidance leads away from, in the
          same ways; the empty one where it is left open.
        - `audio`, for a model that makes samples from sounds: one for all, or for each. Float in [-1, 1] or int16,
          [samples] at the model's rate, [n, samples] or [n, samples, channels]; ``(array, Hz)``; a .wav or .flac
          file; or a list of such. What does not fit is mixed, resampled or cut, and told.
        - `prefix`, for a model that draws part after part: how samples begin, one for each or one for all; what
          follows is drawn as if it had been. Of images the upper rows, uint8 [n, h, W, C] (or [n, h, W] in grey)
          or float [n, C, h, W]; of sounds float [n, samples, channels]; of texts str, or tokens int64 [n, length].
        - `settings`: options of the program all at once: an object such as :class:`DiffusionSettings`, of which
          counts what was set; a dict; or :attr:`Samples.settings`, which draws those again (with `n` left open).
        - `options`: those of the model's program, which are listed below (their types: :class:`SampleOptions`),
          before what `settings` says. None takes the bundle's default.
        - `callback_on_step_end`: gets a :class:`StepEnd` after each step (of each batch), and stops by True.
        - `progress`: a progress bar; None shows one on long work, where stderr is a terminal.
        - `batch_size`: samples in one run of the graphs, at most the bundle's `max_batch`; None: as many as fit.
        - `output_type`: "uint8" draws bytes, of images; an export with ``--uint8`` makes them inside its graph.

        Raises :class:`InputError` for arguments that don't fit, :class:`BackendError` where the backend fails,
        returns NaN or was closed, :class:`ManifestError` where a graph does not fit its program.
        """
        return self._sampling.sample(
            n,
            seed=seed,
            conditions={
                "label": label,
                "image": image,
                "mask_image": mask_image,
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "audio": audio,
            },
            latents=latents,
            prefix=prefix,
            callback_on_step_end=callback_on_step_end,
            progress=progress,
            batch_size=batch_size,
            output_type=output_type,
            settings=settings,
            options=options,
        )

    def encode(
        self, images: NDArray[Any], label: Label | None = None, *, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Latents, float32 [n, ...], of images: what ``sample(latents=...)`` takes. By the model's encoder, or
        where it has an inversion instead (GLO, GON, AnoGAN) by that, with its defaults.
        `images`: uint8 [n, H, W, C] (or [n, H, W] for one channel), or float [n, C, H, W] in the model's value
        range. `label` where the encoder wants one. Raises :class:`InputError` for a model without either, other
        shapes, and values out of range, and :class:`BackendError` where the backend fails or gives NaN.
        """
        return methods.encoding.encode(self._sampling, images, label, batch_size)

    def reconstruct(
        self,
        images: NDArray[Any],
        label: Label | None = None,
        *,
        mask: NDArray[Any] | None = None,
        num_iterations: int = 20,
        batch_size: int | None = None,
    ) -> Samples:
        """Images encoded (see :meth:`encode`) and decoded again; a conditional model needs `label`.

        `mask` [H, W], [n, H, W] or [n, C, H, W], 1 where a pixel is known and 0 where it is missing, completes
        images: ``x <- m x + (1 - m) G(E(x))``, `num_iterations` times, from the middle of the value range in the
        missing pixels (what `images` holds there plays no part, but must be in the range). Known pixels stay as
        they are. For the rest as :meth:`encode`.
        """
        return methods.encoding.reconstruct(
            self._sampling, images, label, mask=mask, num_iterations=num_iterations, batch_size=batch_size
        )

    def classify(self, images: NDArray[Any], *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Probabilities, float32 [n, K], of the K classes for `images`, by a model with a classifier; takes them,
        and raises, as :meth:`encode`."""
        return methods.encoding.classify(self._sampling, images, batch_size)

    def log_likelihood(
        self,
        images: Any,
        label: Label | None = None,
        *,
        prompt: Prompt | None = None,
        lengths: Any = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float64]:
        """Bits per dimension, sample or token, float64 [n], of what an autoregressive model makes.

        `images` as :meth:`encode` takes them, rounded to the model's grey levels; or what else it makes, of which
        `lengths` [n] count (None: all, of texts up to their end). A conditional model needs `label`, `prompt`, or
        both. Of :class:`Samples` themselves their own lengths, labels and prompts hold, where none are given.
        Raises as :meth:`encode`, for other programs and for `lengths` beyond the end of a text too.
        """
        asked = {"label": label, "prompt": prompt}
        return methods.encoding.log_likelihood(self._sampling, images, asked, lengths, batch_size)

    @takes_options("ascent")
    def invert(
        self,
        images: NDArray[Any],
        *,
        seed: Seeds | None = 0,
        batch_size: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        **options: Unpack[AscentOptions],
    ) -> Inversion:
        """Finds the latents whose images come nearest to `images`, by gradient steps on all of them at once.

        `images`: uint8 [n, H, W, C] (or [n, H, W] for one channel), or float [n, C, H, W] in the model's value
        range. What is found for one depends on no other. `seed`: of the noise where a search starts there.
        `options`: how to search, as listed below; None takes the bundle's default. Raises :class:`InputError` for
        a model that has no inversion, for other shapes, values out of range and NaN, and :class:`BackendError`
        where the backend fails or gives NaN.
        """
        return methods.inversion.invert(
            self._sampling,
            images,
            options,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
            on_step_end=callback_on_step_end,
        )

    def detect(
        self,
        images: NDArray[Any],
        *,
        threshold: float | None = None,
        fast: bool = False,
        **options: Unpack[InvertArguments],
    ) -> Detection:
        """How unlike the images that the model was trained on `images` are: scores and heat maps.
        `threshold`: a score, as :meth:`Detection.normal_threshold` finds it from normal images. `fast`: take what
        the encoder gives, and search no further (Schlegl et al. 2019). `options` and the rest as for
        :meth:`invert`.
        """
        methods.inversion.check_threshold(threshold)
        found = self.invert(images, **methods.inversion.detect_options(self.model, options, fast))
        return methods.inversion.Detection(found, threshold)

    @takes_options("ascent")
    def dream(
        self,
        image: NDArray[np.uint8],
        *,
        octaves: int = 4,
        octave_scale: float = 1.4,
        seed: int = 0,
        tile: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        **options: Unpack[AscentOptions],
    ) -> NDArray[np.uint8]:
        """DeepDream on `image`, uint8 [H, W, C] of any size; gives the same kind back.
        `num_inference_steps` steps at each of `octaves` sizes, each `octave_scale` times as large as the one
        before. `tile` as in :meth:`translate`; `options` are listed below. A seed gives the same picture again.
        Raises as :meth:`sample` does.
        """
        given = methods.translate.Given(seed=seed, callback_on_step_end=callback_on_step_end, options=options)
        return methods.dream.dream(
            self._sampling, image, octaves=octaves, octave_scale=octave_scale, tile=tile, given=given
        )

    @overload
    def translate(
        self,
        images: NDArray[Any] | Picture,
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]: ...

    @overload
    def translate(
        self,
        images: Sequence[NDArray[Any] | Picture],
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> list[NDArray[np.uint8]]: ...

    def translate(
        self,
        images: NDArray[Any] | Picture | Sequence[NDArray[Any] | Picture],
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Translates `images`: uint8 [H, W, C], [n, H, W, C], or a list of [H, W, C] of several sizes (a grey one
        may come without C), or pictures of Pillow's. Gives arrays back, at the model's scale: one of an image or
        of [n, H, W, C], and otherwise a list.

        With a channel more than the model takes, which is transparency, colours are translated and transparency
        goes through the same geometry; a model that looks at all of an image gets it on white.
        `resize`: (height, width) that images are brought to before. Sizes that the graph does not take are padded
        and cut back. `tile`: cut images into tiles of about so many pixels, which overlap and are blended; 0:
        never; None: where an image has over a million pixels, or more than the graph takes, and tiles give what
        the whole image gives, as the model's graph tells (:class:`gensdk_runtime.spec.conditions.ReceptiveField`).
        A model that looks at all of an image (instance normalization, attention) gets it whole. Where a graph
        takes one size alone, larger images are resized for it and their results enlarged, with a
        :class:`GensdkWarning`.
        `label` as in :meth:`Generator.sample`. Raises as that does, and :class:`InputError` for an image that does
        not fit into memory, with the choices.
        """
        through = methods.translate.Through(self._sampling, tile, resize, methods.translate.Given(label=label))
        return methods.translate.translate(through, images)

    def close(self) -> None:
        """Frees the graphs; calls that are under way in other threads end, at the latest with
        :class:`BackendError`, which sampling afterwards raises too. May be called twice."""
        self._executor.close()
        if self._owned is not None:
            self._owned.close()


def _load_again(origin: Origin) -> Generator:
    """What a pickled or copied generator becomes."""
    with origin.opened():
        return Generator.load(origin.path, **origin.arguments)
