"""How the models that are measured and shipped were trained: family, data and settings, each once.

All are for one or two CPU cores and a few minutes. ``gensdk train FAMILY --data ... --set key=value`` does the
same by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gensdk_training.run_config import DataConfig, RunConfig


@dataclass(frozen=True)
class Recipe:
    """A model by name: its family, its data by name, and the settings that differ from the defaults.

    `only`: the classes it is trained on; none: all. `loading`: how the data is loaded beside, as
    :class:`DataConfig` has it; `export`: what of :class:`ExportOptions` the embedded bundle has. `inputs`: the
    data, by name, that these data are made from.
    """

    family: str
    data: str
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    only: tuple[str, ...] = ()
    loading: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=lambda: {"fp16": True})
    inputs: str | None = None

    def run_config(
        self,
        mnist: Path | None = None,
        chorales: Path | None = None,
        spoken_digits: Path | None = None,
        captions: Path | None = None,
        sprites: Path | None = None,
        *,
        drawn_faces: Path | None = None,
    ) -> RunConfig:
        """The run to train; `mnist` is the folder with MNIST's idx files, `chorales` the file of the chorales,
        `spoken_digits` the archive or folder of the Free Spoken Digit Dataset, `captions` the file of captions,
        `sprites` what benchmarks/sprites.py wrote, `drawn_faces` the folder of benchmarks/drawn_faces.py."""
        paths = {
            "mnist": f"mnist:{mnist}",
            CHORALES: str(chorales),
            SPOKEN_DIGITS: f"fsdd:{spoken_digits}",
            CAPTIONS: str(captions),
            SPRITES: str(sprites),
            DRAWN_FACES: f"{drawn_faces}/train.npz",
        }
        inputs = None if self.inputs is None else paths[self.inputs]
        if self.inputs == DRAWN_FACES:
            inputs = f"{inputs}:stills"
        return RunConfig(
            family=self.family,
            data=DataConfig(
                source=paths.get(self.data, self.data),
                inputs=inputs,
                only=self.only,
                **self.loading,
            ),
            config=self.config,
            seed=self.seed,
            log_every=200,
            checkpoint_every=1000,
            preview_every=0,
        )


SPOKEN_DIGITS = "spoken-digits"
"""In place of a path: the Free Spoken Digit Dataset."""
CHORALES = "chorales"
"""In place of a path: the four voices of J. S. Bach's chorales, ``Jsb16thSeparated.json``."""
SPRITES = "sprites"
DRAWN_FACES = "drawn-faces"
"""In place of a path: faces drawn to spoken digits."""
CAPTIONS = "captions"
"""In place of a path: 10,000 captions of COCO's images, a line each, ``image_coco.txt``."""

_SMALL_UNET = {"conditional": True, "multipliers": [1, 2, 4], "blocks": 1, "steps": 4000, "lr_schedule": "cosine"}

RECIPES: dict[str, Recipe] = {
    "digits-ddpm": Recipe("ddpm", "digits", {"conditional": True}, export={"fp16": True, "share_features": 1}),
    "digits-flow": Recipe("flow", "digits", {"conditional": True}),
    "digits-ldm": Recipe("ldm", "digits", {"conditional": True, "autoencoder_steps": 1000, "steps": 5000}),
    "mnist-ddpm": Recipe("ddpm", "mnist", _SMALL_UNET),
    "mnist-flow": Recipe("flow", "mnist", _SMALL_UNET),
    "digits-dcgan": Recipe(
        "dcgan",
        "digits",
        {
            "conditional": True,
            "spectral_norm": True,
            "latent": 32,
            "generator_channels": 32,
            "discriminator_channels": 48,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "beta1": 0.0,
            "steps": 3000,
            "lr_schedule": "linear",
            "ema_decay": 0.998,
        },
    ),
    "digits-cgan": Recipe(
        "cgan",
        "digits",
        {
            "latent": 32,
            "generator_channels": 32,
            "discriminator_channels": 48,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "steps": 2500,
            "lr_schedule": "linear",
            "ema_decay": 0.998,
        },
    ),
    "digits-vae": Recipe(
        "vae",
        "digits",
        {
            "conditional": True,
            "latent": 16,
            "hidden": [256, 128],
            "likelihood": "gaussian",
            "sigma": 0.3,
            "steps": 4000,
            "lr_schedule": "cosine",
        },
    ),
    "digits-pixelcnn": Recipe(
        "pixelcnn",
        "digits",
        {"conditional": True, "layers": 6, "channels": 18, "learning_rate": 4e-3, "steps": 1200},
    ),
    "digits-pixelrnn": Recipe(
        "pixelrnn",
        "digits",
        {"conditional": True, "layers": 3, "channels": 20, "learning_rate": 4e-3, "steps": 1200},
    ),
    "mnist-vae": Recipe(
        "vae",
        "mnist",
        {"latent": 32, "hidden": [512, 256], "batch_size": 128, "steps": 8000, "lr_schedule": "cosine"},
    ),
}
"""Models of images from noise: the four embedded bundles, a flow beside each ddpm, a cgan, a PixelRNN with as many
parameters and steps as the PixelCNN (43 thousand), a VAE of MNIST."""


