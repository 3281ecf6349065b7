"""A diffusers scheduler's configuration as a noise schedule and the defaults of sampling.

Every setting is taken over, refused with its reason, or told where diffusers itself does not read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gensdk_export.importers.diffusers.known_schedulers import (
    FORMULAS,
    OTHERS,
    SCHEDULERS,
    SIGMAS,
    SPACINGS,
    STEPS,
    Scheduler,
    known_scheduler,
    scheduler_of,
)
from gensdk_export.importers.import_report import Guess
from gensdk_runtime.errors import ExportError, UnavailableError
from gensdk_runtime.programs.schedules import Schedule, make_schedule
from gensdk_runtime.programs.spacings import levels, most_steps
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings, SolverName, TimestepSpacing

INSTALL = 'pip install "gensdk[diffusers]"'
LEARNED = ("learned", "learned_range")
"""Kinds of variance that the denoiser tells, in channels behind those of its prediction."""
OF_SCHEDULE = ("rescale_betas_zero_snr", "steps_offset", "set_alpha_to_one", "final_sigmas_type")
"""Settings that a noise schedule has by the same names."""
ChoiceT = TypeVar("ChoiceT", bound=str)


@dataclass(frozen=True)
class Sampling:
    """What a scheduler and its pipeline say; `guesses` for what was taken for granted. `learned_variance`: the
    denoiser tells a variance too, which the solver needs not."""

    schedule: ScheduleSpec
    defaults: DiffusionSettings
    prediction: PredictionType
    family: str
    guesses: tuple[Guess, ...]
    learned_variance: bool = False


@dataclass(frozen=True)
class _Read:
    """A configuration as the class `name` reads it, which is `known`; `kind`: the class that wrote it."""

    kind: str
    name: str
    config: Mapping[str, Any]
    pipeline: str

    @property
    def known(self) -> Scheduler:
        return known_scheduler(self.name, self.config)

    def get(self, name: str, usual: Any) -> Any:
        """A setting; `usual` where it is left out, or the class has none of that name."""
        return self.config.get(name, usual) if name in self.known.taken or name in self.known.plain else usual

    def flag(self, name: str, *, usual: bool) -> bool:
        value = self.get(name, usual)
        if not isinstance(value, bool):
            raise ExportError(f"expected {name} as true or false, got {str(value)[:40]!r}")
        return value

    def one_of(self, name: str, known: Sequence[ChoiceT]) -> ChoiceT:
        """The setting `name`, one of `known`, which begins with the usual one."""
        value = self.get(name, known[0])
        for choice in known:
            if value == choice:
                return choice
        raise ExportError(f"expected {name} {' or '.join(dict.fromkeys(known))}, got {str(value)[:40]!r}")

    @property
    def zero_snr(self) -> bool:
        return self.flag("rescale_betas_zero_snr", usual=False)

    @property
    def karras(self) -> bool:
        return self.flag("use_karras_sigmas", usual=False)


def read_sampling(config: Mapping[str, Any], pipeline: str, solver: SolverName | None) -> Sampling:
    """What our solvers need of a scheduler's `config`; `pipeline`: what it lay in, if anything; `solver`: another.

    With another solver than the scheduler's own the configuration is read as diffusers' class of that solver reads
    it (its ``from_config``). Raises :class:`ExportError` for what they can't do as diffusers does.
    """
    read, chosen = _read(config, pipeline, solver)
    prediction = _checked(read, chosen)
    spacing = _spacing(read, chosen)
    schedule = _schedule(read, whole=spacing == "karras" and read.known.whole_karras)
    made = make_schedule(schedule)
    if chosen not in (known := made.solvers):
        raise ExportError(f"expected --solver {' or '.join(known)} with {read.kind}, got {chosen!r}")
    steps = min(STEPS[chosen], most_steps(made, chosen, spacing))
    defaults = {
        "solver": chosen,
        "num_inference_steps": steps,
        "timestep_spacing": spacing,
        "clip_sample": read.flag("clip_sample", usual=read.known.clips),
        "use_clipped_model_output": False,
        "solver_order": 1 if read.get("solver_order", 2) == 1 else None,
    }
    return Sampling(
        schedule,
        DiffusionSettings.from_dict(defaults, what="scheduler_config.json", error=ExportError),
        prediction,
        read.known.family,
        _told(read, made, chosen, steps, spacing),
        config.get("variance_type") in LEARNED,
    )


def _read(config: Mapping[str, Any], pipeline: str, solver: SolverName | None) -> tuple[_Read, SolverName]:
    """The configuration as it is to be read, and the solver."""
    kind = str(config.get("_class_name"))
    if kind not in (*SCHEDULERS, *OTHERS):
        *others, last = SCHEDULERS
        raise ExportError(
            f"expected the scheduler {', '.join(others)} or {last}, got {kind[:60]!r}, which takes other steps"
        )
    if pipeline == "DDIMPipeline":
        solver = solver or "ddim"  # as the pipeline does
    if kind in OTHERS and solver is None:
        raise ExportError(
            f"got {kind!r}, which takes other steps than any solver here; give --solver dpmsolver++ or --solver "
            "ddim, which take theirs on the same betas"
        )
    known = None if kind in OTHERS else known_scheduler(kind, config)
    if known is None or (known.family == "ddpm" and solver not in (None, known.solver)):
        name = scheduler_of(solver or "ddim")
    else:
        name = kind
    flow = {"prediction_type": "flow"} if config.get("prediction_type") == "flow_prediction" else {}
    read = _Read(kind, name, {**SCHEDULERS[name].usual, **config, **flow}, pipeline)
    own = "lcm" if read.flag("stochastic_sampling", usual=False) else read.known.solver  # flows: noise anew
    return read, solver or own


def _checked(read: _Read, solver: SolverName) -> PredictionType:
    """Refuses settings that would sample otherwise; what the denoiser tells."""
    for name, (wanted, why) in read.known.plain.items():
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        value = read.get(name, choices[0])
        if not any(isinstance(value, str) == isinstance(choice, str) and value == choice for choice in choices):
            raise ExportError(f"expected a scheduler with {name}={choices[0]}, got {str(value)[:60]}: {why}")
    variance = str(read.get("variance_type", None) or "fixed_small")
    if solver == "ddpm" and variance not in ("fixed_small", "fixed_small_log"):
        raise ExportError(
            f"expected variance_type fixed_small, got {variance[:40]!r}; give --solver ddim, which needs none"
        )
    prediction = read.one_of("prediction_type", read.known.predictions)
    if read.zero_snr and prediction == "epsilon":
        raise ExportError(
            "expected prediction_type v_prediction or sample with rescale_betas_zero_snr, got epsilon: where "
            "there is no signal at all, it tells nothing of the image"
        )
    if "solver_order" in read.known.taken:
        _check_order(read)
    return prediction


def _check_order(read: _Read) -> None:
    """Refuses orders of DPM-Solver++ that a step can't have, or a last step of another order than ours."""
    order = read.get("solver_order", 2)
    if type(order) is not int or order not in (1, 2):
        raise ExportError(f"expected solver_order 1 or 2, got {str(order)[:40]}: a step knows one earlier x_0")
    if order == 1 or read.get("final_sigmas_type", "zero") == "zero":
        return  # its last step is of first order, whatever they say
    for name, usual in (("lower_order_final", True), ("euler_at_final", False)):
        if read.flag(name, usual=usual) != usual:
            raise ExportError(
                f"expected {name}={usual} with final_sigmas_type=sigma_min, got {not usual}: its last step is of "
                "another order"
            )


