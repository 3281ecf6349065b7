"""What another package brings: notes as an output, and the tempo that they are asked to have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gensdk_runtime import noise
from gensdk_runtime.arguments import check_number
from gensdk_runtime.conditions.base import Array, Condition, register_condition
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.outputs.base import Drawn, Output, register_output
from gensdk_runtime.spec.kinds import ConditionSpec, OutputSpec


class NotesSpec(OutputSpec):
    """`length` notes, each a number from 0 to 127."""

    dtype: ClassVar = "int64"

    kind: Literal["notes"] = "notes"
    length: Annotated[int, Field(ge=1, le=4096)]
    value_range: tuple[float, float] = (0.0, 127.0)

    @property
    def shape(self) -> tuple[int]:
        return (self.length,)


@register_output
class Notes(Output[NotesSpec]):
    """int64 [n, length]; as text a line for each sample."""

    Spec: ClassVar = NotesSpec
    plural = "notes"
    suffixes = (".txt", ".npz")

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        if suffix == ".npz":
            return self.npz(samples)
        return "".join(" ".join(map(str, row)) + "\n" for row in samples.data.tolist()).encode()


class TempoSpec(ConditionSpec):
    """Beats a minute, at most `fastest`."""

    kind: Literal["tempo"] = "tempo"
    fastest: Annotated[float, Field(gt=0)] = 240.0


@register_condition
class Tempo(Condition[TempoSpec]):
    """float32 [n], beats a minute."""

    Spec: ClassVar = TempoSpec
    absent = "keeps no time"
    example = "120.0"

    def check(self, given: Any, n: int | None) -> Array:
        row = np.atleast_1d(np.asarray(given, np.float32))
        if len(row) not in (1, n) or not ((row > 0) & (row <= self.spec.fastest)).all():
            raise InputError(f"expected a tempo up to {self.spec.fastest:g} for each of {n} samples, got {given}")
        return np.broadcast_to(row, len(row) if n is None else n).copy()

    def drawn(self, keys: Sequence[SampleKey]) -> Array:
        return noise.uniform(keys, noise.LABEL_STREAM, (1,))[:, 0] * np.float32(self.spec.fastest)

    def examples(self, n: int, first: int = 0) -> Array:
        return np.linspace(60, self.spec.fastest, n, dtype=np.float32)

    def parsed(self, text: str) -> Any:
        return check_number(float(text), "tempo")
