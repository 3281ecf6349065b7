"""A loop of runs as one CUDA graph, which is launched as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gensdk_runtime.errors import BackendError

if TYPE_CHECKING:
    from gensdk_runtime.backends.cuda.bound import GpuBound


def recorded_loop(loop: Callable[[], None], bounds: Sequence[GpuBound]) -> Callable[[], None] | None:
    """See :meth:`Bound.record`: the loop over `bounds`, in the stream of the first, where the others join it."""
    first, *others = bounds

    def enqueue() -> bool:
        for each in others:
            each.stream.after(first.stream)
        loop()
        for each in others:
            first.stream.after(each.stream)
        return True

    for each in bounds:
        each.send_changed()
        each.stream.synchronize()
        each.recording = True
    try:
        graph = first.stream.capture(enqueue)
    except BackendError:
        graph = None
    finally:
        for each in bounds:
            each.recording = False
    if graph is None:
        return None
    turns = [each.turn for each in bounds]

    def done() -> None:
        for each in bounds:
            each.send_changed()
        for each in others:
            first.stream.after(each.stream)
        graph.launch()
        for each, turn in zip(bounds, turns, strict=True):
            each.stream.after(first.stream)
            each.has_run(turn)

    return done
