"""Images as bytes, made inside the graph: what leaves the device, and crosses the bus, is a quarter as large."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gensdk_runtime.errors import ExportError
from gensdk_runtime.outputs.image import image_of
from gensdk_runtime.programs import abilities, one_run
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.plan import ExportPlan


class Uint8Source(nn.Module):
    """A translation model that takes its ``source`` as bytes: uint8 [B, H, W, C], made float inside."""

    def __init__(self, module: nn.Module, *, value_range: tuple[float, float]) -> None:
        super().__init__()
        self.module = module
        self.low, self.high = value_range

    def forward(self, source: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The module's outputs for the source in its value range, and for all else that it takes."""
        # Float at once and bytes at the very end: TensorRT knows bytes at a network's edges alone.
        image = source.to(torch.float32).permute(0, 3, 1, 2) * ((self.high - self.low) / 255.0) + self.low
        result: Tensor | tuple[Tensor, ...] = self.module(image, *others)
        return result


class Uint8Images(nn.Module):
    """A feedforward generator that gives its images as bytes too.

    Adds two outputs: ``pixels`` uint8 [B, H, W, C], the value range mapped to 0 .. 255 and rounded (to even, as
    NumPy does); and ``image_sum`` [B], which is NaN or infinite where the image is: bytes can't say so.
    """

    def __init__(self, module: nn.Module, *, position: int, value_range: tuple[float, float]) -> None:
        super().__init__()
        self.module = module
        self.position = position
        self.low, self.high = value_range

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs, then ``pixels`` and ``image_sum``."""
        result = self.module(*inputs)
        outputs = (result,) if isinstance(result, Tensor) else tuple(result)
        image = outputs[self.position]
        scaled = torch.round((image - self.low) * (255.0 / (self.high - self.low)))
        pixels = scaled.clamp(0.0, 255.0).permute(0, 2, 3, 1).to(torch.uint8)
        return (*outputs, pixels, image.sum(dim=(1, 2, 3)))


def translates_at_once(model: ModelSpec) -> bool:
    """True for a model that translates images in one run of one graph, which takes and makes bytes by default."""
    return {"translate", "dream"} & set(abilities(model)) == {"translate"}


def with_uint8(plan: ExportPlan) -> ExportPlan:
    """`plan` with :class:`Uint8Images` around its generator, and :class:`Uint8Source` where it translates images.

    Raises :class:`ExportError` for a program other than feedforward (those convert outside, once, at the end), and
    :class:`InputError` for a model of points.
    """
    model, name = plan.model, one_run(plan.model)
    if name is None:
        raise ExportError(
            f"uint8 in the graph is for feedforward models, but {model.name!r} is {model.program.kind}; leave it "
            "out"
        )
    low_high, graph = image_of(model).value_range, model.graph(name)
    position = [spec.name for spec in graph.outputs].index("image")
    module, inputs, prefix = plan.modules[graph.name], graph.inputs, "module"
    if model.source is not None:
        module = Uint8Source(module, value_range=model.source.value_range)
        inputs, prefix = tuple(_as_bytes(spec) for spec in inputs), "module.module"
    modules = {**plan.modules}
    modules[graph.name] = Uint8Images(module, position=position, value_range=low_high).eval()
    wrapped = graph.model_copy(update={"inputs": inputs, "outputs": (*graph.outputs, *_outputs(graph))})
    half = dict(plan.half)
    if graph.name in half:
        half[graph.name] = tuple(f"{prefix}.{region}".rstrip(".") for region in half[graph.name])
    graphs: tuple[GraphSpec, ...] = tuple(wrapped if each.name == graph.name else each for each in model.graphs)
    return replace(plan, model=model.model_copy(update={"graphs": graphs}), modules=modules, half=half)


def _as_bytes(spec: TensorSpec) -> TensorSpec:
    """The input ``source`` as uint8 NHWC; other inputs as they are."""
    if spec.name != "source":
        return spec
    batch, channels, height, width = spec.shape
    shape = (batch, height, width, channels)
    return spec.model_copy(update={"dtype": "uint8", "shape": shape, "value_range": (0.0, 255.0)})


def _outputs(graph: GraphSpec) -> tuple[TensorSpec, TensorSpec]:
    image = next(spec for spec in graph.outputs if spec.name == "image")
    _, channels, height, width = image.shape
    return (
        TensorSpec(
            name="pixels",
            dtype="uint8",
            shape=("batch", height, width, channels),
            role="image",
            value_range=(0.0, 255.0),
        ),
        TensorSpec(name="image_sum", dtype="float32", shape=("batch",), role="coefficient"),
    )
