"""A solver over a denoiser. The solver's update lies in the step graph; the loop feeds it a table's rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.manifest import DiffusionDefaults, DiffusionSpec, ScheduleSpec
from gensdk_runtime.programs.base import Program, Run, Wanted, require_signature
from gensdk_runtime.schedules import make_schedule
from gensdk_runtime.solvers import NUM_COEFFICIENTS, SolverTable, solver_table

CARRY = {"next_sample": "sample", "next_previous_x0": "previous_x0"}


class DiffusionProgram(Program[DiffusionDefaults]):
    """DDPM, DDIM and DPM-Solver++ with classifier-free guidance; see :class:`DiffusionSpec` for the graph."""

    options = frozenset(DiffusionDefaults.model_fields)

    @property
    def spec(self) -> DiffusionSpec:
        """The model's program."""
        assert isinstance(self.model.program, DiffusionSpec)  # noqa: S101 - chosen by the kind
        return self.model.program

    def check(self) -> None:
        """The tensors that :class:`DiffusionSpec` lists, and a value range that is symmetric, as clipping is."""
        images = Wanted(("batch", *self.model.image.shape))
        inputs = {
            "sample": images,
            "previous_x0": images,
            "timestep": Wanted((1,), "int64"),
            "noise": images,
            "coefficients": Wanted((NUM_COEFFICIENTS,)),
        }
        if self.model.num_classes is not None:
            inputs["label"] = Wanted(("guidance", "batch"), "int64")
            inputs["guidance_weights"] = Wanted(("guidance",))
        graph = self.sessions[self.spec.graph].graph
        require_signature(graph, inputs, dict.fromkeys(CARRY, images))
        low, high = self.model.image.value_range
        if low != -high:
            raise ManifestError(f"expected images within [-x, x] of a diffusion model, got [{low:g}, {high:g}]")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The image's own shape."""
        return self.model.image.shape

    @property
    def null_label(self) -> int | None:
        """The class after the last one."""
        return self.model.num_classes

    def resolve(self, options: Mapping[str, Any]) -> DiffusionDefaults:
        """The bundle's defaults under the caller's options."""
        defaults = self.spec.defaults.model_dump()
        if options.get("solver", "ddim") != "ddim" and "eta" not in options:
            defaults["eta"] = 0.0  # the default eta is meant for DDIM
        settings = DiffusionDefaults.from_dict({**defaults, **options}, what="sample()")
        if self.model.num_classes is None and settings.guidance_scale != 1.0:
            raise InputError("guidance_scale needs a model with classes; this one has none")
        self.table(settings)
        return settings

    def describe(self, settings: DiffusionDefaults) -> dict[str, Any]:
        """All settings by diffusers' names."""
        return settings.model_dump()

    def table(self, settings: DiffusionDefaults) -> SolverTable:
        """The solver's table for these settings."""
        clip_range = self.model.image.value_range[1] if settings.clip_sample else None
        return _table(self.spec.schedule, settings, clip_range)

    def run(self, run: Run, settings: DiffusionDefaults) -> None:
        """From noise x_T down the time steps; a stopped run keeps its present estimate of x_0."""
        table = self.table(settings)
        rows = table.coefficients.astype(np.float32)
        condition = self._condition(run, settings.guidance_scale)
        sizes = {"batch": len(run)}
        if condition:
            sizes["guidance"] = len(condition["guidance_weights"])
        with self.sessions[self.spec.graph].bound(sizes, CARRY) as bound:
            run.latent(bound.input("sample"))
            for name, value in {"previous_x0": 0, "noise": 0, **condition}.items():
                bound.input(name)[...] = value
            for step, timestep in enumerate(table.timesteps):
                bound.input("timestep")[0] = timestep
                bound.input("coefficients")[...] = rows[step]
                if table.noise_scale[step] > 0:  # else what lies there is multiplied by zero
                    noise.normal(run.keys, step + 1, self.latent_shape, out=bound.input("noise"))
                run.timed(bound)
                if run.end_step(step, len(table), int(timestep), lambda: bound.output("next_previous_x0")):
                    run.finish(bound.output("next_previous_x0"))
                    return
            run.finish(bound.output("next_sample"))

    def _condition(self, run: Run, scale: float) -> dict[str, Array]:
        """Labels [G, B] and weights [G]; two passes only where both halves count."""
        if self.model.num_classes is None:
            return {}
        null = np.full(len(run), self.model.num_classes, np.int64)
        labels = null if run.labels is None else run.labels
        if scale == 1.0 or bool((labels == null).all()):
            return {"label": labels[None], "guidance_weights": np.ones(1, np.float32)}
        # eps = w eps(label) + (1 - w) eps(none): Ho & Salimans (2022), eq. 6, with w counted as diffusers does
        weights = np.array([scale, 1.0 - scale], np.float32)
        return {"label": np.stack([labels, null]), "guidance_weights": weights}


@lru_cache(maxsize=64)
def _table(schedule: ScheduleSpec, settings: DiffusionDefaults, clip_range: float | None) -> SolverTable:
    """Made once for each setting: an application samples with the same one again and again."""
    return solver_table(
        make_schedule(schedule),
        settings.solver,
        settings.num_inference_steps,
        eta=settings.eta,
        timestep_spacing=settings.timestep_spacing,
        clip_range=clip_range,
        use_clipped_model_output=settings.use_clipped_model_output,
    )
