"""Curves and previews for TensorBoard.

TensorBoard's own writer has a thread, and a disk that is full ends it with a traceback. Here events are written as
they come: there are few, and if they can't be written, the training is told and goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.images import encode_image

log = logging.getLogger("gensdk.train")


class Board:
    """TensorBoard event files under `folder`; does nothing where tensorboard is not installed.

    A failure to write curves does not end the training: `note` reports it once, and no more are written. Points
    after `step` come from a run that was cut off after its last checkpoint: they are hidden.
    """

    def __init__(self, folder: Path, *, step: int, note: Callable[[str], None]) -> None:
        self._note = note
        self._events: _Events | None = None
        with self._or_no_more():
            self._events = _open_events(folder, step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to the curve of each name."""
        with self._or_no_more():
            if self._events is not None:
                self._events.scalars(step, values)

    def image(self, step: int, image: NDArray[np.uint8]) -> None:
        """Adds a preview: uint8 [H, W, C]."""
        with self._or_no_more():
            if self._events is not None:
                self._events.image(step, image)

    def close(self) -> None:
        """Closes the file."""
        with self._or_no_more():
            if self._events is not None:
                self._events.file.close()

    @contextmanager
    def _or_no_more(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            if self._events is not None:
                with suppress(OSError):
                    self._events.file.close()
            self._events = None
            self._note(f"no more curves for TensorBoard: they can't be written ({failure.strerror or failure})")


class _Events:
    """One event file: records of protobufs, each with its length and checksums."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # A new name, which must not exist; unbuffered, so that a failure is seen here and not at the end.
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{os.getpid()}.{time.time_ns() % 10**9:09d}"
        self.file = (folder / name).open("xb", buffering=0)
        self._records = RecordWriter(self.file)

    def add(self, step: int, **what: Any) -> None:
        """One event, such as ``summary=...``."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            self.add(step, summary=scalar(name, value))  # type: ignore[no-untyped-call]

    def image(self, step: int, image: NDArray[np.uint8]) -> None:
        """A picture, uint8 [H, W, C]."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width, channels = image.shape
        encoded = encode_image(image, ".png", {})
        picture = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
        self.add(step, summary=Summary(value=[Summary.Value(tag="preview", image=picture)]))


def _open_events(folder: Path, step: int) -> _Events | None:
    try:
        import torch.utils.tensorboard  # noqa: F401 - what `scalars` needs
        from tensorboard.compat.proto.event_pb2 import SessionLog
    except ImportError:
        log.info("tensorboard is not installed; no curves are written")
        return None
    events = _Events(folder)
    events.add(0, file_version="brain.Event:2")
    if step:
        events.add(step, session_log=SessionLog(status=SessionLog.START))
    return events
