"""Low-rank changes of a small Stable Diffusion pipeline: as files of each kind, and as what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RANK = 2
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
UNET = (
    f"{ATTENTION}.to_q",
    f"{ATTENTION}.to_out.0",
    "down_blocks.0.attentions.0.proj_in",
    "mid_block.resnets.0.conv1",
)
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")


@dataclass(frozen=True)
class Change:
    """up @ down of one layer, times `alpha` / RANK."""

    down: Tensor
    up: Tensor
    alpha: float = 3.0


Changes = Mapping[str, Mapping[str, Change]]
"""By part of the pipeline and name of the layer."""


def changes(pipe: Any, *, unet: tuple[str, ...] = UNET, text: tuple[str, ...] = TEXT, seed: int = 0) -> Changes:
    """Strong random ones."""
    random = torch.Generator().manual_seed(seed)
    return {
        part: {name: _change(network.get_submodule(name), random) for name in names}
        for part, network, names in (("unet", pipe.unet, unet), ("text_encoder", pipe.text_encoder, text))
    }


def _change(layer: Any, random: torch.Generator) -> Change:
    down, up = (RANK, *layer.weight.shape[1:]), (layer.weight.shape[0], RANK, *(1,) * (layer.weight.ndim - 2))
    return Change(0.5 * torch.randn(down, generator=random), 0.2 * torch.randn(up, generator=random))


def as_peft(file: Path, made: Changes) -> Path:
    """As diffusers writes them, alpha in the header."""
    from diffusers import StableDiffusionPipeline

    layers, settings = {}, {}
    for part, own in made.items():
        layers[part] = {
            f"{name}.lora_{letter}.weight": tensor
            for name, change in own.items()
            for letter, tensor in (("A", change.down), ("B", change.up))
        }
        settings[part] = {"r": RANK, "lora_alpha": 3.0, "target_modules": list(own)}
    StableDiffusionPipeline.save_lora_weights(
        str(file.parent),
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=settings["unet"],
        text_encoder_lora_adapter_metadata=settings["text_encoder"],
        weight_name=file.name,
    )
    return file


def as_kohya(file: Path, made: Changes) -> Path:
    """As kohya's scripts write them, alpha beside the factors."""
    heads = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}
    tensors = {}
    for part, own in made.items():
        for name, change in own.items():
            layer = f"{heads[part]}_{name.replace('.', '_')}"
            tensors[f"{layer}.lora_down.weight"] = change.down
            tensors[f"{layer}.lora_up.weight"] = change.up
            tensors[f"{layer}.alpha"] = torch.tensor(change.alpha)
    save_file(tensors, file)
    return file


def as_old_diffusers(file: Path, made: Changes) -> Path:
    """As diffusers wrote them before PEFT, scaled already: there was no alpha."""
    tensors = {}
    for part, own in made.items():
        for name, change in own.items():
            if "attn" in name:
                projection = {"to_out.0": "to_out"}.get(name.partition("attn1.")[2], name.rpartition(".")[2])
                place = (
                    name.partition("attn1.")[0] + "attn1.processor."
                    if "attn1" in name
                    else name.rpartition(".")[0] + "."
                )
                layer = f"{part}.{place}{projection.replace('q_proj', 'to_q')}_lora"
            else:
                layer = f"{part}.{name}.lora" if part == "unet" else f"{part}.text_model.{name}.lora_linear_layer"
            tensors[f"{layer}.down.weight"] = change.down
            tensors[f"{layer}.up.weight"] = change.up * (change.alpha / RANK)
    save_file(tensors, file)
    return file


@contextmanager
def applied(pipe: Any, made: Changes, weight: float) -> Iterator[None]:
    """The pipeline with the changes beside its layers: y + weight * alpha / r * up(down(x))."""
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    hooks = [
        networks[part].get_submodule(name).register_forward_hook(_beside(change, weight * change.alpha / RANK))
        for part, own in made.items()
        for name, change in own.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _beside(change: Change, scale: float) -> Any:
    def add(layer: nn.Module, given: tuple[Tensor, ...], told: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            inner = nn.functional.conv2d(given[0], change.down, stride=layer.stride, padding=layer.padding)
            return told + scale * nn.functional.conv2d(inner, change.up)
        return told + scale * (given[0] @ change.down.T @ change.up.T)

    return add
