"""Families by name. A family registers where it is defined; a second one of the same name is an error."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.host.installed import load_entry_point, load_entry_points
from gensdk_runtime.spec.kinds import same_class
from gensdk_training.family import Family

AnyFamily = Family[Any]
FamilyT = TypeVar("FamilyT", bound=type[AnyFamily])

ENTRY_POINTS = "gensdk.families"
"""The group by which families of other packages are found; an entry point's name is the family's."""
_FAMILIES: dict[str, type[AnyFamily]] = {}


def register(name: str) -> Callable[[FamilyT], FamilyT]:
    """Class decorator: makes a family known as `name`. Raises ValueError where the name is taken."""

    def decorate(family: FamilyT) -> FamilyT:
        known = _FAMILIES.get(name)
        if known is not None and not same_class(known, family):
            raise ValueError(f"family {name!r} is registered twice: {known.__module__} and {family.__module__}")
        family.name = name
        _FAMILIES[name] = family
        return family

    return decorate


@cache
def _load_all() -> None:
    package = importlib.import_module("gensdk_training.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def families() -> dict[str, type[AnyFamily]]:
    """All families, also of other packages, by name, in alphabetical order."""
    _load_all()
    load_entry_points(ENTRY_POINTS)
    return dict(sorted(_FAMILIES.items()))


def get_family(name: str) -> type[AnyFamily]:
    """The family called `name`; :class:`InputError` names the nearest one where there is none."""
    _load_all()
    if name not in _FAMILIES:
        load_entry_point(ENTRY_POINTS, name)
    if name not in _FAMILIES:
        raise InputError(f"no family {name!r}{did_you_mean(name, families())}")
    return _FAMILIES[name]
