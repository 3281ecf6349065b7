"""What commands print, and how they ask for an extra."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def print_json(data: Any) -> None:
    """The data as indented JSON on stdout; NaN is an error, since JSON has none."""
    say(json.dumps(data, indent=2, allow_nan=False))


def say(line: str) -> None:
    """One line, or several, on stdout."""
    write(line + "\n")


def aside(line: str) -> None:
    """One line, or several, on stderr."""
    click.echo(printable(line, lines=True), err=True)


def write(text: str) -> None:
    """Text on stdout; what a terminal would obey is written out."""
    _write(printable(text, lines=True))


def _write(text: str) -> None:
    """A reader that leaves early, as ``head`` does, is no error, and changes no verdict."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # else Python complains again on its way out


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout, plain where stdout is no terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            *(Text(printable(str(cell), lines=True)) for cell in row)
        )  # as text: shapes in brackets are no markup
    print_rich(table)


def print_rich(renderable: RenderableType) -> None:
    """Anything of rich's on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 140)
    with console.capture() as captured:  # writing by itself, rich would end the process at a closed pipe, code 1
        console.print(_Printable(renderable))
    _write(captured.get())


class _Printable:
    """A renderable whose text is printable; the styles that rich puts around it stay."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment._replace(text=printable(segment.text, lines=True))


@contextmanager
def needs_training_extra(what: str) -> Iterator[None]:
    """Turns a missing package into an error that names the pip command."""
    try:
        yield
    except ImportError as failure:
        raise UnavailableError(
            f'{what} needs the extra "training" ({failure}); pip install "gensdk[training]"'
        ) from failure
