"""What the autoencoder is kept to show, against the VAE; and the way back of every family that has one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.generator import Generator
from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data
from gensdk_training.family import Batch
from gensdk_training.optim import make_optimizer
from gensdk_training.registry import get_family
from gensdk_training.torch_backend import torch_sessions

CONFIG: dict[str, Any] = {"latent": 16, "hidden": [128]}


def _trained(name: str, data: ArrayDataset, images: torch.Tensor, steps: int = 500) -> Generator:
    family_class = get_family(name)
    gaussian = {"likelihood": "gaussian", "sigma": 0.3} if name == "vae" else {}
    family = family_class(family_class.Config.from_dict({**CONFIG, **gaussian}, what="config"), data.info)
    torch.manual_seed(0)
    networks = family.build_networks()
    (phase,) = family.phases()
    optimizer = make_optimizer(phase, networks)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (64,))]
        optimizer.zero_grad()
        torch.autograd.backward(family.loss(phase.name, networks, Batch(batch)).total)
        optimizer.step()
    plan = family.export_plan(networks)
    return Generator.from_sessions(plan.model, torch_sessions(plan))


@pytest.mark.slow
def test_an_autoencoder_reconstructs_better_and_samples_worse_than_a_vae() -> None:
    """Worse: farther from the nearest image that is real."""
    data, test = load_data("digits"), load_data("digits", split="test")
    assert isinstance(data, ArrayDataset)
    assert isinstance(test, ArrayDataset)
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    unseen = test.images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    real = images.flatten(1).numpy()
    errors, distances = {}, {}
    for name in ("ae", "vae"):
        with _trained(name, data, images) as generator:
            errors[name] = float(np.square(generator.reconstruct(unseen).array - unseen).mean())
            samples = generator.sample(300, seed=0, progress=False).array.reshape(300, 1, -1)
            distances[name] = float(np.square(samples - real).sum(axis=2).min(axis=1).mean())
    assert errors["ae"] < errors["vae"]
    assert distances["ae"] > distances["vae"]
