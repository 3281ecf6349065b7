"""diffusers' U-Net in parts, as benchmarks/workloads has it, is diffusers' U-Net."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

SOURCE = Path(__file__).parents[2] / "benchmarks" / "workloads" / "diffusers_unet.py"


@pytest.fixture(scope="module")
def workload() -> Any:
    """The module, from its file: benchmarks are not installed."""
    spec = importlib.util.spec_from_file_location("diffusers_unet", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unet(**config: Any) -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=8, in_channels=3, out_channels=3, norm_num_groups=4, attention_head_dim=4, **config
        ).eval()


CONFIGS: dict[str, dict[str, Any]] = {
    "ddpm": {
        "layers_per_block": 2,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "attention at the top": {
        "layers_per_block": 1,
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
    },
}


@pytest.mark.parametrize("config", CONFIGS)
def test_each_way_of_putting_it_together_gives_the_same(config: str, workload: Any) -> None:
    network = unet(**CONFIGS[config])
    parts = workload.DiffusersUNet(network)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for timestep in (torch.tensor([17]), torch.tensor([3, 998])):
            expected = network(x, timestep, return_dict=False)[0]
            embedding = parts.embed(timestep)
            assert embedding.shape == (len(timestep), parts.embedding_size)
            torch.testing.assert_close(parts(x, timestep), expected, atol=1e-5, rtol=0)
            for depth in range(1, parts.max_depth + 1):
                full, features = parts.denoise_sharing(x, embedding, depth=depth)
                shallow = parts.denoise_shallow(x, embedding, features, depth=depth)
                assert features.shape[1:] == parts.features(8, 8, depth=depth)
                torch.testing.assert_close(full, expected, atol=1e-5, rtol=0)
                torch.testing.assert_close(shallow, expected, atol=1e-5, rtol=0)
                other = parts.denoise_shallow(x, embedding, features.flip(-2), depth=depth)
                assert (other - expected).abs().max() > 1e-3


def test_the_original_stays_as_it_was(workload: Any) -> None:
    network = unet(**CONFIGS["ddpm"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    workload.DiffusersUNet(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("config", [{"class_embed_type": "timestep"}, {"center_input_sample": True}])
def test_other_kinds_are_refused(config: dict[str, Any], workload: Any) -> None:
    with pytest.raises(ValueError, match="expected a UNet2DModel without classes"):
        workload.DiffusersUNet(unet(**CONFIGS["ddpm"], **config))
