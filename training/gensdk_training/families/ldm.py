"""Latent diffusion: an autoencoder makes images small, and denoising diffusion learns what it makes of them.

Paper: Rombach, Blattmann, Lorenz, Esser & Ommer 2022, "High-Resolution Image Synthesis with Latent Diffusion
Models" (arXiv 2112.10752).

Idea: most of what is in an image is detail that nobody sees. So a first network learns to leave it out, and the
costly one, which runs many times for each sample, works on what is left. A run has two parts (3.1, 3.2):

1. For `autoencoder_steps` an encoder E gives mean and variance of latents z, `factor` times smaller on each side,
   and a decoder D draws the image again: ``|x - D(z)| + kl_weight KL(q(z|x) || N(0, 1))``, where the weight is
   slight. By choice the squared error of a trained network's features comes to it (`extractor`), and the verdict
   of a discriminator of patches (`adversarial_weight`), against the blur.
2. Then these rest, and the U-Net of ddpm learns to tell the noise in ``(z - shift) scale`` (eq. 2). Both numbers
   are those of its first batch, so that latents have mean 0 and variance 1 (appendix G; the shift is ours).

The U-Net is told labels (`conditional`) by its embedding and captions by cross-attention (section 3.3, eq. 3),
both left out for a share of the images, for guidance.

Networks: `encoder` and `decoder`, by choice `discriminator`; `denoiser`, for captions `text_encoder`; `rescaling`,
which has the two numbers. The moving average is that of denoiser and text encoder, from the second part on.
Encoder and decoder are exported as they are, because it is their latents that the denoiser learned.
Exports: the graphs of ddpm, over latents; ``decoder``, and ``encoder``, the mean of q(z|x), for images to start
from. The small matrix that shows latents in a callback is fitted to what the decoder makes of made-up ones.

It does not: quantize latents (the paper's VQ variant), weigh the discriminator by gradients or begin it later, as
the paper's code does, learn both parts at once, or take the autoencoder of another run. The schedule of the
learning rates runs over both parts as over one.

The paper's model of LSUN churches: ``factor=8 latent_channels=4 autoencoder_channels=128 autoencoder_blocks=2
kl_weight=1e-6 channels=192 multipliers=[1,2,2,4,4] blocks=2 attention_heads=8 norm_groups=32``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.denoiser_family import DENOISER
from gensdk_training.family import Batch, Loss, Phase, network_of
from gensdk_training.graphs.autoencoder import Autoencoder, linear_preview
from gensdk_training.losses.adversarial import critic_loss, decided_right, generator_loss
from gensdk_training.losses.perceptual import load_features
from gensdk_training.networks.image_autoencoder import AutoencoderShape, Decoder, Encoder, MeanLatent
from gensdk_training.networks.patches import PatchDiscriminator, check_patches
from gensdk_training.networks.srresnet import Clamped
from gensdk_training.noise_family import NoiseConfig, NoiseFamily
from gensdk_training.registry import register

ENCODER, DECODER, DISCRIMINATOR, RESCALING = "encoder", "decoder", "discriminator", "rescaling"
AUTOENCODER = "autoencoder"
SMALLEST_SPREAD = 1e-4
"""Of latents: such that hardly differ are not blown up."""


class LdmConfig(NoiseConfig):
    """Settings of :class:`Ldm`, beside those of :class:`NoiseConfig`.

    steps: Training steps of both parts together.
    attention_resolutions: Heights, in latents, of the levels that attend; the middle block always does.
    autoencoder_steps: Steps of the first part, in which the autoencoder learns alone.
    factor: How many times smaller latents are than images, on each side.
    latent_channels: Values of each place of the latents.
    autoencoder_channels: Features of the autoencoder at full size, twice as many after a halving, up to 4 times.
    autoencoder_blocks: Residual blocks of the encoder at each size, and of the decoder.
    autoencoder_learning_rate: Step size of the optimizers of autoencoder and discriminator.
    kl_weight: Weight of the KL divergence of latents, in nats for each value of an image.
    extractor: Where features come from: FILE.safetensors of a classifier trained here, or vgg19:FILE.
    perceptual_weight: Weight of the squared error of features; without an extractor it has no effect.
    adversarial_weight: Weight of the discriminator's verdict; 0: there is none.
    discriminator_channels: Features after the discriminator's first layer.
    patch_layers: Halvings of the discriminator: 3 judge patches of 70x70 pixels, 2 of 34x34, 1 of 16x16.
    """

    steps: Annotated[int, Field(ge=1)] = 8000
    autoencoder_steps: Annotated[int, Field(ge=1)] = 2000
    factor: Literal[2, 4, 8, 16] = 2
    latent_channels: Annotated[int, Field(ge=1, le=256)] = 4
    autoencoder_channels: Annotated[int, Field(ge=1, le=65536)] = 16
    autoencoder_blocks: Annotated[int, Field(ge=1, le=64)] = 1
    autoencoder_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    kl_weight: Annotated[float, Field(ge=0)] = 1e-4
    extractor: str | None = None
    perceptual_weight: Annotated[float, Field(ge=0)] = 0.1
    adversarial_weight: Annotated[float, Field(ge=0)] = 0.0
    discriminator_channels: Annotated[int, Field(ge=1, le=65536)] = 32
    patch_layers: Annotated[int, Field(ge=1, le=5)] = 1


class Rescaling(nn.Module):
    """``(z - shift) scale``, with both as buffers, so that checkpoints keep them; a scale of 0 is none yet."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("shift", torch.zeros(()))

    @torch.no_grad()
    def measure(self, latents: Tensor) -> None:
        """Takes both from `latents` [B, C, h, w], unless there are some: all values alike, as in appendix G."""
        latents, known = latents.float(), self.scale > 0  # asked on the device: nothing waits for it
        spread = latents.std(unbiased=False).clamp_min(SMALLEST_SPREAD)
        self.shift.copy_(torch.where(known, self.shift, latents.mean()))
        self.scale.copy_(torch.where(known, self.scale, 1 / spread))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents of the encoder as the denoiser sees them."""
        return (latents - self.shift) * self.scale


@register("ldm")
class Ldm(NoiseFamily[LdmConfig]):
    """Denoising diffusion in the latent space of an autoencoder that is trained first."""

    title = "latent diffusion: an autoencoder, then a U-Net on its latents; labels, captions; guidance"
    paper = "Rombach et al. (2022), High-Resolution Image Synthesis with Latent Diffusion Models"
    Config = LdmConfig

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths, labels or an extractor don't go together."""
        config, data = self.config, self.data
        levels = len(config.multipliers)
        whole = config.factor * config.patch * 2 ** (levels - 1)
        if data.height % whole or data.width % whole:
            raise InputError(
                f"{self.name} with factor {config.factor}, {levels} multipliers and patch {config.patch} needs "
                f"height and width divisible by {whole}, got {data.height}x{data.width}; use less, or resize the "
                "data"
            )
        if config.autoencoder_channels % config.norm_groups:
            raise InputError(
                f"autoencoder_channels must be divisible by norm_groups, got {config.autoencoder_channels} and "
                f"{config.norm_groups}"
            )
        if self._judged:
            check_patches(data.height, data.width, config.patch_layers)
        if config.extractor is not None:
            load_features(config.extractor)
        super().check()

    @property
    def _judged(self) -> bool:
        """True with a discriminator."""
        return self.config.adversarial_weight > 0

    @property
    def denoised_shape(self) -> tuple[int, int, int]:
        """That of the latents."""
        factor = self.config.factor
        return (self.config.latent_channels, self.data.height // factor, self.data.width // factor)

    @property
    def averages_from(self) -> int:
        """The first step of the second part."""
        return self.config.autoencoder_steps

    @property
    def defaults(self) -> DiffusionSettings:
        """Without clipping: latents have no range."""
        return super().defaults.model_copy(update={"clip_sample": False})

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config = self.config
        if config.steps > config.autoencoder_steps:
            return ()
        return (
            f"steps {config.steps} end before the denoiser begins, at step {config.autoencoder_steps}: samples "
            "are noise; set more steps, or fewer autoencoder_steps",
        )

    def unfinished(self, networks: Mapping[str, nn.Module]) -> str | None:
        """Whether the denoiser has begun."""
        if float(network_of(networks, RESCALING, Rescaling).scale) > 0:
            return None
        return "the autoencoder alone has learned, samples are noise; train on beyond its autoencoder_steps"

    def build_networks(self) -> dict[str, nn.Module]:
        """Both parts' networks."""
        config, channels = self.config, self.data.channels
        shape = AutoencoderShape(
            image_channels=channels,
            latent_channels=config.latent_channels,
            halvings=config.factor.bit_length() - 1,
            channels=config.autoencoder_channels,
            blocks=config.autoencoder_blocks,
            norm_groups=config.norm_groups,
        )
        networks: dict[str, nn.Module] = {ENCODER: Encoder(shape), DECODER: Decoder(shape)}
        if self._judged:
            networks[DISCRIMINATOR] = PatchDiscriminator(
                channels, config.discriminator_channels, layers=config.patch_layers
            )
        return {**networks, **super().build_networks(), RESCALING: Rescaling()}

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator` where there is one, `autoencoder`, `denoiser`; :meth:`rests` says which have a turn."""
        (denoiser,), rate = super().phases(), self.config.autoencoder_learning_rate
        phases = (
            Phase(AUTOENCODER, (ENCODER, DECODER), rate),
            Phase(denoiser.name, (*denoiser.trains, RESCALING), denoiser.learning_rate),
        )
        return (Phase(DISCRIMINATOR, (DISCRIMINATOR,), rate, (0.5, 0.9)), *phases) if self._judged else phases

    def rests(self, phase: str, step: int) -> bool:
        """The denoiser rests in the first part, all others in the second."""
        return (step < self.config.autoencoder_steps) == (phase == DENOISER)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The autoencoder's loss, D's hinge loss of images and what becomes of them, or ddpm's loss on latents."""
        encoder = network_of(networks, ENCODER, Encoder)
        with torch.set_grad_enabled(phase == AUTOENCODER):
            latents, mean, log_variance = encoder.draw(batch.images)
            if phase != DENOISER:
                made = networks[DECODER](latents)
        if phase == DENOISER:
            rescaling = network_of(networks, RESCALING, Rescaling)
            rescaling.measure(latents)
            return self.denoising_loss(networks, batch, rescaling(latents))
        if phase == DISCRIMINATOR:
            on_real, on_fake = networks[DISCRIMINATOR](batch.images), networks[DISCRIMINATOR](made)
            right = decided_right(on_real, on_fake, game="vanilla")
            return Loss(critic_loss("hinge", on_real, on_fake), {"right": right})
        kl = (torch.exp(log_variance) - 1 - log_variance + mean.square()).flatten(1).sum(dim=1).mean() / 2
        error = (made - batch.images).abs().mean()
        total = error + self.config.kl_weight * kl / batch.images[0].numel()
        return Loss(total + self._looks(networks, made, batch.images), {"l1": error.detach(), "kl": kl.detach()})

    def _looks(self, networks: Mapping[str, nn.Module], made: Tensor, images: Tensor) -> Tensor:
        """The perceptual and the adversarial term, as far as they are chosen."""
        config, total = self.config, made.new_zeros(())
        if config.extractor is not None:
            features = load_features(config.extractor).to(images.device)
            total = total + config.perceptual_weight * functional.mse_loss(features(made), features(images))
        if self._judged:
            total = total + config.adversarial_weight * generator_loss("hinge", networks[DISCRIMINATOR](made))
        return total

    def around(self, networks: Mapping[str, nn.Module]) -> Autoencoder:
        """Decoder and encoder, with what was measured; before that with neither shift nor scale."""
        rescaling = network_of(networks, RESCALING, Rescaling)
        scale, shift = float(rescaling.scale) or 1.0, float(rescaling.shift)
        decoder = Clamped(networks[DECODER].eval())
        return Autoencoder(
            decoder,
            self.denoised_shape,
            MeanLatent(networks[ENCODER].eval()),
            scale=scale,
            shift=shift,
            preview=linear_preview(decoder, self.denoised_shape, scale=scale, shift=shift),
        )
