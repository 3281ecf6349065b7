"""A diffusers scheduler's configuration as a noise schedule and the defaults of sampling.

Every setting is taken over, refused with its reason, or told where diffusers itself does not read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gensdk_export.importers.import_report import Guess
from gensdk_runtime.errors import ExportError, UnavailableError
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.spacings import most_steps
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings, SolverName, TimestepSpacing

INSTALL = 'pip install "gensdk[diffusers]"'
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

_SIGMAS = "its noise levels are other ones"
_BETWEEN = "its time steps lie between those of the list"
_NO_SIGNAL = (False, "at no signal at all, solvers divide by zero")
_OTHER_SIGMAS: Plain = {"use_exponential_sigmas": (False, _SIGMAS), "use_beta_sigmas": (False, _SIGMAS)}
_CLIPPING: Plain = {
    "thresholding": (False, "dynamic thresholding looks at all pixels of an image"),
    "clip_sample_range": (1.0, "a bundle clips to its images' range"),
}
_OF_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
_OF_CLIPPING = ("clip_sample", "dynamic_thresholding_ratio", "sample_max_value")  # the last two of thresholding


@dataclass(frozen=True)
class Scheduler:
    """What a class of diffusers' does, by our names.

    `plain`: settings that must be as they stand here, and why; what is left out is so. `taken`: those that are
    read, and those that it does not read itself. `usual`: what is left out, where it differs from the others'.
    """

    solver: SolverName
    plain: Plain
    taken: tuple[str, ...]
    spacing: TimestepSpacing = "leading"
    predictions: tuple[PredictionType, ...] = PREDICTIONS
    clips: bool = False
    family: str = "ddpm"
    usual: Mapping[str, Any] = field(default_factory=dict)


SCHEDULERS: Mapping[str, Scheduler] = {
    "DDPMScheduler": Scheduler(
        "ddpm",
        {**_CLIPPING, "rescale_betas_zero_snr": _NO_SIGNAL, "steps_offset": (0, _BETWEEN)},
        (*_OF_BETAS, *_OF_CLIPPING, "variance_type", "timestep_spacing"),
        clips=True,
    ),
    "DDIMScheduler": Scheduler(
        "ddim",
        {
            **_CLIPPING,
            "rescale_betas_zero_snr": _NO_SIGNAL,
            "steps_offset": (0, _BETWEEN),
            "set_alpha_to_one": (True, "its last step would keep noise"),
        },
        (*_OF_BETAS, *_OF_CLIPPING, "timestep_spacing"),
        clips=True,
    ),
    "EulerDiscreteScheduler": Scheduler(
        "euler",
        {
            **_OTHER_SIGMAS,
            "rescale_betas_zero_snr": _NO_SIGNAL,
            "steps_offset": (0, _BETWEEN),
            "interpolation_type": ("linear", _SIGMAS),
            "sigma_min": (None, _SIGMAS),
            "sigma_max": (None, _SIGMAS),
            "timestep_type": ("discrete", "its denoiser takes log sigma for a time"),
            "final_sigmas_type": ("zero", "its last step would keep noise"),
        },
        (*_OF_BETAS, "timestep_spacing", "use_karras_sigmas"),
        spacing="linspace",
    ),
    "EulerAncestralDiscreteScheduler": Scheduler(
        "euler_ancestral",
        {"rescale_betas_zero_snr": _NO_SIGNAL, "steps_offset": (0, _BETWEEN)},
        (*_OF_BETAS, "timestep_spacing"),
        spacing="linspace",
        predictions=("epsilon", "v_prediction"),
    ),
    "LCMScheduler": Scheduler(
        "lcm",
        {**_CLIPPING, "rescale_betas_zero_snr": _NO_SIGNAL, "timestep_scaling": (10.0, "x_0 is mixed otherwise")},
        (
            *(*_OF_BETAS, *_OF_CLIPPING, "original_inference_steps"),
            *("timestep_spacing", "steps_offset", "set_alpha_to_one"),  # unread: it has time steps of its own
        ),
        usual={"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "FlowMatchEulerDiscreteScheduler": Scheduler(
        "euler",
        {
            **_OTHER_SIGMAS,
            "use_dynamic_shifting": (False, "its shift depends on the size of the image"),
            "invert_sigmas": (False, "its noise is where others have the image"),
            "shift_terminal": (None, _SIGMAS),
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


@dataclass(frozen=True)
class Sampling:
    """What a scheduler and its pipeline say; `guesses` for what was taken for granted."""

    schedule: ScheduleSpec
    defaults: DiffusionSettings
    prediction: PredictionType
    family: str
    guesses: tuple[Guess, ...]


def read_sampling(config: Mapping[str, Any], pipeline: str, solver: SolverName | None) -> Sampling:
    """What our solvers need of a scheduler's `config`; `pipeline`: what it lay in, if anything; `solver`: another.

    Raises :class:`ExportError` for what they can't do as diffusers does.
    """
    kind = str(config.get("_class_name"))
    if kind not in SCHEDULERS:
        *others, last = SCHEDULERS
        raise ExportError(
            f"expected the scheduler {', '.join(others)} or {last}, got {kind[:60]!r}, which takes other steps"
        )
    scheduler = SCHEDULERS[kind]
    config = {**scheduler.usual, **config}
    schedule = _schedule(config, kind)
    own: SolverName = "ddim" if pipeline == "DDIMPipeline" else scheduler.solver
    if _flag(config, "stochastic_sampling", usual=False):  # of flows: noise anew between steps, as LCM
        own = "lcm"
    chosen = solver or own
    made = make_schedule(schedule)
    if chosen not in (known := made.solvers):
        raise ExportError(f"expected --solver {' or '.join(known)} with {kind}, got {chosen!r}")
    prediction = _checked(config, scheduler, chosen)
    spacing = _spacing(config, scheduler, chosen)
    steps = min(STEPS[chosen], most_steps(made, chosen, spacing))
    defaults = {
        "solver": chosen,
        "num_inference_steps": steps,
        "timestep_spacing": spacing,
        "clip_sample": "clip_sample" in scheduler.taken and _flag(config, "clip_sample", usual=scheduler.clips),
        "use_clipped_model_output": False,
    }
    return Sampling(
        schedule,
        DiffusionSettings.from_dict(defaults, what="scheduler_config.json", error=ExportError),
        prediction,
        scheduler.family,
        _told(config, scheduler, pipeline, chosen, steps),
    )


def _checked(config: Mapping[str, Any], scheduler: Scheduler, solver: SolverName) -> PredictionType:
    """Refuses settings that would sample otherwise; what the denoiser tells."""
    for name, (wanted, why) in scheduler.plain.items():
        value = config.get(name, wanted)
        if isinstance(value, str) != isinstance(wanted, str) or value != wanted:
            raise ExportError(f"expected a scheduler with {name}={wanted}, got {str(value)[:60]}: {why}")
    variance = str(config.get("variance_type", "fixed_small"))
    if solver == "ddpm" and variance not in ("fixed_small", "fixed_small_log"):
        raise ExportError(
            f"expected variance_type fixed_small, got {variance[:40]!r}; give --solver ddim, which needs none"
        )
    return _one_of(config, "prediction_type", scheduler.predictions)


def _spacing(config: Mapping[str, Any], scheduler: Scheduler, solver: SolverName) -> TimestepSpacing:
    """Where the time steps lie: a latent consistency model has its own, and Karras's go from end to end."""
    if solver == "lcm" and scheduler.family != "flow":
        return "skipping"
    spacing = _one_of(config, "timestep_spacing", (scheduler.spacing, *SPACINGS))
    if not _flag(config, "use_karras_sigmas", usual=False):
        return spacing
    if spacing != "linspace":
        raise ExportError(f"expected timestep_spacing linspace with use_karras_sigmas, got {spacing!r}: {_SIGMAS}")
    return "karras"


