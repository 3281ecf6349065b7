"""A tiny diffusion model of captioned images, for laws of prompts."""

from __future__ import annotations

from typing import Any

import torch

from gensdk_runtime.text.vocabulary import SpecialTokens
from gensdk_runtime.text.words import Words
from gensdk_training.captions import CaptionInfo
from gensdk_training.families.ddpm import Ddpm, DdpmConfig
from gensdk_training.family import DataInfo
from gensdk_training.plan import ExportPlan

WORDS = ("<pad>", "<begin>", "<end>", "<unknown>", "red", "green", "blue", "dragon", "ring", "wall")
LENGTH = 4
CAPTIONS = CaptionInfo(
    length=LENGTH,
    vocabulary=Words(tokens=WORDS, special=SpecialTokens(pad=0, begin=1, end=2, unknown=3), lower_case=True),
    examples=("red dragon", "green ring"),
)


def family(*, classes: int | None = None, **config: Any) -> Ddpm:
    """A family for 8x8 grey images with captions, and labels where there are `classes`."""
    data = DataInfo(name="toy", channels=1, height=8, width=8, count=10, num_classes=classes, captions=CAPTIONS)
    small = {"channels": 8, "blocks": 1, "text_features": 8, "conditional": classes is not None, **config}
    return Ddpm(DdpmConfig.from_dict(small, what="config"), data)


def plan(*, classes: int | None = None, **config: Any) -> ExportPlan:
    """Its export plan, with weights that listen to what they are told."""
    built = family(classes=classes, **config)
    torch.manual_seed(0)
    networks = built.build_networks()
    with torch.no_grad():
        for name, parameter in networks["denoiser"].named_parameters():
            if ".cross.project" in name:
                parameter.mul_(5.0)
    return built.export_plan(networks)
