"""Every registered family, small enough that a test trains it in a moment; a new one is found by itself."""

from __future__ import annotations

from typing import Any

from gensdk_training.registry import families
from gensdk_training.run_config import DataConfig, RunConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "dcgan": {"latent": 8, "generator_channels": 8, "discriminator_channels": 8},
    "ddpm": {"channels": 8, "norm_groups": 4, "num_train_timesteps": 50},
    "pixelcnn": {"layers": 2, "channels": 8, "head_channels": 8, "first_kernel": 3},
    "vae": {"latent": 4, "hidden": [32]},
}

FAMILIES = tuple(families())


def tiny_run(family: str, *, steps: int = 6, source: str = "digits", **run: Any) -> RunConfig:
    """A run of `steps` on 16 images a step, without previews unless asked for."""
    config = {"batch_size": 16, "steps": steps, **SETTINGS.get(family, {}), **run.pop("config", {})}
    return RunConfig(family=family, data=DataConfig(source=source), config=config, **{"preview_every": 0, **run})
