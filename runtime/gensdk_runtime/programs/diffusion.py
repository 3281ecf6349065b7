"""A solver over a denoiser. The solver's update lies in the step graph; the loop feeds it a table's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import WITH_LATENTS, Int64, Program, Run
from gensdk_runtime.programs.diffusion_graphs import CARRY, check_graphs
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.programs.time_embeddings import TimeEmbeddings
from gensdk_runtime.spec.manifest import (
    DiffusionDefaults,
    DiffusionSpec,
    ModelSpec,
    PredictionType,
    ScheduleSpec,
)


@dataclass(frozen=True)
class Passes:
    """The denoiser's passes over a batch: int64 `labels` [G, B] and their `weights` [G]."""

    labels: Int64
    weights: Float32

    @cached_property
    def distinct(self) -> tuple[int, ...]:
        """Each label once, rising."""
        first = self.labels.flat[0]
        return (int(first),) if (self.labels == first).all() else tuple(np.unique(self.labels).tolist())

    @cached_property
    def places(self) -> Int64:
        """Where in :attr:`distinct` each label stands, [G, B]."""
        return np.searchsorted(self.distinct, self.labels)


@dataclass(frozen=True)
class Steps:
    """A solver's table, as the loop feeds it: for each step the float32 row, and whether it adds noise."""

    timesteps: tuple[float, ...]
    coefficients: tuple[Float32, ...]
    noisy: tuple[bool, ...]

    @classmethod
    def of(cls, table: SolverTable) -> Steps:
        """Rounded once."""
        rows = tuple(table.coefficients.astype(np.float32))
        times = tuple(int(time) if time.is_integer() else time for time in table.timesteps.tolist())
        return cls(times, rows, tuple((table.noise_scale > 0).tolist()))


MAX_RESOLVED = 256
MAX_KEPT_LABELS = 256
"""What is kept for the next call: so many settings, and so many labels of batches up to that size."""


