"""How much memory this process may still take; asked only before something large."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.control_groups import control_groups, file_text, system_text
from gensdk_runtime.host.system import free_memory

_NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of cgroup 2 and cgroup 1: the limit, what is used, and what of that can be given back."""


def available_memory() -> int | None:
    """Bytes that can be taken before the system, a container or a limit of the process refuses, or kills it.

    The least of what Linux calls available or Windows free, of the limits of the process's control groups (cgroup
    2, else 1), and of its address space (``ulimit -v``). None where the system does not say, as on macOS.
    """
    known = [each for each in (_machine(), free_memory(), *_groups(), _address_space()) if each is not None]
    return max(0, min(known)) if known else None


def _machine() -> int | None:
    for line in system_text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def memory_limits() -> Iterator[int]:
    """The limits of this process's control groups and of those around them, in bytes."""
    for group in control_groups("memory"):
        for limit, *_ in _NAMES:
            text = file_text(group / limit).strip()
            if text.isdigit():
                yield int(text)


def _groups() -> Iterator[int]:
    """What is left in each group that has a limit, from the outermost to the process's own."""
    for group in control_groups("memory"):
        for names in _NAMES:
            left = _left(group, *names)
            if left is not None:
                yield left


def _left(group: Path, limit: str, used: str, reclaimable: str) -> int | None:
    most, now = file_text(group / limit).strip(), file_text(group / used).strip()
    if not (most.isdigit() and now.isdigit()):
        return None
    pages = 0  # of files, which are given back when memory is short
    for line in file_text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == reclaimable and value.isdigit():
            pages = int(value)
    return int(most) - int(now) + pages


def _address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = system_text("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return int(limit) - int(pages[0]) * resource.getpagesize()


class Room:
    """What the runs of one generator may take.

    A backend keeps what a run took, and uses it again for the next one: what was granted once is not asked for
    twice. `host` False: runs take the memory of a device, of which nothing is known here.
    """

    def __init__(self, *, host: bool) -> None:
        self._host = host
        self._granted = 0

    def lacks(self, need: int) -> int | None:
        """Bytes that are free, where `need` are more than that; None where there is room."""
        if not self._host or need <= self._granted:
            return None
        have = available_memory()
        if have is not None and need > have:
            return have
        self._granted = need
        return None


PER_SAMPLE = 400
"""Bytes of a sample's key, its entries in the settings, and its label."""
ASKED_FROM = 2**28
"""Bytes from which on it is worth to ask the system."""


def check_room(n: int, elements: int, beside: int = 0) -> None:
    """Raises :class:`InputError` where `n` samples of so many float32 numbers can't be held, and `beside` them so
    many that they are drawn with."""
    need = n * (4 * elements + PER_SAMPLE) + 4 * beside
    if need < ASKED_FROM:
        return
    have = available_memory()
    if have is not None and need > have:
        raise InputError(
            f"{n:,} samples take about {in_words(need)}, and {in_words(have)} of memory are free; draw fewer at a "
            "time (seed=[(seed, position), ...] goes on where a call ended)"
        )


def in_words(size: float) -> str:
    """Bytes as people say them: ``3.2 GiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MiB"
