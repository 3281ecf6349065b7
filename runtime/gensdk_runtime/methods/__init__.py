"""What a generator does beyond `sample()`: encode, invert, reconstruct, interpolate, translate, dream.

A module is loaded when it is first asked for: an application that only samples does not wait for the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gensdk_runtime.methods import dream as dream
    from gensdk_runtime.methods import encoding as encoding
    from gensdk_runtime.methods import inversion as inversion
    from gensdk_runtime.methods import latents as latents
    from gensdk_runtime.methods import prepared as prepared
    from gensdk_runtime.methods import translate as translate

_MODULES = ("dream", "encoding", "inversion", "latents", "prepared", "translate")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
