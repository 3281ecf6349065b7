"""The flags of the programs' options, made from their declarations: one decorator for all verbs that sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import click

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.options import Option, all_options, parse_options

Command = Callable[..., Any]
SHORT = {"num_inference_steps": "--steps"}
"""Flags that may be typed in place of the long ones."""


def program_options(
    *kinds: str, purpose: str = "", short: bool = True, without: Iterable[str] = ()
) -> Callable[[Command], Command]:
    """Gives a verb a flag for each option of the programs of these `kinds` (none: of all programs), and ``--set``.

    The verb gets those that were used as one argument, `options`. `purpose`: a sentence for the help of each flag.
    `short`: with the flags of :data:`SHORT`. `without`: options that get no flag here, since the verb has one of
    that name for something else.
    """
    known = {name: found for name, found in all_options(kinds or None).items() if name not in without}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(*, set_options: tuple[str, ...], **given: Any) -> Any:
            flags = {name: given.pop(name) for name in known}
            options = {name: value for name, value in flags.items() if value is not None}
            words = parse_options(set_options, kinds)
            for name in options.keys() & words:
                raise InputError(f"{name} is given twice, as {_flag(name)} and with --set; give it once")
            return command(options={**options, **words}, **given)

        decorated: Command = click.option(
            "--set",
            "set_options",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any option of the model's program, as gensdk inspect BUNDLE lists them; may repeat.",
        )(call)
        for name, found in reversed(known.items()):
            decorated = _option(name, found, purpose, short)(decorated)
        return decorated

    return decorate


def _option(name: str, found: tuple[Option, ...], purpose: str, short: bool) -> Callable[[Command], Command]:
    """The flag of an option, as all programs have it that have it."""
    first = found[0]
    told = " ".join(f"{option.kind.capitalize()}: {option.meaning}" for option in found)
    help_text = " ".join(part for part in (told, purpose, _limits(found)) if part)
    if first.annotation is bool:
        return click.option(f"{_flag(name)}/--no-{_flag(name)[2:]}", name, default=None, help=help_text)
    flags = [_flag(name), *([SHORT[name]] if short and name in SHORT else [])]
    kind = click.Choice(first.choices) if first.choices else {int: int, float: float}.get(first.annotation, str)
    return click.option(*flags, name, type=kind, help=help_text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _limits(found: tuple[Option, ...]) -> str:
    """The range of a number, where all programs have one range."""
    ranges = {option.values.partition(", ")[2].replace("value", "x") for option in found if not option.choices}
    return f"[{ranges.pop()}]" if len(ranges) == 1 and ranges != {""} else ""
