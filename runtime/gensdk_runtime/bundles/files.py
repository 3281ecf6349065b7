"""The files of a bundle as untrusted input: the contract, and folders, read without ever leaving them.

A bundle is opened once and stays open: what was checked is what is read, also when a writer replaces the
bundle meanwhile. In a folder every component of a path is opened relative to its parent and without following
links (``openat`` with ``O_NOFOLLOW``). Where the platform has no such call (Windows), the real path is compared
with the expected one, and the opened file with what then stands at the path; and a writer can't replace the
bundle while it is open.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from gensdk_runtime.errors import BundleError, IntegrityError
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.host.system import FOLDER, NO_LINK, OPENS_BENEATH, READ, READS_AT, read_at
from gensdk_runtime.spec.manifest import MANIFEST_FILE

AGAIN = "fetch or export the bundle again"
CHUNK = 2**20

_DROPPINGS = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"}


class BundleFiles(Protocol):
    """The files of an open bundle. Names are those of the manifest, with forward slashes."""

    def hold(self, name: str) -> int:
        """Opens a file, to stay open; its size in bytes. :class:`IntegrityError` if missing, a link or no file."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a held file in pieces of at most CHUNK bytes; from several threads at once."""

    def unlisted(self, listed: Collection[str]) -> str | None:
        """A file that should not be there, if there is one."""

    def replaced(self) -> bool:
        """True if another bundle stands at the path by now."""

    def closed(self) -> bool:
        """True if :meth:`close` was called."""

    def close(self) -> None:
        """Closes all files. May be called twice."""


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Turns what the operating system raises into a one-line error about `name`."""
    try:
        yield
    except OSError as failure:
        raise BundleError(f"{name}: can't be read ({failure.strerror or failure})") from None


def is_dropping(name: str) -> bool:
    """True if operating systems leave such a file behind unasked; it is ignored."""
    return any(part in _DROPPINGS or part.startswith("._") for part in PurePosixPath(name).parts)


def missing(bundle: Path, name: str) -> IntegrityError:
    """The error for a file that `bundle` should have."""
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
        self._lock = new_lock()
        self._root: int | None = None
        descriptors: list[int] = []
        if OPENS_BENEATH:
            self._root = os.open(root, READ | FOLDER)
            descriptors.append(self._root)
        self._descriptors = descriptors
        self.close = weakref.finalize(self, close_all, descriptors)

    def closed(self) -> bool:
        """See :class:`BundleFiles`."""
        return not self.close.alive

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
            raise self._irregular(name)
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
        if READS_AT:
            return read_at(descriptor, CHUNK, offset)
        with self._lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, CHUNK)

    def _open(self, name: str) -> int:
        """Opens a file of the folder and keeps its descriptor."""
        try:
            descriptor = self._open_checked(name) if self._root is None else self._open_beneath(self._root, name)
        except FileNotFoundError:
            raise missing(self.label, name) from None
        except OSError as failure:
            steps = [name, *map(str, PurePosixPath(name).parents)][:-1]
            if any((self.root / step).is_symlink() for step in steps):  # words the error; the opening has failed
                raise self._link(name) from None
            if (self.root / name).is_dir():  # which Windows does not open
                raise self._irregular(name) from None
            raise BundleError(f"{self.label}: {name!r} can't be opened ({failure.strerror or failure})") from None
        self._descriptors.append(descriptor)
        return descriptor

    def _open_beneath(self, root: int, name: str, flags: int = READ) -> int:
        """Opens component after component, so that no link is followed and none can be slipped in between."""
        parts = PurePosixPath(name).parts
        parent, opened = root, []
        try:
            for part in parts[:-1]:
                parent = os.open(part, READ | FOLDER | NO_LINK, dir_fd=parent)
                opened.append(parent)
            return os.open(parts[-1], flags | NO_LINK, dir_fd=parent)
        finally:
            close_all(opened)

    def _open_checked(self, name: str) -> int:
        """Without openat: the real path must be the expected one, and hold the opened file afterwards too."""
        path = self.root / name
        descriptor = os.open(path, READ)
        real = os.path.normcase(os.path.realpath(path))
        expected = os.path.normcase(Path(os.path.realpath(self.root), name))
        if real != expected or not os.path.samestat(os.fstat(descriptor), path.lstat()):
            os.close(descriptor)
            raise self._link(name)
        return descriptor

    def _irregular(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self.label}: {name!r} is not a regular file")

    def _link(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self.label}: {name!r} is a link or lies behind one; put the file itself there")

    def _entries(self, folder: str) -> list[str]:
        """The names in a folder of the bundle; none where there is no such folder."""
        try:
            if self._root is None:
                return sorted(entry.name for entry in (self.root / folder).iterdir())
            descriptor = self._open_beneath(self._root, folder, READ | FOLDER)
        except FileNotFoundError:
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(descriptor)
