"""Checks of plain arguments: words, numbers, switches, paths and callbacks; one line each where they are wrong."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, did_you_mean

MAX_SAMPLES = 10_000_000
NUMBERS = "biufc"
"""Kinds of arrays of numbers and bools."""
SHOWN = 40
"""Characters of a value that a message quotes."""


def shown(value: object) -> str:
    """A value in a message: one short line, whatever it is."""
    try:
        text = str(value)
    except Exception:  # whatever __str__ of a stranger raises
        text = type(value).__name__
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * SHOWN])
    return " ".join(printable.split())[:SHOWN]


def check_whole(value: object, what: str, *, least: int, most: int) -> int:
    """A whole number from `least` to `most`, of Python or NumPy; `what` names it in the :class:`InputError`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"expected {what} as an int, got {type(value).__name__}") from None
    if isinstance(value, bool | np.bool_) or not least <= number <= most:
        raise InputError(f"expected {what} from {least:,} to {most:,}, got {shown(value)}")
    return number


def check_number(value: object, what: str, *, least: float = -inf, most: float = inf) -> float:
    """A finite number of Python or NumPy, from `least` to `most`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"expected {what} as a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if not isfinite(number):
        raise InputError(f"expected {what} as a finite number, got {shown(value)}")
    if not least <= number <= most:
        raise InputError(f"expected {what} from {least:,g} to {most:,g}, got {shown(value)}")
    return number


def check_flag(value: object, what: str) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"expected {what} as True or False, got {type(value).__name__}")
    return bool(value)


def check_word(value: object, what: str, known: Collection[str]) -> str:
    """One of the words that are `known`."""
    if not isinstance(value, str):
        raise InputError(f"expected {what} as one of {', '.join(known)}, got {type(value).__name__}")
    if value not in known:
        raise InputError(f"no {what} {shown(value)!r}{did_you_mean(value[:80], known)}")
    return value


def check_path(value: object, what: str) -> Path:
    """A path as a str or a ``pathlib.Path``, which the file system can have."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"expected {what} as a str or a Path, got {type(value).__name__}")
    path = os.fspath(value)
    if value == "":
        raise InputError(f"expected {what} as a str or a Path, got an empty one")
    if not isinstance(path, str) or "\0" in path:
        raise InputError(f"expected {what} as a str or a Path, got {shown(value)!r}")
    try:
        Path(path).exists()
    except OSError as failure:  # above all a name too long
        raise InputError(f"can't use {what} {shown(path)!r}: {failure.strerror or failure}") from None
    return Path(path)


def check_callback(value: Callable[[Any], object] | None, what: str) -> None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise InputError(f"expected {what} as a function, got {type(value).__name__}")


def check_row(value: object, what: str) -> Sequence[Any]:
    """A list, a tuple, or another row of things, which a str and an array without axes are not."""
    if isinstance(value, np.ndarray) and value.ndim:
        return list(value)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"expected {what} as a list, got {type(value).__name__}")
    return value


def as_array(value: Any, what: str) -> NDArray[Any]:
    """`value` as an array: a NumPy one, or what turns into one, such as a tensor in main memory.

    :class:`InputError`, naming `what`, for what :func:`any_array` refuses, and for texts and objects.
    """
    array = any_array(value, what)
    if array.dtype.kind not in NUMBERS:
        raise InputError(f"expected {what} as an array of numbers, got {type(value).__name__}")
    return array


def any_array(value: Any, what: str) -> NDArray[Any]:
    """As :func:`as_array`, of texts and objects too; :class:`InputError` for a list of lists of several lengths,
    and a tensor on a device or with a gradient."""
    try:
        return np.asarray(value)
    except Exception as failure:  # whatever __array__ of a stranger raises
        reason = " ".join(str(failure).split())[:120]
        own = type(failure) is ValueError and not hasattr(type(value), "__array__")  # in NumPy's words
        if own and isinstance(value, list | tuple):
            raise InputError(f"expected {what} as an array, got rows of several lengths; fill them up") from None
        got = type(value).__name__ + ("" if own else f" ({reason})")
        raise InputError(f"expected {what} as an array, got {got}") from None


def check_count(n: object) -> int:
    """A number of samples from 1 to ten million."""
    return check_whole(n, "n", least=1, most=MAX_SAMPLES)
