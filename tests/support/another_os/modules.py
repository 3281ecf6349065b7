"""Stand-ins for modules of the standard library, given to gensdk's imports alone.

Python's import statement calls ``builtins.__import__`` with the globals of the module that it stands in. That is
where gensdk is told from all others: taking attributes off the real ``os`` would break numpy, and so would looking
at the caller of each access cost everybody.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

from support.another_os import PLATFORM, System, files, locking, typeshed

_IMITATED = sys.stdlib_module_names - {"builtins", "typing", "types", "__future__"}


class _Kernel:
    """``kernel32.dll`` as far as gensdk calls it."""

    @staticmethod
    def GlobalMemoryStatusEx(reference: Any) -> int:
        """Fills MEMORYSTATUSEX."""
        status = reference._obj
        if status.length != 64:  # what Windows checks
            return 0
        status.physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        status.free_physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return 1


class _Library(ctypes.CDLL):
    """macOS's C library as far as gensdk calls it beyond what Linux has."""

    def renamex_np(self, one: bytes, other: bytes, flags: int) -> int:
        """Linux has it under another name, with the same flag."""
        here = -100  # AT_FDCWD
        return self.renameat2(here, one, here, other, flags)  # type: ignore[no-any-return]


class StandIn(ModuleType):
    """A module with some names missing, and some of its own; for all others it is the real one, also to set."""

    def __init__(self, real: ModuleType, missing: frozenset[str], own: Mapping[str, object]) -> None:
        super().__init__(real.__name__, real.__doc__)
        super().__getattribute__("__dict__").update(_real=real, _missing=missing, _own=dict(own))

    def __getattribute__(self, name: str) -> Any:
        inside = super().__getattribute__("__dict__")
        if name in inside["_own"]:
            return inside["_own"][name]
        if name == "__dict__":  # where pytest looks what was there before it patches
            there = {
                each: value for each, value in vars(inside["_real"]).items() if each not in inside["_missing"]
            }
            return there | inside["_own"]
        if name in inside["_missing"]:
            raise AttributeError(f"module {inside['_real'].__name__!r} has no attribute {name!r}")
        return getattr(inside["_real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        inside = super().__getattribute__("__dict__")
        if name in inside["_own"]:
            inside["_own"][name] = value
        else:
            setattr(inside["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(super().__getattribute__("__dict__")["_real"], name)


def install(system: System) -> None:
    """Puts the stand-ins in the way of gensdk's imports."""
    platform = PLATFORM[system]
    own: dict[str, dict[str, object]] = {"sys": {"platform": platform}, "os": {}, "platform": {}}
    own["platform"]["system"] = lambda: {"win32": "Windows", "darwin": "Darwin"}[platform]
    own["os"]["open"] = files.open_descriptor
    own["os"]["supports_dir_fd"] = {*os.supports_dir_fd, files.open_descriptor}
    if platform == "win32":
        own["os"] |= {"name": "nt", **files.FLAGS}
        own["ctypes"] = {"windll": SimpleNamespace(kernel32=_Kernel)}
        own["os"] |= {f"supports_{what}": set() for what in ("dir_fd", "fd", "follow_symlinks")}
    else:
        own["ctypes"] = {"CDLL": _Library}
    stand_ins: dict[str, ModuleType] = {"msvcrt": locking.msvcrt()} if platform == "win32" else {}
    usual: Callable[..., ModuleType] = builtins.__import__

    def stand_in(name: str) -> ModuleType | None:
        if name not in stand_ins:
            here, there = typeshed.names(name, sys.platform), typeshed.names(name, platform)
            missing = here - there
            if missing and all(each.startswith("_") for each in there):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if not missing and name not in own:
                return None
            stand_ins[name] = StandIn(importlib.import_module(name), missing, own.get(name, {}))
        return stand_ins[name]

    def another_import(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - Python's name
        locals: Mapping[str, object] | None = None,  # noqa: A002 - Python's name
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> ModuleType:
        top, inside = name.partition(".")[0], globals or {}
        is_ours = any(str(inside.get(key, "")).startswith("gensdk") for key in ("__name__", "__package__"))
        if is_ours and not level and top in _IMITATED and (name == top or not fromlist):
            if name != top:
                usual(name, globals, locals, fromlist, level)
            found = stand_in(top)
            if found is not None:
                return found
        return usual(name, globals, locals, fromlist, level)

    builtins.__import__ = another_import  # type: ignore[assignment]
