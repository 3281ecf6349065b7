"""Checks a file of weights that a setting names, before it is read."""

from __future__ import annotations

from pathlib import Path

from gensdk_runtime.errors import InputError

MAX_BYTES = 2**30


def check_weights_file(path: Path) -> None:
    """Raises :class:`InputError` for what is no plain file, or a link to one: a pipe would block, a device never
    end; and for more than a GiB. A file that is missing is left to who reads it."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file of weights, and it is not a plain file")
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES} bytes; expected the weights of a small network")
