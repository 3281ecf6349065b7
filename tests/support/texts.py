"""Models of text: a graph that turns uniform noise into tokens, and small vocabularies of each kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.text.characters import Characters
from gensdk_runtime.text.vocabulary import SpecialTokens, Vocabulary, vocabulary_bytes
from gensdk_runtime.text.words import Words
from support.models import label_tensor, tensor

LENGTH = 7
SPECIAL = SpecialTokens(pad=0, begin=1, end=2, unknown=3)
NAMES = ("<pad>", "<begin>", "<end>", "<unknown>")
WORDS = Words(
    tokens=(*NAMES, "a", "cat", "sat", "don", "'", "t", ".", ",", "(", ")"), special=SPECIAL, lower_case=True
)
CHARACTERS = Characters(tokens=(*NAMES, *"abcdé \n\\"), special=SPECIAL)
VOCABULARIES: dict[str, Vocabulary] = {"words": WORDS, "characters": CHARACTERS}
GRAPH = "graphs/writer.onnx"


def text_model(vocabulary: Vocabulary = WORDS, length: int = LENGTH, classes: int | None = None) -> ModelSpec:
    inputs = [tensor("u", "noise", "batch", length, distribution="uniform")]
    inputs += [label_tensor("batch")] if classes else []
    spec = TextSpec.of(length, vocabulary.size)
    made = tensor("text", "output", "batch", length, dtype="int64", value_range=spec.value_range)
    return ModelSpec(
        name="writer",
        family="test",
        program=FeedforwardSpec(graph="writer"),
        graphs=(GraphSpec(name="writer", inputs=tuple(inputs), outputs=(made,)),),
        output=spec,
        conditions=label_conditions(classes),
        max_batch=8,
    )


def writer(size: int) -> Any:
    """Any token with the same chance at each place, the special ones too."""
    return lambda feeds: {"text": _tokens(feeds, size)}


def _tokens(feeds: Feeds, size: int) -> np.ndarray:
    return np.floor(feeds["u"] * size).astype(np.int64)


def files_of(vocabulary: Vocabulary) -> dict[str, bytes]:
    return {"vocabulary.json": vocabulary_bytes(vocabulary)}


def written(**changes: Any) -> bytes:
    """A vocabulary of words as a file, with other JSON in some keys."""
    return json.dumps({**json.loads(WORDS.model_dump_json()), **changes}).encode()


def writer_onnx(size: int, length: int = LENGTH) -> bytes:
    """The graph of :func:`text_model` as ONNX."""
    u = helper.make_tensor_value_info("u", TensorProto.FLOAT, ["batch", length])
    text = helper.make_tensor_value_info("text", TensorProto.INT64, ["batch", length])
    nodes = [
        helper.make_node("Mul", ["u", "size"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["text"], to=TensorProto.INT64),
    ]
    scale = helper.make_tensor("size", TensorProto.FLOAT, [1], [float(size)])
    graph = helper.make_graph(nodes, "writer", [u], [text], [scale])
    opset = [helper.make_opsetid("", 21)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return model.SerializeToString()


def text_manifest(vocabulary: Vocabulary = WORDS) -> Manifest:
    """A draft of a bundle."""
    return Manifest(model=text_model(vocabulary), graph_files={"writer": {"fp32": GRAPH}})
