"""What commands print, and how they ask for an extra."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from gensdk_runtime.errors import UnavailableError


def print_json(data: Any) -> None:
    """The data as indented JSON on stdout; NaN is an error, since JSON has none."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout, plain where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 140)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # as text: shapes in brackets are no markup
    console.print(table)


@contextmanager
def needs_training_extra(what: str) -> Iterator[None]:
    """Turns a missing package into an error that names the pip command."""
    try:
        yield
    except ImportError as failure:
        raise UnavailableError(
            f'{what} needs the extra "training" ({failure}); pip install "gensdk[training]"'
        ) from failure
