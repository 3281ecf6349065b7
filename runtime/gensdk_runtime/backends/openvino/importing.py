"""Imports OpenVINO without its reports to Intel and Google (see :mod:`gensdk_runtime.host.telemetry`), and makes
the one ``Core`` of the process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

from gensdk_runtime.host.forking import abandon, open_in_children

_IMPORTING = RLock()
open_in_children(_IMPORTING)
_settled = False
_core: tuple[int, Any] | None = None


@contextlib.contextmanager
def quiet_openvino() -> Iterator[None]:
    """To import OpenVINO in: it finds no ``openvino_telemetry`` then, as where that was never installed.

    OpenVINO reports while it is imported, and knows no environment variable; without the package it takes a stub
    of its own for good. Nothing is done where the user has opted in.
    """
    name = "openvino_telemetry"
    with _IMPORTING:
        if "openvino" in sys.modules or _opted_in():
            yield
            return
        hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] == name}
        sys.modules[name] = None  # type: ignore[assignment]  # as documented: its import then fails
        try:
            yield
        finally:
            del sys.modules[name]
            sys.modules.update(hidden)


def settle(openvino: Any) -> None:
    """Has the tables made that OpenVINO's Python part makes when it first translates a type of NumPy's.

    Two threads that do it first at the same time wait for each other for ever: one has the table and wants the
    interpreter, the other has the interpreter and wants the table (2026.4).
    """
    global _settled  # noqa: PLW0603 - the tables are the process's
    if _settled:
        return
    import numpy as np

    with _IMPORTING:
        openvino.Type.f32.to_dtype()
        tensor = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True)
        tensor.data.dtype  # noqa: B018 - the table of the other way
        _settled = True


def shared_core(openvino: Any) -> Any:
    """The ``Core`` of this process, which is never freed.

    A Core gives the thread that makes it an alternate signal stack; when it is freed, it gives back the one that
    was there before (2026.4). Of two, the one that was made first may be gone by then, with its stack: the next
    Ctrl-C is a segmentation fault.
    """
    global _core  # noqa: PLW0603 - signal stacks are the process's
    with _IMPORTING:
        if _core is None or _core[0] != os.getpid():
            _core = os.getpid(), openvino.Core()
            abandon(_core)
        return _core[1]


def _opted_in() -> bool:
    """True if ``opt_in_out --opt_in`` was run: it writes a 1 into the home folder."""
    try:
        if sys.platform == "win32":
            folder = Path(os.environ.get("LOCALAPPDATA", "")) / "Intel Corporation"
        else:
            folder = Path.home() / "intel"
        with (folder / "openvino_telemetry").open("rb") as file:
            return file.read(16).strip() == b"1"
    except (OSError, RuntimeError):  # no such file, no home
        return False
