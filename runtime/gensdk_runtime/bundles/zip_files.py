"""A zip file as untrusted input: every entry is checked before one is read."""

from __future__ import annotations

import errno
import io
import os
import stat
import weakref
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gensdk_runtime.bundles.files import AGAIN, CHUNK, is_dropping, missing
from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.host.forking import open_in_children
from gensdk_runtime.host.system import READS_AT, read_at
from gensdk_runtime.spec.fields import check_path

MAX_ENTRIES = 4096
MAX_DIRECTORY_BYTES = 4 * 2**20  # of the list of entries at the end of the file
MAX_RATIO = 200  # of a compressed entry above RATIO_FREE bytes; weights reach 1.1, text about 10
RATIO_FREE = 2**20
MAX_TOTAL_RATIO = 20  # of all entries together above TOTAL_FREE bytes
TOTAL_FREE = 256 * 2**20


class BoundedFile:
    """A file for :class:`zipfile.ZipFile` that refuses to read a huge list of entries into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.close = file.close
        self.name = getattr(file, "name", None)
        self._on_disk = READS_AT and not isinstance(file, io.BytesIO)
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        if size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of entries is over {MAX_DIRECTORY_BYTES} bytes")
        data = self._read_here(size if size >= 0 else MAX_DIRECTORY_BYTES)
        self._place += len(data)
        return data

    def _read_here(self, size: int) -> bytes:
        """With a place of its own: that of the file is shared with forked processes, which read it as well."""
        if self._on_disk:
            return read_at(self._file.fileno(), size, self._place)
        self._file.seek(self._place)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        if base is None:
            base = os.fstat(self._file.fileno()).st_size if self._on_disk else self._file.seek(0, os.SEEK_END)
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """As a file's."""
        return self._place

    def seekable(self) -> bool:
        """As zipfile asks."""
        return True


class ZipFiles:
    """A bundle that is one zip file, its entries stored or deflated. All entries are checked at once."""

    def __init__(self, path: Path, label: Path) -> None:
        self.label = label  # errors speak of it
        file = path.open("rb")
        self.close = weakref.finalize(self, file.close)
        try:
            start = file.read(2)
            if start != b"PK":
                reason = "it is neither a folder nor a zip file" if start else "the file is empty"
                raise IntegrityError(f"{label}: it is no bundle, for {reason}")
            with _intact(label):
                self._zip = zipfile.ZipFile(BoundedFile(file))
            open_in_children(vars(self._zip)["_lock"])
            self._entries = self._checked_entries()
        except BaseException:
            self.close()
            raise

    def closed(self) -> bool:
        """See :class:`BundleFiles`."""
        return not self.close.alive

    def replaced(self) -> bool:
        """See :class:`BundleFiles`. One open file stays what it was."""
        return False

    def hold(self, name: str) -> int:
        """See :class:`BundleFiles`."""
        if name not in self._entries:
            raise missing(self.label, name)
        return self._entries[name].file_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """See :class:`BundleFiles`."""
        with _intact(f"{self.label}: {name!r}"), self._zip.open(self._entries[name]) as entry:
            while chunk := entry.read(CHUNK):
                yield chunk

    def unlisted(self, listed: Collection[str]) -> str | None:
        """Looks at all entries."""
        return next((name for name in self._entries if name not in listed), None)

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """The entries that are files, by name, each checked."""
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES:
            raise IntegrityError(f"{self.label}: {len(infos)} entries, at most {MAX_ENTRIES} are read")
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            problem = _problem(info)
            if info.filename in entries:
                problem = "it stands twice"
            if problem is not None:
                raise IntegrityError(f"{self.label}: entry {info.filename[:80]!r} refused: {problem}")
            if not info.is_dir() and not is_dropping(info.filename):
                entries[info.filename] = info
        packed = sum(info.compress_size for info in infos)
        total = sum(info.file_size for info in infos)
        if total > max(TOTAL_FREE, MAX_TOTAL_RATIO * packed):
            raise IntegrityError(
                f"{self.label}: it grows from {packed} to {total} bytes (at most {MAX_TOTAL_RATIO} times); if you "
                "trust it, unzip it, and open the folder"
            )
        if (name := overlapping(self._zip)) is not None:
            raise IntegrityError(f"{self.label}: entry {name[:80]!r} refused: it overlaps with another")
        return entries


def overlapping(archive: zipfile.ZipFile) -> str | None:
    """The name of an entry that shares bytes with another, or reaches outside of the file; None: there is none.

    Shared bytes are how one file of 10 MB grows to petabytes (Fifield 2019).
    """
    last = archive.start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        header = 30 + len(info.filename.encode())
        if info.header_offset < 0 or info.header_offset + header + info.compress_size > last:
            return info.filename
        last = info.header_offset
    return None


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why an entry of a zip file is refused; None if it is not."""
    try:
        check_path(info.orig_filename.removesuffix("/"))
    except ValueError as failure:
        return str(failure)
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is neither stored nor deflated"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is a link or a device"
    if info.file_size > max(RATIO_FREE, MAX_RATIO * info.compress_size):
        return f"it grows from {info.compress_size} to {info.file_size} bytes (at most {MAX_RATIO} times)"
    return None


@contextmanager
def _intact(name: object) -> Iterator[None]:
    """Turns what the zip reader raises over a damaged file into a one-line error about `name`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as failure:
        reason = " ".join(str(failure).split())[:120]
        raise IntegrityError(f"{name}: damaged zip file ({reason}); {AGAIN}") from None
