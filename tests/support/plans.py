"""Export plans without training: families with random weights that don't collapse, and a test's own modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gensdk_runtime.proof.golden import Call
from gensdk_training.family import DataInfo, PointsInfo
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import get_family
from gensdk_training.torch_backend import TorchSession
from support.tiny import tiny_run, with_source

DIGITS = DataInfo(name="digits", channels=1, height=8, width=8, count=64, num_classes=3)

PLANE = DataInfo(
    name="plane",
    channels=2,
    height=1,
    width=1,
    count=1,
    num_classes=3,
    points=PointsInfo(center=(1.0, -0.5), scale=4.0, value_range=(-5.0, 5.0)),
)

WIDE: dict[str, dict[str, Any]] = {
    "ae": {"hidden": [512]},
    "anogan": {"generator_channels": 32, "discriminator_channels": 16, "encoder_channels": 16},
    "bigan": {"hidden": [512]},
    "cgan": {"generator_channels": 32},
    "cyclegan": {"channels": 24, "blocks": 2},
    "dcgan": {"generator_channels": 32},
    "ddpm": {"channels": 24},
    "deepdream": {"channels": [32, 64]},
    "fgan": {"hidden": [512]},
    "flow": {"channels": 24},
    "gan": {"hidden": [512]},
    "glo": {"channels": 32},
    "gmm": {"components": 8},
    "gon": {"hidden": [512]},
    "musegan": {"latent": 16, "generator_channels": 16},
    "musicrnn": {"embedding": 24, "hidden": 128, "head": 64},
    "pix2pix": {"channels": 24},
    "pixelcnn": {"channels": 48},
    "pixelrnn": {"channels": 48, "layers": 2},
    "progan": {"channels": 16},
    "sgan": {"generator_hidden": [512]},
    "sngan": {"generator_channels": 32},
    "scratchgan": {"embedding": 64, "hidden": 128},
    "seqgan": {"embedding": 64, "hidden": 128, "layers": 2},
    "sound2image": {"generator_channels": 64, "listener_channels": 16, "features": 32},
    "srgan": {"channels": 32, "blocks": 2},
    "stargan": {"channels": 24, "blocks": 2},
    "talkinghead": {"channels": 64, "listener_channels": 16, "features": 192},
    "text2image": {"generator_channels": 64, "text_features": 64, "features": 32},
    "textstyle": {"features": 64, "layers": 2},
    "vae": {"hidden": [512]},
    "wavenet": {"channels": 48, "skip_channels": 96},
    "wgan": {"hidden": [256, 128]},
    "wgan_gp": {"generator_channels": 32},
}
"""Wide enough that the large graphs have more than 100 KB."""


def family_plan(name: str, *, conditional: bool = True, data: DataInfo = DIGITS, **config: Any) -> ExportPlan:
    """A family's plan over fresh networks with weights of a size that makes samples vary."""
    labels = {"conditional": conditional} if "conditional" in get_family(name).Config.model_fields else {}
    family = tiny_run(name, config={**labels, **WIDE.get(name, {}), **config}).build_family(
        with_source(name, data)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = family.build_networks()
        for network in networks.values():
            for weight in network.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=1.2 / weight[0].numel() ** 0.5)
    return family.export_plan(networks)


def points_plan(name: str) -> ExportPlan:
    """As :func:`family_plan`, of points in the plane."""
    return family_plan(name, data=PLANE, architecture="mlp", hidden=[192, 192])


def module_plan(network: nn.Module, *, latent: int = 4) -> ExportPlan:
    """A plan around one network from z [B, latent] to images [B, 1, 8, 8]."""
    return latent_plan("test", "generator", network.eval(), DIGITS, latent=latent, conditional=False)


class Images(nn.Module):
    """Any features [B, 64] as images."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(features).reshape(-1, 1, 8, 8)


def linear_plan(seed: int = 0) -> ExportPlan:
    """The smallest plan there is: z to images through one layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return module_plan(nn.Sequential(nn.Linear(4, 64), Images()))


def random_call(plan: ExportPlan, batch: int = 2) -> Call:
    """One call of a :func:`module_plan` on random noise."""
    graph = plan.model.graphs[0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        feeds = {"z": torch.randn(batch, *(size for size in graph.inputs[0].shape[1:])).numpy()}
    return Call(graph.name, 0, feeds, TorchSession(graph, plan.modules[graph.name]).run(feeds))
