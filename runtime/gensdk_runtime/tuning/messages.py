"""What the tuner and its child processes say to each other: one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.spec.strict import StrictModel

MAX_LINE = 2**16


class Question(StrictModel):
    """What a child is asked.

    ``open``: read the bundle at `path`, which must have this `identity`, with its
    engines if the user trusts them. ``availability``: whether `backend`
    runs here. ``run``: a batch of `batch` samples on each worker of `choice`, `repeats` times, each stopped after
    `units` steps (None: not stopped); with `warm` there is one run before that is not counted.
    """

    kind: Literal["open", "availability", "run"]
    path: str = ""
    identity: str = ""
    trust_engines: bool = False
    backend: str = ""
    choice: Choice = Choice()
    precision: Precision = "fp32"
    batch: Annotated[int, Field(ge=1)] = 1
    units: Annotated[int, Field(ge=1)] | None = None
    repeats: Annotated[int, Field(ge=1)] = 1
    warm: bool = False


class Answer(StrictModel):
    """What it says: `error`, or what was asked for.

    `seconds` that a whole sampling run takes, of `units` steps; `available`, `version`, `devices` and `padded`
    of a backend.
    """

    error: Annotated[str, Field(max_length=1000)] = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    units: Annotated[int, Field(ge=0)] = 0
    available: bool = False
    version: Annotated[str, Field(max_length=200)] = ""
    devices: Annotated[tuple[Annotated[str, Field(max_length=50)], ...], Field(max_length=32)] = ()
    padded: bool = False
