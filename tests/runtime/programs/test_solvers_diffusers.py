"""Each solver's states are those of diffusers' scheduler, step by step, for every combination that both have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
)
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import FlowSchedule, Schedule, make_schedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.programs.spacings import SPACINGS, levels, timesteps
from gensdk_runtime.spec.model import ScheduleSpec
from support.diffusers_loops import follow_the_list
from support.solver_steps import walk

THEIR_SPACINGS = ("leading", "linspace", "trailing")
SCHEDULES = {
    "linear": ScheduleSpec(),
    "scaled_linear": ScheduleSpec(kind="scaled_linear"),
    "cosine": ScheduleSpec(kind="cosine"),
    "flow": ScheduleSpec(kind="flow"),
    "flow, shift 3": ScheduleSpec(kind="flow", shift=3.0),
}
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PEERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "lcm": LCMScheduler,
}
FLOW_PEERS: dict[str, Any] = {
    "euler": FlowMatchEulerDiscreteScheduler,
    "lcm": FlowMatchLCMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
MODULES = sorted({peer.__module__ for peer in (*PEERS.values(), *FLOW_PEERS.values())})


class Double:
    """A module whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, "float64" if name == "float32" else name)


@pytest.fixture(autouse=True, scope="module")
def double_precision() -> Iterator[None]:
    """diffusers computes in float64, as gensdk's tables do: what is left are differences in meaning."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MODULES:
            patch.setattr(f"{name}.torch", Double(torch))
            patch.setattr(f"{name}.np", Double(np))
        yield


@dataclass(frozen=True)
class Case:
    """One combination of settings that gensdk takes and that diffusers has too."""

    solver: Any
    spacing: Any
    kind: str
    prediction: Any
    clip: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """What gensdk's table and diffusers' step() both take, by the same names."""
    steps: int = 10

    def __str__(self) -> str:
        clip = "clip" if self.clip else "free"
        of_ddim = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join([self.solver, self.spacing, self.kind, self.prediction, clip, *of_ddim])

    @property
    def schedule(self) -> Schedule:
        return make_schedule(SCHEDULES[self.kind])

    def ours(self) -> SolverTable:
        return solver_table(
            self.schedule,
            self.solver,
            self.steps,
            timestep_spacing=self.spacing,
            clip_range=self.clip,
            prediction_type=self.prediction,
            **self.options,
        )

    def theirs(self) -> Any:
        """The scheduler, with its time steps set; by a list where it has no such spacing."""
        if isinstance(self.schedule, FlowSchedule):
            return self._their_flow(self.schedule)
        settings: dict[str, Any] = {"beta_schedule": BETAS[self.kind], "beta_start": 1e-4, "beta_end": 0.02}
        settings["prediction_type"] = self.prediction
        if self.spacing in THEIR_SPACINGS:
            settings["timestep_spacing"] = self.spacing
        if self.solver == "dpmsolver++":
            settings |= {"algorithm_type": "dpmsolver++", "solver_order": 2}
        elif not self.solver.startswith("euler"):
            settings |= {"clip_sample": self.clip is not None, "clip_sample_range": self.clip or 1.0}
        if self.spacing == "karras" and self.solver != "euler_ancestral":
            settings["use_karras_sigmas"] = True
            if self.steps == 1:  # between the ends of "linspace", their default, which has but one then, t = 0
                settings["timestep_spacing"] = "trailing"
        scheduler = PEERS[self.solver](**settings)
        if self.has_spacing:
            scheduler.set_timesteps(self.steps)
        elif self.solver == "ddim":  # its set_timesteps takes no list
            scheduler.timesteps, scheduler.num_inference_steps = torch.from_numpy(self.times()), self.steps
        elif self.solver == "euler_ancestral":  # nor does this one's
            like = replace(self, solver="euler").theirs()
            scheduler.timesteps, scheduler.sigmas = like.timesteps, like.sigmas
        else:
            scheduler.set_timesteps(timesteps=self.times().tolist())
        return scheduler

    def _their_flow(self, schedule: FlowSchedule) -> Any:
        if self.solver == "dpmsolver++":
            prediction = {"flow": "flow_prediction"}.get(self.prediction, self.prediction)
            scheduler = DPMSolverMultistepScheduler(
                use_flow_sigmas=True, flow_shift=schedule.shift, prediction_type=prediction
            )
            scheduler.set_timesteps(self.steps)
            if self.has_spacing:
                scheduler.timesteps = scheduler.sigmas[:-1] * 1000  # its own are cut to whole ones
            else:
                scheduler.timesteps = torch.from_numpy(self.ours().timesteps.copy())
                scheduler.sigmas = torch.cat([scheduler.timesteps / 1000, torch.zeros(1, dtype=torch.float64)])
            return scheduler
        scheduler = FLOW_PEERS[self.solver](shift=schedule.shift, use_karras_sigmas=self.spacing == "karras")
        if self.has_spacing:
            scheduler.set_timesteps(self.steps)
        else:
            unshifted = timesteps(FlowSchedule(1000), self.solver, self.steps, self.spacing) / 1000
            scheduler.set_timesteps(sigmas=unshifted.tolist())
        return scheduler

    @property
    def has_spacing(self) -> bool:
        """True if diffusers has this spacing for this solver."""
        if self.kind.startswith("flow"):
            return self.spacing == "linspace" or (self.spacing == "karras" and self.solver != "dpmsolver++")
        if self.solver == "lcm":
            return bool(self.spacing == "skipping")
        return self.spacing in THEIR_SPACINGS or (
            self.spacing == "karras" and self.solver in ("euler", "dpmsolver++")
        )

    def times(self) -> Any:
        return self.ours().timesteps.astype(np.int64)


OF_DDIM = [
    {"clip": clip, "options": {"eta": eta, "use_clipped_model_output": clipped}}
    for clip in (1.0, None)
    for eta in (0.0, 0.7, 1.0)
    for clipped in (True, False)
]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ddim": OF_DDIM,
    "ddpm": [{"clip": 1.0}, {"clip": None}],
    "lcm": [{"clip": 1.0}, {"clip": None}],
}


def valid_cases() -> Iterator[Case]:
    """Every combination but those that one of the two doesn't have.

    - `eta` and `use_clipped_model_output` belong to DDIM: gensdk refuses another solver's eta, and the others go
      on from x_0 alone, so the second changes nothing in their tables.
    - diffusers clips nothing in DPM-Solver++, Euler's methods and flows.
    - Its DDPM, DDIM and LCM take whole time steps only, so not Karras's.
    - Its Euler-ancestral takes no denoisers that predict x_0, and no flows; its flows predict the velocity, those
      of DPM-Solver++ x_0 too.
    """
    for kind, spec in SCHEDULES.items():
        plan = make_schedule(spec)
        for solver in plan.solvers:
            for prediction in plan.prediction_types:
                for spacing in SPACINGS:
                    if kind.startswith("flow"):
                        known = solver in FLOW_PEERS and (prediction == "flow" or solver == "dpmsolver++")
                        settings: list[dict[str, Any]] = [{}]
                    else:
                        fractions = spacing == "karras" and solver in ("ddpm", "ddim", "lcm")
                        known = not fractions and (solver, prediction) != ("euler_ancestral", "sample")
                        settings = SETTINGS.get(solver, [{}])
                    if known:
                        yield from (Case(solver, spacing, kind, prediction, **more) for more in settings)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("case", list(valid_cases()), ids=str)
def test_equals_diffusers_step_by_step(case: Case, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same time steps, and the same states from the same noise and answers, step by step."""
    case = replace(case, steps=steps)
    theirs, ours = case.theirs(), case.ours()
    rounded = (
        case.solver == "dpmsolver++" and case.spacing == "karras" and case.kind in BETAS
    )  # those told the model
    np.testing.assert_allclose(theirs.timesteps.numpy(), ours.timesteps, atol=1.0 if rounded else 1e-9)
    rng = np.random.default_rng(steps)
    start, told, noise = rng.normal(size=(3, 3, 4, 4)), *rng.normal(size=(2, steps, 3, 3, 4, 4))
    for name in MODULES:
        monkeypatch.setattr(f"{name}.randn_tensor", lambda *_, **__: fresh)
    before, after = scales(case)
    state = torch.from_numpy(start / before)
    for i, mine in enumerate(walk(ours, start, told, noise)):
        fresh = torch.from_numpy(noise[i])
        extra = {**case.options, "variance_noise": fresh} if case.solver == "ddim" else {}
        follow_the_list(theirs, i)
        if hasattr(theirs, "is_scale_input_called"):
            theirs.scale_model_input(state, theirs.timesteps[i])
        now = theirs.timesteps[i]
        now = now if now.is_floating_point() else int(now)  # its LCM computes with a tensor of them in float32
        state = theirs.step(torch.from_numpy(told[i]), now, state, **extra).prev_sample
        scale = max(1.0, float(np.abs(mine).max()))  # unclipped states grow to 1 / alpha_T
        np.testing.assert_allclose(mine / scale, state.double().numpy() * after[i] / scale, atol=1e-9)


