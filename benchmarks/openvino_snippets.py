"""Which graphs crash OpenVINO's compiler unless snippets are kept apart, and what switching them all off costs.

For each graph at each batch size: the barriers that gensdk sets in it, whether a process survives compiling it
without them, and its time with snippets switched off over its time with them on: two compiled graphs, asked in
turn. Without names: the embedded bundles and the workloads with a U-Net.

    python benchmarks/openvino_snippets.py
    python benchmarks/openvino_snippets.py model.gsdk --batch 1,8 --size 256 --threads 2
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
from figures import ratio
from workloads import WORKLOADS
from workloads.prepare import prepare

from gensdk_runtime.backends.openvino.norms import fuse_group_norms
from gensdk_runtime.backends.openvino.snippets import separate_snippets
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.host.child_process import start_python
from gensdk_runtime.host.scratch import scratch_folder
from gensdk_runtime.spec.signature import GraphSpec

SECONDS_OF_A_ROUND = 0.02
DIGITS = tuple(name for name in embedded_names() if name.startswith("digits-"))
"""The embedded bundles of images."""
LEAST_ROUNDS = 7
PREPARED = ("cifar10-unet", "pix2pix-256")


def graphs(bundle: str | Path) -> Iterator[tuple[GraphSpec, bytes]]:
    """The graphs of a bundle in float32."""
    with Bundle.open(bundle) as opened:
        for graph in opened.manifest.model.graphs:
            yield graph, opened.graph_source(graph.name, "fp32").read()


def model_of(graph: GraphSpec, data: bytes, sizes: dict[str, int]) -> Any:
    """The graph as the backend prepares it: of static shapes, its group norms in one piece."""
    import openvino

    model = openvino.Core().read_model(data)
    used = {name for port in model.inputs for name in port.get_names()}
    fixed = {
        spec.name: [axis if isinstance(axis, int) else sizes.get(axis, 1) for axis in spec.shape]
        for spec in graph.inputs
        if spec.name in used
    }
    model.reshape(fixed)
    fuse_group_norms(model)
    return model


def request(model: Any, threads: int, snippets: str) -> Any:
    """An infer request of `model`, compiled with `snippets` ENABLE or DISABLE, with its inputs set."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "SNIPPETS_MODE": snippets,
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    made = compiled.create_infer_request()
    rng = np.random.default_rng(0)
    for port in compiled.inputs:
        shape, dtype = list(port.get_shape()), port.get_element_type().to_dtype()
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        made.set_tensor(port, openvino.Tensor(values.astype(dtype)))
    return made


def compile_as_it_is(order: str) -> None:
    """What the child does; it may be its end."""
    asked = json.loads(order)
    graph, file = GraphSpec.model_validate_json(asked["graph"]), Path(asked["file"])
    request(model_of(graph, file.read_bytes(), asked["sizes"]), 1, "ENABLE")


def survives(graph: GraphSpec, data: bytes, sizes: dict[str, int]) -> bool:
    """True if a process can compile the graph without barriers."""
    program = "import sys, openvino_snippets; openvino_snippets.compile_as_it_is(sys.argv[1])"
    with scratch_folder() as folder:
        file = folder / "graph.onnx"
        file.write_bytes(data)
        order = json.dumps({"graph": graph.model_dump_json(), "file": str(file), "sizes": sizes})
        with start_python(["-c", program, order], paths=[Path(__file__).resolve().parent]) as process:
            process.communicate()
    if process.returncode > 0:
        raise RuntimeError(f"graph {graph.name!r} can't be compiled, and that is no crash")
    return process.returncode == 0


def times(requests: list[Any], seconds: float) -> list[list[np.ndarray]]:
    """For each request its rounds of seconds a call, all asked in turn."""
    for each in requests:
        each.infer()
    start = perf_counter()
    requests[0].infer()
    calls = max(1, min(500, round(SECONDS_OF_A_ROUND / (perf_counter() - start))))
    order = np.random.default_rng(0)
    rounds: list[list[np.ndarray]] = [[] for _ in requests]
    while perf_counter() - start < seconds or len(rounds[0]) < LEAST_ROUNDS:
        for number in order.permutation(len(requests)).tolist():
            begin = perf_counter()
            for _ in range(calls):
                requests[number].infer()
            rounds[number].append(np.array([(perf_counter() - begin) / calls]))
    return rounds


def line(name: str, graph: GraphSpec, data: bytes, sizes: dict[str, int], *, threads: int, seconds: float) -> str:
    """What one graph says."""
    model = model_of(graph, data, sizes)
    barriers = separate_snippets(model)
    alone = "compiles without" if survives(graph, data, sizes) else "CRASHES without"
    on = request(model, threads, "ENABLE")
    off = request(model_of(graph, data, sizes), threads, "DISABLE")
    with_them, without = times([on, off], seconds)
    found = ratio(without, with_them)
    took = f"{np.median(with_them) * 1e3:.3g} ms"
    where = f"{name}, {graph.name}, batch {sizes['batch']}"
    return (
        f"{where:42} {barriers} barriers, {alone}; off / on {found.ratio:.2f} "
        f"({found.low:.2f} .. {found.high:.2f}) of {took}"
    )


@click.command(help=__doc__)
@click.argument("bundles", nargs=-1)
@click.option("--batch", default="1,8", show_default=True)
@click.option("--size", default=256, show_default=True, help="Height and width where a graph takes any.")
@click.option("--threads", default=1, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="For each graph and batch size.")
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(  # noqa: PLR0917 - click's
    bundles: tuple[str, ...], batch: str, size: int, threads: int, seconds: float, root: Path
) -> None:
    named: dict[str, str | Path] = {Path(each).stem: each for each in bundles or DIGITS}
    if not bundles:
        named |= {name: prepare(WORKLOADS[name], root).bundle for name in PREPARED}
    for name, bundle in named.items():
        for graph, data in graphs(bundle):
            for count in map(int, batch.split(",")):
                sizes = {"batch": count, "height": size, "width": size}
                print(line(name, graph, data, sizes, threads=threads, seconds=seconds), flush=True)


if __name__ == "__main__":
    main()