ChoiceT = TypeVar("ChoiceT", bound=str)


def _one_of(config: Mapping[str, Any], name: str, known: Sequence[ChoiceT]) -> ChoiceT:
    """The setting `name`, one of `known`, which begins with the usual one."""
    value = config.get(name, known[0])
    for choice in known:
        if value == choice:
            return choice
    raise ExportError(f"expected {name} {' or '.join(dict.fromkeys(known))}, got {str(value)[:40]!r}")


def _flag(config: Mapping[str, Any], name: str, *, usual: bool) -> bool:
    value = config.get(name, usual)
    if not isinstance(value, bool):
        raise ExportError(f"expected {name} as true or false, got {str(value)[:40]!r}")
    return value


def _schedule(config: Mapping[str, Any], kind: str) -> ScheduleSpec:
    total = config.get("num_train_timesteps", 1000)
    if SCHEDULERS[kind].family == "flow":
        flow = {"kind": "flow", "num_train_timesteps": total, "shift": config.get("shift", 1.0)}
        return ScheduleSpec.from_dict(flow, what="scheduler_config.json", error=ExportError)
    shape = config.get("beta_schedule", "linear")
    ends = {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    data: dict[str, Any] = {"num_train_timesteps": total}
    if config.get("trained_betas") is None and isinstance(shape, str) and shape in FORMULAS:
        data |= {"kind": FORMULAS[shape], **ends}
    else:
        betas = _betas(config, kind)
        data = {"kind": "betas", "num_train_timesteps": len(betas), "betas": betas}
    if "original_inference_steps" in SCHEDULERS[kind].taken:
        data["original_inference_steps"] = config.get("original_inference_steps", 50)
    return ScheduleSpec.from_dict(data, what="scheduler_config.json", error=ExportError)


def _betas(config: Mapping[str, Any], kind: str) -> list[float]:
    """The numbers of a schedule that has no name here, by diffusers itself."""
    try:
        import diffusers
    except ImportError as failure:
        raise UnavailableError(f"importing a diffusers folder needs diffusers ({failure}); {INSTALL}") from None
    trained, total = config.get("trained_betas"), config.get("num_train_timesteps", 1000)
    if type(total) is not int or not 1 <= total <= 10_000:
        raise ExportError(f"expected num_train_timesteps of 1 to 10000, got {str(total)[:40]!r}")
    if isinstance(trained, list) and len(trained) != total:
        raise ExportError(f"got {len(trained)} trained_betas for num_train_timesteps {total}")
    wanted = ("beta_schedule", "beta_start", "beta_end", "trained_betas")
    settings = {name: config[name] for name in wanted if name in config}
    try:
        scheduler = getattr(diffusers, kind)(num_train_timesteps=total, **settings)
        return [float(beta) for beta in scheduler.betas.tolist()]
    except Exception as failure:  # diffusers raises whatever it meets
        what = f"beta_schedule {str(config.get('beta_schedule'))[:40]!r} or trained_betas"
        reason = " ".join(str(failure).split())[:160]
        raise ExportError(f"{what}: {kind} of diffusers can't make its betas ({reason})") from None


def _told(
    config: Mapping[str, Any], scheduler: Scheduler, pipeline: str, solver: SolverName, steps: int
) -> tuple[Guess, ...]:
    kind = str(config["_class_name"])
    told = [
        Guess("sampling", f"{solver}, {steps} steps", f"{pipeline or 'no model_index.json'}, {kind}", "--solver")
    ]
    spacing = config.get("timestep_spacing", scheduler.spacing)
    if solver == "ddim" and spacing != "leading":
        reason = "diffusers steps back by T // S, gensdk to the next time step in its list"
        told.append(Guess("steps that don't divide the training's", "sampled a little differently", reason))
    if kind.startswith("Euler") and spacing != "leading":
        reason = "diffusers starts at the noise of its first time step, gensdk at variance 1"
        told.append(Guess("noise to start from", "a little more of it", reason))
    if kind.startswith("Euler") and pipeline == "DDPMPipeline":
        reason = f"{pipeline} doesn't scale what it gives the denoiser, as {kind} expects; gensdk does"
        told.append(Guess("what the denoiser gets", "scaled", reason))
    known = {*scheduler.taken, *scheduler.plain}
    others = [name for name in config if not name.startswith("_") and name not in known]
    if others:
        reason = f"{kind} of diffusers has no such settings either"
        told.append(Guess("left out", ", ".join(name[:40] for name in others[:8]), reason))
    return tuple(told)
