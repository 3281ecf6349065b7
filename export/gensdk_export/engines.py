"""Engines for bundles, built ahead of time: by TensorRT-RTX without a GPU, for all GPUs that it supports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gensdk_runtime.backends.tensorrt.build import GraphFile
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.needs import gpu_for
from gensdk_runtime.backends.tensorrt.package import EngineRuntime, load_package
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe, batch_axis, element_axes, image_axes
from gensdk_runtime.backends.tensorrt.supply import Supplier
from gensdk_runtime.errors import BackendError, ExportError, UnavailableError
from gensdk_runtime.host.known_files import remember
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec

__all__ = ["AxisRange", "Engine", "EngineRuntime", "build_engine", "build_engines", "load_package"]


@dataclass(frozen=True)
class Engine:
    """A built engine: `data` is the file, `spec` what the manifest says of it."""

    spec: EngineSpec
    data: bytes


def build_engine(
    graph: GraphSpec,
    onnx_file: bytes | GraphFile,
    *,
    precision: Precision,
    batch: AxisRange,
    axes: Mapping[str, AxisRange] | None = None,
    runtime: EngineRuntime = "tensorrt-rtx",
) -> Engine:
    """The engine of one graph from its ONNX file, out of the user's cache where it was built before.

    `batch` and `axes` give the sizes of the graph's named axes (``guidance`` is known). Raises
    :class:`ExportError` where the graph can't be parsed or built or comes out with another signature than
    `graph`, and :class:`UnavailableError` where the package is missing, or the GPU that classic TensorRT needs.
    """
    toolkit = load_package(runtime)
    gpu = None if toolkit.is_rtx else gpu_for(runtime)
    supplier = Supplier(toolkit, gpu, EngineCache())
    recipe = Recipe(graph, precision, {**(axes or {}), "batch": batch})
    try:
        others = {axis: allowed for axis, allowed in recipe.sizes().items() if axis != "batch"}
        file = onnx_file if isinstance(onnx_file, GraphFile) else GraphFile(onnx_file)
        data = supplier.fetched(recipe, file).data
    except UnavailableError:
        raise
    except BackendError as failure:
        raise ExportError(str(failure)) from None
    remember(data, "made")
    spec = EngineSpec(
        graph=graph.name,
        precision=precision,
        file=f"engines/{graph.name}.{precision}.{runtime}.engine",
        runtime=runtime,
        version=toolkit.version,
        gpu="" if gpu is None else gpu.model,
        min_batch=batch.minimum,
        opt_batch=batch.optimum,
        max_batch=batch.maximum,
        axes={axis: (size.minimum, size.optimum, size.maximum) for axis, size in others.items()},
    )
    return Engine(spec, data)


def build_engines(
    model: ModelSpec,
    graphs: Sequence[tuple[GraphSpec, bytes | GraphFile, Precision]],
    *,
    batch: AxisRange | None,
    axes: Mapping[str, AxisRange],
    runtime: EngineRuntime,
    say: Callable[[str], None],
) -> list[Engine]:
    """The engines of graphs of `model`, given with their ONNX files; `say` hears of each as it begins.

    `batch` None: from 1 to the model's largest; `axes` go before those of the images that it translates. Raises as
    :func:`build_engine` does.
    """
    is_rtx = runtime == "tensorrt-rtx"
    images = image_axes(model.source, bounded=not is_rtx)
    batch = batch or batch_axis(model.max_batch, images=bool(images), is_rtx=is_rtx)
    engines = []
    for graph, data, precision in graphs:
        say(f"building the {precision} engine of {graph.name}")
        sizes = {**images, **element_axes(model.program.elements), **axes}
        engines.append(build_engine(graph, data, precision=precision, batch=batch, axes=sizes, runtime=runtime))
    return engines
