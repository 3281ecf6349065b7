"""Many elements of a sequence in one call: the sampler graph holds the loop, and goes on from where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.programs.base import Int64, Wanted, carried_states, require_signature
from gensdk_runtime.programs.contexts import Contexts
from gensdk_runtime.programs.run import Run, State
from gensdk_runtime.programs.sequence import SequenceForm
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import SequenceSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

SAMPLER = "sampler"
"""The name of one-call graphs, and of their sessions."""
CALLS, FEWEST = 16, 64
"""A whole sample takes so many calls, of so many elements at least: between them it is seen whether all samples
have ended."""


def sequence_sampler(model: ModelSpec) -> GraphSpec:
    """The signature of the sampler of a sequence: as the step graph, but for ``uniform`` [B, elements, C].

    It draws so many elements, from ``token``, ``position`` and the states on, which are the `begin` of
    :class:`SequenceSpec` and zeros at first. Gives ``tokens`` int64 [elements, B, C], what they stand for under
    the output's name [B, ...] where the model decodes them, and as ``next_`` what the next call goes on from.
    Contexts are inputs, as of the step graph: inside, the context graph would run again in each call.
    """
    spec = model.program_of(SequenceSpec)
    step, element = model.graph(spec.step_graph), ("batch", spec.channels)
    uniform = step.require_input("uniform").model_copy(update={"shape": ("batch", "elements", spec.channels)})
    inputs = tuple(uniform if each.name == "uniform" else each for each in step.inputs)
    position = step.require_input("position").model_copy(update={"name": "next_position"})
    tokens = TensorSpec(name="tokens", dtype="int64", shape=("elements", *element), role="state")
    decoded = () if spec.decode_graph is None else model.graph(spec.decode_graph).outputs
    return GraphSpec(name=SAMPLER, inputs=inputs, outputs=(*step.outputs, position, tokens, *decoded))


class OneCallSequence(SequenceForm):
    """A part of the elements in each call; `before`: the context graph, where the model has one."""

    def __init__(self, model: ModelSpec, session: Session, before: Mapping[str, Session]) -> None:
        super().__init__(model, {SAMPLER: session, **before})

    def check(self) -> None:
        """The tensors of :func:`sequence_sampler`."""
        super().check()
        expected = sequence_sampler(self.model)
        require_signature(
            self.sessions[SAMPLER].graph,
            {spec.name: Wanted(spec.shape, spec.dtype) for spec in expected.inputs},
            {spec.name: Wanted(spec.shape, spec.dtype) for spec in expected.outputs},
        )

    def covers(self, settings: SequenceSettings, *, listening: bool) -> bool:
        """True where no callback listens to single elements."""
        return not listening

    def begin(self, run: Run, settings: SequenceSettings) -> State:
        """A step is a call."""
        return _Parts(run, self, settings)


class _Parts(State):
    """A batch, so many elements in each call, until all samples have ended."""

    def __init__(self, run: Run, program: OneCallSequence, settings: SequenceSettings) -> None:
        super().__init__(run)
        spec, session = program.spec, program.sessions[SAMPLER]
        self._program, self._spec = program, spec
        self._length = program.length(settings)
        self._each = min(self._length, max(FEWEST, -(-spec.length // CALLS)))
        carry = {"next_token": "token", "next_position": "position", **carried_states(session.graph)}
        self._bound = self.borrow(session, {"batch": len(run), "elements": self._each}, carry)
        for name, values in program.lasting(self._bound, run, settings).items():
            self._bound.overwrite(name)[...] = values
        if program.context is not None:
            contexts = Contexts(program.context, program.conditions, self)
            contexts.hand_over(contexts.asked, self._bound)
        for name in carry.values():
            self._bound.feed(name).fill(0)
        self._bound.overwrite("token")[...] = spec.begin
        calls = -(-self._length // self._each)  # what the last one draws too much is let go
        shape = (calls * self._each, spec.channels)
        self._uniforms = self._bound.drawn("uniform", self._bound.hold_keys(run.keys), noise.LATENT_STREAM, shape)
        self._tokens: Int64 = np.full((self._length, len(run), spec.channels), spec.rest, np.int64)
        output = program.model.output
        self._made: NDArray[Any] | None = None
        if spec.decode_graph is not None:
            self._made = np.zeros((len(run), *output.shape), output.dtype)
        self._drawn = 0

    def step(self) -> bool:
        """One call."""
        first, end = self._drawn, min(self._drawn + self._each, self._length)
        self._bound.feed("uniform")[...] = self._uniforms[:, first : first + self._each]
        self.run.timed(self._bound)
        self._keep(first, end)
        self._drawn = end
        call, calls = first // self._each, -(-self._length // self._each)
        if self.run.end_step(call, calls, end - 1, self._whole) or end == self._length:
            return False
        return self._spec.stop is None or bool((self._program.lengths(self._tokens[:end]) == end).any())

    def _keep(self, first: int, end: int) -> None:
        if self._made is None:
            (tokens,) = self._bound.outputs("tokens")
        else:
            name, axis = self._program.model.output.tensor, self._spec.axis
            tokens, made = self._bound.outputs("tokens", name)
            each = self._made.shape[axis + 1] // self._spec.length
            here = np.moveaxis(self._made, axis + 1, 0)
            here[first * each : end * each] = np.moveaxis(made, axis + 1, 0)[: (end - first) * each]
        self._tokens[first:end] = tokens[: end - first]

    def _whole(self) -> NDArray[Any]:
        if self._made is not None:
            return self._made
        spec = self._spec
        whole = np.full((self._tokens.shape[1], spec.length), spec.rest, np.int64)
        whole[:, : self._length] = self._tokens[:, :, 0].T
        return whole

    def finish(self) -> None:
        """See :class:`State`."""
        tokens = self._tokens[: self._drawn]
        self._program.require_tokens(tokens, self._program.sessions[SAMPLER])
        self._program.keep(self.run, self._whole(), self._program.lengths(tokens))
