"""What a tar archive is taken for: by the first of its files that data are made of."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

LOOKED_AT = 1000
"""Members of an archive."""
LOOKED_THROUGH = 256 << 20
"""Bytes of it, unpacked."""


def first_of(path: Path, suffixes: Collection[str]) -> str | None:
    """The suffix, one of `suffixes`, of the first file in a tar archive that has one; None where it has none among
    the first, or can't be read: who reads it then says why."""
    try:
        with tarfile.open(path, mode="r|*") as archive:
            for number, member in enumerate(archive):
                if number >= LOOKED_AT or member.offset_data + member.size > LOOKED_THROUGH:
                    return None
                name = member.name.lower()
                found = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
                if member.isfile() and found is not None and not Path(name).name.startswith("."):
                    return found
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError):
        return None
    return None
