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

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(data: Any) -> None:
    """The data as indented JSON on stdout; NaN is an error, since JSON has none."""
    say(json.dumps(data, indent=2, allow_nan=False))


def say(line: str) -> None:
    """One line on stdout."""
    write(line + "\n")


def write(text: str) -> None:
    """Text on stdout. A reader that leaves early, as ``head`` does, is no error, and changes no verdict."""
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
        table.add_row(*(Text(str(cell)) for cell in row))  # as text: shapes in brackets are no markup
    print_rich(table)


def print_rich(renderable: RenderableType) -> None:
    """Anything of rich's on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 140)
    with console.capture() as captured:  # writing by itself, rich would end the process at a closed pipe, code 1
        console.print(renderable)
    write(captured.get())


@contextmanager
def needs_training_extra(what: str) -> Iterator[None]:
    """Turns a missing package into an error that names the pip command."""
    try:
        yield
    except ImportError as failure:
        raise UnavailableError(
            f'{what} needs the extra "training" ({failure}); pip install "gensdk[training]"'
        ) from failure
