"""Keeps the packages below gensdk from telling their makers that they were used.

ONNX Runtime (from 1.29 on), OpenVINO and Hugging Face's packages report by default, and leave identifiers in the
home folder. gensdk switches that off before they are imported. Each package's own switch, where the user has set
it, wins: the variables below, and for OpenVINO the answer that its ``opt_in_out`` command wrote down.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Environment variables that the packages read when they are imported, and what switches reporting off."""

_NO = ("", "0", "false", "no", "off")
_IMPORTING = RLock()


def switch_off() -> None:
    """Sets the environment variables that are not set yet, for this process and its children."""
    for name, off in SWITCHES.items():
        os.environ.setdefault(name, off)


def quieten_onnxruntime(ort: Any) -> None:
    """Tells an imported ONNX Runtime what the environment says, which its Windows builds do not read, and which
    comes too late where the application imported it before gensdk."""
    if os.environ.get("ORT_DISABLE_TELEMETRY", "").strip().lower() not in _NO:
        disable = getattr(ort, "disable_telemetry_events", None)
        if disable is not None:
            disable()


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


def _opted_in() -> bool:
    """Whether ``opt_in_out --opt_in`` was run: it writes a 1 into the home folder."""
    try:
        if sys.platform == "win32":
            folder = Path(os.environ.get("LOCALAPPDATA", "")) / "Intel Corporation"
        else:
            folder = Path.home() / "intel"
        with (folder / "openvino_telemetry").open("rb") as file:
            return file.read(16).strip() == b"1"
    except (OSError, RuntimeError):  # no such file, no home
        return False
