"""Temporary folders, gone afterwards: at once, or when the next one is made where a process was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gensdk_runtime.host.atomic import held, remove_abandoned
from gensdk_runtime.host.system import OPENS_FOLDERS

PREFIX = "gensdk-scratch-"
_NAMES = re.compile(re.escape(PREFIX) + ".+")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder of this user's alone, locked while in use; those that killed processes left are removed."""
    with contextlib.suppress(OSError):
        remove_abandoned(Path(tempfile.gettempdir()), _NAMES)
    folder, descriptor = _create()
    try:
        yield folder
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _create() -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        if not OPENS_FOLDERS:
            return folder, None
        if (descriptor := held(folder)) is not None:
            return folder, descriptor
