"""A model's graphs, open on one backend in one precision, with the program over them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from gensdk_runtime.backends.base import Backend, Session
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.manifest import ModelSpec, Precision
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.base import Program


@dataclass(frozen=True)
class Runner:
    """`label` is what results call the backend; `program` runs over `sessions`."""

    label: str
    precision: Precision
    sessions: Mapping[str, Session]
    program: Program[Any]

    def close(self) -> None:
        """Frees the graphs. May be called twice."""
        for session in self.sessions.values():
            session.close()


def open_runner(bundle: Bundle, backend: Backend, precision: Precision) -> Runner:
    """Opens the graphs of `bundle`; what was opened is closed again where one of them fails."""
    model = bundle.manifest.model
    sessions: dict[str, Session] = {}
    with ExitStack() as opened:
        for graph in model.graphs:
            source = bundle.graph_source(graph.name, precision)
            sessions[graph.name] = opened.enter_context(backend.open(graph, source, precision=precision))
        runner = Runner(backend.label, precision, sessions, make_program(model, sessions))
        opened.pop_all()
    return runner


def runner_of(model: ModelSpec, sessions: Mapping[str, Session]) -> Runner:
    """A runner over sessions that were opened elsewhere, such as live torch modules."""
    first = next(iter(sessions.values()))
    return Runner(first.backend, first.precision, sessions, make_program(model, sessions))
