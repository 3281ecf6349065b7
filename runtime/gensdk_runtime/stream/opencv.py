"""OpenCV, which shows windows and reads cameras: whichever of its packages is installed."""

from __future__ import annotations

import os
from typing import Any

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.stream.frame import Uint8
from gensdk_runtime.stream.source import Capture, CorruptFrameError

MAX_FPS = 1000.0


def opencv(what: str) -> Any:
    """OpenCV's module; :class:`UnavailableError` where none is installed. `what` needs it: "a window"."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # its warnings say what our errors say
    try:
        import cv2
    except ImportError as failure:
        raise UnavailableError(f"{what} needs OpenCV ({failure}): pip install opencv-python") from None
    return cv2


def open_camera(what: int | str, name: str) -> Capture:
    """The camera of a number or a device file; :class:`InputError` where there is none, or another program has
    it."""
    video = opencv("a camera").VideoCapture(what)
    if not video.isOpened():
        video.release()
        raise InputError(f"can't open {name}: expected a camera of that number that no other program uses")
    return _CameraCapture(video, name)


class _CameraCapture(Capture):
    live = True

    def __init__(self, video: Any, name: str) -> None:
        fps = float(video.get(opencv("a camera").CAP_PROP_FPS))
        self.fps = fps if 0 < fps <= MAX_FPS else 0.0
        self._video = video
        self._name = name
        self._buffer: Any = None
        self._count = 0

    def read(self) -> Uint8 | None:
        cv2 = opencv("a camera")
        if not self._video.grab():
            return None
        self._count += 1
        done, self._buffer = self._video.retrieve(self._buffer)  # the same memory for each frame
        if not done or self._buffer is None or not self._buffer.size:
            raise CorruptFrameError(f"{self._name}: frame {self._count - 1} can't be decoded")
        if max(self._buffer.shape) > MAX_SIDE:
            raise InputError(
                f"{self._name}: a frame of {list(self._buffer.shape)} is over {MAX_SIDE} pixels a side"
            )
        image: Uint8 = cv2.cvtColor(self._buffer, cv2.COLOR_BGR2RGB)
        return image

    def close(self) -> None:
        self._video.release()
