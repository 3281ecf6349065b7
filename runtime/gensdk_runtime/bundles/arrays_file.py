"""Arrays from ``.npz`` and ``.npy`` files of unknown origin: sizes are known and allowed before memory is taken.

NumPy's own reader evaluates headers as Python literals, allocates what a header claims, and raises all kinds of
exceptions. This one takes plain arrays only: bool, integers, floats, complex numbers and texts. No pickle, no
records, no encrypted or doubled members, no member that unfolds without end.
"""

from __future__ import annotations

import io
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundles.zip_files import BoundedFile, overlapping
from gensdk_runtime.errors import GensdkError, InputError

MAX_MEMBERS = 20_000
MAX_RATIO = 250
"""What deflated arrays of over `RATIO_FREE` bytes may grow by, all together; black pictures reach 1000."""
RATIO_FREE = 64 << 20
_DEFLATE_LIMIT = 1040  # no deflated stream grows further
_HEADER_BYTES = 1 << 16
_CHUNK = 1 << 20
_MAGIC = b"\x93NUMPY"
_ITEM = re.compile(
    r"""\s*(['"])(?P<key>descr|fortran_order|shape)\1\s*:\s*"""
    r"""((?P<quote>['"])(?P<text>[^'"]*)(?P=quote)|(?P<flag>True|False)|\((?P<shape>[0-9L,\s]*)\))\s*(,|$)"""
)
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SUa][0-9]{1,9})")

Source = Path | bytes
"""A file, or its content."""


class _DamagedError(Exception):
    """What is wrong; the caller names the file."""


@dataclass(frozen=True)
class ArrayHeader:
    """The header of an array: `shape`, `dtype` as it lies in the file, and whether columns come first."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    source: Source,
    *,
    limit_bytes: int,
    names: Collection[str] | None = None,
    what: str | None = None,
    error: type[GensdkError] = InputError,
) -> dict[str, NDArray[Any]]:
    """The arrays called `names` (None: every member, each of which must be an array), in the machine's byte order.

    Nothing is allocated, and nothing unpacked but headers, before it is known that the arrays take `limit_bytes`
    at most and don't grow by more than :data:`MAX_RATIO`. Members that were not asked for are not looked into.
    `what` names the file in messages. Raises `error`, in one line, and nothing else, for a file that can't be
    read, is damaged, holds anything but plain arrays under these names, lacks one of them, or is too large.
    """
    label = _label(source, what)
    with _told(label, ".npz", error), _opened(source) as file:
        members = _members(file)
        archive = members.archive
        wanted = members.all_arrays() if names is None else {name: members.named(name) for name in names}
        headers = {name: _member_header(archive, info) for name, info in wanted.items()}
        total = sum(header.nbytes for header in headers.values())
        if total > limit_bytes:
            raise error(f"{label}: its arrays take {total} bytes, at most {limit_bytes} are read")
        packed = sum(info.compress_size for info in wanted.values())
        if total > RATIO_FREE and total > MAX_RATIO * packed:
            raise error(
                f"{label}: it grows from {packed} to {total} bytes, at most {MAX_RATIO} times are unpacked; if "
                "you trust it, write it with numpy.savez, which does not compress"
            )
        return {name: _member_array(archive, wanted[name], header) for name, header in headers.items()}


def npz_names(source: Source, *, what: str | None = None, error: type[GensdkError] = InputError) -> list[str]:
    """The names of the arrays in an ``.npz``, in order. Raises as :func:`read_npz`."""
    with _told(_label(source, what), ".npz", error), _opened(source) as file:
        return list(_members(file).arrays)


def read_npy(
    source: Source, *, limit_bytes: int, what: str | None = None, error: type[GensdkError] = InputError
) -> NDArray[Any]:
    """The one array of an ``.npy`` file, in the machine's byte order; limits and errors as :func:`read_npz`."""
    label = _label(source, what)
    with _told(label, ".npy", error), _opened(source) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        header, start = _read_header(file)
        if header.nbytes > limit_bytes:
            raise error(f"{label}: its array takes {header.nbytes} bytes, at most {limit_bytes} are read")
        if size - start != header.nbytes:
            raise _DamagedError(f"its header says {header.nbytes} bytes, {size - start} follow")
        return _read_values(file, header)


@dataclass(frozen=True)
class _Members:
    """The checked members of an archive: `arrays` by name, without ``.npy``; `others`: the names of the rest."""

    archive: zipfile.ZipFile
    arrays: dict[str, zipfile.ZipInfo]
    others: list[str]

    def all_arrays(self) -> dict[str, zipfile.ZipInfo]:
        if self.others:
            raise _DamagedError(f"{self.others[0][:60]!r} is no array")
        return self.arrays

    def named(self, name: str) -> zipfile.ZipInfo:
        if name not in self.arrays:
            raise _DamagedError(f"there is no array {name[:60]!r} in it")
        return self.arrays[name]


