"""What the words for sources and sinks mean: ``0``, ``video.mp4``, ``rtsp://...``, ``frames/``, ``http:8000``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import SUFFIXES as READABLE
from gensdk_runtime.media.images import SUFFIXES as WRITABLE
from gensdk_runtime.media.video.address import is_address, masked
from gensdk_runtime.media.video.film_formats import FILMS
from gensdk_runtime.stream.server import HttpSink
from gensdk_runtime.stream.sink import CallbackSink, FolderSink, ImageSink, Sink, WindowSink
from gensdk_runtime.stream.source import ImageSource, IteratorSource, Source
from gensdk_runtime.stream.video_sink import VideoSink
from gensdk_runtime.stream.video_source import VideoSource


def open_source(what: Any, *, timeout: float = 10.0) -> Source:
    """The source that `what` means; see :func:`gensdk_runtime.stream.translate_stream`.

    `timeout`: seconds, as :class:`VideoSource` has it. Raises :class:`InputError` for what means none.
    """
    if isinstance(what, Source):
        return what
    if isinstance(what, int) and not isinstance(what, bool):
        if what < 0:
            raise InputError(f"expected a camera's number from 0, got {what}")
        return VideoSource(what, timeout=timeout)
    if isinstance(what, str | Path):
        return _named_source(str(what), timeout)
    if isinstance(what, Iterable):
        return IteratorSource(what)
    raise InputError(f"expected a source as a number, path, URL or iterable, got {type(what).__name__}")


def _named_source(text: str, timeout: float) -> Source:
    if text.isascii() and text.isdigit() and len(text) < 4:
        return VideoSource(int(text), timeout=timeout)
    if is_address(text):
        return VideoSource(text, timeout=timeout)
    path = Path(text)
    if not text.strip() or not path.exists():
        raise InputError(
            f"no source {masked(text)[:200]!r}: expected a camera's number, a file, a folder or a URL"
        )
    if path.is_dir() or path.suffix.lower() in READABLE:
        return ImageSource(path)
    return VideoSource(path, timeout=timeout)


def open_sink(what: Any) -> Sink:
    """The sink that `what` means; see :func:`gensdk_runtime.stream.translate_stream`.

    Raises :class:`InputError` for what means none.
    """
    if isinstance(what, Sink):
        return what
    if isinstance(what, str | Path):
        return _named_sink(str(what))
    if callable(what):
        return CallbackSink(what)
    raise InputError(f"expected a sink as a path, a word or a function, got {type(what).__name__}")


def _named_sink(text: str) -> Sink:
    if text == "window":
        return WindowSink()
    if text.startswith("http:") and "//" not in text:
        return HttpSink(*http_address(text))
    path = Path(text)
    suffix = path.suffix.lower()
    if is_address(text) or not text.strip():
        raise InputError(f"no sink {masked(text)[:80]!r}: expected a file, a folder, window or http:PORT")
    if suffix in FILMS:
        return VideoSink(path)
    if suffix in WRITABLE:
        return ImageSink(path)
    if suffix and not path.is_dir():
        known = ", ".join((*FILMS, *WRITABLE))
        raise InputError(f"can't write {suffix} files; use one of {known}, a folder, window or http:PORT")
    return FolderSink(path)


def check_apart(source: Source, sinks: Sequence[Sink]) -> None:
    """Raises :class:`InputError` where a sink would replace what the source reads, or another sink's file.

    Files are told apart as the system does: through links, and however they are spelled.
    """
    read = getattr(source, "path", None)
    written = [Path(path) for sink in sinks if isinstance(path := getattr(sink, "path", None), str | Path)]
    for i, path in enumerate(written):
        if isinstance(read, Path) and (_is_same(read, path) or (read.is_dir() and _is_image_in(read, path))):
            raise InputError(
                f"{path} is the source itself, which would be lost; choose another place for the result"
            )
        if any(_is_same(path, other) for other in written[:i]):
            raise InputError(f"two sinks would write {path}; give each a place of its own")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one is not there yet
        return one.resolve() == other.resolve()


def _is_image_in(folder: Path, path: Path) -> bool:
    """True if a folder of images is read in which `path` is one."""
    return path.suffix.lower() in READABLE and path.exists() and _is_same(folder, path.resolve().parent)


def http_address(text: str) -> tuple[int, str]:
    """Port and host from ``http:PORT`` or ``http:HOST:PORT``; this machine alone unless a host is given."""
    host, _, port = text.removeprefix("http:").rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InputError(f"expected http:PORT with a port from 0 (any free one) to 65535, got {text[:80]!r}")
    return int(port), host.strip("[]") or "127.0.0.1"
