"""Temporary folders, gone afterwards: at once, or when the next one is made where a process was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.atomic import held, remove_abandoned
from gensdk_runtime.host.system import OPENS_FOLDERS

PREFIX = "gensdk-scratch-"
_NAMES = re.compile(re.escape(PREFIX) + ".+")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder of this user's alone, locked while in use; those that killed processes left are removed.

    A process that was forked meanwhile leaves it to the one that made it. :class:`InputError` where it can't be
    made.
    """
    with contextlib.suppress(OSError):
        remove_abandoned(Path(tempfile.gettempdir()), _NAMES)
    owner = os.getpid()
    try:
        folder, descriptor = _create()
    except OSError as failure:
        raise InputError(
            f"can't make a temporary folder ({failure.strerror or failure}); name another place with TMPDIR"
        ) from None
    try:
        yield folder
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


def _create() -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        if not OPENS_FOLDERS:
            return folder, None
        if (descriptor := held(folder)) is not None:
            return folder, descriptor
