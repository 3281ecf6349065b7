"""Flow matching: learn the velocity that carries noise to images along straight lines; sample by following it.

Papers: Lipman et al. 2023, "Flow Matching for Generative Modeling" (arXiv 2210.02747); Liu, Gong & Liu 2023, "Flow
Straight and Fast" (rectified flow, arXiv 2209.03003); Esser et al. 2024, "Scaling Rectified Flow Transformers for
High-Resolution Image Synthesis" (arXiv 2403.03206), for the times that are drawn in training.

Idea: between an image x_0 and noise eps lies the line ``x_t = (1 - t) x_0 + t eps``, t in (0, 1], along which x_t
moves at the constant velocity ``u = eps - x_0``. A U-Net learns u from x_t and t. Many lines cross in one point,
so what it learns is their mean, and following it from noise, ``x += (t' - t) u(x, t)`` (Euler), leads to an image
on a path that is bent a little, and so takes a few steps.

By choice the times of training are not uniform but logit-normal, ``t = sigmoid(n)``, n ~ N(logit_mean, logit_std)
(Esser et al., section 3.1): the middle of the line, where u is hardest to tell, comes up more often.

By choice it learns from a trained flow, whose paths never cross (Liu et al., section 2.2, "reflow"): the lines are
those between noise and the sample that the other one makes of it. Their mean bends less and takes fewer steps::

    gensdk train flow ... --out runs/flow
    gensdk train flow ... --out runs/straight --set reflow_from=runs/flow --set steps=1500

With classes the network also gets the label, replaced by "none" in a share of the training images, for guidance.

Networks: `denoiser`, the U-Net of ddpm (networks/unet.py), which gets t T with T = `num_train_timesteps`.
Exports: the graphs of ddpm (``step``, ``embedding``, on request ``shallow_step``), with the schedule "flow".
Does not: weight the loss, match noise to images by optimal transport, learn another path than a line, compute
likelihoods, or work in a latent space.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import FlowSchedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.denoiser_family import DENOISER, SIZES, DenoiserConfig, DenoiserFamily
from gensdk_training.distillation import Teacher, open_teacher
from gensdk_training.family import Batch, Loss
from gensdk_training.graphs.diffusion_step import solver_update
from gensdk_training.registry import register

TEACHER = "teacher"


class FlowConfig(DenoiserConfig):
    """Settings of :class:`Flow`.

    time_sampling: Which times are drawn in training: all alike, or the middle of the line more often.
    logit_mean: Mean of the normal distribution under logit_normal; above 0 there is more noise.
    logit_std: Its standard deviation.
    shift: Takes more of the sampling steps where there is more noise, as large images need; 1 spreads them evenly.
    reflow_from: The folder of a run of flow whose samples, with the noise they came from, are learned instead of
        the data.
    reflow_steps: Steps of Euler's method in which that run makes a sample.
    """

    time_sampling: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: Annotated[float, Field(ge=-10, le=10)] = 0.0
    logit_std: Annotated[float, Field(gt=0, le=100)] = 1.0
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    reflow_from: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    reflow_steps: Annotated[int, Field(ge=1, le=1024)] = 20


@register("flow")
class Flow(DenoiserFamily[FlowConfig]):
    """Flow matching on straight lines with a U-Net, by choice conditional on labels."""

    title = (
        "flow matching (rectified flow): a U-Net tells the velocity from noise to image; few Euler steps; reflow"
    )
    paper = "Lipman et al. (2023), Flow Matching for Generative Modeling; Liu, Gong & Liu (2023), rectified flow"
    Config = FlowConfig

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths, labels or steps don't go together."""
        super().check()
        config = self.config
        if config.reflow_from is not None and config.reflow_steps > config.num_train_timesteps:
            raise InputError(
                f"expected reflow_steps up to num_train_timesteps {config.num_train_timesteps}, got "
                f"{config.reflow_steps}"
            )

    @property
    def teaching(self) -> str | None:
        """``reflow_from``."""
        return None if self.config.reflow_from is None else "reflow_from"

    @property
    def schedule(self) -> ScheduleSpec:
        """The straight line."""
        return ScheduleSpec(
            kind="flow", num_train_timesteps=self.config.num_train_timesteps, shift=self.config.shift
        )

    @property
    def prediction_type(self) -> PredictionType:
        """The velocity."""
        return "flow"

    @property
    def defaults(self) -> DiffusionSettings:
        """Euler's method, in steps of one length."""
        return DiffusionSettings(solver="euler", num_inference_steps=min(20, self.config.num_train_timesteps))

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`, and for a reflow the `teacher`, frozen, whose samples it learns."""
        networks = super().build_networks()
        if self.config.reflow_from is not None:
            networks[TEACHER] = Teacher(self.build_denoiser())
        return networks

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """A reflow starts as a copy of its teacher."""
        config = self.config
        if config.reflow_from is None:
            return
        sizes = {key: getattr(config, key) for key in SIZES}
        trained = open_teacher(config.reflow_from, self.data, sizes, family=self.name, option="reflow_from")
        networks[TEACHER].get_submodule("network").load_state_dict(trained.networks[DENOISER].state_dict())
        networks[DENOISER].load_state_dict(trained.networks[DENOISER].state_dict())

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Mean of ``||(eps - x_0) - u_theta((1 - t) x_0 + t eps, t)||^2`` over all elements.

        Lipman et al. (2023), eq. 23 with sigma_min = 0; Liu et al. (2023), eq. 1. One time for each image.
        """
        told = self.told(networks, batch)
        eps = torch.randn_like(batch.images)
        x0 = batch.images if self.config.reflow_from is None else self._carried(networks[TEACHER], eps, told)
        times = self._times(len(x0), x0.device)
        t = times.reshape(-1, 1, 1, 1)
        velocity = networks[DENOISER]((1 - t) * x0 + t * eps, times * self.config.num_train_timesteps, *told)
        errors = (velocity - (eps - x0)).square().mean()
        return Loss(errors, {"mse": errors.detach()})

    def _times(self, count: int, device: torch.device) -> Tensor:
        """Times in (0, 1], [count]."""
        if self.config.time_sampling == "uniform":
            return 1.0 - torch.rand(count, device=device)
        return torch.sigmoid(self.config.logit_mean + self.config.logit_std * torch.randn(count, device=device))

    @torch.no_grad()
    def _carried(self, teacher: nn.Module, eps: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """The samples that the teacher makes of the noise `eps` [B, C, H, W]."""
        table, state, zero = self._reflow_table, eps, torch.zeros_like(eps)
        for timestep, row in zip(table.timesteps.tolist(), table.coefficients.tolist(), strict=True):
            velocity = teacher(state, torch.full((len(eps),), timestep, device=eps.device), *labels)
            state, _ = solver_update(state, zero, velocity, zero, torch.tensor(row).to(eps))
        return state

    @cached_property
    def _reflow_table(self) -> SolverTable:
        """Steps of one length, without the shift and without clipping: a path is learned as it is."""
        line = FlowSchedule(self.config.num_train_timesteps)
        return solver_table(line, "euler", self.config.reflow_steps, clip_range=None, prediction_type="flow")
