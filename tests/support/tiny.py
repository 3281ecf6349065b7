"""Every registered family, small enough that a test trains it in a moment; a new one is found by itself."""

from __future__ import annotations

from typing import Any

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.family import DataInfo, SourceInfo
from gensdk_training.registry import families, get_family
from gensdk_training.run_config import DataConfig, RunConfig
from support.captions import captioned_digits, captioned_digits_file
from support.music import phrases, voices_file
from support.short_sounds import short_sounds, short_sounds_folder
from support.short_texts import short_texts, short_texts_file, styled_texts, styled_texts_file
from support.talking import talking_digits, talking_digits_file

CONVOLUTIONS = {"latent": 8, "generator_channels": 8, "discriminator_channels": 8, "discriminator_steps": 2}

TEXTS = {"embedding": 8, "hidden": 16}

SETTINGS: dict[str, dict[str, Any]] = {
    "ae": {"latent": 4, "hidden": [32]},
    "anogan": {
        "latent": 8,
        "generator_channels": 8,
        "discriminator_channels": 8,
        "encoder_channels": 8,
        "spectral_norm": True,
    },
    "bigan": {"latent": 4, "hidden": [32], "discriminator_hidden": 32},
    "cgan": CONVOLUTIONS,
    "cyclegan": {"channels": 4, "blocks": 1, "patch_layers": 1, "pool": 4},
    "dcgan": {"latent": 8, "generator_channels": 8, "discriminator_channels": 8},
    "ddpm": {"channels": 8, "norm_groups": 4, "num_train_timesteps": 50},
    "deepdream": {"channels": [8, 8]},
    "fgan": {"latent": 4, "hidden": [32]},
    "flow": {"channels": 8, "norm_groups": 4, "num_train_timesteps": 50},
    "gan": {"latent": 4, "hidden": [32], "packing": 2},
    "glo": {"channels": 8, "latent": 8},
    "gmm": {"components": 3},
    "gon": {"hidden": [32], "latent": 8},
    "ldm": {
        "channels": 16,
        "norm_groups": 4,
        "num_train_timesteps": 50,
        "autoencoder_channels": 8,
        "autoencoder_steps": 3,
    },
    "musegan": {"latent": 4, "generator_channels": 2, "discriminator_channels": 4, "discriminator_steps": 2},
    "musicrnn": {"embedding": 4, "hidden": 12, "head": 8, "warmup_steps": 2},
    "pix2pix": {"channels": 8, "patch_layers": 1},
    "pixelcnn": {"layers": 2, "channels": 8, "head_channels": 8, "first_kernel": 3},
    "pixelrnn": {"layers": 2, "channels": 4, "head_channels": 8, "first_kernel": 3},
    "progan": {"channels": 4, "latent": 4, "hold_steps": 2, "fade_steps": 2},
    "scratchgan": {**TEXTS, "discriminator_embedding": 8, "discriminator_hidden": 8},
    "seqgan": {
        **TEXTS,
        "likelihood_steps": 2,
        "discriminator_steps": 1,
        "rollouts": 2,
        "updates": 2,
        "filters": 4,
    },
    "sgan": {"latent": 4, "generator_hidden": [16], "classifier_hidden": [32, 16], "labels": 20},
    "sngan": CONVOLUTIONS,
    "sound2image": {
        "latent": 8,
        "bands": 8,
        "listener_channels": 4,
        "viewer_channels": 4,
        "features": 8,
        "generator_channels": 8,
        "discriminator_channels": 8,
        "matching_steps": 3,
    },
    "srgan": {"channels": 8, "blocks": 2, "scale": 2, "discriminator_channels": 8, "patch_layers": 1},
    "stargan": {"channels": 4, "blocks": 1, "discriminator_steps": 2},
    "talkinghead": {
        "bands": 8,
        "listener_channels": 4,
        "viewer_channels": 4,
        "features": 8,
        "channels": 4,
        "sync_steps": 3,
    },
    "text2image": {
        "latent": 8,
        "text_features": 8,
        "viewer_channels": 4,
        "features": 8,
        "generator_channels": 8,
        "discriminator_channels": 8,
        "matching_steps": 3,
    },
    "textstyle": {
        "features": 8,
        "heads": 2,
        "layers": 1,
        "discriminator_embedding": 8,
        "filters": 4,
        "rewriting_steps": 3,
        "warmup_steps": 0,
    },
    "vae": {"latent": 4, "hidden": [32]},
    "wavenet": {
        "layers": 3,
        "channels": 4,
        "skip_channels": 8,
        "condition_channels": 4,
        "frame": 5,
        "warmup_steps": 2,
    },
    "wgan": {"latent": 4, "hidden": [32], "discriminator_steps": 2, "architecture": "mlp"},
    "wgan_gp": CONVOLUTIONS,
}

