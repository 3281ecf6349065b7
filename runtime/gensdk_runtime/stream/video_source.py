"""Cameras, video files and network streams."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from gensdk_runtime.media.video.address import check_address, is_address, masked
from gensdk_runtime.media.video.containers import open_address, open_file, pyav, reason, video_of
from gensdk_runtime.media.video.decoding import Decoder, Lost
from gensdk_runtime.media.video.picture import Painter
from gensdk_runtime.stream.frame import FileFacts, Presentation, Uint8
from gensdk_runtime.stream.opencv import MAX_FPS, open_camera
from gensdk_runtime.stream.source import Capture, CorruptFrameError, Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class VideoSource(Source):
    """A camera by number, a video file, or an address.

    Cameras are live, and so are addresses that do not say how long they are. `timeout`: seconds that an address
    may take to open, and between two frames, until it counts as lost. Files and addresses need PyAV, cameras
    OpenCV.
    """

    def __init__(self, what: int | str | Path, *, timeout: float = 10.0) -> None:
        self.path: Path | None = None
        self._what = what if isinstance(what, int) else str(what)
        self._timeout = timeout
        self.name = f"camera {what}" if isinstance(what, int) else masked(str(what))
        if isinstance(self._what, int):
            return
        if is_address(self._what):
            self._what = check_address(self._what)
        elif not Path(self._what).is_char_device():
            self.path = Path(self._what)

    def open(self) -> Capture:
        """Raises :class:`InputError` for what can't be opened, or holds no video."""
        if self.path is not None:
            return _opened(open_file(self.path), self.name, path=self.path)
        if isinstance(self._what, str) and is_address(self._what):
            return _opened(open_address(self._what, self._timeout), self.name, path=None)
        return open_camera(self._what, self.name)


def _opened(container: InputContainer, name: str, path: Path | None) -> Capture:
    try:
        return VideoCapture(container, name, path)
    except BaseException:
        container.close()
        raise


class VideoCapture(Capture):
    """The frames of a file at `path`, or of an address, which is live where it states no length."""

    def __init__(self, container: InputContainer, name: str, path: Path | None) -> None:
        stream = video_of(container, name)
        self._container, self._stream, self._name = container, stream, name
        self._decoder = Decoder(container, stream)
        self._painter = Painter()
        self._items = self._decoder.frames()
        self._jumps = 0
        self._count = 0
        self._to_skip: Lost | None = None
        self._damaged = 0
        self.frames = self._decoder.announced
        self.live = path is None and not self.frames and not container.duration
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        self.fps = float(rate) if rate and 0 < rate <= MAX_FPS else 0.0
        self._pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self._remarks: list[str] = []
        if not self.live:
            known = rate if self.fps else None
            self.file = FileFacts(
                path, stream.time_base, known, stream.base_rate, tuple(_others(container, stream))
            )

    def read(self) -> Uint8 | None:
        """The next frame; one that can't be decoded raises, each at its place."""
        try:
            return self._next()
        except pyav().error.FFmpegError as failure:
            self._finish(reason(failure))
            return None

    def close(self) -> None:
        """Frees the decoder and the connection."""
        self._items.close()
        self._container.close()

    def take_remarks(self) -> list[str]:
        """Remarks on its first frame and on its end."""
        remarks, self._remarks = self._remarks, []
        return [f"{self._name}: {remark}" for remark in remarks]

    def _next(self) -> Uint8 | None:
        while True:
            if self._to_skip is not None:
                raise self._skipped(self._to_skip)
            item = next(self._items, None)
            if item is None:
                self._finish(self._decoder.cut)
                return None
            if isinstance(item, Lost):
                self._to_skip = item
                continue
            return self._picture(item)

    def _skipped(self, lost: Lost) -> CorruptFrameError:
        """The error for one lost frame; the others are kept for later reads."""
        self._to_skip = Lost(lost.count - 1, lost.why) if lost.count > 1 else None
        number, self._count = self._count, self._count + 1
        return CorruptFrameError(f"{self._name}: frame {number} can't be decoded ({lost.why})")

    def _picture(self, frame: VideoFrame) -> Uint8:
        self._count += 1
        self._damaged += frame.is_corrupt
        base = frame.time_base or self._stream.time_base
        image = self._painter.picture(frame, self._name)
        self._remarks += self._painter.take_remarks()
        if frame.pts is None or not base or self.live:
            self.presentation = None
        else:
            aspect = 1 / self._pixel_aspect if self._painter.turned else self._pixel_aspect
            length = frame.duration * base if frame.duration else None
            clock = self._decoder.clock
            if clock.jumps > self._jumps:
                self._jumps = clock.jumps
                self._remarks.append(
                    f"its clock jumps, about frame {self._count - 1}; the film goes on without a gap"
                )
            time = clock.time(frame.pts, base)
            self.presentation = Presentation(time, length, aspect)
        return image

    def _finish(self, cut: str) -> None:
        self.cut, self.missing = cut, self._decoder.missing
        if self._damaged:
            self._remarks.append(f"{self._damaged} frames are damaged, and shown as the decoder repaired them")


def _others(container: InputContainer, video: VideoStream) -> Iterator[str]:
    """The kinds of the streams that hold neither the video nor sound, such as ``subtitle``."""
    for each in container.streams:
        if each.index != video.index and each.type != "audio":
            yield each.type
