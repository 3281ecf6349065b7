"""The user's private folder for what was measured or built here, and can be made again: tuning results, engines.

``$GENSDK_CACHE``, or ``gensdk`` in the platform's per-user cache: ``$XDG_CACHE_HOME`` or ``~/.cache`` on Linux,
``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows. An engine is code for the GPU, so a folder that
somebody else could have written to is refused.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.host.system import is_own, others_may_write

ENVIRONMENT = "GENSDK_CACHE"
PRIVATE = 0o700


def cache_folder(*parts: str) -> Path:
    """The folder `parts` of the cache, absolute, made where it is missing, for this user alone (mode 0700).

    Each part is one plain name. Raises :class:`UnavailableError` where the folder can't be made, is owned by
    somebody else, is a link made by somebody else, or may be written by others (POSIX). It may still not be
    writable: the disk may be full, or mounted read-only.
    """
    for part in parts:
        if not part or part in (".", "..") or any(mark in part for mark in "/\\:\0"):
            raise InputError(f"expected plain names for a folder of the cache, got {part[:80]!r}")
    folder = _root()
    try:
        folder.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        _make_private(folder)
        for part in parts:
            folder = folder / part
            _make_private(folder)
    except OSError as failure:
        raise UnavailableError(
            f"the cache {str(folder)!r} can't be made ({failure.strerror}); set {ENVIRONMENT} to another folder"
        ) from None
    return folder


def _root() -> Path:
    given = os.environ.get(ENVIRONMENT)
    try:
        if given:
            return Path(given).expanduser().absolute()
        return _platform_cache() / "gensdk"
    except (RuntimeError, OSError):  # no home, or no working directory
        raise UnavailableError(f"there is no home folder for the cache; set {ENVIRONMENT} to a folder") from None


def _platform_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".cache"  # the XDG standard: ignore relative ones


def _make_private(folder: Path) -> None:
    """Makes `folder` where it is missing, and checks it either way; OSError where it can't be made."""
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    link, found = folder.lstat(), folder.stat()
    remedy = f"remove it, or set {ENVIRONMENT} to a folder of your own"
    if not (is_own(link) and is_own(found)):
        raise UnavailableError(f"the cache {str(folder)!r} belongs to another user; {remedy}")
    if others_may_write(found):
        mode = stat.S_IMODE(found.st_mode)
        raise UnavailableError(f"others may write to the cache {str(folder)!r} (mode {mode:04o}); chmod 700 it")
