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

    `share_features`: how many blocks a shallow step of the exported model has; 0: there is none.
    """

    family: str
    data: str
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    share_features: int = 0

    def run_config(self, mnist: Path | None = None) -> RunConfig:
        """The run to train; `mnist` is the folder with MNIST's idx files."""
        source = f"mnist:{mnist}" if self.data == "mnist" else self.data
        return RunConfig(
            family=self.family,
            data=DataConfig(source=source),
            config=self.config,
            seed=self.seed,
            log_every=200,
            checkpoint_every=1000,
            preview_every=0,
        )


RECIPES: dict[str, Recipe] = {
    "digits-ddpm": Recipe("ddpm", "digits", {"conditional": True}, share_features=1),
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
    "mnist-vae": Recipe(
        "vae",
        "mnist",
        {"latent": 32, "hidden": [512, 256], "batch_size": 128, "steps": 8000, "lr_schedule": "cosine"},
    ),
}
"""The four embedded bundles (digits), and the model of the MNIST gate."""

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
    "mnist-sgan": Recipe(
        "sgan",
        "mnist",
        {
            "labels": 100,
            "generator_channels": 24,
            "classifier_channels": 24,
            "learning_rate": 1e-3,
            "ema_decay": 0.99,
            "steps": 900,
        },
    ),
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
"""What benchmarks/latents.py measures."""
