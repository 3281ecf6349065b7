"""pix2pix's U-Net generator at 256x256, as an image-to-image graph.

Paper: Isola, Zhu, Zhou & Efros (2017), "Image-to-Image Translation with Conditional Adversarial Networks",
section 6.1: encoder C64-C128-C256-C512-C512-C512-C512-C512, decoder with skips between mirrored layers; 4x4
convolutions with stride 2, LeakyReLU 0.2 down, ReLU up, tanh at the end. 54.4 M parameters.

It does not: draw dropout when it samples, or take batch norm's statistics from the sampled batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.plan import ExportPlan
from workloads import Model
from workloads.batch_norms import calibrate_batch_norms

IMAGE = ImageSpec(channels=3, height=256, width=256)
WIDTHS = (64, 128, 256, 512, 512, 512, 512, 512)


class Down(nn.Sequential):
    """Halves height and width; no norm around the outermost and the innermost convolution."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, last: bool) -> None:
        layers: list[nn.Module] = [] if first else [nn.LeakyReLU(0.2)]
        norm = not (first or last)
        layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm))
        super().__init__(*layers, *([nn.BatchNorm2d(outputs)] if norm else []))


class Up(nn.Sequential):
    """Doubles height and width."""

    def __init__(self, inputs: int, outputs: int, *, last: bool) -> None:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=last)
        super().__init__(nn.ReLU(), convolution, nn.Tanh() if last else nn.BatchNorm2d(outputs))


class UNetGenerator(nn.Module):
    """x [B, 3, 256, 256] to y of the same shape, in [-1, 1]."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        ends = range(len(widths))
        before = (channels, *widths)
        self.down = nn.ModuleList(Down(before[i], widths[i], first=i == 0, last=i == ends[-1]) for i in ends)
        self.up = nn.ModuleList(
            Up(widths[i] * (1 if i == ends[-1] else 2), before[i], last=False) for i in reversed(ends[1:])
        )
        self.up.append(Up(2 * widths[0], channels, last=True))

    def forward(self, source: Tensor) -> Tensor:
        """Encodes, then decodes with each encoder layer's output beside its mirror image's."""
        skips = [source]
        for down in self.down:
            skips.append(down(skips[-1]))
        hidden = skips.pop()
        for up in self.up:
            hidden = up(hidden)
            if len(skips) > 1:
                hidden = torch.cat([hidden, skips.pop()], dim=1)
        return hidden


def build() -> Model:
    """One graph: ``source`` to ``image``. The source counts as noise, so that it can be given as latents."""
    shape = ("batch", *IMAGE.shape)
    source = TensorSpec(name="source", dtype="float32", shape=shape, role="noise", distribution="normal")
    image = TensorSpec(name="image", dtype="float32", shape=shape, role="image", value_range=IMAGE.value_range)
    model = ModelSpec(
        name="pix2pix-256",
        family="pix2pix",
        program=FeedforwardSpec(graph="generator"),
        graphs=(GraphSpec(name="generator", inputs=(source,), outputs=(image,)),),
        output=IMAGE,
        max_batch=16,
    )
    network = UNetGenerator(IMAGE.channels, WIDTHS)
    calibrate_batch_norms(network, [torch.randn(4, *IMAGE.shape)])
    plan = ExportPlan(model=model, modules={"generator": network}, half={"generator": ("down", "up")})
    return Model(plan, network)
