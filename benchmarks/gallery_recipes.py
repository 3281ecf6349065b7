"""How the models of the gallery were trained: each family on scikit-learn's digits, or on sprites that are free to
publish, in about two minutes of one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes import LATENT_RECIPES, RECIPES
from translation_recipes import RECIPES as TRANSLATIONS
from translation_recipes import SPRITES

from gensdk_training.run_config import DataConfig, RunConfig

_CONVOLUTIONS = {"latent": 32, "generator_channels": 32, "discriminator_channels": 48, "ema_decay": 0.998}
_RATES = {"generator_learning_rate": 1e-3, "discriminator_learning_rate": 1e-3}
_FAST = {**_RATES, "beta1": 0.0, "lr_schedule": "linear"}
_LINEAR = {"latent": 32, "hidden": [256, 256], "ema_decay": 0.998, "lr_schedule": "linear"}

DIGITS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits-gan": ("gan", {**_LINEAR, "steps": 8000}),
    "digits-cgan": ("cgan", RECIPES["digits-cgan"].config),
    "digits-flow": ("flow", RECIPES["digits-flow"].config),
    "digits-ldm": ("ldm", RECIPES["digits-ldm"].config),
    "digits-pixelrnn": ("pixelrnn", RECIPES["digits-pixelrnn"].config),
    "digits-wgan": (
        "wgan",
        {
            **_CONVOLUTIONS,
            "generator_learning_rate": 5e-4,
            "discriminator_learning_rate": 5e-4,
            "clip": 0.03,
            "steps": 1200,
        },
    ),
    "digits-wgan-gp": ("wgan_gp", {**_CONVOLUTIONS, **_FAST, "steps": 1200}),
    "digits-sngan": ("sngan", {**_CONVOLUTIONS, **_FAST, "steps": 1200}),
    "digits-fgan": ("fgan", {**_LINEAR, "divergence": "squared_hellinger", "steps": 8000}),
    "digits-glo": (
        "glo",
        {
            "latent": 16,
            "channels": 24,
            "batch_size": 128,
            "ema_decay": 0.99,
            "lr_schedule": "cosine",
            "steps": 1000,
        },
    ),
    "digits-gon": ("gon", {"latent": 32, "lr_schedule": "cosine", "steps": 1500}),
    "digits-anogan": (
        "anogan",
        {
            "latent": 16,
            "generator_channels": 32,
            "discriminator_channels": 32,
            "spectral_norm": True,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "steps": 1500,
        },
    ),
    "digits-deepdream": ("deepdream", {"channels": [32, 64], "steps": 600}),
    "digits-stargan": (
        "stargan",
        {
            "channels": 32,
            "blocks": 3,
            "discriminator_steps": 2,
            "learning_rate": 5e-4,
            "cycle_weight": 20.0,
            "steps": 1500,
        },
    ),
}


def gallery_runs(data: Path | None) -> dict[str, RunConfig]:
    """The runs by name. `data`: the folder with dcss_tiles32/, for families that want colour images; None: without
    them."""
    runs = {name: _run(family, DataConfig(source="digits"), config) for name, (family, config) in DIGITS.items()}
    runs |= {name: recipe.run_config() for name, recipe in LATENT_RECIPES.items() if recipe.data == "digits"}
    runs["gaussians-wgan-gp"] = _run(
        "wgan_gp",
        DataConfig(source="25gaussians"),
        {
            **{"hidden": [128, 128, 128], "latent": 2, "ema_decay": 0.99, "batch_size": 256, "steps": 2500},
            **{**_RATES, "beta1": 0.5},
        },
    )
    if data is None:
        return runs
    sprites = str(data / SPRITES)
    grey = DataConfig(source=sprites, channels=3, inputs=sprites, input_channels=1, holdout=0.1, labels="none")
    small = {"channels": 24, "patch_layers": 2, "batch_size": 8}
    runs["sprites-pix2pix"] = _run("pix2pix", grey, {**small, "steps": 1500})
    unpaired = grey.model_copy(update={"paired": False})
    runs["sprites-cyclegan"] = _run(
        "cyclegan",
        unpaired,
        {
            **{**small, "blocks": 3, "channels": 16, "batch_size": 2},
            **{"steps": 5000, "learning_rate": 5e-4, "ema_decay": 0.995},
        },
    )
    runs["sprites-srgan"] = TRANSLATIONS["srresnet-x2"].run_config(data, Path(), steps=1500)
    return runs


def _run(family: str, data: DataConfig, config: dict[str, Any]) -> RunConfig:
    return RunConfig(
        family=family, data=data, config=config, log_every=200, checkpoint_every=1000, preview_every=0
    )