POINTS = {"latent": 4, "hidden": [32], "architecture": "mlp"}
"""Settings of a family that makes points."""

FAMILIES = tuple(families())
POINT_FAMILIES = tuple(name for name, family in families().items() if "points" in family.makes)
MUSIC_FAMILIES = tuple(name for name, family in families().items() if "piano rolls" in family.makes)
IMAGE_FAMILIES = tuple(name for name, family in families().items() if "images" in family.makes)
SOUND_FAMILIES = tuple(name for name, family in families().items() if "sounds" in family.makes)
TEXT_FAMILIES = tuple(name for name, family in families().items() if "texts" in family.makes)
STYLE_FAMILIES = tuple(name for name in TEXT_FAMILIES if get_family(name).needs_labels)
"""Families of texts that make others of them."""


def tiny_run(family: str, *, steps: int = 6, source: str = "digits", **run: Any) -> RunConfig:
    """A run of `steps` on 16 images a step, without previews unless asked for."""
    config = {"batch_size": 16, "steps": steps, **SETTINGS.get(family, {}), **run.pop("config", {})}
    data = tiny_data(family, source)
    return RunConfig(family=family, data=data, config=config, **{"preview_every": 0, **run})


def tiny_points(family: str, *, steps: int = 6, **run: Any) -> RunConfig:
    """As :func:`tiny_run`, on points in the plane."""
    config = {"batch_size": 16, "steps": steps, **POINTS, **run.pop("config", {})}
    return RunConfig(
        family=family, data=DataConfig(source="8gaussians"), config=config, **{"preview_every": 0, **run}
    )


def tiny_data(family: str, source: str = "digits") -> DataConfig:
    """The images of `source`, for a family that translates them from themselves; or what the family makes."""
    if family in MUSIC_FAMILIES:
        return DataConfig(source=str(voices_file()))
    if family in SOUND_FAMILIES:
        return DataConfig(source=str(short_sounds_folder()))
    if family in STYLE_FAMILIES:
        return DataConfig(source=str(styled_texts_file()))
    if family in TEXT_FAMILIES:
        return DataConfig(source=str(short_texts_file()))
    if get_family(family).needs_captions:
        return DataConfig(source=str(captioned_digits_file()), captions="captions")
    kind = get_family(family).starts_from
    if kind == "faces":
        path = str(talking_digits_file())
        return DataConfig(source=path, inputs=f"{path}:stills", sounds="sounds")
    if kind == "sounds":
        return DataConfig(source=source, inputs=str(short_sounds_folder()))
    if kind in ("pairs", "collections"):
        return DataConfig(source=source, inputs=source, paired=kind == "pairs")
    return DataConfig(source=source)


def with_source(family: str, info: DataInfo) -> DataInfo:
    """`info` with the images that `family` starts from, like those that it makes; or of what it makes."""
    if family in MUSIC_FAMILIES:
        return phrases().info
    if family in SOUND_FAMILIES:
        return short_sounds().info
    if family in TEXT_FAMILIES:
        return (styled_texts() if family in STYLE_FAMILIES else short_texts()).info
    if get_family(family).needs_captions:
        return info.model_copy(update={"captions": captioned_digits().info.captions})
    kind = get_family(family).starts_from
    if kind == "sounds":
        sounds = short_sounds().info
        source = SourceInfo(
            channels=1, height=sounds.height, width=1, count=sounds.count, paired=True, audio=sounds.audio
        )
        return info.model_copy(update={"source": source})
    if kind not in ("pairs", "collections", "faces"):
        return info
    source = SourceInfo(
        channels=info.channels,
        height=info.height,
        width=info.width,
        count=info.count,
        paired=kind != "collections",
    )
    window = talking_digits().info.window if kind == "faces" else None
    return info.model_copy(update={"source": source, "window": window})


def given(model: ModelSpec, n: int) -> dict[str, Any]:
    """Arguments that `model` needs for `n` samples: labels in turn, images to translate."""
    return dict(examples_of(model, n))
