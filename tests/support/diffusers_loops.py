"""diffusers' own sampling loop beside ours from the same noise: how far apart every step and the images are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from gensdk_export.importers.diffusers.folder import diffusers_plan
from gensdk_export.importers.diffusers.known_schedulers import SCHEDULERS, SPACINGS
from gensdk_runtime import noise
from gensdk_runtime.generator import Generator
from gensdk_training.torch_backend import torch_sessions

SIZE, SEED, N = 8, 5, 2
NOISY = ("ddpm", "ddim", "euler_ancestral_discrete", "lcm", "flow_match_euler_discrete")
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def make_unet(**settings: Any) -> Any:
    """With norms that scale and shift, as trained ones do."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        **{
            "sample_size": SIZE,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            **settings,
        }
    ).eval()
    for norm in unet.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            torch.nn.init.normal_(norm.weight, 1.0, 0.1)
            torch.nn.init.normal_(norm.bias, 0.0, 0.1)
    return unet


def save(folder: Path, unet: Any, scheduler: Any) -> Path:
    """A folder with unet/ and scheduler/, and no model_index.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
    return folder


@dataclass(frozen=True)
class Case:
    """A scheduler with some of its settings."""

    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)
    written_by: str | None = None
    """The scheduler whose configuration it is given, where that is another one."""

    def __str__(self) -> str:
        said = [f"{name}={value}" for name, value in self.settings.items() if name not in STABLE_DIFFUSION]
        sd = ["SD betas"] if "beta_end" in self.settings else []
        return ", ".join([self.scheduler.removesuffix("Scheduler"), *sd, *said, *filter(None, [self.written_by])])

    @property
    def solver(self) -> Any:
        return SCHEDULERS[self.scheduler].solver

    def written(self) -> Any:
        """The scheduler that a folder holds."""
        return getattr(diffusers, self.written_by or self.scheduler)(**self.settings)

    def read(self, folder: Path) -> Any:
        """The scheduler as diffusers reads it in the folder."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(diffusers, self.scheduler).from_pretrained(folder, subfolder="scheduler")


EXTRAS: dict[str, list[dict[str, Any]]] = {
    "timestep_spacing": [{}],
    "steps_offset": [{"steps_offset": 1, "timestep_spacing": "leading", **STABLE_DIFFUSION}],
    "rescale_betas_zero_snr": [
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **more} for more in ({}, STABLE_DIFFUSION)
    ],
    "clip_sample": [{"clip_sample": False, "timestep_spacing": "trailing"}, {"clip_sample": True}],
    "set_alpha_to_one": [
        {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False, **STABLE_DIFFUSION},
        {"set_alpha_to_one": False, "timestep_spacing": "trailing"},
    ],
    "final_sigmas_type": [
        {"final_sigmas_type": "sigma_min", "timestep_spacing": spacing, **STABLE_DIFFUSION} for spacing in SPACINGS
    ],
    "solver_order": [{"solver_order": 1, "timestep_spacing": spacing} for spacing in SPACINGS],
    "lower_order_final": [{"lower_order_final": False}, {"euler_at_final": True}],
    "use_karras_sigmas": [{"use_karras_sigmas": True}, {"use_karras_sigmas": True, **STABLE_DIFFUSION}],
    "variance_type": [],
    "shift": [{}, {"shift": 3.0}],
    "stochastic_sampling": [{"stochastic_sampling": True}],
    "original_inference_steps": [{"original_inference_steps": 25}],
}
"""What is tried of the settings that a scheduler takes; every spacing besides, where it has some."""


