"""Types of single fields of a manifest: names, paths, numbers and ranges, each with what it may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

MAX_SAMPLE_ELEMENTS = 2**28
"""What one sample may take of a graph's inputs, of its outputs, and as a result; one GiB in float32 each."""

Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
Precision = Literal["fp32", "fp16"]
Role = Literal["noise", "condition", "image", "points", "output", "state", "timestep", "coefficient", "context"]
"""What a tensor of a graph is for. "output": a sample of another kind than images and points. "context": what is
made of the conditions once, for all steps."""

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is no name (a letter, then up to 99 letters, digits, '_', '-', '.')")
    return value


def check_path(value: str) -> str:
    """Refuses all but a plain relative path inside the bundle (forward slashes, no ``..``, no drive)."""
    parts = value.split("/")
    if len(value) > 240 or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {value[:80]!r} is not a plain relative path inside the bundle")
    if not (value.isascii() and value.isprintable()) or any(character in value for character in '\\:*?"<>|'):
        raise ValueError(f"path {value[:80]!r} has a character that not every file system keeps")
    if any(part[-1] in ". " or part.split(".")[0].upper() in _DEVICES for part in parts):
        raise ValueError(f"path {value[:80]!r} means something else on Windows")
    return value


def check_case(names: Collection[str]) -> None:
    """Refuses two names that are one on Windows and macOS."""
    if len({name.lower() for name in names}) != len(names):
        raise ValueError("two files have names that differ in case alone")


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as failure:
        raise ValueError(f"not writable as JSON ({failure})") from None
    return value


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError(f"range {value} is empty: (lowest, highest) is needed")
    if not 1e-30 < value[1] - value[0] < 1e30:  # images are scaled by it in float32
        raise ValueError(f"range {value} is wider or narrower than float32 can scale")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
BundlePath = Annotated[str, AfterValidator(check_path)]
Axis = Annotated[int, Field(ge=1, le=2**31 - 1)] | Name
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[Finite, Finite], AfterValidator(_check_range)]
Json = Annotated[dict[str, Any], AfterValidator(_check_json)]
