"""A diffusers scheduler's configuration as a noise schedule and the defaults of sampling.

Every setting is taken over, refused with its reason, or told where diffusers itself does not read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from gensdk_export.importers.import_report import Guess
from gensdk_runtime.errors import ExportError, UnavailableError
from gensdk_runtime.spec.manifest import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings, SolverName

INSTALL = 'pip install "gensdk[diffusers]"'
FORMULAS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
"""The schedules of diffusers that a manifest names; of others it holds the numbers."""
SOLVERS: Mapping[str, SolverName] = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
STEPS: Mapping[SolverName, int] = {"ddpm": 1000, "ddim": 50, "dpmsolver++": 20}
"""What the pipelines take by default; DPM-Solver++ as its authors advise."""
PLAIN: Mapping[str, tuple[Any, str]] = {
    "thresholding": (False, "dynamic thresholding looks at all pixels of an image"),
    "rescale_betas_zero_snr": (False, "at no signal at all, solvers divide by zero"),
    "steps_offset": (0, "its time steps lie between those of the list"),
    "set_alpha_to_one": (True, "its last step would keep noise"),
    "clip_sample_range": (1.0, "a bundle clips to its images' range"),
}
"""Settings that must be as they stand here, and why; what is left out is so."""
TAKEN = frozenset(
    (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "variance_type",
        "clip_sample",
        "prediction_type",
        "timestep_spacing",
        *("dynamic_thresholding_ratio", "sample_max_value"),  # of thresholding, which is off
    )
)
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Sampling:
    """What a scheduler and its pipeline say; `guesses` for what was taken for granted."""

    schedule: ScheduleSpec
    defaults: DiffusionSettings
    prediction: PredictionType
    guesses: tuple[Guess, ...]


def read_sampling(config: Mapping[str, Any], pipeline: str, solver: SolverName | None) -> Sampling:
    """What our solvers need of a scheduler's `config`; `pipeline`: what it lay in, if anything; `solver`: another.

    Raises :class:`ExportError` for what they can't do as diffusers does.
    """
    kind = str(config.get("_class_name"))
    if kind not in SOLVERS:
        names = " or ".join(SOLVERS)
        raise ExportError(f"expected the scheduler {names}, got {kind[:60]!r}, which takes other steps")
    own: SolverName = "ddim" if pipeline == "DDIMPipeline" else SOLVERS[kind]
    chosen = solver or own
    clips = _checked(config, chosen)
    schedule = _schedule(config, kind)
    total, spacing = schedule.num_train_timesteps, str(config.get("timestep_spacing", "leading"))
    defaults = {
        "solver": chosen,
        "num_inference_steps": min(STEPS[chosen], total),
        "timestep_spacing": spacing,
        "clip_sample": clips,
        "use_clipped_model_output": False,
    }
    return Sampling(
        schedule,
        DiffusionSettings.from_dict(defaults, what="scheduler_config.json", error=ExportError),
        cast(PredictionType, str(config.get("prediction_type", "epsilon"))),
        _told(config, f"{pipeline or 'no model_index.json'}, {kind}", chosen, min(STEPS[chosen], total), spacing),
    )


def _checked(config: Mapping[str, Any], solver: SolverName) -> bool:
    """Refuses settings that would sample otherwise; whether samples are clipped."""
    for name, (wanted, why) in PLAIN.items():
        value = config.get(name, wanted)
        if isinstance(value, str) or value != wanted:
            raise ExportError(f"expected a scheduler with {name}={wanted}, got {str(value)[:60]}: {why}")
    variance = str(config.get("variance_type", "fixed_small"))
    if solver == "ddpm" and variance not in ("fixed_small", "fixed_small_log"):
        raise ExportError(
            f"expected variance_type fixed_small, got {variance[:40]!r}; give --solver ddim, which needs none"
        )
    for name, known, usual in (
        ("prediction_type", PREDICTIONS, "epsilon"),
        ("timestep_spacing", SPACINGS, "leading"),
    ):
        value = config.get(name, usual)
        if value not in known:
            raise ExportError(f"expected {name} {' or '.join(known)}, got {str(value)[:40]!r}")
    clips = config.get("clip_sample", True)
    if not isinstance(clips, bool):
        raise ExportError(f"expected clip_sample as true or false, got {str(clips)[:40]!r}")
    return clips


def _schedule(config: Mapping[str, Any], kind: str) -> ScheduleSpec:
    shape, total = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    ends = {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    data: dict[str, Any] = {"num_train_timesteps": total}
    if config.get("trained_betas") is None and isinstance(shape, str) and shape in FORMULAS:
        data |= {"kind": FORMULAS[shape], **ends}
    else:
        betas = _betas(config, kind)
        data = {"kind": "betas", "num_train_timesteps": len(betas), "betas": betas}
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


def _told(config: Mapping[str, Any], said: str, solver: SolverName, steps: int, spacing: str) -> tuple[Guess, ...]:
    told = [Guess("sampling", f"{solver}, {steps} steps", said, "--solver")]
    if solver == "ddim" and spacing != "leading":
        reason = "diffusers steps back by T // S, gensdk to the next time step in its list"
        told.append(Guess("steps that don't divide the training's", "sampled a little differently", reason))
    others = [name for name in config if not name.startswith("_") and name not in TAKEN and name not in PLAIN]
    if others:
        reason = f"{config['_class_name']} of diffusers has no such settings either"
        told.append(Guess("left out", ", ".join(name[:40] for name in others[:8]), reason))
    return tuple(told)
