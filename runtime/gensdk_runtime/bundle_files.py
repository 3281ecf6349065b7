"""The files of a bundle as untrusted input: a folder or a zip file, read without ever leaving it.

Both kinds are opened once and stay open: what was checked is what is read, also when a writer replaces the
bundle meanwhile. In a folder every component of a path is opened relative to its parent and without following
links (``openat`` with ``O_NOFOLLOW``). Where the platform has no such call (Windows), the real path is compared
with the expected one, and the opened file with what then stands at the path; and a writer can't replace the
bundle while it is open.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from gensdk_runtime.errors import BundleError, IntegrityError
from gensdk_runtime.manifest import MANIFEST_FILE, check_path

AGAIN = "fetch or export the bundle again"
CHUNK = 2**20
MAX_ENTRIES = 4096  # of a zip file
MAX_DIRECTORY_BYTES = 4 * 2**20  # of the list of entries that a zip file ends with
MAX_RATIO = 200  # of a compressed entry above RATIO_FREE bytes; weights reach 1.1, text about 10
RATIO_FREE = 2**20

_OPENAT = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_DROPPINGS = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"}
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class BundleFiles(Protocol):
    """The files of an open bundle. Names are those of the manifest, with forward slashes."""

    def hold(self, name: str) -> int:
        """Opens a file, to stay open; its size in bytes. :class:`IntegrityError` if missing, a link or no file."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a held file in pieces of at most CHUNK bytes; from several threads at once."""

    def unlisted(self, listed: Collection[str]) -> str | None:
        """A file that should not be there, if there is one."""

    def on_disk(self, name: str) -> Path | None:
        """Where a file lies; None inside a zip file."""

    def replaced(self) -> bool:
        """Whether another bundle stands at the path by now."""

    def close(self) -> None:
        """Closes all files. May be called twice."""


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Turns what the operating system raises into a one-line error about `name`."""
    try:
        yield
    except OSError as failure:
        raise BundleError(f"{name}: can't be read ({failure.strerror or failure})") from None


@contextmanager
def _intact(name: object) -> Iterator[None]:
    """Turns what the zip reader raises over a damaged file into a one-line error about `name`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as failure:
        reason = " ".join(str(failure).split())[:120]
        raise IntegrityError(f"{name}: damaged zip file ({reason}); {AGAIN}") from None


def is_dropping(name: str) -> bool:
    """Whether operating systems leave such a file behind unasked; it is ignored."""
    return any(part in _DROPPINGS or part.startswith("._") for part in PurePosixPath(name).parts)


def _missing(bundle: Path, name: str) -> IntegrityError:
    if name == MANIFEST_FILE:
        remedy = "a training run becomes a bundle with `gensdk export`"
        return IntegrityError(f"{bundle}: it is no bundle, for it has no {MANIFEST_FILE}; {remedy}")
    return IntegrityError(f"{bundle}: {name!r} is missing; {AGAIN}")


def close_all(descriptors: list[int]) -> None:
    """Closes and forgets the `descriptors`."""
    while descriptors:
        os.close(descriptors.pop())