class DiffusionProgram(Program[DiffusionDefaults]):
    """DDPM, DDIM and DPM-Solver++ with classifier-free guidance; see :class:`DiffusionSpec` for the graphs.

    Keeps nothing between batches but the time embeddings, which depend on no sample.
    """

    options = frozenset(DiffusionDefaults.model_fields)

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self._resolved: dict[tuple[Any, ...], DiffusionDefaults] = {}
        self._known: dict[DiffusionDefaults, Steps] = {}
        self._made: dict[tuple[bytes, float], Passes] = {}
        super().__init__(model, sessions)
        name = self.spec.embedding_graph
        self._embeddings = TimeEmbeddings(sessions[name]) if name is not None and name in sessions else None

    @property
    def spec(self) -> DiffusionSpec:
        """The model's program."""
        assert isinstance(self.model.program, DiffusionSpec)  # noqa: S101 - chosen by the kind
        return self.model.program

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """Walks between first noises x_T."""
        return WITH_LATENTS

    def check(self) -> None:
        """The tensors that :class:`DiffusionSpec` lists, and a value range that is symmetric, as clipping is."""
        check_graphs(self.model, self.spec, {name: self.sessions[name].graph for name in self.spec.graphs})
        low, high = self.model.require_image().value_range
        if low != -high:
            raise ManifestError(f"expected images within [-x, x] of a diffusion model, got [{low:g}, {high:g}]")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The image's own shape."""
        return self.model.require_image().shape

    @property
    def null_label(self) -> int | None:
        """The class after the last one."""
        return self.model.num_classes

    def resolve(self, options: Mapping[str, Any]) -> DiffusionDefaults:
        """The bundle's defaults under the caller's options; kept, since applications ask for the same again."""
        key = tuple((name, type(value), str(value)) for name, value in options.items())
        settings = self._resolved.get(key)
        if settings is None:
            settings = self._resolve(options)
            if len(self._resolved) < MAX_RESOLVED:
                self._resolved[key] = settings
        return settings

    def _resolve(self, options: Mapping[str, Any]) -> DiffusionDefaults:
        defaults = self.spec.defaults.model_dump()
        if options.get("solver", "ddim") != "ddim" and "eta" not in options:
            defaults["eta"] = 0.0  # the default eta is meant for DDIM
        if options.get("solver", defaults["solver"]) == "lcm" != defaults["solver"]:
            defaults["timestep_spacing"] = "skipping"  # the time steps that such a model learned
        settings = DiffusionDefaults.from_dict({**defaults, **options}, what="sample()")
        if self.model.num_classes is None and settings.guidance_scale != 1.0:
            raise InputError("guidance_scale needs a model with classes; this one has none")
        if settings.cache_interval > 1 and self.spec.shallow_graph is None:
            raise InputError(
                f"expected cache_interval=1, got {settings.cache_interval}: this bundle can't share features "
                "between steps; export it with --share-features"
            )
        self._check_times(self.table(settings), settings)
        return settings

    def _check_times(self, table: SolverTable, settings: DiffusionDefaults) -> None:
        """Refuses fractions of time steps where the graphs take whole ones."""
        graph = self.sessions[self.spec.embedding_graph or self.spec.graph].graph
        spec = graph.input("timestep")
        if spec is not None and spec.dtype == "int64" and (table.timesteps % 1).any():
            raise InputError(
                f"solver {settings.solver!r} with timestep_spacing {settings.timestep_spacing!r} and "
                f"{settings.num_inference_steps} steps needs fractions of time steps, which this bundle's graphs "
                "don't take; export it again, or take another timestep_spacing"
            )

    def describe(self, settings: DiffusionDefaults) -> dict[str, Any]:
        """All settings by diffusers' names."""
        return settings.model_dump()

    def table(self, settings: DiffusionDefaults) -> SolverTable:
        """The solver's table for these settings."""
        clip_range = self.model.require_image().value_range[1] if settings.clip_sample else None
        return _table(self.spec.schedule, self.spec.prediction_type, settings, clip_range)

    def run(self, run: Run, settings: DiffusionDefaults) -> None:
        """From noise x_T down the time steps; a stopped run keeps its present estimate of x_0."""
        steps = self._steps(settings)
        passes = self._passes(run, settings.guidance_scale)
        with self._lend(self.spec.graph, len(run), passes) as full:
            run.latent(full.input("sample"))
            if settings.cache_interval > 1 and self.spec.shallow_graph is not None:
                with self._lend(self.spec.shallow_graph, len(run), passes) as shallow:
                    self._loop(run, steps, passes, (full, *[shallow] * (settings.cache_interval - 1)))
            else:
                self._loop(run, steps, passes, (full,))

    def _loop(self, run: Run, steps: Steps, passes: Passes | None, turns: Sequence[Bound]) -> None:
        """All steps, on the graphs of `turns` one after another."""
        embeddings = self._embeddings_of(steps, passes)
        bound = turns[0]
        for step, timestep in enumerate(steps.timesteps):
            turn = turns[step % len(turns)]
            if turn is not bound:
                _hand_over(bound, turn)
                bound = turn
            if embeddings is None:
                bound.input("timestep")[0] = timestep
            else:
                spread(embeddings[step], passes, bound.input("embedding"))
            np.copyto(bound.input("coefficients"), steps.coefficients[step])
            if steps.noisy[step]:  # else what lies there is multiplied by zero
                noise.normal(run.keys, step + 1, self.latent_shape, out=bound.input("noise"))
            run.timed(bound)
            if run.watched and run.end_step(
                step, len(steps.timesteps), timestep, partial(bound.output, "next_previous_x0")
            ):
                run.finish(bound.output("next_previous_x0"))
                return
        run.finish(bound.output("next_sample"))

    @contextmanager
    def _lend(self, graph: str, batch: int, passes: Passes | None) -> Iterator[Bound]:
        """A step's buffers with all that stays the same from step to step."""
        sizes = {"batch": batch} if passes is None else {"batch": batch, "guidance": len(passes.weights)}
        with self.sessions[graph].bound(sizes, CARRY) as bound:
            bound.input("previous_x0").fill(0)
            bound.input("noise").fill(0)
            if passes is not None:
                np.copyto(bound.input("guidance_weights"), passes.weights)
                if self._embeddings is None:
                    np.copyto(bound.input("label"), passes.labels)
            yield bound

    def _steps(self, settings: DiffusionDefaults) -> Steps:
        """What :meth:`table` says, as the loop takes it; kept beside the resolved settings."""
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
        return self._embeddings.sequence(steps.timesteps, () if passes is None else passes.distinct)

    def _passes(self, run: Run, scale: float) -> Passes | None:
        """None for a model without classes; kept for small batches."""
        if self.model.num_classes is None:
            return None
        if run.labels is None or len(run) > MAX_KEPT_LABELS:
            return self._make_passes(run, self.model.num_classes, scale)
        key = run.labels.tobytes(), scale
        passes = self._made.get(key)
        if passes is None:
            passes = self._make_passes(run, self.model.num_classes, scale)
            if len(self._made) >= MAX_RESOLVED:
                self._made.clear()
            self._made[key] = passes
        return passes

    def _make_passes(self, run: Run, none: int, scale: float) -> Passes:
        """Two passes only where both halves count."""
        null = np.full(len(run), none, np.int64)
        labels = null if run.labels is None else run.labels.copy()
        if scale == 1.0 or bool((labels == null).all()):
            return Passes(labels[None], np.ones(1, np.float32))
        # eps = w eps(label) + (1 - w) eps(none): Ho & Salimans (2022), eq. 6, with w counted as diffusers does
        return Passes(np.stack([labels, null]), np.array([scale, 1.0 - scale], np.float32))


def spread(rows: Float32, passes: Passes | None, out: Float32) -> None:
    """Writes to each place of `out` [..., F] the row of `rows` [L, F] that belongs to its label."""
    if passes is None or len(rows) == 1:
        np.copyto(out, rows[0])
    else:
        np.take(rows, passes.places, axis=0, out=out, mode="clip")


def _hand_over(source: Bound, target: Bound) -> None:
    """What the next step needs of the last one, where another graph makes it."""
    for output, name in CARRY.items():
        np.copyto(target.input(name), source.output(output))
    if target.session.graph.input("deep_features") is not None:
        np.copyto(target.input("deep_features"), source.output("deep_features"))


@lru_cache(maxsize=64)
def _table(
    schedule: ScheduleSpec,
    prediction_type: PredictionType,
    settings: DiffusionDefaults,
    clip_range: float | None,
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
    )
