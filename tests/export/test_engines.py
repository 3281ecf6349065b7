"""TensorRT-RTX engines are really built, with no GPU."""

from __future__ import annotations

import importlib.util

import pytest

from gensdk_export.engines import AxisRange, build_engine, load_package
from gensdk_export.onnx_export import export_onnx
from gensdk_runtime.errors import ExportError, InputError, UnavailableError
from gensdk_runtime.spec.signature import GraphSpec
from support.plans import linear_plan, random_call

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
BATCH = AxisRange(1, 4, 8)


@pytest.fixture(scope="module")
def graph_and_file() -> tuple[GraphSpec, bytes]:
    plan = linear_plan()
    graph = plan.model.graphs[0]
    return graph, export_onnx(graph, plan.modules[graph.name], random_call(plan).feeds)


def test_an_engine_is_built_and_described(graph_and_file: tuple[GraphSpec, bytes]) -> None:
    graph, file = graph_and_file
    engine = build_engine(graph, file, precision="fp32", batch=BATCH)
    assert len(engine.data) > 1000
    spec = engine.spec
    assert (spec.min_batch, spec.opt_batch, spec.max_batch) == (1, 4, 8)
    assert spec.runtime == "tensorrt-rtx"
    assert spec.version == load_package("tensorrt-rtx").version
    assert spec.gpu == ""


def test_a_broken_file_is_one_line(graph_and_file: tuple[GraphSpec, bytes]) -> None:
    graph, file = graph_and_file
    with pytest.raises(ExportError, match=r"can't parse it: .*parse") as failure:
        build_engine(graph, file[: len(file) // 2], precision="fp32", batch=BATCH)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, "should be float16"),
        ({"shape": ("batch", 3, 8, 8)}, "should be float32"),
        ({"name": "picture"}, "outputs should be"),
    ],
)
def test_another_signature_is_refused(
    graph_and_file: tuple[GraphSpec, bytes], change: dict[str, object], message: str
) -> None:
    graph, file = graph_and_file
    other = graph.model_copy(update={"outputs": (graph.outputs[0].model_copy(update=change),)})
    with pytest.raises(ExportError, match=message):
        build_engine(other, file, precision="fp32", batch=BATCH)


@pytest.mark.parametrize("sizes", [(0, 1, 2), (4, 2, 8), (1, 9, 8)])
def test_bad_batch_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="--batch"):
        AxisRange(*sizes)


def test_an_unknown_axis_needs_sizes(graph_and_file: tuple[GraphSpec, bytes]) -> None:
    graph, file = graph_and_file
    renamed = graph.model_copy(update={"inputs": (graph.inputs[0].model_copy(update={"shape": ("tokens", 4)}),)})
    with pytest.raises(ExportError, match="axis 'tokens'"):
        build_engine(renamed, file, precision="fp32", batch=BATCH)
    assert build_engine(renamed, file, precision="fp32", batch=BATCH, axes={"tokens": AxisRange(1, 2, 3)}).data


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_missing_package_is_named_with_its_remedy(graph_and_file: tuple[GraphSpec, bytes]) -> None:
    graph, file = graph_and_file
    with pytest.raises(UnavailableError, match="pip install"):
        build_engine(graph, file, precision="fp32", batch=BATCH, runtime="tensorrt")