class FolderFiles:
    """A bundle that is a folder. Its top may be reached through a link; nothing inside it may be one."""

    def __init__(self, root: Path, label: Path) -> None:
        self.root, self.label = root, label  # errors speak of `label`
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        self._root: int | None = None
        descriptors: list[int] = []
        if _OPENAT:
            self._root = os.open(root, _READ | os.O_DIRECTORY)
            descriptors.append(self._root)
        self._descriptors = descriptors
        self.close = weakref.finalize(self, close_all, descriptors)

    def on_disk(self, name: str) -> Path | None:
        """See :class:`BundleFiles`."""
        return self.root / name

    def replaced(self) -> bool:
        """See :class:`BundleFiles`. Where an open folder can't be replaced, it has not been."""
        try:
            return self._root is not None and not os.path.samestat(os.fstat(self._root), self.root.stat())
        except OSError:
            return True

    def hold(self, name: str) -> int:
        """See :class:`BundleFiles`."""
        if name not in self._held:
            self._held[name] = self._open(name)
        info = os.fstat(self._held[name])
        if not stat.S_ISREG(info.st_mode):
            raise IntegrityError(f"{self.label}: {name!r} is not a regular file")
        return info.st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """See :class:`BundleFiles`."""
        offset = 0
        while chunk := self._read_at(self._held[name], offset):
            offset += len(chunk)
            yield chunk

    def unlisted(self, listed: Collection[str]) -> str | None:
        """Looks into ``graphs`` and each folder that holds a listed file, not at the top of the bundle."""
        parents = {str(folder) for name in listed for folder in PurePosixPath(name).parents}
        for folder in sorted((parents | {"graphs"}) - {"."}):
            for entry in self._entries(folder):
                name = f"{folder}/{entry}"
                if name not in listed and name not in parents and not is_dropping(entry):
                    return name
        return None

    def _read_at(self, descriptor: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(descriptor, CHUNK, offset)
        with self._lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, CHUNK)

    def _open(self, name: str) -> int:
        """Opens a file of the folder and keeps its descriptor."""
        try:
            descriptor = self._open_beneath(name) if _OPENAT else self._open_checked(name)
        except FileNotFoundError:
            raise _missing(self.label, name) from None
        except OSError as failure:
            steps = [name, *map(str, PurePosixPath(name).parents)][:-1]
            if any((self.root / step).is_symlink() for step in steps):  # words the error; the opening has failed
                raise self._link(name) from None
            raise BundleError(f"{self.label}: {name!r} can't be opened ({failure.strerror or failure})") from None
        self._descriptors.append(descriptor)
        return descriptor

    def _open_beneath(self, name: str, flags: int = _READ) -> int:
        """Opens component after component, so that no link is followed and none can be slipped in between."""
        assert self._root is not None  # noqa: S101 - for the type checker
        parts = PurePosixPath(name).parts
        parent, opened = self._root, []
        try:
            for part in parts[:-1]:
                parent = os.open(part, _READ | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                opened.append(parent)
            return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=parent)
        finally:
            close_all(opened)

    def _open_checked(self, name: str) -> int:
        """Without openat: the real path must be the expected one, and hold the opened file afterwards too."""
        path = self.root / name
        descriptor = os.open(path, _READ)
        real = os.path.normcase(os.path.realpath(path))
        expected = os.path.normcase(Path(os.path.realpath(self.root), name))
        if real != expected or not os.path.samestat(os.fstat(descriptor), path.lstat()):
            os.close(descriptor)
            raise self._link(name)
        return descriptor

    def _link(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self.label}: {name!r} is a link or lies behind one; put the file itself there")

    def _entries(self, folder: str) -> list[str]:
        """The names in a folder of the bundle; none where there is no such folder."""
        try:
            if not _OPENAT:
                return sorted(entry.name for entry in (self.root / folder).iterdir())
            descriptor = self._open_beneath(folder, _READ | os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(descriptor)


class _Bounded:
    """A file for :class:`zipfile.ZipFile` that refuses to read a huge list of entries into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.name = file.name

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of entries is over {MAX_DIRECTORY_BYTES} bytes")
        return self._file.read(size if size >= 0 else MAX_DIRECTORY_BYTES)

    def seekable(self) -> bool:
        return True


class ZipFiles:
    """A bundle that is one zip file, its entries stored or deflated. All entries are checked at once."""

    def __init__(self, path: Path, label: Path) -> None:
        self.label = label  # errors speak of it
        file = path.open("rb")
        self.close = weakref.finalize(self, file.close)
        try:
            if file.read(2) != b"PK":
                empty = (
                    "the file is empty"
                    if file.seek(0, os.SEEK_END) == 0
                    else "it is neither a folder nor a zip file"
                )
                raise IntegrityError(f"{label}: it is no bundle, for {empty}")
            with _intact(label):
                self._zip = zipfile.ZipFile(_Bounded(file))
            self._entries = self._checked_entries()
        except BaseException:
            self.close()
            raise

    def on_disk(self, name: str) -> Path | None:
        """See :class:`BundleFiles`."""
        return None

    def replaced(self) -> bool:
        """See :class:`BundleFiles`. One open file stays what it was."""
        return False

    def hold(self, name: str) -> int:
        """See :class:`BundleFiles`."""
        if name not in self._entries:
            raise _missing(self.label, name)
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
        self._refuse_overlaps(infos)
        return entries

    def _refuse_overlaps(self, infos: list[zipfile.ZipInfo]) -> None:
        """Entries that share bytes are how one file of 10 MB grows to petabytes (Fifield 2019)."""
        last = self._zip.start_dir
        for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
            header = 30 + len(info.filename.encode())
            if info.header_offset < 0 or info.header_offset + header + info.compress_size > last:
                raise IntegrityError(
                    f"{self.label}: entry {info.filename[:80]!r} refused: it overlaps with another"
                )
            last = info.header_offset


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
