"""What was built on this machine, kept for the next time: engines, and the kernels that TensorRT-RTX compiled.

An entry is one file, named after the SHA-256 of its *identity*: everything that the content depends on. It begins
with that identity and the SHA-256 of its content, so that a damaged or foreign file is noticed, reported and made
again. Entries are written atomically; whoever builds one holds a lock, which the system takes back when a process
dies; and the least recently used ones go when the folder grows over its limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

from gensdk_runtime.errors import UnavailableError, tell
from gensdk_runtime.host.atomic import write_file
from gensdk_runtime.host.locks import locked_if_possible
from gensdk_runtime.host.memory_limit import parse_bytes
from gensdk_runtime.host.own_files import opened_own
from gensdk_runtime.host.system import is_own, others_may_write
from gensdk_runtime.host.user_cache import cache_folder
from gensdk_runtime.printable import printable

LIMIT_VARIABLE = "GENSDK_CACHE_LIMIT"
DEFAULT_LIMIT = 4 * 2**30
"""Bytes that all entries may take together."""

SUFFIX = ".engine"
_MAGIC = b"gensdk engine 1\n"
MAX_BYTES = 2**36
_MAX_LINE = 64 * 1024

Identity = Mapping[str, Any]
"""What the content of an entry depends on, as JSON."""


class EngineCacheWarning(UserWarning):
    """An entry was damaged and is made again, or the cache can't be used."""


@dataclass(frozen=True)
class Fetched:
    """The content of an entry; `fresh`: it was built just now, not found."""

    data: bytes
    fresh: bool


class EngineCache:
    """Entries by identity. `folder` None: ``engines`` in the user's cache; `limit` None: GENSDK_CACHE_LIMIT.

    Where the folder can't be used, everything is built anew and a warning says why. Safe to use from several
    threads and processes at once.
    """

    def __init__(self, folder: Path | None = None, *, limit: int | None = None) -> None:
        self.limit = _limit_wanted() if limit is None else limit
        self.folder = folder
        if folder is None:
            try:
                self.folder = cache_folder("engines")
            except UnavailableError as failure:
                _warn(f"engines are not kept: {failure}")

    def fetch(
        self, identity: Identity, build: Callable[[], bytes], *, on_wait: Callable[[], None] | None = None
    ) -> Fetched:
        """The entry's content, built with `build` where there is no good one.

        Of several processes that want one entry, one builds it and the others take it from there; `on_wait` is
        called again and again meanwhile.
        """
        found = self.get(identity)
        if found is not None:
            return Fetched(found, fresh=False)
        with self._locked(identity, on_wait):
            found = self.get(identity)  # it may have come between the look and the lock
            if found is not None:
                return Fetched(found, fresh=False)
            data = build()
            self.put(identity, data)
            return Fetched(data, fresh=True)

    def get(self, identity: Identity) -> bytes | None:
        """The entry's content, or None where there is no good one; a bad one is removed with a warning."""
        path = self._path(identity)
        if path is None:
            return None
        try:
            with opened_own(path, limit=MAX_BYTES) as file:
                _check_owner(file)
                data = _content(file, identity)
            with contextlib.suppress(OSError):
                os.utime(path)  # used now
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as failure:
            self.discard(identity, getattr(failure, "strerror", None) or str(failure))
            return None
        return data

    def put(self, identity: Identity, data: bytes) -> None:
        """Keeps `data`; a warning says why where that fails (a full disk, a limit that is too small)."""
        path = self._path(identity)
        if path is None:
            return
        header = _header(identity, data)
        size = len(header) + len(data)
        if size > self.limit:
            _warn(f"an engine of {size} bytes is over the cache's limit of {self.limit}; set {LIMIT_VARIABLE}")
            return
        try:
            write_file(path, header, data, durable=True)
            self._make_room(path)
        except OSError as failure:
            _warn(f"the engine can't be kept in {str(path.parent)!r} ({failure.strerror})")

    def discard(self, identity: Identity, why: str) -> None:
        """Removes an entry, with a warning."""
        path = self._path(identity)
        if path is not None:
            _warn(f"the cached engine {path.name[:12]}.. is not used ({why}); it is built again")
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, identity: Identity) -> Path | None:
        return None if self.folder is None else self.folder / f"{key_of(identity)}{SUFFIX}"

    def _make_room(self, newest: Path) -> None:
        """Removes the least recently used entries until the limit holds; never the `newest`."""
        entries = []
        for path in newest.parent.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                found = path.lstat()
                entries.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size

    @contextlib.contextmanager
    def _locked(self, identity: Identity, on_wait: Callable[[], None] | None) -> Iterator[None]:
        """Holds the entry's lock, against other processes and threads. Without locks the last one stays."""
        path = self._path(identity)
        if path is None:
            yield
            return
        with locked_if_possible(path.with_suffix(".lock"), patience=inf, on_wait=on_wait):
            yield


def key_of(identity: Identity) -> str:
    """SHA-256 of the identity, in hexadecimal."""
    return hashlib.sha256(_canonical(identity)).hexdigest()


def _canonical(identity: Identity) -> bytes:
    return json.dumps(dict(identity), sort_keys=True, separators=(",", ":")).encode()


def _header(identity: Identity, data: bytes) -> bytes:
    """Three lines: magic, the SHA-256 of all that follows it, the identity."""
    line = _canonical(identity) + b"\n"
    digest = hashlib.sha256(line)
    digest.update(data)
    return _MAGIC + digest.hexdigest().encode() + b"\n" + line


def _content(file: BinaryIO, identity: Identity) -> bytes:
    """What stands behind the header; ValueError says what is wrong with the entry."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is of another version of gensdk, or no engine")
    checksum, line, data = file.readline(_MAX_LINE), file.readline(_MAX_LINE), file.read()
    digest = hashlib.sha256(line)
    digest.update(data)
    if digest.hexdigest().encode() + b"\n" != checksum:
        raise ValueError("it is damaged")
    if line != _canonical(identity) + b"\n":
        raise ValueError(f"it was made for something else: {_difference(line, identity)}")
    return data


def _difference(line: bytes, identity: Identity) -> str:
    """The first key in which the entry's identity differs."""
    try:
        found = json.loads(line)
        name = next(key for key in sorted({*found, *identity}) if found.get(key) != identity.get(key))
        return f"{name} {str(found.get(name))[:60]!r}, wanted {str(identity.get(name))[:60]!r}"
    except (ValueError, TypeError, AttributeError, StopIteration):
        return "its identity is not readable"


def _check_owner(file: BinaryIO) -> None:
    """An engine is code: ValueError if another user made the file, or could have written into it."""
    found = os.fstat(file.fileno())
    if not is_own(found):
        raise ValueError("it belongs to another user")
    if others_may_write(found):
        raise ValueError("others may write to it")


def _limit_wanted() -> int:
    """GENSDK_CACHE_LIMIT in bytes; a number with K, M, G or T (of 1024) behind it."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    return parse_bytes(text, LIMIT_VARIABLE) if text else DEFAULT_LIMIT


def _warn(message: str) -> None:
    tell(printable(message), EngineCacheWarning)
