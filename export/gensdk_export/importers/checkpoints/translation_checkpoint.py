"""A generator checkpoint of pytorch-CycleGAN-and-pix2pix (``latest_net_G.pth``) as a translation bundle.

The network is told from the names and shapes of the weights: U-Net or ResNet, how deep and wide, with which norm.
It may lie in any wrapping (:mod:`gensdk_export.importers.checkpoints.checkpoint_tensors`), and its weights under a
weight norm or a spectral norm. Those of PyTorch 0.3 with running statistics in instance norms are read as they are
there.

At test time dropout is off, and batch norms use their stored statistics, as that repository's ``test.py --eval``
has it; `statistics` "image" normalizes each image by itself, as its ``test.py`` without ``--eval`` does with its
batches of one (which for pix2pix is the usual way, but for dropout, which stays off: a bundle draws nothing).

It does not: read discriminators, other networks, or files that need more than tensors unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.importers.checkpoints.checkpoint_tensors import read_weights
from gensdk_export.importers.checkpoints.cyclegan_networks import GeneratorShape, build_generator
from gensdk_export.importers.import_report import Guess, ImportReport, bundle_name
from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.networks.patches import Norm
from gensdk_training.plan import ExportPlan

MAX_LEVELS = 64
MARGIN = 64
"""Pixels: two halvings and nine blocks see about as far."""
RESNET_SIDE = 256
"""What that repository crops images to by default."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Statistics = Literal["stored", "image"]
RESNET_FIRST, UNET_FIRST = "model.1.weight", "model.model.0.weight"
_CONV = re.compile(r"model\.(\d{1,4})\.conv_block\.(\d{1,4})\.weight$")
_LAYER = re.compile(r"model\.(\d{1,4})\.")


