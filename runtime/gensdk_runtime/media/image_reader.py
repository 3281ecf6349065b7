"""Pillow's readers of six formats, opened without decoding, and made strict: no cut file passes as whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

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
_MAX_SCANS = 64


class CorruptImageError(Exception):
    """The bytes are no whole image; the message says what is wrong. Callers name the file and skip it."""


class UnclearDepthError(CorruptImageError):
    """Samples of 16 bits that seem to use fewer, and the file doesn't say how many; `largest`: of its samples.

    Callers ask their user, and say `depth`.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        super().__init__(
            f"its 16-bit samples end at {largest}, as those of {max(8, largest.bit_length())} bits do; "
            "say how many bits they have"
        )


class _Watched(BytesIO):
    """The bytes of a file; `ended` once more was read than there is, which decoders may take for an early end."""

    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
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
            reader, source = (
                getattr(import_module(f"PIL.{module}ImagePlugin"), f"{module}ImageFile"),
                _Watched(data),
            )
            try:
                with decoding():
                    image: ImageFile = reader(source)
            except CorruptImageError:
                if source.ended:
                    raise CorruptImageError("the file ends inside its header") from None
                raise
            return image
    raise CorruptImageError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder raises over hostile bytes becomes a :class:`CorruptImageError` with its reason."""
    try:
        yield
    except CorruptImageError:
        raise
    except Exception as failure:
        reason = " ".join(str(failure).split())[:120]
        raise CorruptImageError(f"it can't be decoded: {reason or type(failure).__name__}") from None


def load(image: ImageFile, data: bytes) -> None:
    """Decodes the pixels of the frame at hand. Raises :class:`CorruptImageError` for a cut or damaged file."""
    check_size(image)
    if data.count(b"\xff\xda") > _MAX_SCANS + (len(data) >> 14) and image.format == "JPEG":
        raise CorruptImageError("a JPEG of so many scans is not decoded")  # each may cost a pass over all pixels
    if image.format == "TIFF":
        _check_tiles(image)
    source = image.fp
    if isinstance(source, _Watched):
        source.ended = False
    with decoding():
        image.load()
    if (
        isinstance(source, _Watched) and source.ended
    ):  # the application may have told Pillow to fill what is missing
        raise CorruptImageError("the file is cut short")


def check_size(image: Image) -> None:
    """Raises :class:`CorruptImageError` for more pixels than are read."""
    if image.width * image.height > MAX_PIXELS:
        raise CorruptImageError(f"{image.width}x{image.height} is not a size that is read")


def _check_tiles(image: ImageFile) -> None:
    """A TIFF of few pixels may be cut into tiles of many, for each of which memory is taken."""
    tags = getattr(image, "tag_v2", {})
    sides = tags.get(322, 0), tags.get(323, 0)
    if not all(isinstance(side, int) for side in sides) or sides[0] * sides[1] > MAX_PIXELS:
        raise CorruptImageError(f"tiles of {sides[0]}x{sides[1]} are not a size that is read")


def orientation(image: ImageFile, data: bytes) -> int:
    """EXIF's orientation, 1 to 8, that is still to be applied after decoding; 1 where it is missing or damaged."""
    from PIL.Image import Image as Pillow

    if image.format == "PNG" and "exif" not in image.info:
        late = next((body for kind, body in png_chunks(data) if kind == b"eXIf"), None)
        if late is not None:  # it may stand behind the pixels, where Pillow sees it too late
            image.info["exif"] = b"Exif\0\0" + late
    try:
        found = Pillow.getexif(image).get(_ORIENTATION, 1)  # not PNG's own, which decodes the picture first
    except Exception:  # a photograph with damaged EXIF is a photograph
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def frame_count(image: ImageFile) -> int:
    """How many pictures are in the file, at most `MAX_FRAMES` + 1; of a TIFF with several, 2.

    The still picture that an animated PNG shows where nothing moves, and which is no frame of it, is not counted.
    """
    if image.format == "TIFF":
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


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk of a PNG, as long as their lengths hold; for what Pillow does not tell."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        yield kind, data[position + 8 : position + 8 + length] if kind != b"IDAT" else b""
        position += 12 + length
