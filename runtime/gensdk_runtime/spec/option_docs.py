"""Methods that take options as ``**options``: what help() and editors at run time tell of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from textwrap import fill
from typing import Any, TypeVar

from gensdk_runtime.spec.options import options_of
from gensdk_runtime.spec.settings import SETTINGS

Method = TypeVar("Method", bound=Callable[..., Any])


def takes_options(*kinds: str) -> Callable[[Method], Method]:
    """Tells the options of the programs of these `kinds` (none: of all) in a method's docstring and signature.

    For calls and for type checkers it changes nothing: those go by ``**options: Unpack[...]``.
    """

    def tell(method: Method) -> Method:
        signature = inspect.signature(method)
        *shown, rest = signature.parameters.values()
        lines: list[str] = []
        named: dict[str, inspect.Parameter] = {}
        for kind in kinds or SETTINGS:
            options = options_of(SETTINGS[kind])
            lines += [f"Options of {kind} models:", ""] if options else []
            for option in options:
                lines.append(
                    fill(f"- `{option.name}`, {option.values}: {option.meaning}", 111, subsequent_indent="  ")
                )
                named[option.name] = inspect.Parameter(
                    option.name, rest.KEYWORD_ONLY, default=None, annotation=option.annotation | None
                )
            lines += [""] if options else []
        method.__signature__ = signature.replace(parameters=[*shown, *named.values()])  # type: ignore[attr-defined]
        method.__doc__ = "\n".join((inspect.getdoc(method) or "", "", *lines)).rstrip()
        return method

    return tell
