"""Preview pictures, drawn by the runtime's own programs over the live networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import encode_image, write_atomically
from gensdk_runtime.samples import Samples
from gensdk_training.examples import Examples
from gensdk_training.registry import AnyFamily
from gensdk_training.torch_backend import torch_sessions

PREVIEW_SEED = 0


def sample_networks(
    family: AnyFamily,
    networks: Mapping[str, nn.Module],
    count: int,
    *,
    seed: int = PREVIEW_SEED,
    device: torch.device | str = "cpu",
    examples: Examples | None = None,
) -> Samples:
    """`count` samples from live networks, which this switches to eval mode; classes take turns.

    The same seed gives the same noise at every step of a run, so previews can be compared. A family that makes
    images from others or from sounds starts from the sources of `examples` (at most so many), or from made-up
    ones.
    """
    plan = family.export_plan(networks)
    sources: dict[str, Any] = {}
    if examples is not None:
        sources = {name: values[:count] for name, values in examples.arguments.items()}
    count = len(examples.sources[:count]) if examples is not None else count
    asked: dict[str, Any] = {**examples_of(plan.model, count), **sources}
    captions = None if family.data.captions is None else family.data.captions.examples
    if captions and "prompt" in asked:
        asked["prompt"] = [captions[place % len(captions)] for place in range(count)]
    with Generator.from_sessions(plan.model, torch_sessions(plan, device=device), plan.files) as generator:
        return generator.sample(count, seed=seed, progress=False, **asked)


@dataclass(frozen=True)
class Preview:
    """`picture`: the grid, uint8 [H, W, C]; `samples`: the samples in it."""

    picture: NDArray[np.uint8]
    samples: Samples


def draw_preview(
    family: AnyFamily,
    networks: Mapping[str, nn.Module],
    path: Path,
    *,
    count: int,
    examples: Examples | None,
    device: torch.device | str = "cpu",
) -> Preview:
    """Saves samples as one picture, translations beside their sources, and returns both."""
    samples = sample_networks(family, networks, count, device=device, examples=examples)
    picture = samples.picture() if examples is None else examples.picture(samples.images)
    write_atomically(path, encode_image(picture, ".png", samples.settings))
    return Preview(picture, samples)
