"""A frame on its way through a stream, and what sinks are told about the stream as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame of a source.

    `index` counts what the source gave, dropped and corrupt frames too; `image` uint8 [H, W, 3] in RGB, at the
    size that is translated; `captured` is when it was read, in seconds of ``time.perf_counter``; `decode` the
    seconds that reading took.
    """

    index: int
    image: Uint8
    captured: float
    decode: float


@dataclass(slots=True)
class TranslatedFrame:
    """What a sink gets.

    `source` uint8 [H, W, 3] in RGB; `result` uint8 [s H, s W, C], what the model made of it; `view` uint8
    [h, w, 3] in RGB, what is to be shown: the result, mixed with the source or beside it where that was asked for.
    The arrays are the sink's to keep, not to change. `reused`: the source was so similar to an earlier one that
    its result was taken. `index`, `captured` and `decode` as in :class:`CapturedFrame`; `translate`: seconds.
    """

    index: int
    captured: float
    source: Uint8
    result: Uint8
    view: Uint8
    reused: bool
    decode: float
    translate: float


@dataclass(frozen=True)
class StreamFacts:
    """What is known when a stream begins: the names of model and source, whether frames come in real time, the
    source's frames per second, and how many it holds; 0 where it does not say."""

    model: str
    source: str
    live: bool
    fps: float = 0.0
    frames: int = 0
