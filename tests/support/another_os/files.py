"""The rules of another system's files, laid over ``os`` and ``open``.

- Windows: an open or mapped file is neither removed, renamed nor replaced, and no folder with one in it renamed;
  what was opened to read is not synced; folders are not opened; rename replaces nothing, and replace no folder.
- For gensdk, also by way of pathlib, shutil and the like: text is cp1252 with ``\\r\\n`` unless a call says
  otherwise; names that Windows does not keep are refused.
- Both: names differ in more than their case, and there is neither ``/proc`` nor ``/sys``.
"""

from __future__ import annotations

# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH115, PTH118, PTH121, PTH208 - it stands below pathlib
import builtins
import errno
import fcntl
import io
import os
import re
import shutil
import stat
import sys
from typing import Any

from support.another_os import System

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_REFUSED = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
_LINUX_ONLY = ("/proc/", "/sys/")
_OF_PYTHON = "/dev/shm/"
"""Where multiprocessing keeps what Windows gives it without a file."""
_ON_BEHALF = {"pathlib", "shutil", "tempfile", "zipfile", "contextlib", "io", "os", "gzip", "tarfile", __name__}
_IN_USE = "The process cannot access the file because it is being used by another process"
FLAGS = {"O_BINARY": 1 << 27, "O_NOINHERIT": 1 << 28, "O_TEMPORARY": 1 << 29}
"""Of Windows alone, with values that mean nothing here."""

_real_open, _real_os_open = builtins.open, os.open
_windows = False


def install(system: System) -> None:
    """Lays the rules over the process."""
    global _windows  # noqa: PLW0603 - of the process
    _windows = system == "windows"
    builtins.open = io.open = _open  # type: ignore[assignment]
    real_mkdir = os.mkdir

    def mkdir(path: Any, *mode: Any, **how: Any) -> None:
        if _by_gensdk():
            _check_new(os.fspath(path), exclusive=True)
        real_mkdir(path, *mode, **how)

    os.mkdir = mkdir
    if not _windows:
        return
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    real_fsync, real_unlink = os.fsync, os.unlink

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real_fsync(number)

    def unlink(path: Any, **how: Any) -> None:
        _check_free(path, **how)
        real_unlink(path, **how)

    os.fsync, os.unlink, os.remove = fsync, unlink, unlink
    os.rename, os.replace = _moving(os.rename, over=False), _moving(os.replace, over=True)


def _moving(real: Any, *, over: bool) -> Any:
    def move(source: Any, target: Any, **how: Any) -> None:
        _check_free(source)
        there = os.path.lexists(target)
        if there and not _is_same(source, target):
            if not over and _by_gensdk():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(source))
            if over and os.path.isdir(target) and _by_gensdk():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(source))
            _check_free(target)
        elif not there and _by_gensdk():
            _check_new(os.fspath(target), exclusive=False)
        real(source, target, **how)

    return move


def _is_same(source: Any, target: Any) -> bool:
    return os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target)


def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """``os.open`` as gensdk sees it."""
    name = os.fspath(path)
    if dir_fd is not None and _windows:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if dir_fd is None:
        _check_place(name)
    if _windows and os.path.isdir(name):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    if flags & os.O_CREAT:
        _check_new(name, exclusive=bool(flags & os.O_EXCL))
    if _windows:
        flags &= ~sum(FLAGS.values())
        if os.path.exists(name) and not os.path.isfile(name):
            flags |= os.O_NONBLOCK  # pipes and devices, of which there are none in folders there
    return os.open(path, flags, mode, dir_fd=dir_fd)


def _open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *more: Any,
    **how: Any,
) -> Any:
    if not isinstance(file, int) and how.get("opener") is None and _by_gensdk():
        name = os.fspath(file)
        _check_place(name)
        if _windows and os.path.isdir(name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        if set(mode) & set("wxa"):
            _check_new(name, exclusive="x" in mode)
        if _windows and "b" not in mode:
            encoding = "cp1252" if encoding in (None, "locale") else encoding
            newline = "\r\n" if newline is None and set(mode) & set("wxa+") else newline
    return _real_open(file, mode, buffering, encoding, errors, newline, *more, **how)


def _by_gensdk() -> bool:
    """True if gensdk called, itself or through the modules that open files for others."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _ON_BEHALF:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("gensdk")


def _check_place(name: str | bytes) -> None:
    text = os.fsdecode(name)
    if os.path.abspath(text).startswith(_LINUX_ONLY) or text in ("/proc", "/sys"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)


def _check_new(name: str | bytes, *, exclusive: bool) -> None:
    folder, base = os.path.split(os.fsdecode(name).rstrip("/"))
    if _windows and base and (_DEVICES.fullmatch(base) or _REFUSED.search(base)):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    if os.path.lexists(name) or not os.path.isdir(folder or "."):
        return
    same = [each for each in os.listdir(folder or ".") if each.casefold() == base.casefold()]
    if same and exclusive:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    if same:
        raise OSError(errno.EEXIST, f"it would replace {same[0]!r}: their case alone differs", name)


def _check_free(path: Any, *, dir_fd: int | None = None) -> None:
    """PermissionError if a file at `path`, or below it, is open or mapped in this process."""
    text = os.fsdecode(path)
    if dir_fd is not None:
        text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
    parent, base = os.path.split(os.path.abspath(text))
    real = os.path.join(os.path.realpath(parent), base)
    for held in (*_open_files(), *_mapped_files()):
        if held.startswith(_OF_PYTHON):
            continue
        if held == real or held.startswith(f"{real}/"):
            raise PermissionError(errno.EACCES, _IN_USE, held)


def _open_files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{number}")
            if link.startswith("/") and stat.S_ISREG(os.fstat(int(number)).st_mode):
                found.append(link)
        except OSError:  # the listing's own
            continue
    return found


def _mapped_files() -> set[str]:
    with _real_open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        return {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count("/")}
