"""Folders with a numbered file for each sample."""

from __future__ import annotations

import re
from pathlib import Path

from gensdk_runtime.errors import InputError


def check_fresh(folder: Path, suffix: str, what: str) -> None:
    """Raises :class:`InputError` where numbered files of an earlier run, with this suffix, would stand among the
    new ones; `what` one of them is called."""
    numbered = re.compile(rf"[0-9]{{5,}}{re.escape(suffix)}")
    try:
        older = sorted(file.name for file in folder.iterdir() if numbered.fullmatch(file.name))
    except OSError as failure:
        raise InputError(f"can't read {folder}: {failure.strerror or failure}") from None
    if older:
        found = f"{len(older)} {what}" + ("" if len(older) == 1 else "s")
        raise InputError(
            f"{folder} holds {found} of an earlier run ({older[0]}); choose a new folder, or remove them"
        )