def cases() -> Iterator[Case]:
    """Each scheduler that is taken, with each spacing, each prediction, and each further setting."""
    for name, known in SCHEDULERS.items():
        spaced = known.family == "ddpm" and known.solver != "lcm"
        extras = [extra for setting in known.taken for extra in EXTRAS.get(setting, ())]
        spacings: list[dict[str, Any]] = [{"timestep_spacing": each} for each in SPACINGS] if spaced else []
        if "final_sigmas_type" in known.taken and "solver_order" in known.taken:
            extras.append({"final_sigmas_type": "sigma_min", "use_karras_sigmas": True})
            extras.append({"use_karras_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1})
        if known.family == "flow":
            extras = [extra for extra in extras if "beta_end" not in extra]
        for prediction in known.predictions:
            for extra in [*spacings, *extras]:
                if prediction == "epsilon" and extra.get("rescale_betas_zero_snr"):
                    continue  # which is refused
                yield Case(name, extra if prediction == "flow" else {**extra, "prediction_type": prediction})
    stable = {**STABLE_DIFFUSION, "steps_offset": 1, "skip_prk_steps": True}
    for target in ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"):
        yield Case(target, stable, written_by="PNDMScheduler")
    yield Case("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, written_by="UniPCMultistepScheduler")
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for extra in ({}, {"flow_shift": 3.0}, {"flow_shift": 3.0, "solver_order": 1}):
        yield Case("DPMSolverMultistepScheduler", {**flow, **extra})


@dataclass(frozen=True)
class Apart:
    """The largest difference of any step's input to the network, as a share of its range, and of the images; and
    of the time steps that the network was told."""

    steps: float
    image: float
    times: float
    images: Any


class Watched:
    """What a network is given: [S, N, C, H, W], and the time steps [S]."""

    def __init__(self, unet: Any) -> None:
        self.inputs: list[Any] = []
        self.times: list[float] = []
        unet.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _: Any, given: Any, named: Any) -> None:
        self.inputs.append(given[0].detach().numpy().copy())
        time = named["timestep"] if "timestep" in named else given[1]
        self.times.append(float(torch.as_tensor(time, dtype=torch.float64).flatten()[0]))


def measure(case: Case, unet: Any, folder: Path, steps: int, label: Any = None, **how: Any) -> Apart:
    """Runs both loops. `how`: for the importer. `unet`: the network that lies in the folder to be."""
    save(folder, unet, case.written())
    solver = case.solver if case.written_by else None
    plan, _, _ = diffusers_plan(folder, solver=solver, **how)
    keys = noise.sample_keys(N, SEED)
    latents = noise.normal(keys, noise.LATENT_STREAM, plan.model.output.shape)
    theirs, mine = Watched(unet), Watched(plan.modules["step"].denoiser.unet)  # type: ignore[union-attr]
    expected, start = by_diffusers(case.read(folder), unet, latents, steps, keys, label)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        given = {} if label is None else {"label": label}
        samples = generator.sample(N, seed=SEED, latents=latents * start, num_inference_steps=steps, **given)
    assert samples.settings["solver"] in (case.solver, "lcm")
    return Apart(
        max(apart(a, b) for a, b in zip(mine.inputs, theirs.inputs, strict=True)),
        apart(samples.array, expected),
        max(abs(a - b) for a, b in zip(mine.times, theirs.times, strict=True)),
        expected,
    )


def apart(ours: Any, theirs: Any) -> float:
    """The largest difference, as a share of the range of theirs."""
    return float(np.abs(ours - theirs).max() / np.ptp(theirs))


def by_diffusers(
    scheduler: Any, unet: Any, latents: Any, steps: int, keys: Any, label: Any = None
) -> tuple[Any, float]:
    """diffusers' images [N, C, H, W] from its own noise to start from, and that noise as a share of variance 1."""
    with our_noise(keys, steps), torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.set_timesteps(steps)
        scales = hasattr(scheduler, "is_scale_input_called")  # Euler's methods divide x_t by alpha
        first = getattr(scheduler, "init_noise_sigma", 1.0)
        start = float(first / (scheduler.sigmas[0] ** 2 + 1) ** 0.5) if scales else 1.0
        state = torch.from_numpy(latents) * first
        labels = None if label is None else torch.as_tensor(label).expand(N)
        for i, t in enumerate(scheduler.timesteps):
            follow_the_list(scheduler, i)
            given = scheduler.scale_model_input(state, t) if scales else state
            told = unet(given, t, class_labels=labels, return_dict=False)[0]
            told = told if hasattr(scheduler, "model_outputs") else told[:, : state.shape[1]]
            state = scheduler.step(told, t, state).prev_sample
    return state.numpy(), start


@contextmanager
def our_noise(keys: Any, steps: int) -> Iterator[None]:
    """diffusers draws the noise that we draw: of each step, that of the step's number."""
    streams = iter(range(1, steps + 1))

    def drawn(shape: Any, **_: Any) -> Any:
        return torch.from_numpy(noise.normal(keys, next(streams), tuple(shape)[1:]))

    with pytest.MonkeyPatch.context() as patch:
        for name in NOISY:
            patch.setattr(f"diffusers.schedulers.scheduling_{name}.randn_tensor", drawn)
        yield


def follow_the_list(theirs: Any, i: int) -> None:
    """Makes diffusers' DDIM step from its i-th time step to the next in its list.

    It goes to t - T // S, which the lists of uneven spacings don't hold; T and S are used for nothing else.
    """
    if not isinstance(theirs, diffusers.DDIMScheduler):
        return
    now, after = [*theirs.timesteps.tolist(), -1][i : i + 2]
    if max(now - theirs.config.num_train_timesteps // theirs.num_inference_steps, -1) != after:
        theirs.register_to_config(num_train_timesteps=now - after)
        theirs.num_inference_steps = 1