def _members(file: IO[bytes]) -> _Members:
    archive = zipfile.ZipFile(BoundedFile(file))  # type: ignore[arg-type] # it has all that zipfile uses
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise _DamagedError(f"{len(infos)} members, at most {MAX_MEMBERS} are read")
    if (name := overlapping(archive)) is not None:
        raise _DamagedError(f"{name[:60]!r} overlaps with another member")
    arrays: dict[str, zipfile.ZipInfo] = {}
    others: list[str] = []
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in arrays or info.filename in others:
            raise _DamagedError(f"{name[:60]!r} stands twice in it")
        if name == info.filename:
            others.append(name)
        else:
            arrays[name] = info
    return _Members(archive, arrays, others)


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    """The header of a member, once its zip entry was found possible."""
    name = info.filename[:60]
    if info.flag_bits & 0x1:
        raise _DamagedError(f"{name!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _DamagedError(f"{name!r} is neither stored nor deflated")
    most = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_LIMIT)
    with archive.open(info) as member:
        header, start = _read_header(member)
    if start + header.nbytes != info.file_size or info.file_size > most:
        raise _DamagedError(f"{name!r} says {header.nbytes} bytes, {info.file_size - start} follow")
    return header


def _member_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader) -> NDArray[Any]:
    with archive.open(info) as member:
        again, _ = _read_header(member)
        if again != header:
            raise _DamagedError("it changed while it was read")
        array = _read_values(member, header)
        if member.read(1):  # also where zipfile compares the checksum
            raise _DamagedError(f"{info.filename[:60]!r} is longer than it says")
    return array


def _read_header(file: IO[bytes]) -> tuple[ArrayHeader, int]:
    """The header, and how many bytes it has, its beginning included."""
    start = _exactly(file, 8)
    if start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise _DamagedError("an array in it does not begin as one")
    width = 2 if start[6] == 1 else 4
    (length,) = struct.unpack("<H" if width == 2 else "<I", _exactly(file, width))
    if length > _HEADER_BYTES:
        raise _DamagedError(f"a header of {length} bytes")
    text = _exactly(file, length).decode("utf-8" if start[6] == 3 else "latin-1")
    return _parse_header(text), 8 + width + length


def _parse_header(text: str) -> ArrayHeader:
    """From the text that NumPy writes: a dictionary of three entries. Nothing is evaluated."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        raise _DamagedError(f"the header {body[:60]!r}")
    body, found, at = body[1:-1].rstrip(), dict[str, re.Match[str]](), 0
    while at < len(body):
        item = _ITEM.match(body, at)
        if item is None or item["key"] in found:
            raise _DamagedError(_unreadable(body[at:].strip()))
        found[item["key"]], at = item, item.end()
    if found.keys() != {"descr", "fortran_order", "shape"}:
        raise _DamagedError(f"the header {text.strip()[:60]!r}")
    kind, flag, shape = found["descr"]["text"], found["fortran_order"]["flag"], found["shape"]["shape"]
    if kind is None or flag is None or shape is None:
        raise _DamagedError(f"the header {text.strip()[:60]!r}")
    return ArrayHeader(_shape(shape), _dtype(kind), flag == "True")


def _unreadable(text: str) -> str:
    if re.match(r"['\"]descr['\"]\s*:\s*\[", text):
        return "an array of records; write plain arrays"
    return f"the header {text[:60]!r}"


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("L") for part in text.split(",")]
    if parts[-1] == "":  # (3,), and ()
        parts.pop()
    if len(parts) > 32 or not all(part.isdecimal() and len(part) < 16 for part in parts):
        raise _DamagedError(f"the shape ({text[:60]})")
    shape = tuple(int(part) for part in parts)
    if math.prod(max(1, side) for side in shape) >= 2**48:
        raise _DamagedError(f"the shape ({text[:60]})")
    return shape


def _dtype(text: str) -> np.dtype[Any]:
    if text.lstrip("<>|=") in ("O", "O8", "O4"):
        raise _DamagedError("Python objects, which would run code when they are read; write plain arrays")
    if not _DTYPE.fullmatch(text):
        raise _DamagedError(f"values of type {text[:20]!r}; write numbers or texts")
    try:
        found = np.dtype(text)
    except (TypeError, ValueError):
        found = np.dtype("V")
    if not found.itemsize:
        raise _DamagedError(f"values of type {text[:20]!r}, which this machine does not have")
    return found


def _read_values(file: IO[bytes], header: ArrayHeader) -> NDArray[Any]:
    array: NDArray[Any] = np.empty(math.prod(header.shape), header.dtype)
    view = array.view(np.uint8).data if array.size else memoryview(b"")
    for start in range(0, len(view), _CHUNK):
        part = view[start : start + _CHUNK]
        part[:] = _exactly(file, len(part))
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    while len(data) < count:
        more = file.read(count - len(data))
        if not more:
            raise _DamagedError("it is cut short")
        data += more
    return data


def _label(source: Source, what: str | None) -> str:
    return what if what is not None else str(source) if isinstance(source, Path) else "arrays"


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if not stat.S_ISREG(source.stat().st_mode):  # a pipe would never end
        raise _DamagedError("it is no plain file")
    with source.open("rb") as file:
        yield file


@contextmanager
def _told(label: str, kind: str, error: type[GensdkError]) -> Iterator[None]:
    """Turns whatever reading raises into one line of `error`."""
    try:
        yield
    except GensdkError:
        raise
    except OSError as failure:
        raise error(f"can't read {label} ({failure.strerror or failure})") from None
    except (
        _DamagedError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        LookupError,
        OverflowError,
        MemoryError,
    ) as failure:
        reason = " ".join(str(failure).split())[:160] or type(failure).__name__
        raise error(f"{label}: not a whole {kind} file of plain arrays ({reason}); write it again") from None
