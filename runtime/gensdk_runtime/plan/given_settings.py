"""Resolves ``sample(settings=...)``: options, and of a record of samples also what they were drawn from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.noise import Seeds
from gensdk_runtime.spec.options import check_names
from gensdk_runtime.spec.settings import ProgramSettings

ABOUT = ("model", "backend", "precision", "fallback", "stopped")
"""What a record says of how samples were made, and what none of them depends on."""
_ARRAYS = ("latents", "prefix", "image", "mask_image")
"""What a record says of "given", and does not hold."""
_DRAWN_FROM = ("n", "seeds", "labels", *_ARRAYS)


class GivenSettings(NamedTuple):
    """`options` of the program; `n`, `seed` and `conditions`, by kind, of samples that were recorded, where some
    were.

    `arrays`: what those were made from beside, of the caller's, such as "latents".
    """

    options: Mapping[str, Any]
    n: int | None = None
    seed: Seeds | None = None
    conditions: Mapping[str, Any] = MappingProxyType({})
    arrays: tuple[str, ...] = ()

    def under(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """`options`, and those of the settings where they leave one open."""
        given = {name: value for name, value in (options or {}).items() if value is not None}
        return {**self.options, **given}

    def tell_left_out(self, n: int, seed: Seeds | None, given: Mapping[str, Any]) -> None:
        """Says what of recorded samples does not hold where the caller says how many there are: their seeds, and
        the conditions that are not `given`."""
        left = [] if self.seed is None or seed is not None else ["seeds"]
        left += [f"{kind}s" for kind in self.conditions if kind not in given]
        if left:
            tell(
                f"with n={n} only the options of these settings count, and not their {' and '.join(left)}; "
                "leave n out to draw the same samples again"
            )

    def check_arrays(self, **given: object) -> None:
        """Raises :class:`InputError` where recorded samples can't be drawn again without what is not `given`."""
        for name in self.arrays:
            if given.get(name) is None:
                raise InputError(f"these settings are of samples that were drawn from {name}; pass {name} too")


def given_settings(
    settings: object, own: type[ProgramSettings], recorded: Mapping[str, str], arguments: Collection[str]
) -> GivenSettings:
    """What `settings` stand for: an object of the class `own`, of which what was set counts; options by name,
    or :attr:`Samples.settings`, which call conditions as `recorded` says of their kinds. Raises
    :class:`InputError` for anything else; `arguments`: what the caller takes beside."""
    if isinstance(settings, ProgramSettings):
        if not isinstance(settings, own):
            raise InputError(f"expected settings as {own.__name__}, got {type(settings).__name__}")
        return GivenSettings(settings.model_dump(exclude_unset=True))
    if not isinstance(settings, Mapping):
        kind = type(settings).__name__
        raise InputError(f"expected settings as {own.__name__}, a dict of options or Samples.settings, got {kind}")
    if settings.get("labels") is not None and "labels" not in recorded.values():
        raise InputError(
            "these settings are of samples with labels, and this model has no classes; leave them out"
        )
    rest = {*ABOUT, *_DRAWN_FROM, *recorded.values()}
    options = {str(name): value for name, value in settings.items() if name not in rest and value is not None}
    check_names(options, own, arguments)
    return GivenSettings(
        options,
        n=settings.get("n"),
        seed=settings.get("seeds"),
        conditions={kind: settings[name] for kind, name in recorded.items() if settings.get(name) is not None},
        arrays=tuple(name for name in _ARRAYS if settings.get(name) is not None),
    )
