"""Whether engines that a bundle brings along may be loaded. They are code, and no checksum tells who wrote it."""

from __future__ import annotations

import os

TRUST_VARIABLE = "GENSDK_TRUST_ENGINES"


def trusted_by_environment() -> bool:
    """True if GENSDK_TRUST_ENGINES=1 says that all engines may be loaded, wherever they were made."""
    return os.environ.get(TRUST_VARIABLE, "").strip() == "1"
