"""How the models were trained that are told texts, and make images."""

from __future__ import annotations

from recipes import SPRITES, Recipe

PROMPTED_RECIPES: dict[str, Recipe] = {
    "sprites": Recipe(
        "ddpm",
        SPRITES,
        {
            "patch": 2,
            "channels": 48,
            "multipliers": [1, 2],
            "attention_resolutions": [8],
            "attention_heads": 4,
            "prediction_type": "v_prediction",
            "schedule": "cosine",
            "loss_weighting": "min_snr",
            "text_features": 96,
            "learning_rate": 1e-3,
            "ema_decay": 0.999,
            "batch_size": 32,
            "steps": 11000,
        },
        loading={"labels": "labels", "captions": "captions", "holdout": 0.05, "augment": ("flip",)},
        export={
            "half_weights": True,
            "defaults": {"solver": "dpmsolver++", "num_inference_steps": 20, "guidance_scale": 3.0},
            "golden_bytes": 256 * 1024,
            "notice": "Trained on tiles of Dungeon Crawl Stone Soup (https://crawl.develz.org), which their "
            "authors gave into the public domain (CC0 1.0): monsters, items and parts of dungeons, 32x32.",
        },
    ),
}
"""Sprites by their captions: about 80 minutes on one core."""
