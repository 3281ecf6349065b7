"""A model's graphs, open on one backend in one precision, with the program over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from gensdk_runtime.backends.base import Backend, Session
from gensdk_runtime.backends.bound import Sizes
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.plan.costs import Form
from gensdk_runtime.plan.first_run import try_first
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.base import Program
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec


@dataclass(frozen=True)
class Runner:
    """`program` runs over `sessions`."""

    precision: Precision
    sessions: Mapping[str, Session]
    program: Program[Any]

    @property
    def label(self) -> str:
        """What results call the backend: the one that runs now, or all of them where graphs are on several."""
        return "+".join(dict.fromkeys(session.backend for session in self.sessions.values()))

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What graphs run on instead of the backend that was asked for, and why."""
        return tuple(dict.fromkeys(each.fallback for each in self.sessions.values() if each.fallback))

    @property
    def survives_fork(self) -> bool:
        """True if a forked child can go on with all of them."""
        return all(session.survives_fork for session in self.sessions.values())

    def padded_batch(self, count: int, most: int) -> int:
        """The batch that `count` samples are run as, of at most `most`."""
        return min(max(count, *(each.padded_batch(count) for each in self.sessions.values())), max(count, most))

    def largest(self, axis: str, sizes: Sizes) -> int | None:
        """The largest size of a named `axis` that all graphs take beside these `sizes`; None: any."""
        found = (session.largest(axis, sizes) for session in self.sessions.values())
        return min((each for each in found if each is not None), default=None)

    def close(self) -> None:
        """Frees the graphs. May be called twice."""
        for session in self.sessions.values():
            session.close()


def open_runner(bundle: Bundle, backend: Backend, precision: Precision, *, form: Form = "steps") -> Runner:
    """Opens the graphs of `bundle`; what was opened is closed again where one of them fails.

    `form` "one_call" opens the graph that runs the whole sampler, and what runs once before it;
    :class:`InputError` where the bundle has none.
    """
    model, spec = bundle.manifest.model, bundle.manifest.one_call
    if form == "one_call" and spec is None:
        raise InputError(f"{bundle.path}: it has no one-call graph; export the model with --one-call")
    with ExitStack() as opened:

        def session(graph: GraphSpec) -> Session:
            source = bundle.graph_source(graph.name, precision)
            try_first(source, precision)
            return opened.enter_context(backend.open(graph, source, precision=precision))

        if form == "one_call" and spec is not None:
            runner = one_call_runner(model, spec, session)
        else:
            sessions = {graph.name: session(graph) for graph in model.graphs}
            runner = Runner(precision, sessions, make_program(model, sessions))
        opened.pop_all()
    return runner


def one_call_runner(model: ModelSpec, spec: OneCallSpec, opened: Callable[[GraphSpec], Session]) -> Runner:
    """A runner over the one-call graph of `model`, and over what runs once before it, each graph as `opened` opens
    it."""
    from gensdk_runtime.programs.one_call import make_one_call, run_before  # here: most bundles run step by step

    before = {name: opened(model.graph(name)) for name in run_before(model)}
    session = opened(spec.graph)
    program = make_one_call(model, spec, session, before)
    return Runner(session.precision, program.sessions, program)


def runner_of(model: ModelSpec, sessions: Mapping[str, Session]) -> Runner:
    """A runner over sessions that were opened elsewhere, such as live torch modules."""
    first = next(iter(sessions.values()))
    return Runner(first.precision, sessions, make_program(model, sessions))