def scales(case: Case) -> tuple[float, Any]:
    """What diffusers divides a state by: for Euler's methods alpha, at the first step and after each step."""
    if case.kind in BETAS and case.solver.startswith("euler"):
        now = levels(case.schedule, case.solver, case.steps, case.spacing)
        return float(now.alpha[0]), now.next_alpha
    return 1.0, np.ones(case.steps)


@pytest.mark.parametrize("kind", BETAS)
def test_schedules_are_those_of_diffusers(kind: str) -> None:
    theirs, ours = DDPMScheduler(beta_schedule=BETAS[kind]), make_schedule(SCHEDULES[kind])
    np.testing.assert_allclose(ours.betas, theirs.betas.numpy(), rtol=1e-9)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=1e-9)


def test_a_last_step_without_signal_is_that_of_diffusers_and_takes_no_eps() -> None:
    plan, before = make_schedule(ScheduleSpec(rescale_betas_zero_snr=True)), make_schedule(ScheduleSpec())
    betas = rescale_zero_terminal_snr(torch.from_numpy(before.betas))
    np.testing.assert_allclose(plan.betas, betas.numpy(), atol=1e-12)
    assert plan.alphas_cumprod[-1] == 0
    assert plan.alphas_cumprod[0] == pytest.approx(before.alphas_cumprod[0])
    with pytest.raises(InputError, match="expected prediction_type v_prediction or sample on this schedule"):
        solver_table(plan, "ddim", 10)
