"""How the translation models that are measured were trained: each within 15 minutes on two quiet cores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gensdk_training.data.augment import Augmentation
from gensdk_training.data.domains import domains_of
from gensdk_training.run_config import DataConfig, RunConfig

EMOJI = "emoji_pairs/openmoji64_pairs.npz"
OTHER_EMOJI = "emoji_pairs/twemoji64.npz"
MNIST = "mnist"
SPRITES = "dcss_tiles32/dcss_tiles32_rgba.npz"


@dataclass(frozen=True)
class TranslationRecipe:
    """A run by name. `images` and `inputs` are files under the folder of data, ``FILE.npz:KEY``, ``mnist``, or for
    domains ``NAME=FILE.npz:KEY,...``.

    `channels` of the images, where they are not taken as they are. `start_from` names another recipe whose run it
    begins with.
    """

    family: str
    images: str
    inputs: str | None = None
    paired: bool = True
    holdout: float = 0.1
    augment: tuple[Augmentation, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    channels: Literal[1, 3, 4] | None = None
    start_from: str | None = None

    def data(self, folder: Path) -> DataConfig:
        """Its data under `folder`."""
        return DataConfig(
            source=self._source(folder),
            labels="none" if self.family == "srgan" else "auto",
            channels=self.channels,
            holdout=0.0 if self.images == MNIST else self.holdout,
            inputs=None if self.inputs is None else str(folder / self.inputs),
            paired=self.paired,
            augment=self.augment,
        )

    def _source(self, folder: Path) -> str:
        if self.images == MNIST:
            return f"mnist:{folder / MNIST}"
        domains = domains_of(self.images)
        named = ",".join(f"{name}={folder / part}" for name, part in domains)
        return named or str(folder / self.images)

    def run_config(self, folder: Path, runs: Path, **more: Any) -> RunConfig:
        """The run to train, with `more` settings of the family."""
        begun = {} if self.start_from is None else {"start_from": str((runs / self.start_from).absolute())}
        return RunConfig(
            family=self.family,
            data=self.data(folder),
            config={**self.config, **begun, **more},
            log_every=200,
            checkpoint_every=500,
            preview_every=500,
        )


_PIX2PIX = {"channels": 32, "patch_layers": 2, "batch_size": 4, "steps": 4000}
_CYCLEGAN = {"channels": 24, "blocks": 6, "patch_layers": 2, "batch_size": 1, "steps": 4000}
# A critic of gradient norm 1 over a whole image outweighs the mean over its pixels ten times at the paper's weight
# of 10: in hours that evens out, in these minutes G would never learn to keep the picture.
_STARGAN = {
    **{"channels": 16, "blocks": 4, "batch_size": 4, "steps": 3500, "discriminator_steps": 2},
    **{"learning_rate": 5e-4, "cycle_weight": 50.0, "class_weight": 2.0},
}
_DOMAINS = f"openmoji={EMOJI}:color,twemoji={OTHER_EMOJI}:color,outline={EMOJI}:outline"
_SRGAN = {"scale": 4, "blocks": 8, "batch_size": 32}
_SRRESNET = {"objective": "mse", "learning_rate": 5e-4, "lr_schedule": "cosine"}
_TWICE = {"scale": 2, "blocks": 8, "channels": 32, "discriminator_channels": 32, "batch_size": 16}


def _pix2pix(objective: str) -> TranslationRecipe:
    config = {**_PIX2PIX, "objective": objective}
    return TranslationRecipe("pix2pix", f"{EMOJI}:color", f"{EMOJI}:outline", augment=("flip",), config=config)


def _cyclegan(**config: Any) -> TranslationRecipe:
    images, inputs = f"{OTHER_EMOJI}:color", f"{EMOJI}:color"
    return TranslationRecipe(
        "cyclegan", images, inputs, paired=False, augment=("flip",), config={**_CYCLEGAN, **config}
    )


RECIPES: dict[str, TranslationRecipe] = {
    "pix2pix": _pix2pix("both"),
    "pix2pix-l1": _pix2pix("l1"),
    "pix2pix-gan": _pix2pix("gan"),
    "cyclegan": _cyclegan(),
    "cyclegan-without-cycle": _cyclegan(cycle_weight=0.0),
    "stargan": TranslationRecipe("stargan", _DOMAINS, augment=("flip",), config=_STARGAN),
    "srresnet": TranslationRecipe("srgan", MNIST, config={**_SRGAN, "steps": 3000, **_SRRESNET}),
    "srgan": TranslationRecipe(
        "srgan", MNIST, config={**_SRGAN, "objective": "gan", "steps": 600}, start_from="srresnet"
    ),
    "srresnet-x2": TranslationRecipe(
        "srgan", SPRITES, config={**_TWICE, "steps": 4000, **_SRRESNET}, augment=("flip",), channels=3
    ),
    "srgan-x2": TranslationRecipe(
        "srgan",
        SPRITES,
        config={**_TWICE, "objective": "gan", "steps": 1000},
        augment=("flip",),
        channels=3,
        start_from="srresnet-x2",
    ),
}
