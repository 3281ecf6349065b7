"""Keeps the packages that gensdk uses from reporting their use to their makers.

ONNX Runtime (from 1.29 on), OpenVINO and Hugging Face's packages report by default, and leave identifiers in the
home folder. gensdk switches that off before they are imported. Each package's own switch, where the user has set
it, wins: the variables below, and for OpenVINO the answer that its ``opt_in_out`` command wrote down
(:mod:`gensdk_runtime.backends.openvino.importing`). Every start of Python with gensdk imports this: it takes no
time.
"""

from __future__ import annotations

import os
from typing import Any

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Environment variables that the packages read when they are imported, and what switches reporting off."""

_NO = ("", "0", "false", "no", "off")


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