def _spacing(read: _Read, solver: SolverName) -> TimestepSpacing:
    """Where the time steps lie: a latent consistency model has its own, and Karras's go from end to end."""
    if solver == "lcm" and read.known.family != "flow":
        return "skipping"
    if read.known.cuts:
        return read.known.spacing  # whatever it says
    spacing = read.one_of("timestep_spacing", (read.known.spacing, *SPACINGS))
    if not read.karras:
        return spacing
    if read.known.whole_karras:
        if read.get("beta_schedule", "linear") == "squaredcos_cap_v2":
            raise ExportError(
                "expected another beta_schedule than squaredcos_cap_v2 with use_karras_sigmas: "
                f"{read.name} cuts fractions of its time steps off"
            )
    elif spacing != "linspace":
        raise ExportError(f"expected timestep_spacing linspace with use_karras_sigmas, got {spacing!r}: {SIGMAS}")
    return "karras"


def _schedule(read: _Read, *, whole: bool) -> ScheduleSpec:
    config = read.config
    total = config.get("num_train_timesteps", 1000)
    if read.known.family == "flow":
        flow = {"kind": "flow", "num_train_timesteps": total, "shift": config.get(read.known.shift, 1.0)}
        flow["whole_timesteps"] = read.known.cuts
        return ScheduleSpec.from_dict(flow, what="scheduler_config.json", error=ExportError)
    shape = config.get("beta_schedule", "linear")
    ends = {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    data: dict[str, Any] = {"num_train_timesteps": total}
    if config.get("trained_betas") is None and isinstance(shape, str) and shape in FORMULAS:
        data |= {"kind": FORMULAS[shape], **ends}
    else:
        betas = _betas(config, read.kind)
        data = {"kind": "betas", "num_train_timesteps": len(betas), "betas": betas}
    if "original_inference_steps" in read.known.taken:
        data["original_inference_steps"] = config.get("original_inference_steps", 50)
    data |= {name: config[name] for name in OF_SCHEDULE if name in config and name in read.known.taken}
    data["whole_timesteps"] = whole
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
    read: _Read, schedule: Schedule, solver: SolverName, steps: int, spacing: TimestepSpacing
) -> tuple[Guess, ...]:
    """What was taken for granted, and where diffusers samples a little differently."""
    kind, name, pipeline = read.kind, read.name, read.pipeline
    said = [
        Guess("sampling", f"{solver}, {steps} steps", f"{pipeline or 'no model_index.json'}, {kind}", "--solver")
    ]
    if name != kind:
        reason = f"{name} of diffusers reads the settings of {kind} so"
        said.append(Guess("scheduler", f"that of {solver}", reason, "--solver"))
        if read.flag("clip_sample", usual=read.known.clips) and "clip_sample" not in read.config:
            said.append(Guess("estimates of x_0", "clipped", f"{name} does, and {kind} has no clip_sample"))
    if solver == "ddim" and spacing != "leading":
        reason = "diffusers steps back by T // S, gensdk to the next time step in its list"
        said.append(Guess("steps that don't divide the training's", "sampled a little differently", reason))
    if solver == "ddim" and spacing == "leading" and read.get("steps_offset", 0):
        reason = "with steps_offset diffusers' DDIM ends a time step early then, gensdk at the image"
        said.append(Guess("steps over half of the training's", "sampled a little differently", reason))
    if solver.startswith("euler") and read.known.family != "flow" and spacing != "leading":
        more = 1.0 / float(levels(schedule, solver, steps, spacing).sigma[0])
        reason = "diffusers starts at the noise of its first time step, gensdk at variance 1"
        said.append(Guess("noise to start from", f"{more:.6g} times as much", reason))
    if kind.startswith("Euler") and pipeline == "DDPMPipeline":
        reason = f"{pipeline} doesn't scale what it gives the denoiser, as {kind} expects; gensdk does"
        said.append(Guess("what the denoiser gets", "scaled", reason))
    known = {*read.known.taken, *read.known.plain}
    others = [each for each in read.config if not each.startswith("_") and each not in known]
    if others:
        reason = f"{name} of diffusers has no such settings" + (" either" if name == kind else "")
        said.append(Guess("left out", ", ".join(each[:40] for each in others[:8]), reason))
    return tuple(said)
