"""A model run step by step, and in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from gensdk_export.one_call.sampler import OneCall
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.runner import one_call_runner, runner_of
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec

STEPS, WHOLE = Choice(threads=1), Choice(threads=1, form="one_call")


@contextmanager
def both_forms(
    model: ModelSpec, files: Mapping[str, bytes], backend: str = "onnxruntime", **changed: Any
) -> Iterator[list[Generator]]:
    """Generators that run a model step by step, and in one call."""
    one_call, engine = OneCall(model, changed), create_backend(backend, threads=1)
    spec = OneCallSpec(graph=one_call.graph, files={"fp32": "x"}, settings=one_call.settings)
    with ExitStack() as opened:
        every = {**files, one_call.graph.name: one_call.build(files)}

        def session(graph: GraphSpec) -> Session:
            return opened.enter_context(engine.open(graph, MemoryGraph(every[graph.name]), precision="fp32"))

        steps = runner_of(model, {graph.name: session(graph) for graph in model.graphs})
        whole = one_call_runner(model, spec, session)
        lineups = (Runners({STEPS: steps}), Runners({WHOLE: whole}))
        yield [opened.enter_context(Generator(model, lineup)) for lineup in lineups]
