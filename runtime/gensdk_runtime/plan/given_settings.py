"""What ``sample(settings=...)`` stands for: options, and of a record of samples also what they were drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Seeds
from gensdk_runtime.spec.settings import ProgramSettings

ABOUT = ("model", "backend", "precision", "fallback", "stopped")
"""What a record says of how samples were made, and what none of them depends on."""
_DRAWN_FROM = ("n", "seeds", "labels", "latents")


class GivenSettings(NamedTuple):
    """`options` of the program; `n`, `seed` and `label` of samples that were recorded, None where none were."""

    options: Mapping[str, Any]
    n: int | None = None
    seed: Seeds | None = None
    label: Any = None


def given_settings(settings: object, own: type[ProgramSettings], *, latents: bool) -> GivenSettings:
    """What `settings` stand for: an object of the class `own`, of which counts what was set in it; options by name;
    or :attr:`Samples.settings`. `latents`: the caller gives latents too.

    Raises :class:`InputError` for anything else, and for the record of samples that were drawn from latents, where
    the caller gives none.
    """
    if isinstance(settings, ProgramSettings):
        if not isinstance(settings, own):
            raise InputError(f"expected settings as {own.__name__}, got {type(settings).__name__}")
        return GivenSettings(settings.model_dump(exclude_unset=True))
    if not isinstance(settings, Mapping):
        kind = type(settings).__name__
        raise InputError(f"expected settings as {own.__name__}, a dict of options or Samples.settings, got {kind}")
    if settings.get("latents") is not None and not latents:
        raise InputError("these settings are of samples that were drawn from latents; pass latents too")
    options = {name: value for name, value in settings.items() if name not in (*ABOUT, *_DRAWN_FROM)}
    return GivenSettings(options, settings.get("n"), settings.get("seeds"), settings.get("labels"))
