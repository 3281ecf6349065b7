"""Where frames come from: the contract, image folders, and Python iterators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import SUFFIXES, decode, read_file, read_header
from gensdk_runtime.media.image_frames import Frame, frame_count, frames
from gensdk_runtime.media.image_listing import ImageListing, named_images
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.media.image_reader import CorruptImageError
from gensdk_runtime.media.sounds import Float32
from gensdk_runtime.stream.frame import FileFacts, Presentation, Uint8

SHORTEST, BROWSERS = 10, 100
"""Milliseconds: a frame that is shown no longer than the first is shown for the second, as in browsers."""


class CorruptFrameError(Exception):
    """This frame can't be decoded, the next one may; the message names it. The stream skips and counts it."""


class Capture(ABC):
    """An open source. One thread uses it; `live` and `fps` say how its frames come."""

    live = False
    """Frames come in real time, whether read or not; where they cease, the source is opened again."""
    fps = 0.0
    """Frames per second; 0: not known."""
    frames = 0
    """How many there are; 0: not known."""
    file: FileFacts | None = None
    """What a video file says of itself."""
    name = ""
    alpha: Uint8 | None = None
    """Of the frame that was read last, where it is a file of its own: its path within the source, and its
    transparency, uint8 [h, w, 1], where that is kept."""
    presentation: Presentation | None = None
    """Of the frame that was read last: when and how a video shows it."""
    heard: Float32 | None = None
    """Of the frame that was read last, of a talking face: the window of sound around it."""
    lag = 0.0
    """Seconds by which the moment that a frame shows lies before its reading, where frames come in real time."""
    cut = ""
    """After the last frame: why there should have been more, empty where all came."""
    missing = 0
    """After the last frame: how many frames the source announced and did not hold."""

    @abstractmethod
    def read(self) -> Uint8 | None:
        """The next frame, uint8 [H, W, 3] in RGB, an array of its own; None where there is none any more.

        Raises :class:`CorruptFrameError`; any other error ends the stream.
        """

    def take_remarks(self) -> list[str]:
        """What was guessed, left out or repaired since this was last asked."""
        return []

    def close(self) -> None:  # noqa: B027 - not every capture holds something
        """Frees what it holds."""


class Source(ABC):
    """Something that can be opened, and opened again. `name` stands in messages."""

    name: str

    @abstractmethod
    def open(self) -> Capture:
        """Raises :class:`InputError` where there is nothing to open."""


class IteratorSource(Source):
    """Frames of the caller's, uint8 [H, W, 3] in RGB each."""

    def __init__(self, frames: Iterable[Any], *, name: str = "iterator") -> None:
        self.name = name
        self._frames = frames

    def open(self) -> Capture:
        """Begins to iterate."""
        return _IteratorCapture(iter(self._frames), self.name, _count(self._frames))


class _IteratorCapture(Capture):
    def __init__(self, frames: Iterator[Any], name: str, count: int) -> None:
        self._frames = frames
        self._name = name
        self.frames = count

    def read(self) -> Uint8 | None:
        frame = next(self._frames, None)
        return None if frame is None else check_frame(frame, self._name)


def _count(frames: Iterable[Any]) -> int:
    return len(frames) if isinstance(frames, Sized) else 0


def check_frame(frame: Any, name: str) -> Uint8:
    """`frame` if it is uint8 [H, W, 3] of at most 16384 pixels a side; otherwise :class:`InputError`."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        came = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"{name}: expected frames as uint8 [H, W, 3] in RGB, got {came}")
    if not frame.size or max(frame.shape) > MAX_SIDE:
        raise InputError(f"{name}: expected frames of 1 to {MAX_SIDE} pixels a side, got {list(frame.shape)}")
    return frame


class ImageSource(Source):
    """Image files: those of a folder and of the folders in it, in the order of their names, or a single one.

    A single GIF, WebP or PNG that moves gives all its frames, with their times. Of one in a folder, where a file
    is a frame, the first is taken, with a remark.

    `keeps_alpha`: transparency comes beside the colours; otherwise pictures lie on white.
    """

    def __init__(self, path: str | Path, *, keeps_alpha: bool = False) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.keeps_alpha = keeps_alpha

    def open(self) -> Capture:
        """Lists the folder once; files that appear later are not seen. :class:`InputError` without an image."""
        listing = named_images(self.path)
        if not listing.files:
            left_out = "; ".join(listing.remarks)
            raise InputError(
                f"no {', '.join(SUFFIXES)} file in {self.path}; give a folder with images"
                + (f" ({left_out})" if left_out else "")
            )
        moving = None if self.path.is_dir() else _animation(self.path)
        return moving or _ImageCapture(listing, keeps_alpha=self.keeps_alpha)


class _ImageCapture(Capture):
    def __init__(self, listing: ImageListing, *, keeps_alpha: bool) -> None:
        self._files = iter(listing.files.items())
        self._remarks = list(listing.remarks)
        self._said = set[str]()
        self._keeps_alpha = keeps_alpha
        self.frames = len(listing.files)

    def read(self) -> Uint8 | None:
        found = next(self._files, None)
        if found is None:
            return None
        self.name, path = found
        try:
            data = read_file(path)
            header = read_header(data)
            picture = self._picture(data, alpha=header.alpha)
        except CorruptImageError as failure:
            raise CorruptFrameError(f"{path}: {failure}") from None
        except OSError as failure:
            raise CorruptFrameError(f"{path}: {failure.strerror or failure}") from None
        if header.frames > 1:
            self._remark(f"{path}: the first picture of several in it is taken")
        return picture

    def _picture(self, data: bytes, *, alpha: bool) -> Uint8:
        self.alpha = None
        if alpha and self._keeps_alpha:
            picture = decode(data, 4)
            self.alpha = np.ascontiguousarray(picture[..., 3:])
            return np.ascontiguousarray(picture[..., :3])
        if alpha:
            self._remark("transparent pictures were laid over white")
        return decode(data, 3)

    def _remark(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._remarks.append(text)

    def take_remarks(self) -> list[str]:
        taken, self._remarks = self._remarks, []
        return taken


def _animation(path: Path) -> Capture | None:
    """The frames of a file that moves; None for any other, and for one that can't be read, as reading it tells."""
    try:
        data = read_file(path)
        count = frame_count(data)
        return _AnimationCapture(path, frames(data, 3), count) if count > 1 else None
    except (CorruptImageError, OSError):
        return None


class _AnimationCapture(Capture):
    """`fps` is that of the first frame; each frame says for itself when it is shown, and for how long."""

    def __init__(self, path: Path, moving: Iterator[Frame], count: int) -> None:
        self.frames = count
        self._path = path
        self._first: Frame | None = next(moving)
        self._moving = moving
        self._time = Fraction(0)
        self._given = 0
        self.fps = 1.0 / float(_length(self._first))

    def read(self) -> Uint8 | None:
        try:
            frame, self._first = self._first or next(self._moving, None), None
        except CorruptImageError as failure:
            self.cut, frame = str(failure), None
        if frame is None:
            self.missing = self.frames - self._given
            return None
        length = _length(frame)
        self.presentation = Presentation(self._time, length)
        self._time += length
        self._given += 1
        return frame.image


def _length(frame: Frame) -> Fraction:
    """For how many seconds a frame is shown; browsers take 0.1 for what is too short to be meant."""
    return Fraction(frame.duration if frame.duration > SHORTEST else BROWSERS).limit_denominator(10**6) / 1000
