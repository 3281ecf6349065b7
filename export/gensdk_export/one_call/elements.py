"""Sequences in one graph: a Scan over the elements, so many as there are uniform numbers, from any states on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from gensdk_export.one_call.parts import Files, Part
from gensdk_runtime.programs.base import carried_states
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec


def draw_elements(main: Part, inputs: Mapping[str, str], model: ModelSpec, files: Files) -> dict[str, str]:
    """Adds the sampler to `main`; its outputs by name: ``tokens``, what they stand for, and where the next call
    goes on."""
    spec = model.program_of(SequenceSpec)
    step = model.graph(spec.step_graph)
    carry = {"next_token": "token", **carried_states(step)}
    body = Part("elements", prefix="elements.")
    kept = [each for each in step.inputs if each.name not in (*carry.values(), "position", "uniform")]
    feeds = {each.name: body.keep(each.name, each.dtype, each.shape) for each in kept}
    feeds["position"] = body.input("position", "int64", (1,))
    feeds |= {
        name: body.input(name, each.dtype, each.shape) for name in carry.values() if (each := step.input(name))
    }
    element = ("batch", spec.channels)
    feeds["uniform"] = body.input("uniform", "float32", element)
    done = body.inline(onnx.load_from_string(files[step.name]), feeds)
    next_position = body.add("Add", feeds["position"], body.constant(np.array([1], np.int64)))
    body.output("next_position", next_position, "int64", (1,))
    for output, name in carry.items():
        tensor = step.require_input(name)
        body.output(output, done[output], tensor.dtype, tensor.shape)
    body.output("tokens", done["next_token"], "int64", element)

    starts = [inputs[name] for name in (*(each.name for each in kept), "position", *carry.values())]
    uniforms = main.add("Transpose", inputs["uniform"], perm=[1, 0, 2])
    *ends, tokens = main.scan(body, starts, [uniforms])
    found = dict(zip(("next_position", *carry), ends[len(kept) :], strict=True))
    found["tokens"] = tokens
    if spec.decode_graph is not None:
        batch_first = main.add("Transpose", tokens, perm=[1, 0, 2])
        decode = onnx.load_from_string(files[spec.decode_graph])
        found |= main.inline(decode, {"tokens": batch_first})
    return found
