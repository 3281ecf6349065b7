"""Methods that take options as ``**options``: what help() and editors at run time tell of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from textwrap import fill
from typing import Any, TypeVar

from gensdk_runtime.spec.options import all_options, options_of
from gensdk_runtime.spec.settings import SETTINGS

Method = TypeVar("Method", bound=Callable[..., Any])


def takes_options(*kinds: str) -> Callable[[Method], Method]:
    """Tells the options of the programs of these `kinds` (none: of all) in a method's docstring and signature.

    For calls and for type checkers it changes nothing: those go by ``**options: Unpack[...]``.
    """
    known = kinds or tuple(SETTINGS)

    def tell(method: Method) -> Method:
        signature = inspect.signature(method)
        *shown, _ = signature.parameters.values()
        method.__signature__ = signature.replace(parameters=[*shown, *_parameters(known)])  # type: ignore[attr-defined]
        method.__doc__ = "\n\n".join(filter(None, [inspect.getdoc(method), *map(_text, known)]))
        return method

    return tell


@cache
def _text(kind: str) -> str:
    """A paragraph and a list: the options of the programs of a kind; empty where they have none."""
    options = options_of(SETTINGS[kind])
    lines = [f"- `{each.name}`, {each.values}: {each.meaning}" for each in options]
    told = "\n".join(fill(line, 111, subsequent_indent="  ") for line in lines)
    return f"Options of {kind} models:\n\n{told}" if told else ""


@cache
def _parameters(kinds: tuple[str, ...]) -> tuple[inspect.Parameter, ...]:
    return tuple(
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=first.annotation | None)
        for name, (first, *_) in all_options(kinds).items()
    )
