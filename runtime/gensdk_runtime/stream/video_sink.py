"""A video file, complete or not there: written beside its place, closed, checked, and put in place at the end."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.atomic import put_in_place, sibling, sync
from gensdk_runtime.errors import InputError
from gensdk_runtime.stream.frame import StreamFacts, TranslatedFrame, Uint8
from gensdk_runtime.stream.sink import Sink

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""What every build of OpenCV can write: MPEG-4 part 2, and motion JPEG."""

DEFAULT_FPS = 25.0
MAX_HELD_SECONDS = 1.0


class VideoSink(Sink):
    """An .mp4 or .avi file without sound, at the source's frame rate (25 where it has none).

    All frames have the first one's size, less a last odd row or column; others are fitted into it, with black
    around. Of a live source each frame is held until the next one came, for a second at most, so that the video
    runs as fast as what it shows.
    """

    def __init__(self, path: str | Path, *, fps: float | None = None) -> None:
        self.path = Path(path)
        self._fps = fps or 0.0
        self._live = False
        self._undo = ExitStack()
        self._beside = Path()
        self._writer: Any = None
        self._size = (0, 0)
        self._written = 0
        self._begun = 0.0
        self._last: Uint8 | None = None

    def open(self, facts: StreamFacts) -> None:
        """Raises :class:`InputError` for another suffix, and where no file can be written."""
        if self.path.suffix.lower() not in CODECS:
            raise InputError(f"can't write videos as {self.path.suffix or 'that'}; use one of {', '.join(CODECS)}")
        if self.path.is_dir():
            raise InputError(f"can't write {self.path}: it is a folder")
        self._live = facts.live
        self._fps = self._fps or facts.fps or DEFAULT_FPS
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = self._undo.enter_context(sibling(self.path.absolute(), folder=True))
        except OSError as failure:
            raise InputError(f"can't write {self.path}: {failure.strerror or failure}") from None
        self._beside = folder / f"video{self.path.suffix.lower()}"

    def write(self, frame: TranslatedFrame) -> None:
        """Appends it."""
        view = frame.view
        if self._writer is None:
            self._start(view)
            self._begun = frame.captured
        if self._live and self._last is not None:
            due = round((frame.captured - self._begun) * self._fps)
            held = min(due - self._written, int(MAX_HELD_SECONDS * self._fps))
            for _ in range(held):
                self._append(self._last)
            if due > self._written:  # after a long gap the video goes on from here
                self._begun += (due - self._written) / self._fps
            if due < self._written:
                self._last = view
                return  # two frames within the time of one: the later one is shown
        self._append(view)
        self._last = view

    def close(self) -> None:
        """Puts the finished video in place; without a frame, what stood there stays."""
        with self._undo:
            if self._writer is None:
                return
            self._writer.release()
            self._writer = None
            self._check()
            try:
                sync(self._beside)
                put_in_place(self._beside, self.path.absolute())
            except OSError as failure:
                raise InputError(f"can't write {self.path}: {failure.strerror or failure}") from None

    def _start(self, view: Uint8) -> None:
        import cv2

        height, width = (side - side % 2 if side > 1 else side for side in view.shape[:2])
        code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._beside), code, self._fps, (width, height))
        if not writer.isOpened():
            raise InputError(f"OpenCV can't write {self.path.suffix} of {width} x {height} pixels here")
        self._writer, self._size = writer, (height, width)

    def _append(self, view: Uint8) -> None:
        import cv2

        self._writer.write(cv2.cvtColor(fitted(view, *self._size), cv2.COLOR_RGB2BGR))
        self._written += 1

    def _check(self) -> None:
        """OpenCV does not say when it could not write."""
        import cv2

        video = cv2.VideoCapture(str(self._beside))
        try:
            count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        finally:
            video.release()
        if count < self._written:
            raise InputError(
                f"can't write {self.path}: only {count} of {self._written} frames arrived; is the disk full?"
            )


def fitted(image: Uint8, height: int, width: int) -> Uint8:
    """`image` [h, w, 3] in a frame of another size: cut by one pixel, or shrunk or enlarged with black around."""
    if image.shape[:2] == (height, width):
        return image
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    import cv2

    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    resized = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    framed[top : top + inner[1], left : left + inner[0]] = resized
    return framed
