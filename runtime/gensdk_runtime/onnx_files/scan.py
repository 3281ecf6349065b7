"""What must be known of an ONNX file before a backend may load it, read without the onnx package.

The scan enters only those nested messages in which a tensor, a subgraph or a name can be, and jumps over the
weights without copying them.

What it does not do: it does not check that the model is valid; the backend does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.fields import BYTES, INSIDE, VARINT, Budget, Span, fields, spans, text_field, varint

MAX_DEPTH = 100  # messages within messages, the limit of the Protocol Buffers libraries
MAX_FIELDS = 2_000_000  # about 100,000 nodes; about two seconds
MAX_NODES = 200_000  # when the local functions are put in line, as backends do: a few can mean 2^40 nodes

_INITIALIZER, _SPARSE_INITIALIZER, _INPUT, _OUTPUT = 5, 15, 11, 12  # fields of a graph
_SUBGRAPH, _SUBGRAPHS = 6, 11  # fields of an attribute
_OPERATOR, _ATTRIBUTE, _ENGINE = (
    4,
    5,
    b"EPContext",
)  # of a node; what an engine holds an execution provider runs unseen
_NODE, _CALLS = 1, {4: "operator", 7: "domain", 8: "overload"}  # of a graph, of a node
_FUNCTION_NODE, _FUNCTION_NAME = 7, {1: "operator", 10: "domain", 13: "overload"}
_STRING_DATA, _STRING, _CAST = 6, 8, b"Cast"  # of a tensor; the type of texts; the operator that makes them
_NAME, _INTEGER = 1, 3  # of an attribute; of a Cast the type is one, and nothing else is 8
_TEXTS = "it works on texts (string tensors), whose memory nothing bounds, and which no generative model needs"


@dataclass(frozen=True)
class OnnxFacts:
    """`inputs` and `outputs` of the main graph, by name and in order (an input with an initializer is a weight,
    not an input), and every `external_locations` as it is written, relative to the folder of the file.

    `loops`: it has graphs within nodes (Loop, Scan, If), so its run time is unknown.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external_locations: tuple[str, ...]
    loops: bool = False


def scan(data: bytes) -> OnnxFacts:
    """Reads the facts off the bytes of an ONNX file; :class:`IntegrityError` where it is cut off or malformed."""
    walk = _Walk(data)
    walk.enter("model", 0, len(data))
    weights = set(walk.initializers)
    walk.count_in_line()
    return OnnxFacts(
        inputs=tuple(name for name in walk.inputs if name not in weights),
        outputs=tuple(walk.outputs),
        external_locations=tuple(dict.fromkeys(walk.locations)),
        loops=walk.loops,
    )


def external_locations(data: bytes) -> tuple[str, ...]:
    """Where the tensors of an ONNX file lie that are not inside it: each location once, as it is written.

    Covers initializers, sparse ones, attributes, subgraphs, functions and training graphs.
    """
    return scan(data).external_locations