def import_checkpoint(
    path: Path | str,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    size: tuple[int, int] | None = None,
    statistics: Statistics = "stored",
    network: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> ImportReport:
    """Writes the bundle `out` from the checkpoint `path`.

    `size`: (height, width) that the model was trained at; `statistics`: see the module;
    `network`: the name of the one that is meant, where the file holds several. For the rest see
    :func:`gensdk_export.export.export_plan`. Raises :class:`InputError` for a file that is no state dict of
    tensors, and :class:`ExportError` where it is that of another network.
    """
    plan, provenance, guesses = checkpoint_plan(path, size=size, statistics=statistics, network=network)
    return ImportReport(export_plan(plan, provenance, out, options, on_stage=on_stage), guesses)


def checkpoint_plan(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    statistics: Statistics = "stored",
    network: str | None = None,
) -> tuple[ExportPlan, Provenance, tuple[Guess, ...]]:
    """What :func:`import_checkpoint` exports: the plan, where it came from, and what was taken for granted."""
    path = Path(path)
    read = read_weights(path, _heads, network)
    weights = read.tensors
    shape = _shape(path, weights)
    generator = build_generator(shape)
    kept = {name: tensor for name, tensor in weights.items() if _counts(name, shape)}
    try:
        missing, unexpected = generator.load_state_dict(kept, strict=False, assign=True)
    except RuntimeError as failure:
        raise ExportError(f"{path}: its weights don't fit: {' '.join(str(failure).split())[:200]}") from None
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        what = f"{lacking[0]!r} is missing" if lacking else f"{unexpected[0][:80]!r} belongs to no layer"
        raise ExportError(f"{path}: expected the weights of a {_title(shape)}, but {what}")
    if statistics == "image":
        _normalize_each_image(generator)
    side = RESNET_SIDE if shape.net == "resnet" else shape.multiple
    height, width = size or (side, side)
    smallest = shape.multiple * (2 if shape.net == "resnet" else 1)  # mirrored edges need two pixels
    spec = {"height": height, "width": width, "multiple": shape.multiple, "smallest": smallest, "margin": MARGIN}
    source = SourceSpec.from_dict({"channels": shape.input_nc, **spec}, what=str(path), error=ExportError)
    image = ImageSpec(channels=shape.output_nc, height=height, width=width)
    plan = translation_plan(shape.net, bundle_name(path.stem), generator, source, image)
    config = {"imported_from": "pytorch-CycleGAN-and-pix2pix", **_options(shape), "norm_statistics": statistics}
    told = _guesses(shape, size, (height, width), statistics)
    return plan, Provenance(config=config), (*read.guesses, *told)


def _heads(tensors: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of each generator among `tensors`."""
    found = {name.removesuffix(UNET_FIRST): None for name in tensors if name.endswith(UNET_FIRST)}
    convs = {name[: match.start()]: None for name in tensors if (match := _CONV.search(name)) is not None}
    found |= {head: None for head in convs if head + RESNET_FIRST in tensors}
    return [head for head in found if not head or head.endswith(".")]


def _shape(path: Path, weights: Mapping[str, Tensor]) -> GeneratorShape:
    """The network that has such weights; :class:`ExportError` where neither has."""
    if RESNET_FIRST in weights and any(_CONV.fullmatch(name) for name in weights):
        return _resnet(path, weights)
    if UNET_FIRST in weights:
        return _unet(path, weights)
    some = "weights " + ", ".join(repr(name[:60]) for name in list(weights)[:3])
    if any(name.endswith(("model.0.weight", "net.0.weight")) for name in weights):
        some = "what looks like a discriminator; give the generator's file, as latest_net_G.pth"
    raise ExportError(f"{path}: expected a U-Net or ResNet generator of pytorch-CycleGAN-and-pix2pix, got {some}")


def _resnet(path: Path, weights: Mapping[str, Tensor]) -> GeneratorShape:
    found = [match for name in weights if (match := _CONV.fullmatch(name)) and weights[name].dim() == 4]
    blocks = {int(match[1]) for match in found}
    places = sorted({int(match[2]) for match in found})
    # reflect: pad, conv, norm, relu, (dropout,) pad, conv, norm; zero: conv, norm, relu, (dropout,) conv, norm
    forms = {(1, 5): (False, False), (1, 6): (True, False), (0, 3): (False, True), (0, 4): (True, True)}
    if tuple(places) not in forms or len(blocks) > MAX_LEVELS:
        raise ExportError(f"{path}: its residual blocks have convolutions at {places[:8]}; expected 1 and 5, or 6")
    dropout, zero = forms[(places[0], places[1])]
    last = max(int(match[1]) for name in weights if (match := _LAYER.match(name)))
    norm, affine = _norm(weights, f"model.{min(blocks)}.conv_block.{places[0] + 1}", bias_of="model.1")
    first, end = _four(path, weights, RESNET_FIRST), _four(path, weights, f"model.{last}.weight")
    return GeneratorShape(
        net="resnet",
        input_nc=first.shape[1],
        output_nc=end.shape[0],
        ngf=first.shape[0],
        levels=len(blocks),
        norm=norm,
        dropout=dropout,
        affine=affine,
        bias="model.1.bias" in weights,
        padding="zero" if zero else "reflect",
    )


def _unet(path: Path, weights: Mapping[str, Tensor]) -> GeneratorShape:
    prefix, levels, place = "model.model.", 1, 1
    while f"{prefix}{place}.model.1.weight" in weights and levels <= MAX_LEVELS:
        prefix, levels, place = f"{prefix}{place}.model.", levels + 1, 3
    if not 2 <= levels <= MAX_LEVELS:
        raise ExportError(f"{path}: expected a U-Net of 2 to {MAX_LEVELS} levels, got {levels}")
    norm, affine = _norm(weights, f"{prefix}4", bias_of="model.model.0")
    first, end = _four(path, weights, UNET_FIRST), _four(path, weights, "model.model.3.weight")
    return GeneratorShape(
        net="unet",
        input_nc=first.shape[1],
        output_nc=end.shape[1],
        ngf=first.shape[0],
        levels=levels,
        norm=norm,
        dropout=False,  # without weights, and always last: it leaves no trace
        affine=affine,
        bias="model.model.0.bias" in weights,
    )


def _four(path: Path, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """A convolution's weight."""
    weight = weights.get(name)
    if weight is None or weight.dim() != 4 or min(weight.shape) < 1:
        got = "none" if weight is None else list(weight.shape)
        raise ExportError(f"{path}: expected a convolution's weight {name!r}, got {got}")
    return weight


def _norm(weights: Mapping[str, Tensor], layer: str, *, bias_of: str) -> tuple[Norm, bool]:
    """(norm, whether it has weights): that repository gives biases to convolutions before instance norms alone."""
    affine = f"{layer}.weight" in weights
    if f"{bias_of}.bias" in weights:
        return "instance", affine
    return ("batch", affine) if f"{layer}.running_mean" in weights else ("none", False)


def _counts(name: str, shape: GeneratorShape) -> bool:
    """True if the weight is loaded: instance norms of PyTorch 0.3 kept statistics that nothing uses."""
    return shape.norm == "batch" or not name.endswith(STATISTICS)


def _normalize_each_image(network: nn.Module) -> None:
    """Each batch norm becomes the instance norm that it is for a batch of one while training."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = nn.InstanceNorm2d(child.num_features, child.eps, affine=child.affine)
                norm.load_state_dict(
                    {key: value for key, value in child.state_dict().items() if not key.endswith(STATISTICS)}
                )
                setattr(parent, name, norm.eval())


def _title(shape: GeneratorShape) -> str:
    kind = f"U-Net of {shape.levels} levels" if shape.net == "unet" else f"ResNet of {shape.levels} blocks"
    return f"{kind}, {shape.input_nc} to {shape.output_nc} channels, {shape.ngf} wide, norm {shape.norm}"


def _options(shape: GeneratorShape) -> dict[str, str | int | bool]:
    """That repository's options for the network."""
    net = f"resnet_{shape.levels}blocks" if shape.net == "resnet" else f"unet_{2**shape.levels}"
    return {
        "netG": net,
        "input_nc": shape.input_nc,
        "output_nc": shape.output_nc,
        "ngf": shape.ngf,
        "norm": shape.norm,
        "no_dropout": not shape.dropout,
    }


def _guesses(
    shape: GeneratorShape, size: tuple[int, int] | None, own: tuple[int, int], statistics: Statistics
) -> tuple[Guess, ...]:
    reason = "the names and shapes of the weights"
    told = [Guess(name, str(value), reason) for name, value in _options(shape).items() if name != "no_dropout"]
    told.append(Guess("dropout", "off", "a bundle draws nothing but its noise"))
    if shape.norm == "batch" and statistics == "stored":
        told.append(Guess("batch norm", "stored statistics", "as test.py --eval", "--norm-statistics image"))
    if size is None:
        told.append(Guess("size to prove it at", f"{own[0]} x {own[1]}", "the usual one", "--size"))
    return tuple(told)
