"""Files that this machine made or has tried, remembered in the user's cache by their SHA-256.

The author of a bundle can write anything into it, but not into the private cache of its user.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.atomic import write_file
from gensdk_runtime.host.system import is_own
from gensdk_runtime.host.user_cache import cache_folder

Why = Literal["made", "ran"]
"""``made``: an engine that was built here. ``ran``: a graph that came to an end here."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def remember(data: bytes | str, why: Why) -> None:
    """Notes a file, given as its bytes or its SHA-256. Where the cache can't be written nothing is remembered."""
    with contextlib.suppress(OSError, UnavailableError):
        path = _path(_digest(data), why)
        if not _is_note(path):
            write_file(path, durable=True)


def is_known(data: bytes | str, why: Why) -> bool:
    """True if the file was remembered for this reason."""
    with contextlib.suppress(OSError, UnavailableError):
        return _is_note(_path(_digest(data), why))
    return False


def once(data: str, why: Why, work: Callable[[], None]) -> None:
    """Does `work` for a file that is not known yet, and remembers it if that ended well."""
    if not is_known(data, why):
        work()
        remember(data, why)


def _digest(data: bytes | str) -> str:
    found = data if isinstance(data, str) else hashlib.sha256(data).hexdigest()
    if not _DIGEST.fullmatch(found):
        raise ValueError("expected a SHA-256 in hexadecimal")
    return found


def _path(digest: str, why: Why) -> Path:
    return cache_folder("known", why) / digest


def _is_note(path: Path) -> bool:
    """True for a plain file that this user owns; links and files of others do not count."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and is_own(found)