class _Walk:
    """One pass over the messages, which collects its findings in lists."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.initializers: list[str] = []
        self.locations: list[str] = []
        self.loops = False
        self.functions: list[tuple[int, int]] = []
        self.graphs: list[tuple[int, int]] = []
        self._budget = Budget(MAX_FIELDS)

    def enter(self, kind: str, start: int, end: int, depth: int = 0) -> None:
        """Visits the message of `kind` in ``data[start:end]`` and all that it holds."""
        if depth > MAX_DEPTH:
            raise IntegrityError(f"malformed ONNX: messages nested deeper than {MAX_DEPTH}")
        if kind == "external":
            self._external(start, end)
            return
        inside = INSIDE[kind]
        main_graph = kind == "graph" and depth == 1
        for number, _, _, first, last in self._messages(start, end):
            if main_graph:
                self._name_of(number, first, last)
            if kind == "model" and number in inside:
                (self.functions if inside[number] == "function" else self.graphs).append((first, last))
            elif kind == "node" and number == _OPERATOR and self.data[first:last] == _ENGINE:
                raise IntegrityError(
                    "it holds a compiled engine (EPContext), which is code; export the model anew"
                )
            elif kind == "node" and number == _OPERATOR and self.data[first:last] == _CAST:
                self._refuse_texts(start, end)
            elif kind == "attribute" and number in (_SUBGRAPH, _SUBGRAPHS):
                self.loops = True
            elif (kind == "tensor" and number == _STRING_DATA) or (
                kind == "attribute" and number == _NAME and b"string" in self.data[first:last]
            ):
                raise IntegrityError(_TEXTS)
            if number in inside:
                self.enter(inside[number], first, last, depth + 1)

    def _refuse_texts(self, start: int, end: int) -> None:
        """Refuses a Cast to texts, in ``data[start:end]``."""
        for number, _, _, first, last in self._messages(start, end):
            for each in fields(self.data, first, last) if number == _ATTRIBUTE else ():
                is_type = (each.number, each.wire) == (_INTEGER, VARINT)
                if is_type and varint(self.data, each.start, each.end)[0] == _STRING:
                    raise IntegrityError(_TEXTS)

    def count_in_line(self) -> None:
        """Refuses local functions that call each other in a circle, or too often."""
        if not self.functions:
            return
        bodies = {
            self._called(*span, _FUNCTION_NAME): list(self._calls(*span, _FUNCTION_NODE))
            for span in self.functions
        }
        counts: dict[tuple[str, ...], int | None] = {}

        def count(calls: list[tuple[str, ...]], depth: int) -> int:
            total = 0
            for call in calls:
                if depth > MAX_DEPTH:
                    raise IntegrityError(f"malformed ONNX: local functions nested deeper than {MAX_DEPTH}")
                if call in bodies and call not in counts:
                    counts[call] = None  # until it is known
                    counts[call] = count(bodies[call], depth + 1)
                found = counts.get(call, 1)
                if found is None:
                    raise IntegrityError("malformed ONNX: local functions that call each other without end")
                total += found
                if total > MAX_NODES:
                    raise IntegrityError(f"its local functions stand for more than {MAX_NODES} nodes")
            return total

        for calls in (*bodies.values(), *(list(self._calls(*span, _NODE)) for span in self.graphs)):
            count(calls, 0)

    def _calls(self, start: int, end: int, field: int) -> Iterator[tuple[str, ...]]:
        """What the nodes call, in `field` of a graph or function, and in the graphs within them."""
        for number, _, _, first, last in self._messages(start, end):
            if number != field:
                continue
            yield self._called(first, last, _CALLS)
            for inside, _, _, low, high in self._messages(first, last):
                if inside == _ATTRIBUTE:
                    for each, _, _, begin, stop in self._messages(low, high):
                        if each in (_SUBGRAPH, _SUBGRAPHS):
                            yield from self._calls(begin, stop, _NODE)

    def _called(self, start: int, end: int, fields: dict[int, str]) -> tuple[str, ...]:
        """Name, domain and overload of a function, or of the operator that a node calls."""
        return tuple(_standard(self._text(start, end, field=number)) for number in fields)

    def _name_of(self, number: int, start: int, end: int) -> None:
        """Notes the name if this field of the main graph is an input, an output or an initializer."""
        if number == _INPUT:
            self.inputs.append(self._text(start, end, field=1))
        elif number == _OUTPUT:
            self.outputs.append(self._text(start, end, field=1))
        elif number == _INITIALIZER:
            self.initializers.append(self._text(start, end, field=8))
        elif number == _SPARSE_INITIALIZER:
            for field, _, _, first, last in self._messages(start, end):
                if field == 1:
                    self.initializers.append(self._text(first, last, field=8))

    def _external(self, start: int, end: int) -> None:
        """One key and value of a tensor that lies outside the file."""
        if self._text(start, end, field=1) == "location":
            self.locations.append(self._text(start, end, field=2))

    def _text(self, start: int, end: int, *, field: int) -> str:
        return text_field(self.data, self._messages(start, end), field)

    def _messages(self, start: int, end: int) -> Iterator[Span]:
        """The fields of wire type 2: messages, strings and bulk data."""
        return spans(self.data, start, end, self._budget, BYTES)


def _standard(domain: str) -> str:
    """The standard domain has two names."""
    return "" if domain == "ai.onnx" else domain
