"""A solver over a denoiser. The solver's update lies in the step graph; each step feeds it a table's row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import BackendError, InputError, ManifestError
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import WITH_LATENTS, Program, register_program, run_images
from gensdk_runtime.programs.diffusion_graphs import GUIDANCE_SCALE, check_graphs, is_lockstep
from gensdk_runtime.programs.diffusion_latents import Decoding
from gensdk_runtime.programs.diffusion_start import Start
from gensdk_runtime.programs.diffusion_state import Cohort, DiffusionState, Lane, Steps
from gensdk_runtime.programs.guidance import Passes
from gensdk_runtime.programs.prompt_contexts import PromptContexts, numbered
from gensdk_runtime.programs.run import Run
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.programs.time_embeddings import TimeEmbeddings
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec, PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings

STRENGTH = 0.8
"""Of an image that samples start from, as in diffusers' pipelines."""
MAX_RESOLVED = 256
MAX_KEPT_LABELS = 256
"""What is kept for the next call: so many settings, and so many labels of batches up to that size."""


class DiffusionForm(Program[DiffusionSettings]):
    """What a diffusion model's sampling is, step by step or in one call: its settings and its tables."""

    Spec = DiffusionSpec
    Settings = DiffusionSettings
    starts = True

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self._resolved: dict[tuple[Any, ...], DiffusionSettings] = {}
        super().__init__(model, sessions)

    @property
    def spec(self) -> DiffusionSpec:
        """The model's program."""
        return self.model.program_of(DiffusionSpec)

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """Walks between first noises x_T; and images to latents, where there is an encoder."""
        encodes = model.program_of(DiffusionSpec).encoder is not None
        return WITH_LATENTS | {"encode"} if encodes else WITH_LATENTS

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The image's own shape, or that of the latents that become an image."""
        return self.model.output.shape if self.spec.latent is None else self.spec.latent.shape

    @property
    def starts_encoded(self) -> bool:
        """Of a model that samples in a latent space."""
        return self.spec.latent is not None

    @classmethod
    def null(cls, model: ModelSpec, kind: str) -> Any | None:
        """Of labels the class after the last one, where the model has learned it."""
        return model.null_class if kind == "label" else None

    def resolve(self, options: Mapping[str, Any], *, others: Iterable[str] = ()) -> DiffusionSettings:
        """The bundle's defaults under the caller's options; kept, since applications ask for the same again."""
        if not all(isinstance(value, int | float | str | None) for value in options.values()):
            return super().resolve(options, others=others)  # which refuses them
        key = tuple((name, type(value), value) for name, value in options.items())
        settings = self._resolved.get(key)
        if settings is None:
            settings = super().resolve(options, others=others)
            if len(self._resolved) < MAX_RESOLVED:
                self._resolved[key] = settings
        return settings

    def fit(self, settings: DiffusionSettings, options: Mapping[str, Any]) -> DiffusionSettings:
        """Refuses guidance without classes, shared features without their graph, and steps that can't be."""
        if options.get("solver") not in (None, "ddim") and options.get("eta") is None:
            settings = settings.model_copy(update={"eta": 0.0})  # the default eta is meant for DDIM
        if options.get("solver") == "lcm" != self.defaults.solver and options.get("timestep_spacing") is None:
            settings = settings.model_copy(update={"timestep_spacing": "skipping"})  # as such models learned
        guides = self.model.null_class is not None or self.spec.context_graph is not None
        if settings.guidance_scale != 1.0 and not guides:
            if self.model.num_classes is None:
                raise InputError("guidance_scale needs a model with classes or prompts; this one has none")
            raise InputError(
                f"expected guidance_scale=1, got {settings.guidance_scale:g}: guidance needs a class that means "
                "none, and this model has none; leave it out"
            )
        if settings.clip_sample and self.spec.latent is not None:
            raise InputError(
                "clip_sample=True is for images, and this model samples in a latent space; leave it out"
            )
        if settings.cache_interval > 1 and self.spec.shallow_graph is None:
            raise InputError(
                f"expected cache_interval=1, got {settings.cache_interval}: this bundle can't share features "
                "between steps; export it with --share-features"
            )
        self.table(settings)
        return settings

    def starting(self, settings: DiffusionSettings, *, given: bool) -> DiffusionSettings:
        """With :data:`STRENGTH` where images are given and nothing was said of it; without it where none are."""
        if (settings.strength is not None) == given:
            return settings
        if not given:
            raise InputError(
                "strength is for samples that start from an image; pass image too, or leave strength out"
            )
        settings = settings.model_copy(update={"strength": STRENGTH})
        self.table(settings)  # which refuses too few steps
        return settings

    def table(self, settings: DiffusionSettings) -> SolverTable:
        """The solver's table for these settings."""
        clip_range = self.model.output.value_range[1] if settings.clip_sample else None
        return _table(self.spec.schedule, self.spec.prediction_type, settings, clip_range)


