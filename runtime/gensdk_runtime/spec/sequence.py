"""What a manifest says of a model that makes one element after another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.fields import Name
from gensdk_runtime.spec.kinds import PROGRAMS, ProgramSpec
from gensdk_runtime.spec.settings import SequenceSettings


@PROGRAMS.register
class SequenceSpec(ProgramSpec):
    """One element after another, at most `length` of them, each of `channels` tokens from 0 to `levels` - 1, with
    the past of every layer as an explicit state.

    `step_graph`, once an element: ``token`` int64 [B, C], the element before (`begin` in front of the first),
    ``position`` int64 [1], the number of the element to draw, from 0, ``uniform`` [B, C], states, which start at
    zero, conditions, and the options that it knows: ``temperature`` [B], ``top_k`` int64 [B] and ``top_p`` [B].
    Gives ``next_token``, -1 where no number came out that a token could be drawn from, and the next states.
    `likelihood_graph`: whole samples, in the tensor of the output's name [B, ...], ``lengths`` int64 [B], the
    elements of each that count, and conditions; gives ``log_likelihood`` [B] in nats.
    `context_graph`, once a sample: conditions, at least one; gives tensors of role "context" [B, ...], each of one
    size, which `step_graph` takes under their names in every step, such as what an encoder makes of a prompt. The
    likelihood graph is given the conditions alone.
    `decode_graph`: ``tokens`` int64 [B, elements, C] to what they stand for, [B, elements, ...]; None where the
    tokens [B, elements] are the sample, as of texts.
    `axis`: of a sample, along which its elements lie; it holds `length` of them, or a multiple.
    `stop`: the token in the first channel that ends a sample; it is no part of it. What lies behind it in the
    array is made of the token `rest`.
    """

    makes: ClassVar[frozenset[str]] = frozenset(("text", "audio", "pianoroll", "points", "image"))

    kind: Literal["sequence"] = "sequence"
    step_graph: Name
    likelihood_graph: Name
    context_graph: Name | None = None
    decode_graph: Name | None = None
    length: Annotated[int, Field(ge=1, le=2**24)]
    levels: Annotated[int, Field(ge=2, le=2**20)]
    channels: Annotated[int, Field(ge=1, le=64)] = 1
    begin: Annotated[int, Field(ge=0)] = 0
    stop: Annotated[int, Field(ge=0)] | None = None
    rest: Annotated[int, Field(ge=0)] = 0
    axis: Annotated[int, Field(ge=0, le=7)] = 0
    defaults: SequenceSettings = SequenceSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rest >= self.levels or (self.stop is not None and self.stop >= self.levels):
            raise ValueError(f"tokens go from 0 to {self.levels - 1}; got stop {self.stop}, rest {self.rest}")
        if self.begin > self.levels:
            raise ValueError(f"begin is a token or {self.levels}, the number behind the last; got {self.begin}")
        return self

    @property
    def elements(self) -> int:
        """See :class:`ProgramSpec`."""
        return self.length

    @property
    def working(self) -> int:
        """See :class:`ProgramSpec`: uniform numbers, and tokens as int64 where they are drawn, where they lie
        whole and where they are decoded."""
        return 7 * self.length * self.channels

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the program, by name."""
        names = (self.step_graph, self.likelihood_graph, self.context_graph, self.decode_graph)
        return tuple(name for name in names if name is not None)
