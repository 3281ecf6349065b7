"""What a field of a settings model may be, in words: "whole number, 1 <= value <= 1000", "adam | sgd"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo


def values_of(field: FieldInfo) -> str:
    """What a field may be, in words."""
    return _words(field.annotation, field.metadata)


def type_of(field: FieldInfo) -> Any:
    """The type of a field without its limits, and without the None that may stand beside it."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, type(int | None)):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


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
