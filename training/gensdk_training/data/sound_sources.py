"""Where sounds for training lie: files below a folder, or in a tar archive, which is read and never unpacked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.audio_files import READ_SUFFIXES, read_file
from gensdk_runtime.media.image_files import SUFFIXES as IMAGE_SUFFIXES
from gensdk_runtime.media.image_folder import list_images
from gensdk_runtime.media.sounds import CorruptAudioError

ARCHIVES = (".tar.gz", ".tgz", ".tar")
MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 64 << 20
MAX_UNPACKED = 16 << 30
"""Bytes of an archive, unpacked, up to which it is read."""
_LOOKED_AT = 100_000
"""Files that are looked at for the first sound or image of a folder."""


@dataclass
class SoundFiles:
    """What is said of a source after it was read: files `left_out` by suffix, `links` that were followed and those
    `outside`, and files that are `broken`, with the reason."""

    left_out: Counter[str] = field(default_factory=Counter)
    links: int = 0
    outside: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


def is_archive(path: Path) -> bool:
    """Whether a file is read as a tar archive, by its name."""
    return path.name.lower().endswith(ARCHIVES)


def holds_sounds(folder: Path) -> bool:
    """Whether the first file below `folder`, in order, that is a sound or an image by its suffix is a sound."""
    seen = 0
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith((*READ_SUFFIXES, *IMAGE_SUFFIXES)) and not name.startswith("."):
                return name.lower().endswith(READ_SUFFIXES)
        seen += len(files)
        if seen > _LOOKED_AT:
            break
    return False


def files_of_folder(root: Path, found: SoundFiles) -> Iterator[tuple[str, bytes]]:
    """(path in the folder, content) of each sound below `root`, sorted by path; fills in `found`."""
    listing = list_images(root, suffixes=READ_SUFFIXES)
    found.left_out, found.links, found.outside = listing.left_out, listing.links, listing.outside
    found.broken += [(str(path), problem) for path, problem in listing.broken]
    for path in listing.files:
        name = path.relative_to(root).as_posix()
        try:
            data = read_file(path)
        except CorruptAudioError as problem:
            found.broken.append((name, str(problem)))
        except OSError as failure:
            found.broken.append((name, failure.strerror or "it can't be read"))
        else:
            yield name, data


def files_of_archive(path: Path, found: SoundFiles) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each sound in a tar archive, plain or gzipped, in its order; fills in `found`.

    Links and devices are left out. Raises :class:`InputError` for what is no such archive, is cut, or unfolds
    beyond :data:`MAX_UNPACKED`.
    """
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with (
                gzip.open(plain) if zipped else plain as file,
                tarfile.open(fileobj=_Bounded(file), mode="r:") as archive,
            ):
                for number, member in enumerate(archive):
                    if number >= MAX_MEMBERS:
                        raise InputError(f"{path}: more than {MAX_MEMBERS} files; make several archives of it")
                    if (data := _content(archive, member, found)) is not None:
                        yield member.name, data
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as failure:
        if isinstance(failure, InputError):
            raise
        told = (str(failure).splitlines() or [type(failure).__name__])[0][:100]
        raise InputError(f"{path}: no whole tar archive ({told}); download it again") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, found: SoundFiles) -> bytes | None:
    """A sound's bytes; None for all else, which is noted."""
    name = PurePosixPath(member.name)
    if member.isdir() or name.name.startswith("."):
        return None
    if not name.name.lower().endswith(READ_SUFFIXES):
        found.left_out[name.suffix.lower()[:16]] += 1
        return None
    if not member.isreg():
        found.broken.append((member.name, "it is no plain file"))
        return None
    if member.size > MAX_MEMBER_BYTES:
        found.broken.append((member.name, f"larger than {MAX_MEMBER_BYTES >> 20} MiB; cut it in pieces"))
        return None
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    if len(data) != member.size:
        raise tarfile.ReadError("it is cut")
    return data


class _Bounded(io.RawIOBase):
    """A stream for :mod:`tarfile`, which would read headers of any length into memory and unfold without end."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """As a file's, up to the size of a member."""
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError("a header in it is too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's, up to the limit."""
        if whence != os.SEEK_SET or offset > MAX_UNPACKED:
            raise tarfile.ReadError(f"it unfolds to over {MAX_UNPACKED >> 30} GiB")
        return self._file.seek(offset)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True
