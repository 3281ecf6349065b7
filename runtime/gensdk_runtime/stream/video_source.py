"""Cameras, video files and network streams, through OpenCV."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.inputs import MAX_SIDE
from gensdk_runtime.stream.frame import Uint8
from gensdk_runtime.stream.source import Capture, CorruptFrameError, Source

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
"""What a URL may begin with; FFmpeg knows others, which read local files or glue several together."""

MAX_FPS = 1000.0


class VideoSource(Source):
    """A camera by number, a video file, or a URL.

    Cameras are live, and so are URLs that do not say how many frames they have. `timeout`: seconds that a URL may
    take to open, and between two frames, until it counts as lost.
    """

    def __init__(self, what: int | str | Path, *, timeout: float = 10.0) -> None:
        self._what = what if isinstance(what, int) else str(what)
        self._timeout = timeout
        self._is_url = isinstance(self._what, str) and "://" in self._what
        if self._is_url:
            check_url(str(self._what))
        self.name = f"camera {what}" if isinstance(what, int) else without_password(str(what))

    def open(self) -> Capture:
        """Raises :class:`InputError` where OpenCV can't."""
        import cv2

        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(self._timeout * 1e3)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(self._timeout * 1e3)]
        video = (
            cv2.VideoCapture(str(self._what), cv2.CAP_FFMPEG, limits)
            if self._is_url
            else cv2.VideoCapture(self._what)
        )
        if not video.isOpened():
            video.release()
            raise InputError(f"can't open {self.name}: {self._remedy()}")
        return _VideoCapture(video, self.name, self._is_camera() or (self._is_url and _frame_count(video) <= 0))

    def _is_camera(self) -> bool:
        return isinstance(self._what, int) or (not self._is_url and Path(self._what).is_char_device())

    def _remedy(self) -> str:
        if self._is_camera():
            return "expected a camera of that number that no other program uses"
        if self._is_url:
            return "expected an address that answers with a video; check it, the password and the network"
        return "expected a video that FFmpeg can decode, such as .mp4 or .avi"


class _VideoCapture(Capture):
    def __init__(self, video: Any, name: str, live: bool) -> None:
        import cv2

        self.live = live
        fps = float(video.get(cv2.CAP_PROP_FPS))
        self.frames = max(0, int(_frame_count(video)))
        self.fps = fps if 0 < fps <= MAX_FPS else 0.0
        self._video = video
        self._name = name
        self._buffer: Any = None
        self._count = 0

    def read(self) -> Uint8 | None:
        import cv2

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
        return np.asarray(cv2.cvtColor(self._buffer, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        self._video.release()


def _frame_count(video: Any) -> float:
    import cv2

    return float(video.get(cv2.CAP_PROP_FRAME_COUNT))


def check_url(url: str) -> None:
    """Raises :class:`InputError` for anything but an address of one of :data:`SCHEMES`."""
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise InputError(f"expected an address that begins with {'://, '.join(SCHEMES)}://, got {scheme[:40]!r}")
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host and scheme != "udp":
        raise InputError(f"expected a host in the address {without_password(url)[:200]!r}, found none")


def without_password(url: str) -> str:
    """The address as it may stand in messages: cameras carry their passwords in it."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)
