"""A file for a film that can be completed though the disk is full: room for its end is kept from the beginning.

A film without its index can't be played, and the index is written last. A second file holds the room for it; at
the first write that finds no space it is given up, the write is done again, and `full` says that it is time to
end.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_ROOM, MOST_ROOM = 24 << 10, 2 << 20
"""Bytes that are kept at the beginning: an eighth of what is free, within these."""
A_PACKET = 128
"""Bytes of an index for a packet of video or sound, at most."""


class FilmFile:
    """The file that FFmpeg writes into: new, at `path`, with reserved room beside it."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.full = False
        self._path = path
        self._room = path.with_name(f"{path.name}.room")
        self._kept = 0
        self._packets = 0
        self._largest = 0
        self._noted = self._written = 0
        self.failure: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._keep(max(LEAST_ROOM, min(MOST_ROOM, shutil.disk_usage(path.parent).free // 8)))

    def note_packet(self, size: int) -> None:
        """A packet of `size` bytes comes: the index grows, and what waits to be written may be as large."""
        self._packets += 1
        self._largest = max(self._largest, size)
        self._noted += size
        waiting = max(0, self._noted - self._written)  # some formats write a second of packets at a time
        needed = LEAST_ROOM + A_PACKET * self._packets + 2 * self._largest + waiting
        if needed > self._kept and not self.full:
            self._keep(needed + needed // 2)

    def write(self, data: bytes) -> int:
        """All of it; OSError where even the room that was kept is used up."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as failure:
                if self.full or failure.errno not in FULL:
                    self.failure = failure
                    raise
                self._give_up_room()
        self._written += len(data)
        return len(data)

    def read(self, size: int) -> bytes:
        """What was written."""
        return os.read(self._descriptor, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new place."""
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """The place."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Frees the room."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._room.unlink(missing_ok=True)

    def _give_up_room(self) -> None:
        self.full = True
        self._room.unlink(missing_ok=True)

    def _keep(self, size: int) -> None:
        try:
            with self._room.open("ab") as room:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(room.fileno(), 0, size)
                else:
                    room.write(bytes(size - self._kept))
            self._kept = size
        except OSError as failure:
            if failure.errno in FULL:
                self._give_up_room()
            elif failure.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
