"""Where frames go: the contract, callbacks, image files and windows."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.images import SUFFIXES, encode_image, write_atomically
from gensdk_runtime.outputs.image import check_target
from gensdk_runtime.stream.figures import StreamFigures
from gensdk_runtime.stream.frame import StreamFacts, TranslatedFrame
from gensdk_runtime.stream.opencv import opencv

NO_WINDOWS = (
    "this OpenCV has no windows: pip uninstall -y opencv-python opencv-python-headless && "
    "pip install opencv-python, or watch in a browser with --page"
)


TRANSPARENT = (".png", ".webp", ".tif", ".tiff")
"""Image files that hold transparency."""


class Sink(ABC):
    """What takes the frames of a stream, in the thread that called for it; used once, from open to close."""

    plays = False
    """It shows frames and keeps none: a film that goes to such sinks alone plays at its own speed."""

    def open(self, facts: StreamFacts) -> str | None:
        """Raises if it is clear that nothing can be written, before the first frame is translated.

        The text that it returns goes to the options' `on_event`.
        """
        return None

    @abstractmethod
    def write(self, frame: TranslatedFrame) -> bool | None:
        """Takes a frame; returning True ends the stream. May raise, which ends it too."""

    def watched(self) -> bool:
        """True if the frames are being watched, so that a film should play at its own speed."""
        return False

    def tell(self, figures: StreamFigures) -> None:  # noqa: B027 - most sinks show no figures
        """The figures of each second."""

    def take_remarks(self) -> list[str]:
        """What could not be kept as it was, since this was last asked."""
        return []

    def close(self) -> None:  # noqa: B027 - not every sink holds something
        """Completes what was written; called at every end, after an error too. May raise."""


class CallbackSink(Sink):
    """Calls a function with each :class:`TranslatedFrame`; returning True, Python's or numpy's, stops.

    Whatever else it returns is left alone: None, or the number of bytes that a ``write`` wrote.
    """

    def __init__(self, callback: Callable[[TranslatedFrame], object]) -> None:
        self._callback = callback

    def write(self, frame: TranslatedFrame) -> bool:
        """Returns what the callback returned."""
        return is_stop(self._callback(frame))


def is_stop(answer: object) -> bool:
    """True if what a sink returned ends the stream: True, which comparisons of arrays give as ``np.True_``."""
    if isinstance(answer, np.ndarray) and not answer.ndim:
        answer = answer[()]
    return isinstance(answer, bool | np.bool_) and bool(answer)


class FolderSink(Sink):
    """PNG files in a new or empty folder. Of a source of files each has the name of its file, in the same folders;
    frames are numbered as the source's: 000000.png is the first.

    Where frames were dropped or corrupt, their numbers are missing.
    """

    holds_alpha = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def open(self, facts: StreamFacts) -> None:
        """Raises :class:`InputError` for a folder with files in it, which would end up mixed with others."""
        check_target(self.path)
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(f"folder {self.path} is not empty; choose a new one for the frames")

    def write(self, frame: TranslatedFrame) -> None:
        """One file, whole or not at all."""
        name = frame.name or f"{frame.index:06d}.png"
        write_atomically(self.path / name, encode_image(frame.picture, ".png", {}))


class ImageSink(Sink):
    """One image file, for a source of one image."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def holds_alpha(self) -> bool:
        """True if files of its kind can be transparent."""
        return self.path.suffix.lower() in TRANSPARENT

    def open(self, facts: StreamFacts) -> None:
        """Raises :class:`InputError` where it can't be written, and for a source of several frames."""
        if self.path.suffix.lower() not in SUFFIXES or self.path.is_dir():
            raise InputError(f"expected an image file ({', '.join(SUFFIXES)}), got {self.path}")
        if facts.frames != 1:
            raise InputError(
                f"{self.path} holds one image, {facts.source} may have more; choose a folder or a video"
            )
        check_target(self.path)

    def write(self, frame: TranslatedFrame) -> None:
        """Replaces the file."""
        write_atomically(self.path, encode_image(frame.picture, self.path.suffix.lower(), {}))


class WindowSink(Sink):
    """A window on this machine's screen; q, Esc and its close button end the stream."""

    plays = True

    def __init__(self) -> None:
        self._title = ""

    def open(self, facts: StreamFacts) -> None:
        """Raises :class:`UnavailableError` where OpenCV has no windows, or there is no screen."""
        cv2 = opencv("a window")
        # Qt, which OpenCV's windows may use, ends the whole process where there is no screen.
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            if _has_windows():
                raise UnavailableError("there is no screen (DISPLAY is not set); watch in a browser with --page")
            raise UnavailableError(NO_WINDOWS)
        self._title = f"gensdk: {facts.model}"
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except (cv2.error, AttributeError):
            self._title = ""
            raise UnavailableError(NO_WINDOWS) from None

    def watched(self) -> bool:
        """Always."""
        return True

    def write(self, frame: TranslatedFrame) -> bool:
        """Shows it; True after the user has closed the window."""
        cv2 = opencv("a window")
        cv2.imshow(self._title, np.ascontiguousarray(frame.view[..., ::-1]))
        key = cv2.waitKey(1) & 0xFF
        return key in (ord("q"), 27) or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        """Closes the window."""
        if self._title:
            opencv("a window").destroyWindow(self._title)


def _has_windows() -> bool:
    lines = (line.split() for line in opencv("a window").getBuildInformation().splitlines())
    return not any(words[:2] == ["GUI:", "NONE"] for words in lines)
