"""Captions of images as a model is told them: rows of tokens with a begin in front, and pads behind."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.strict import StrictModel
from gensdk_runtime.text.vocabulary import AnyVocabulary

VOCABULARY = "captions.json"
"""What the vocabulary is called in a bundle."""


class CaptionInfo(StrictModel):
    """Captions as tokens of `vocabulary`, which has a begin and a pad: at most `length` of each text's own.

    `examples`: some of them, to draw previews with.
    """

    length: Annotated[int, Field(ge=1, le=2**12)]
    vocabulary: AnyVocabulary
    examples: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        special = self.vocabulary.special
        if special.begin is None or special.pad is None:
            raise ValueError("captions need a vocabulary with a begin and a pad token")
        return self

    @property
    def begin(self) -> int:
        """The token in front of each text, so that the empty one is something too."""
        return self.vocabulary.special.begin or 0

    @property
    def rest(self) -> int:
        """The token behind each text."""
        return self.vocabulary.special.pad or 0

    @property
    def row_length(self) -> int:
        """Tokens of a row."""
        return self.length + 1

    @property
    def prompt(self) -> PromptSpec:
        """How a model takes such texts: too long ones are cut, since a caption's first words say most."""
        return PromptSpec(
            length=self.row_length,
            size=self.vocabulary.size,
            rest=self.rest,
            begin=self.begin,
            empty=True,
            over_long="cut",
            vocabulary=VOCABULARY,
        )

    def thinned(self, prompts: Tensor, words: float, unasked: Tensor) -> Tensor:
        """Rows int64 [N, row_length] of which a share of the `words` is left out or said to be unknown, one as
        often as the other, and where `unasked`, bool [N], all are left out; the others move up."""
        unknown = self.vocabulary.special.unknown
        chance = torch.rand(prompts.shape, device=prompts.device)
        chance[:, 0] = 1.0  # the begin stays
        own, behind = prompts != self.rest, torch.arange(prompts.shape[1], device=prompts.device) > 0
        if unknown is not None:
            prompts = prompts.masked_fill(own & (chance < words) & (chance >= words / 2), unknown)
            chance = chance.masked_fill(chance >= words / 2, 1.0)
        kept = own & (chance >= words) & ~(unasked.unsqueeze(1) & behind)
        order = torch.argsort(~kept, dim=1, stable=True)
        return prompts.masked_fill(~kept, self.rest).gather(1, order)
