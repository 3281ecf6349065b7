"""The whole sampler as one ONNX graph, put together from the graphs that its program runs step by step.

Each weight stands once, in the body that uses it. For hosts without Python, and for this one where it is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import helper

from gensdk_export.one_call.elements import draw_elements
from gensdk_export.one_call.parts import Files, Part
from gensdk_export.one_call.rows import draw_rows
from gensdk_export.one_call.steps import draw_steps
from gensdk_export.onnx_check import MAX_IR_VERSION, check_onnx
from gensdk_export.onnx_export import OPSET
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import InputError
from gensdk_runtime.programs import layers, make_program, one_run
from gensdk_runtime.programs.diffusion import DiffusionForm
from gensdk_runtime.programs.one_call import sampler_graph
from gensdk_runtime.programs.sequence import SequenceForm
from gensdk_runtime.programs.sequence_call import SAMPLER
from gensdk_runtime.programs.solvers import SolverTable
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec


class OneCall:
    """The one-call graph of `model`: its signature, the settings that become part of it, and how it is built.

    `changed`: settings as :meth:`Generator.sample` has them, where they differ from the model's defaults (None
    stands for the default). Raises :class:`InputError` where the model takes one call already, has no such
    setting, or refuses its value.
    """

    def __init__(self, model: ModelSpec, changed: Mapping[str, Any] | None = None) -> None:
        if not takes_many_calls(model):
            raise InputError(f"a {model.program.kind} model takes one call as it is; leave one_call out")
        if layers(model):
            raise InputError("the optimizer of an ascent model runs outside of its graphs; leave one_call out")
        # The program's own rules for settings; it needs no more of its graphs than their signatures.
        sessions = {graph.name: FakeSession(graph, backend="fake", precision="fp32") for graph in model.graphs}
        program = make_program(model, sessions)
        settings = program.starting(program.resolve(changed or {}), given=False)
        self.model = model
        self._in_elements = isinstance(program, SequenceForm)
        self.settings: DiffusionSettings | None = None
        self._table: SolverTable | None = None
        if isinstance(program, DiffusionForm) and isinstance(settings, DiffusionSettings):
            if program.spec.latent is not None:
                raise InputError(
                    "the decoder of a latent space is no part of a one-call graph; leave one_call out"
                )
            if settings.cache_interval > 1:
                raise InputError("the one-call graph shares no features between steps; it needs cache_interval=1")
            self.settings, self._table = settings, program.table(settings)
        self.graph: GraphSpec = sampler_graph(model, self._table, self.settings)

    def build(self, files: Files) -> bytes:
        """The ONNX file, from those of the model's graphs in one precision.

        Raises :class:`ExportError` where the result is not valid, deterministic ONNX with this signature.
        """
        main = Part(SAMPLER, prefix="")
        inputs = {spec.name: main.input(spec.name, spec.dtype, spec.shape) for spec in self.graph.inputs}
        made = self._made(main, inputs, files)
        for result in self.graph.outputs:
            main.output(result.name, made[result.name], result.dtype, result.shape)
        file = helper.make_model(
            main.proto,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=MAX_IR_VERSION,
            producer_name="gensdk",
        )
        check_onnx(file, self.graph)
        return bytes(file.SerializeToString())

    def _made(self, main: Part, inputs: Mapping[str, str], files: Files) -> dict[str, str]:
        """The outputs, by name."""
        if self._in_elements:
            return draw_elements(main, inputs, self.model, files)
        if self.settings is not None and self._table is not None:
            images = draw_steps(main, inputs, self.model, files, table=self._table, settings=self.settings)
        else:
            images = draw_rows(main, inputs, self.model, files)
        return {result.name: images for result in self.graph.outputs}


def takes_many_calls(model: ModelSpec) -> bool:
    """True if sampling `model` runs graphs many times, so that a one-call graph differs from its own."""
    return one_run(model) is None
