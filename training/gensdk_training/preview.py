"""Preview grids, drawn by the runtime's own programs over the live networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import image_grid
from gensdk_runtime.samples import Samples
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
) -> Samples:
    """`count` samples from live networks, which this switches to eval mode; classes take turns.

    The same seed gives the same noise at every step of a run, so previews can be compared.
    """
    plan = family.export_plan(networks)
    classes = plan.model.num_classes
    labels = [index % classes for index in range(count)] if classes else None
    with Generator.from_sessions(plan.model, torch_sessions(plan, device=device)) as generator:
        return generator.sample(count, seed=seed, label=labels, progress=False)


def draw_preview(samples: Samples, path: Path) -> NDArray[np.uint8]:
    """Saves `samples` as one grid and returns it: uint8 [H, W, C]."""
    samples.save(path, layout="grid")
    return image_grid(samples.images)
