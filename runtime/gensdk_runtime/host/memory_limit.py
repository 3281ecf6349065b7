"""How much memory graphs may take: three quarters of this machine's, or what the user says."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.memory import memory_limits

ENVIRONMENT = "GENSDK_MEMORY_LIMIT"
LEAST = 2 * 2**30
"""Bytes: a backend and its libraries need about a quarter of it."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_limit() -> int | None:
    """Bytes: GENSDK_MEMORY_LIMIT, as in ``8GiB``, or three quarters of what this machine or container has.

    None, no limit, where it is ``off``.
    """
    given = os.environ.get(ENVIRONMENT, "").strip()
    if not given:
        return max(LEAST, machine_memory() // 4 * 3)
    if given.lower() == "off":
        return None
    if not (size := parse_bytes(given, ENVIRONMENT)):
        raise InputError(f"expected {ENVIRONMENT} above 0, like '8GiB', or 'off', got {given[:40]!r}")
    return size


def parse_bytes(text: str, what: str) -> int:
    """Bytes from a number with K, M, G or T (of 1024) behind it; :class:`InputError` names `what`."""
    found = re.fullmatch(r"(\d{1,15}) ?([KMGT]?)(iB|B)?", text.strip())
    if found is None:
        raise InputError(f"expected {what} as bytes or like '4GiB', got {text[:40]!r}")
    return int(found[1]) * _UNITS[found[2]]


@lru_cache(maxsize=1)
def machine_memory() -> int:
    """Bytes of memory of this machine, or of its container if that has less; 8 GiB if neither is known."""
    known = [size for size in (physical_memory(), *memory_limits()) if size]
    return min(known, default=8 * 2**30)


def physical_memory() -> int:
    """Bytes of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
