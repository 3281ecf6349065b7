"""How the models of music, of sound and of text were trained that are measured and shipped."""

from __future__ import annotations

from recipes import CAPTIONS, CHORALES, SPOKEN_DIGITS, Recipe

from gensdk_training.data.text_options import TextOptions

MUSIC_RECIPES: dict[str, Recipe] = {
    "chorales-musegan": Recipe(
        "musegan",
        CHORALES,
        {
            "neurons": "one_hot",
            "generator_channels": 16,
            "discriminator_channels": 24,
            "discriminator_steps": 3,
            "batch_size": 32,
            "steps": 1500,
            "lr_schedule": "linear",
            "ema_decay": 0.995,
        },
    ),
    "chorales": Recipe(
        "musicrnn",
        CHORALES,
        {"hidden": 176, "dropout": 0.1, "steps": 1000},
        loading={"whole": True, "transpose": 6},
        export={
            "defaults": {"top_p": 0.95},
            "half_weights": True,
            "golden_bytes": 64 * 1024,
            "notice": "Trained on chorales by J. S. Bach, which are in the public domain: 229 of the "
            "JSB-Chorales-dataset, in the split of Boulanger-Lewandowski et al. (2012).",
        },
    ),
}
"""Music: phrases of two bars in four voices, and whole pieces."""

SOUND_RECIPES: dict[str, Recipe] = {
    "spoken-digits-wavenet": Recipe("wavenet", SPOKEN_DIGITS, {"steps": 2400}, loading={"seconds": 0.8}),
}
"""Sounds: spoken digits, by digit and speaker; 54 of 2,700 are longer."""

TEXT_RECIPES: dict[str, Recipe] = {
    "captions": Recipe(
        "seqgan",
        CAPTIONS,
        {
            "embedding": 72,
            "hidden": 144,
            "dropout": 0.3,
            "learning_rate": 5e-3,
            "lr_schedule": "cosine",
            "likelihood_steps": 1500,
            "steps": 1500,
        },
        loading={"holdout": 0.1, "text": TextOptions(valid=0.1, min_count=5)},
        export={
            "defaults": {"top_p": 0.9},
            "half_weights": True,
            "golden_bytes": 64 * 1024,
            "notice": "Trained on captions of the COCO dataset (Lin et al. 2014, cocodataset.org), by the COCO "
            "Consortium, licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); turned to lower "
            "case, and rare words left out.",
        },
    ),
}
"""Texts: captions by maximum likelihood alone."""

EMBEDDED = ("digits-ddpm", "digits-dcgan", "digits-vae", "digits-pixelcnn", "chorales", "captions", "sprites")
"""Those that gensdk ships, of these recipes and those of images."""
