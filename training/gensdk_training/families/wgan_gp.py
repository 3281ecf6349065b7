"""WGAN-GP: a Wasserstein critic kept 1-Lipschitz by a penalty on its gradient.

Paper: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs" (arXiv 1704.00028).

Idea: ``E D(G(z)) - E D(x) + lambda E (||grad D(x_hat)||_2 - 1)^2`` (eq. 3), x_hat uniform on the line between a
real and a made sample, the norm over the whole sample. An optimal critic has gradients of norm 1 almost everywhere
on these lines (proposition 1), so the penalty costs it nothing, while clipped weights make it too simple.

Networks: `generator` and `discriminator` (the critic), convolutions as DCGAN has them but no batch norm in the
critic, since the penalty is for each sample by itself (section 4), or linear layers; for images or points.
Exports: one graph, ``generator``: z to the image or the point.

It does not: use layer norm in the critic, or the paper's ResNets.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gensdk_training.gan_family import AdamGanConfig, Beta, Gan, Judge
from gensdk_training.losses import adversarial
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.optim import Schedule
from gensdk_training.registry import register

IMAGE_PENALTY, POINT_PENALTY = 10.0, 0.1


class WganGpConfig(AdamGanConfig):
    """Settings of :class:`WganGp`.

    penalty: lambda: weight of the gradient penalty; null takes 10 for images and 0.1 for points, as in the
        authors' code.
    """

    lr_schedule: Schedule = "linear"
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 5
    beta1: Beta = 0.0
    beta2: Beta = 0.9
    penalty: Annotated[float, Field(ge=0)] | None = None


@register("wgan_gp")
class WganGp(Gan[WganGpConfig]):
    """Wasserstein GAN with a gradient penalty."""

    title = "Wasserstein GAN with gradient penalty, images or points"
    paper = "Gulrajani et al. (2017), Improved Training of Wasserstein GANs"
    Config = WganGpConfig
    normalize = False

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``E D(G(z)) - E D(x)``: minus the estimated distance."""
        return adversarial.critic_loss("wasserstein", on_real, on_fake)

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        """``lambda E (||grad D(x_hat)||_2 - 1)^2``."""
        weight = self.config.penalty
        if weight is None:
            weight = IMAGE_PENALTY if self.data.on_a_grid else POINT_PENALTY
        return weight * gradient_penalty(judge, real, fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """``-E D(G(z))``."""
        return adversarial.generator_loss("wasserstein", on_fake)
