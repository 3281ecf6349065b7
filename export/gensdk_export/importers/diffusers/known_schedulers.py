"""The schedulers of diffusers whose steps our solvers take, and what of their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gensdk_runtime.spec.model import PredictionType
from gensdk_runtime.spec.settings import SolverName, TimestepSpacing

FORMULAS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
"""The schedules of diffusers that a manifest names; of others it holds the numbers."""
STEPS: Mapping[SolverName, int] = {
    "ddpm": 1000,
    "ddim": 50,
    "dpmsolver++": 20,
    "euler": 50,
    "euler_ancestral": 50,
    "lcm": 4,
}
"""What the pipelines take by default; DPM-Solver++ and LCM as their authors advise."""
SPACINGS: tuple[TimestepSpacing, ...] = ("leading", "trailing", "linspace")
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction", "sample")
Plain = Mapping[str, tuple[Any, str]]

SIGMAS = "its noise levels are other ones"
_OTHER_SIGMAS: Plain = {"use_exponential_sigmas": (False, SIGMAS), "use_beta_sigmas": (False, SIGMAS)}
_THRESHOLDING: Plain = {"thresholding": (False, "dynamic thresholding looks at all pixels of an image")}
_CLIPPING: Plain = {**_THRESHOLDING, "clip_sample_range": (1.0, "a bundle clips to its images' range")}
_OF_BETAS = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"),
)
_OF_THRESHOLDING = ("dynamic_thresholding_ratio", "sample_max_value")
_OF_CLIPPING = ("clip_sample", *_OF_THRESHOLDING)


@dataclass(frozen=True)
class Scheduler:
    """What a class of diffusers' does, by our names.

    `plain`: settings that must be as they stand here, and why; a tuple for several that mean the same to it; what
    is left out is so. `taken`: those that are read, and those that it does not read itself. `usual`: what is left
    out, where it differs from the others'. `whole_karras`: its Karras noise levels lie between the ends of the
    training, and the denoiser is told whole time steps; otherwise between the ends of the spacing, and fractions.
    `shift`: what it calls the shift of a flow. `cuts`: it cuts fractions of a flow's time steps off.
    """

    solver: SolverName
    plain: Plain
    taken: tuple[str, ...]
    spacing: TimestepSpacing = "leading"
    predictions: tuple[PredictionType, ...] = PREDICTIONS
    clips: bool = False
    family: str = "ddpm"
    whole_karras: bool = False
    shift: str = "shift"
    cuts: bool = False
    usual: Mapping[str, Any] = field(default_factory=dict)


SCHEDULERS: Mapping[str, Scheduler] = {
    "DDPMScheduler": Scheduler(
        "ddpm",
        _CLIPPING,
        (*_OF_BETAS, *_OF_CLIPPING, "variance_type"),
        clips=True,
    ),
    "DDIMScheduler": Scheduler(
        "ddim",
        _CLIPPING,
        (*_OF_BETAS, *_OF_CLIPPING, "set_alpha_to_one"),
        clips=True,
    ),
    "DPMSolverMultistepScheduler": Scheduler(
        "dpmsolver++",
        {
            **_THRESHOLDING,
            **_OTHER_SIGMAS,
            "algorithm_type": (("dpmsolver++", "deis"), "its steps are other ones"),  # which it takes for one
            "solver_type": (("midpoint", "bh1", "bh2", "logrho"), "its second order is another one"),
            "use_lu_lambdas": (False, SIGMAS),
            "use_flow_sigmas": (False, SIGMAS),
            "use_dynamic_shifting": (False, SIGMAS),
            "lambda_min_clipped": (-math.inf, "its time steps end before those of the training"),
        },
        (
            *(*_OF_BETAS, *_OF_THRESHOLDING, "solver_order", "lower_order_final", "euler_at_final"),
            *("use_karras_sigmas", "final_sigmas_type", "variance_type"),
            *("flow_shift", "time_shift_type"),  # of flows
        ),
        spacing="linspace",
        whole_karras=True,
    ),
    "EulerDiscreteScheduler": Scheduler(
        "euler",
        {
            **_OTHER_SIGMAS,
            "interpolation_type": ("linear", SIGMAS),
            "sigma_min": (None, SIGMAS),
            "sigma_max": (None, SIGMAS),
            "timestep_type": ("discrete", "its denoiser takes log sigma for a time"),
        },
        (*_OF_BETAS, "use_karras_sigmas", "final_sigmas_type"),
        spacing="linspace",
    ),
    "EulerAncestralDiscreteScheduler": Scheduler(
        "euler_ancestral",
        {},
        _OF_BETAS,
        spacing="linspace",
        predictions=("epsilon", "v_prediction"),
    ),
    "LCMScheduler": Scheduler(
        "lcm",
        {**_CLIPPING, "timestep_scaling": (10.0, "x_0 is mixed otherwise")},
        (
            *(*_OF_BETAS, *_OF_CLIPPING, "original_inference_steps"),
            "set_alpha_to_one",  # unread, as spacing and offset: it has time steps of its own
        ),
        usual={"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "FlowMatchEulerDiscreteScheduler": Scheduler(
        "euler",
        {
            **_OTHER_SIGMAS,
            "use_dynamic_shifting": (False, "its shift depends on the size of the image"),
            "invert_sigmas": (False, "its noise is where others have the image"),
            "shift_terminal": (None, SIGMAS),
        },
        (
            *("num_train_timesteps", "shift", "use_karras_sigmas", "stochastic_sampling"),
            *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"),  # dynamic
        ),
        spacing="linspace",
        predictions=("flow",),
        family="flow",
    ),
}

FLOWS: Mapping[str, Scheduler] = {
    "DPMSolverMultistepScheduler": Scheduler(
        "dpmsolver++",
        {
            **_THRESHOLDING,
            **_OTHER_SIGMAS,
            "use_flow_sigmas": (True, SIGMAS),
            "use_karras_sigmas": (False, SIGMAS),
            "use_lu_lambdas": (False, SIGMAS),
            "use_dynamic_shifting": (False, SIGMAS),
            "final_sigmas_type": ("zero", SIGMAS),
            "algorithm_type": (("dpmsolver++", "deis"), "its steps are other ones"),
            "solver_type": (("midpoint", "bh1", "bh2", "logrho"), "its second order is another one"),
        },
        (
            *("num_train_timesteps", "prediction_type", "flow_shift", "solver_order"),
            *("lower_order_final", "euler_at_final"),
            *(name for name in _OF_BETAS if name not in ("num_train_timesteps", "prediction_type")),  # unread
            *(*_OF_THRESHOLDING, "variance_type", "lambda_min_clipped", "time_shift_type"),
        ),
        spacing="linspace",
        predictions=("flow",),
        family="flow",
        shift="flow_shift",
        cuts=True,
    ),
}
"""Schedulers of betas that take the steps of a flow where ``use_flow_sigmas`` says so, as SANA's."""

OTHERS = (
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
)
"""Schedulers whose steps no solver takes, on betas that all of them take."""


def known_scheduler(name: str, config: Mapping[str, Any]) -> Scheduler:
    """What the class `name` of diffusers' does with these settings."""
    return FLOWS[name] if name in FLOWS and config.get("use_flow_sigmas") is True else SCHEDULERS[name]


def scheduler_of(solver: SolverName) -> str:
    """The class whose steps on betas are those of `solver`."""
    return next(
        name for name, each in SCHEDULERS.items() if each.solver == solver and each.family == "ddpm"
    )  # each solver has one
