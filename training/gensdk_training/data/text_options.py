"""How texts become tokens: what ``gensdk train --text KEY=VALUE`` sets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.strict import StrictModel
from gensdk_runtime.text.words import Joining

Column = Annotated[str, Field(min_length=1, max_length=200)] | Annotated[int, Field(ge=1, le=10_000)]


class TextOptions(StrictModel):
    """How texts of a file become tokens. The rules are those of :mod:`gensdk_runtime.text`.

    vocabulary: "words" or "characters", built of the training part alone.
    tokenizer: A JSON file of the library tokenizers (extra ``text``), which replaces the vocabulary.
    lower_case: Whether texts are turned to lower case.
    joining: How words are found: "punctuation" makes marks of punctuation words of their own, "spaces" takes what
        stands between spaces.
    min_count: Pieces that stand less often in the training part are unknown.
    most: The vocabulary's largest size; the most frequent pieces stay.
    length: Most tokens of a text, its end among them; None: as the longest has, at most 128.
    over_long: Texts that are longer are left out ("drop") or lose what is too much ("cut").
    table: Whether each line is a row with tabs between columns; None: where all of the first lines have as many.
    column: The name or the number (from 1) of the column of texts, or the key of a .jsonl; None: found.
    threshold: Labels are scores: those above it are "positive", those below minus it "negative", and what is
        between is left out.
    valid: Share of the data that is kept for choosing settings, beside the test part.
    """

    vocabulary: Literal["words", "characters"] = "words"
    tokenizer: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    lower_case: bool = True
    joining: Joining = "punctuation"
    min_count: Annotated[int, Field(ge=1)] = 2
    most: Annotated[int, Field(ge=8, le=2**17)] = 2**16
    length: Annotated[int, Field(ge=2, le=2**16)] | None = None
    over_long: Literal["drop", "cut"] = "drop"
    table: bool | None = None
    column: Column | None = None
    threshold: Annotated[float, Field(ge=0)] | None = None
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        fields = type(self).model_fields
        building = ("vocabulary", "lower_case", "joining", "min_count", "most")
        given = [name for name in building if getattr(self, name) != fields[name].default]
        if self.tokenizer is not None and given:
            raise ValueError(f"a tokenizer brings its own rule; leave {', '.join(given)} out")
        return self
