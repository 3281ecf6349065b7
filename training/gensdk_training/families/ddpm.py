"""Denoising diffusion: learn to tell the noise in a noisy image; sample by removing it bit by bit.

Paper: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239).

Idea: an image x_0 is mixed with Gaussian noise, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (eq. 4), and
a U-Net learns eps from x_t and t. The network knows nothing of how it will be sampled: the runtime runs DDPM,
DDIM or DPM-Solver++ over the same step graph.

With classes the network also gets the label, replaced by "none" in a share of the training images, so that
sampling can push towards the label (Ho & Salimans 2022, classifier-free guidance).

By choice it learns ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0`` or x_0 itself instead of eps
(`prediction_type`), and by choice it learns from a trained model to do in a few steps what that one does in many
(distillation.py)::

    gensdk train ddpm ... --set prediction_type=v_prediction --set distill_from=RUN --set distill_steps=4

The student has the teacher's settings, and is sampled in `distill_steps` steps and no others.

Networks: `denoiser`, a U-Net of residual blocks with group norm, SiLU and self-attention (networks/unet.py).
Exports: ``step``: guidance, denoiser and solver update together (graphs/diffusion_step.py); ``embedding``: what
depends on time and label alone; on request ``shallow_step``, which takes the deep features of an earlier step.
Does not: learn the variances, compute likelihoods, or work in a latent space.

The paper's CIFAR-10 model: ``channels=128 multipliers=[1,2,2,2] blocks=2 attention_resolutions=[16]
norm_groups=32 dropout=0.1 learning_rate=2e-4 ema_decay=0.9999 batch_size=128 schedule=linear``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

from pydantic import Field
from torch import nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.denoiser_family import SIZES
from gensdk_training.distillation import Distillation, Teacher, open_teacher
from gensdk_training.family import Batch, Loss, network_of
from gensdk_training.noise_family import NoiseConfig, NoiseFamily
from gensdk_training.registry import register

SAME_AS_TEACHER = (*SIZES, "schedule", "beta_start", "beta_end")
"""Settings that a student shares with its teacher: the network's sizes and the schedule."""


class DdpmConfig(NoiseConfig):
    """Settings of :class:`Ddpm`, beside those of :class:`NoiseConfig`.

    distill_from: The folder of a run of ddpm that a student learns from, its teacher.
    distill_steps: Steps that a student makes samples in.
    teacher_steps: Steps of the teacher that one of a student's stands for.
    """

    distill_from: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    distill_steps: Annotated[int, Field(ge=1, le=1024)] | None = None
    teacher_steps: Annotated[int, Field(ge=1, le=1024)] = 2


@register("ddpm")
class Ddpm(NoiseFamily[DdpmConfig]):
    """Denoising diffusion with a U-Net, by choice conditional on labels."""

    title = "denoising diffusion: U-Net with attention; DDPM, DDIM and DPM-Solver++ sampling; guidance"
    paper = "Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models"
    Config = DdpmConfig

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths, labels or a teacher don't go together."""
        super().check()
        config = self.config
        if (config.distill_from is None) != (config.distill_steps is None):
            raise InputError("distill_from and distill_steps go together: set both, or neither")
        if config.distill_from is not None and config.prediction_type != "v_prediction":
            raise InputError("a student learns v, which tells x_0 at any noise; set prediction_type=v_prediction")
        self._distillation  # noqa: B018 - raises where the steps don't fit

    @property
    def teaching(self) -> str | None:
        """``distill_from``."""
        return None if self.config.distill_from is None else "distill_from"

    @cached_property
    def _distillation(self) -> Distillation | None:
        steps = self.config.distill_steps
        return None if steps is None else Distillation(self._noise_schedule, steps, self.config.teacher_steps)

    @property
    def defaults(self) -> DiffusionSettings:
        """The program's own, as far as there are time steps, or what a student learned."""
        if self._distillation is not None:
            return self._distillation.defaults
        return super().defaults

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`, and for a student its `teacher`, frozen."""
        networks = super().build_networks()
        if self._distillation is not None:
            networks["teacher"] = Teacher(self.build_denoiser())
        return networks

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """A student starts as a copy of its teacher."""
        config = self.config
        if config.distill_from is None:
            return
        settings = {key: getattr(config, key) for key in SAME_AS_TEACHER}
        trained = open_teacher(config.distill_from, self.data, settings)
        told = trained.family.config.prediction_type
        if told == "sample":
            raise InputError(f"the teacher in {config.distill_from} tells x_0; a student learns from eps or v")
        teacher = network_of(networks, "teacher", Teacher)
        teacher.load(trained.networks["denoiser"], told)
        networks["denoiser"].load_state_dict(teacher.network.state_dict())

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """``||eps - eps_theta(x_t, t)||^2``; see :meth:`NoiseFamily.denoising_loss`.

        A student's loss is that of :class:`Distillation`.
        """
        if self._distillation is None:
            return self.denoising_loss(networks, batch, batch.images)
        told = self.told(networks, batch)
        errors = self._distillation.loss(networks["denoiser"], networks["teacher"], batch.images, told)
        return Loss(errors.mean())