LATENT_RECIPES: dict[str, Recipe] = {
    "digits-ae": Recipe(
        "ae", "digits", {"latent": 16, "hidden": [256, 128], "steps": 4000, "lr_schedule": "cosine"}
    ),
    "digits-plain-vae": Recipe(
        "vae",
        "digits",
        {
            "latent": 16,
            "hidden": [256, 128],
            "likelihood": "gaussian",
            "sigma": 0.3,
            "steps": 4000,
            "lr_schedule": "cosine",
        },
    ),
    "digits-gmm": Recipe("gmm", "digits", {"components": 30, "batch_size": 1437, "steps": 40}),
    "digits-bigan": Recipe(
        "bigan",
        "digits",
        {
            "architecture": "conv",
            "latent": 16,
            "channels": 32,
            "discriminator_channels": 48,
            "learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "beta1": 0.0,
            "steps": 3000,
            "lr_schedule": "linear",
            "ema_decay": 0.998,
        },
    ),
    "mnist-glo": Recipe(
        "glo",
        "mnist",
        {
            "latent": 32,
            "channels": 24,
            "batch_size": 128,
            "ema_decay": 0.99,
            "lr_schedule": "cosine",
            "steps": 10000,  # each image has its own latent, which must be met some twenty times
        },
    ),
    "mnist-gon": Recipe("gon", "mnist", {"latent": 32, "batch_size": 64, "lr_schedule": "cosine", "steps": 6000}),
    "digits-sgan": Recipe("sgan", "digits", {"labels": 100, "noise": 0.3, "steps": 6000}),
    "mnist-sgan": Recipe("sgan", "mnist", {"labels": 100, "steps": 15000}),
    "digits-progan": Recipe(
        "progan",
        "digits",
        {
            "latent": 16,
            "channels": 16,
            "max_channels": 32,
            "hold_steps": 150,
            "fade_steps": 150,
            "critic_steps": 4,
            "batch_size": 32,
            "ema_decay": 0.99,
            "steps": 1800,
        },
    ),
}
"""Models with a latent for each image, and semi-supervised GANs."""

_POINTS = {"hidden": [128, 128, 128], "latent": 2, "ema_decay": 0.99, "batch_size": 256}
_GAME = {
    **_POINTS,
    "batch_size": 240,  # a multiple of the packing
    "steps": 12000,
    "generator_learning_rate": 5e-4,
    "discriminator_learning_rate": 5e-4,
}
_UNBALANCED = {
    **_GAME,
    "generator_learning_rate": 1e-3,
    "discriminator_learning_rate": 2e-4,
    "lr_schedule": "linear",
}
"""G learns five times as fast as D, which a plain GAN pays for with its modes."""

POINT_RECIPES: dict[str, Recipe] = {
    "gaussians-gan": Recipe("gan", "25gaussians", _GAME),
    "gaussians-pacgan": Recipe("gan", "25gaussians", {**_GAME, "packing": 3}),
    "gaussians-gan-unbalanced": Recipe("gan", "25gaussians", _UNBALANCED),
    "gaussians-pacgan-unbalanced": Recipe("gan", "25gaussians", {**_UNBALANCED, "packing": 3}),
    "gaussians-wgan": Recipe(
        "wgan",
        "25gaussians",
        {**_POINTS, "steps": 3000, "generator_learning_rate": 5e-4, "discriminator_learning_rate": 5e-4},
    ),
    "gaussians-wgan-gp": Recipe(
        "wgan_gp",
        "25gaussians",
        {
            **_POINTS,
            "steps": 5500,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "beta1": 0.0,
            "ema_decay": 0.997,
        },
    ),
    "gaussians-sngan": Recipe(
        "sngan",
        "25gaussians",
        {
            **_POINTS,
            "steps": 6000,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "lr_schedule": "linear",
            "ema_decay": 0.997,
        },
    ),
}
"""GANs of points with networks of one size. WGAN-GP's settings were chosen for its gate, SNGAN's from two;
the others are near their papers' and were not tuned."""

_ANOGAN = {
    "latent": 32,
    "generator_channels": 24,
    "discriminator_channels": 24,
    "encoder_channels": 16,
    "spectral_norm": True,
    "generator_learning_rate": 1e-3,
    "discriminator_learning_rate": 1e-3,
    "beta1": 0.0,
    "ema_decay": 0.995,
    "steps": 900,
}

ANOMALY_RECIPES: dict[str, Recipe] = {
    f"mnist-anogan-{digit}": Recipe("anogan", "mnist", _ANOGAN, only=(str(digit),)) for digit in range(10)
}
"""For each digit a model that knows no other."""
