"""Autoregressive models in one graph: a Loop over the rows, in it a Scan over the pixels.

Not two of a kind: OpenVINO has no Scan within a Scan.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from gensdk_export.one_call.parts import Files, Part
from gensdk_runtime.programs.base import carried_states
from gensdk_runtime.spec.model import AutoregressiveSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec


def draw_rows(main: Part, inputs: Mapping[str, str], model: ModelSpec, files: Files) -> str:
    """Adds the sampler to `main`; its images [B, C, H, W]."""
    spec = model.program_of(AutoregressiveSpec)
    row, pixel = model.graph(spec.row_graph), model.graph(spec.pixel_graph)
    uniforms = main.add("Transpose", inputs["uniform"], perm=[1, 2, 0, 3])  # [H, W, B, C]
    batch = main.add("Shape", inputs["uniform"], start=0, end=1)
    label = {"label": inputs["label"]} if "label" in inputs else {}

    rows = Part("rows", prefix="rows.")
    iteration = rows.begin_loop()
    feeds = {name: _declare(rows, row, name) for name in _carry(row, "row").values()}
    done = _inline(rows, row, feeds | label, files)
    here = rows.add("Gather", uniforms, iteration, axis=0)
    label = label if pixel.input("label") is not None else {}
    pixels = _pixel_body(pixel, label, files)
    starts = [*label.values(), *_zeros(rows, pixel, "pixel", batch)]
    drawn = rows.scan(pixels, starts, [done["context"], here])[-1]  # [W, B, C]
    done["next_row"] = rows.add("Transpose", drawn, perm=[1, 2, 0])
    _hand_on(rows, row, "row", done)

    drawn = main.loop(rows, model.output.shape[1], _zeros(main, row, "row", batch))[-1]  # [H, B, C, W]
    return main.add("Transpose", drawn, perm=[1, 2, 0, 3])


def _pixel_body(graph: GraphSpec, label: Mapping[str, str], files: Files) -> Part:
    """Draws one pixel [B, C] from what its row knows, and hands it and the states on."""
    part = Part("pixels", prefix="pixels.")
    feeds = {name: part.keep(name, "int64", ("batch",)) for name in label}
    for name in (*_carry(graph, "pixel").values(), "context", "uniform"):
        feeds[name] = _declare(part, graph, name)
    _hand_on(part, graph, "pixel", _inline(part, graph, feeds, files))
    return part


def _carry(graph: GraphSpec, drawn: str) -> dict[str, str]:
    """Output to input of what goes from one run to the next: what was drawn, and the states."""
    return {f"next_{drawn}": drawn, **carried_states(graph)}


def _hand_on(part: Part, graph: GraphSpec, drawn: str, done: Mapping[str, str]) -> None:
    """Outputs of `part` for what goes on to the next run, and once more for what was drawn, to be collected."""
    for output, name in (*_carry(graph, drawn).items(), (f"next_{drawn}", drawn)):
        spec = graph.require_input(name)
        part.output(output, done[output], spec.dtype, spec.shape)


def _zeros(part: Part, graph: GraphSpec, drawn: str, batch: str) -> list[str]:
    """Zeros for the first of what `graph` hands on; `batch` is the batch size [1]."""
    zeros = []
    for name in _carry(graph, drawn).values():
        rest = part.constant(np.array(graph.require_input(name).shape[1:], np.int64))
        zeros.append(part.add("ConstantOfShape", part.add("Concat", batch, rest, axis=0)))
    return zeros


def _inline(part: Part, graph: GraphSpec, feeds: Mapping[str, str], files: Files) -> dict[str, str]:
    known = {name: value for name, value in feeds.items() if graph.input(name) is not None}
    return part.inline(onnx.load_from_string(files[graph.name]), known)


def _declare(part: Part, graph: GraphSpec, name: str) -> str:
    spec = graph.require_input(name)
    return part.input(spec.name, spec.dtype, spec.shape)
