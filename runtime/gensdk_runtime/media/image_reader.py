"""Pillow's readers of six formats, opened without decoding, and made strict: no cut file passes as whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 1 << 26
"""Larger pictures are refused by the size that their decoder found, before it takes memory for pixels."""

MAX_FRAMES = 10_000

_READERS = {
    "PNG": ((b"\x89PNG\r\n\x1a\n",), "Png"),
    "JPEG": ((b"\xff\xd8\xff",), "Jpeg"),
    "BMP": ((b"BM",), "Bmp"),
    "WebP": ((b"RIFF",), "WebP"),
    "TIFF": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "Tiff"),
    "GIF": ((b"GIF87a", b"GIF89a"), "Gif"),
}
FORMATS = tuple(_READERS)
_ORIENTATION = 0x0112
_METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
"""Where Pillow finds an orientation."""
_FILTERS = Lock()
Result = TypeVar("Result")


class CorruptImageError(Exception):
    """The bytes are not a whole image; the message says what is wrong. Callers name the file and skip it."""


class UnclearDepthError(CorruptImageError):
    """A file has 16-bit samples that seem to use fewer bits, and does not say how many; `largest` is the largest
    sample.

    Callers ask the user, and pass `depth`.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        super().__init__(
            f"its 16-bit samples end at {largest}, as those of {max(8, largest.bit_length())} bits do; "
            "say how many bits they have (train --depth), or scale them"
        )


class WatchedBytes(BytesIO):
    """The bytes of a file. `ended`: more was read than there is, which decoders may take for an early end."""

    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        """As :meth:`io.BytesIO.read`."""
        data = super().read(size)
        self.ended |= not data and size != 0
        return data


def open_image(data: bytes) -> ImageFile:
    """Pillow's reader of `data`; its size is known, no pixel is decoded. Raises :class:`CorruptImageError`.

    The readers are used by themselves, not through ``Image.open``, which warns or refuses by a limit that belongs
    to the application, and would take a file for other formats too.
    """
    for name, (signatures, module) in _READERS.items():
        if data.startswith(signatures) and (name != "WebP" or data[8:12] == b"WEBP"):
            source = WatchedBytes(data)
            try:
                with decoding():
                    return _reader(module)(source)
            except CorruptImageError:
                if source.ended:
                    raise CorruptImageError("the file ends inside its header") from None
                raise
    raise CorruptImageError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")


@cache
def _reader(module: str) -> Callable[[WatchedBytes], ImageFile]:
    """Pillow's class for a format; a GIF's frames, which may stick out, can't make its picture too large."""
    reader: type[ImageFile] = getattr(import_module(f"PIL.{module}ImagePlugin"), f"{module}ImageFile")
    return type("GifImageFile", (_Grown, reader), {}) if module == "Gif" else reader


class _Grown:
    """Refuses to grow beyond the limit, at the moment when a decoder says so: memory is taken right after."""

    _known = (0, 0)

    @property
    def _size(self) -> tuple[int, int]:
        return self._known

    @_size.setter
    def _size(self, size: tuple[int, int]) -> None:
        if self._known != (0, 0) and size[0] * size[1] > MAX_PIXELS:
            raise CorruptImageError(f"a frame makes it {size[0]}x{size[1]}, which is not a size that is read")
        self._known = size


def ignoring_warnings(work: Callable[[], Result]) -> Result:
    """`work()`; again, with warnings ignored, if the application makes errors of them.

    Decoders warn of odd metadata, which is no damage. Filters of warnings belong to the whole process, so that
    they are touched only where it can't be helped.
    """
    try:
        return work()
    except Warning:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder raises over hostile bytes becomes a :class:`CorruptImageError` with its reason.

    Warnings pass where the application makes errors of them; see :func:`ignoring_warnings`.
    """
    try:
        yield
    except (CorruptImageError, Warning):
        raise
    except Exception as failure:
        reason = " ".join(str(failure).split())[:120]
        raise CorruptImageError(f"it can't be decoded: {reason or type(failure).__name__}") from None


def check_size(image: Image) -> None:
    """Raises :class:`CorruptImageError` for more pixels than are read."""
    if image.width * image.height > MAX_PIXELS:
        raise CorruptImageError(f"{image.width}x{image.height} is not a size that is read")


def orientation(image: ImageFile, data: bytes) -> int:
    """EXIF's orientation, 1 to 8, that is still to be applied after decoding; 1 where it is missing or damaged."""
    if image.format == "PNG" and "exif" not in image.info and b"eXIf" in data:
        late = next((body for kind, body in png_chunks(data) if kind == b"eXIf"), None)
        if late is not None:  # it may stand behind the pixels, where Pillow sees it too late
            image.info["exif"] = b"Exif\0\0" + bytes(late)
    if not any(name in image.info for name in _METADATA) and image.format != "TIFF":
        return 1
    from PIL.Image import Image as Pillow

    try:
        found = Pillow.getexif(image).get(_ORIENTATION, 1)  # not PNG's own, which decodes the picture first
    except Exception:  # a photograph with damaged EXIF is a photograph
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def frame_count(image: ImageFile) -> int:
    """How many pictures are in the file, at most `MAX_FRAMES` + 1; of a TIFF with several, 2.

    The still picture that an animated PNG shows where nothing moves, and which is no frame of it, is not counted.
    """
    if image.format == "TIFF":  # its pages are counted by following them all
        return 2 if getattr(image, "is_animated", False) else 1
    with decoding():
        if image.format != "GIF":
            count = getattr(image, "n_frames", 1) - bool(getattr(image, "default_image", False))
            return max(1, min(count, MAX_FRAMES + 1))
        count = 1
        while count <= MAX_FRAMES:
            try:
                image._seek(count, False)  # type: ignore[attr-defined] # what n_frames does, which knows no limit
            except EOFError:
                break
            count += 1
    return count


def upright_size(image: ImageFile, data: bytes) -> tuple[int, int]:
    """Height and width of the picture once it is upright."""
    turned = orientation(image, data) >= 5
    if image.format == "TIFF" and _ORIENTATION in getattr(image, "tag_v2", {}):
        turned = False  # Pillow has already swapped them
    return (image.width, image.height) if turned else (image.height, image.width)


def upright(image: Image, turn: int) -> Image:
    """The picture turned and mirrored as `turn`, EXIF's orientation, says."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(ways[turn]) if turn in ways else image


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk of a PNG, while their lengths hold; for metadata that Pillow does not give."""
    view = memoryview(data)
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        yield kind, view[position + 8 : position + 8 + length]
        position += 12 + length
