"""The settings of a family, each with its default, its range or choices, and a sentence."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from gensdk_training.family import FamilyConfig

_ENTRY = re.compile(r"^([a-z][a-z0-9_]*): (.+(?:\n {4}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One setting: `default` as JSON has it, `values` in words ("number, 0 < value", "mlp | conv"), meaning."""

    name: str
    default: Any
    values: str
    meaning: str


def settings_of(config: type[FamilyConfig]) -> tuple[Setting, ...]:
    """All settings of `config`, its own first, then those that it shares with others.

    The sentence comes from the docstring of the config that has it, or of one that it is made from.
    """
    shared = set(FamilyConfig.model_fields)
    names = sorted(config.model_fields, key=lambda name: name in shared)  # stable: else in the order of the code
    defaults = json.loads(config().model_dump_json())
    meanings: dict[str, str] = {}
    for each in reversed(config.__mro__):
        meanings |= _meanings(each)
    return tuple(
        Setting(name, defaults[name], values_of(field), meanings.get(name, ""))
        for name, field in ((name, config.model_fields[name]) for name in names)
    )


@cache
def _meanings(config: type) -> dict[str, str]:
    """The entries ``name: sentence`` in the docstring that this very class has."""
    text = inspect.cleandoc(config.__dict__.get("__doc__") or "")
    return {name: " ".join(said.split()) for name, said in _ENTRY.findall(text)}


def values_of(field: FieldInfo) -> str:
    """The allowed values of a field, in words."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, limits: list[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _words(inner[0], [*_flat(annotation.__metadata__), *limits])
    if origin is Literal:
        return " | ".join(str(choice) for choice in inner)
    if annotation is type(None):
        return "null"
    if origin in (Union, type(int | None)):
        return " or ".join(_words(part, limits if part is not type(None) else []) for part in inner)
    if origin is tuple:
        return f"list of {_words(inner[0], [])}{_length(limits)}"
    if annotation is bool:
        return "true | false"
    kind = {int: "whole number", float: "number", str: "text"}.get(annotation, getattr(annotation, "__name__", ""))
    return kind if annotation is str else f"{kind}{_range(limits)}"


def _flat(limits: Any) -> Iterator[Any]:
    for limit in limits:
        yield from limit.metadata if isinstance(limit, FieldInfo) else (limit,)


def _range(limits: list[Any]) -> str:
    low = high = ""
    for limit in limits:
        if isinstance(limit, Ge | Gt):
            low = f"{limit.ge:g} <= " if isinstance(limit, Ge) else f"{limit.gt:g} < "
        elif isinstance(limit, Le | Lt):
            high = f" <= {limit.le}" if isinstance(limit, Le) else f" < {limit.lt}"
    return f", {low}value{high}" if low or high else ""


def _length(limits: list[Any]) -> str:
    low = next((x.min_length for x in limits if isinstance(x, MinLen)), None)
    high = next((x.max_length for x in limits if isinstance(x, MaxLen)), None)
    return f", {low or 0} to {high} of them" if high is not None else ""