@register_program
class DiffusionProgram(DiffusionForm):
    """Solvers with classifier-free guidance; see :class:`DiffusionSpec` for the graphs.

    Keeps nothing between batches but the time embeddings, which depend on no sample.
    """

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self._known: dict[DiffusionSettings, Steps] = {}
        self._made: dict[tuple[bytes, float], Passes] = {}
        super().__init__(model, sessions)
        self._lockstep = is_lockstep(sessions[self.spec.graph].graph)
        name, context = self.spec.embedding_graph, self.spec.context_graph
        self._embeddings = None if name is None else TimeEmbeddings(sessions[name])
        self._contexts = None if context is None else PromptContexts(sessions[context])
        self._decoding: Decoding | None = None
        if self.spec.decoder is not None and self.spec.latent is not None:
            self._decoding = Decoding(sessions[self.spec.decoder], self.spec.latent, model.output)

    def check(self) -> None:
        """The tensors that :class:`DiffusionSpec` lists, and a value range that is symmetric, as clipping is."""
        check_graphs(self.model, self.spec, {name: self.sessions[name].graph for name in self.spec.graphs})
        low, high = self.model.output.value_range
        if low != -high and self.spec.latent is None:
            raise ManifestError(f"expected images within [-x, x] of a diffusion model, got [{low:g}, {high:g}]")

    def fit(self, settings: DiffusionSettings, options: Mapping[str, Any]) -> DiffusionSettings:
        """Refuses fractions of time steps where the graphs take whole ones, too."""
        settings = super().fit(settings, options)
        spec = self.sessions[self.spec.embedding_graph or self.spec.graph].graph.input("timestep")
        if spec is not None and spec.dtype == "int64" and (self.table(settings).timesteps % 1).any():
            raise InputError(
                f"solver {settings.solver!r} with timestep_spacing {settings.timestep_spacing!r} and "
                f"{settings.num_inference_steps} steps needs fractions of time steps, which this bundle's graphs "
                "don't take; export it again, or take another timestep_spacing"
            )
        return settings

    @property
    def encoder_conditions(self) -> tuple[str, ...] | None:
        """It wants none, where there is one."""
        return None if self.spec.encoder is None else ()

    def encode(self, run: Run) -> None:
        """Fills the run with latents [count, C, h, w], as steps take them, of its images."""
        latent = self.spec.latent
        if self.spec.encoder is None or latent is None:
            raise BackendError(f"model {self.model.name!r} has no encoder")
        run_images(self.sessions[self.spec.encoder], "latent", run)
        if latent.scale != 1.0 or latent.shift != 0.0:
            run.data[...] = (run.data - np.float32(latent.shift)) * np.float32(latent.scale)

    def begin(self, run: Run, settings: DiffusionSettings | Sequence[DiffusionSettings]) -> DiffusionState:
        """From noise x_T down the time steps. `settings`: for all members, or one for each of them.

        No callback is told of the steps of a run whose members differ: they need not end together.
        """
        if isinstance(settings, DiffusionSettings):
            if settings.guidance_scale == 1.0 or not self._lockstep:
                return DiffusionState(run, self._lane(run, settings, None))
            settings = [settings] * len(run)
        if len(settings) != len(run):
            raise InputError(f"expected settings for each of {len(run)} samples, got {len(settings)}")
        if self._lockstep:
            settings = self._unmixed(run, settings)
        distinct = list(dict.fromkeys({id(one): one for one in settings}.values()))
        if len(distinct) == 1:
            return DiffusionState(run, self._lane(run, distinct[0], None))
        places = [np.flatnonzero([one is each or one == each for one in settings]) for each in distinct]
        first, *others = (self._lane(run, *members) for members in zip(distinct, places, strict=True))
        state = DiffusionState(run, first)
        for lane in others:
            state.join(DiffusionState(run, lane))
        return state

    def _unmixed(self, run: Run, settings: Sequence[DiffusionSettings]) -> Sequence[DiffusionSettings]:
        """Guidance for the members with a class alone: of the first contract, its weights are those of the whole
        batch."""
        labels, none = run.conditions.get("label"), self.model.num_classes
        if labels is None or not (labels == none).any():
            return settings
        alone = {id(one): one.model_copy(update={"guidance_scale": 1.0}) for one in settings}
        free = (labels == none).tolist()
        return [alone[id(one)] if each else one for one, each in zip(settings, free, strict=True)]

    def _lane(self, run: Run, settings: DiffusionSettings, places: NDArray[np.intp] | None) -> Lane:
        """The members at `places`, before their first step."""
        steps, passes = self._steps(settings), self._passes(run, places, settings.guidance_scale)
        embeddings = self._embeddings_of(steps, passes)
        names = [self.spec.graph]
        if settings.cache_interval > 1 and self.spec.shallow_graph is not None:
            names.append(self.spec.shallow_graph)
        strength, interval = settings.strength, settings.cache_interval
        start = None if strength is None else Start(run, places, steps.alpha, steps.sigma, strength=strength)
        cohort = Cohort(
            run,
            places,
            steps,
            passes,
            embeddings=embeddings,
            interval=interval,
            start=start,
            decoding=self._decoding,
        )
        return Lane(tuple(self.sessions[name] for name in names), cohort, shared=not self._lockstep)

    def _steps(self, settings: DiffusionSettings) -> Steps:
        """What :meth:`table` says, as steps are fed; kept beside the resolved settings."""
        steps = self._known.get(settings)
        if steps is None:
            steps = Steps.of(self.table(settings))
            if len(self._known) < MAX_RESOLVED:
                self._known[settings] = steps
        return steps

    def _embeddings_of(self, steps: Steps, passes: Passes | None) -> Sequence[Float32] | None:
        """The time embeddings of all steps, for the labels that occur; None for a graph that takes time steps."""
        if self._embeddings is None:
            return None
        labels = () if passes is None or self.model.num_classes is None else passes.distinct
        return self._embeddings.sequence(steps.timesteps, labels)

    def _passes(self, run: Run, places: NDArray[np.intp] | None, scale: float) -> Passes | None:
        """None for a model without classes and prompts; of one with classes kept for small batches."""
        none = self.model.num_classes
        if self._contexts is not None:
            return self._text_passes(self._contexts, run, slice(None) if places is None else places, scale)
        if none is None:
            return None
        labels = run.conditions.get("label")
        if labels is None and self.model.null_class is None:
            raise InputError("expected a label for each sample: this model has no class that means none")
        if labels is None:
            labels = np.full(len(run), none, np.int64)
        if places is not None:
            labels = labels[places]
        if len(labels) > MAX_KEPT_LABELS:
            return Passes.of(labels.copy(), none, scale, each=not self._lockstep)
        key = labels.tobytes(), scale
        passes = self._made.get(key)
        if passes is None:
            passes = Passes.of(labels.copy(), none, scale, each=not self._lockstep)
            if len(self._made) >= MAX_RESOLVED:
                self._made.clear()
            self._made[key] = passes
        return passes

    def _text_passes(
        self, contexts: PromptContexts, run: Run, places: NDArray[np.intp] | slice, scale: float
    ) -> Passes:
        """Of a model with prompts: each sample's own, and the one that guidance leads away from.

        Where it is guided inside there is no other pass: the scale goes along with each text.
        """
        inside = self.spec.guided_inside
        kinds = ("prompt", "prompt" if inside else "negative_prompt")
        asked, away = (run.conditions[kind][places] for kind in kinds)
        distinct, texts = numbered(np.stack([asked, away if scale != 1.0 else asked]))
        none, labels = self.model.num_classes or 0, run.conditions.get("label")
        own = np.full(len(asked), none, np.int64) if labels is None else labels[places]
        both = np.stack([own, own if self.model.null_class is None else np.full_like(own, none)])
        found = contexts.of(distinct)
        if not inside:
            return Passes.of_texts(both, texts, found, scale)
        return Passes.of_texts(
            both, texts, {**found, GUIDANCE_SCALE: np.full(len(distinct), scale, np.float32)}, 1.0
        )


@lru_cache(maxsize=64)
def _table(
    schedule: ScheduleSpec, prediction_type: PredictionType, settings: DiffusionSettings, clip_range: float | None
) -> SolverTable:
    """Made once for each setting: an application samples with the same one again and again."""
    return solver_table(
        make_schedule(schedule),
        settings.solver,
        settings.num_inference_steps,
        eta=settings.eta,
        timestep_spacing=settings.timestep_spacing,
        clip_range=clip_range,
        use_clipped_model_output=settings.use_clipped_model_output,
        prediction_type=prediction_type,
        strength=settings.strength,
        solver_order=settings.solver_order,
    )
