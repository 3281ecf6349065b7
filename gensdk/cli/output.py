"""The output of commands, and the error for a missing extra."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.text_table import table_text
from gensdk_runtime.printable import printable


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
    """Writes; a reader that leaves early, as ``head`` does, is not an error and changes no verdict."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # else Python complains again on its way out


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout, as wide as the terminal; as wide as it is where stdout is none."""
    write(table_text(columns, rows, title=title, width=terminal_width()))


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def needs_extra(what: str, extra: str = "training") -> Iterator[None]:
    """Turns a missing package into an error that names the pip command; what is logged stays printable."""
    _keep_logs_printable()
    try:
        yield
    except ImportError as failure:
        raise UnavailableError(
            f'the extra "{extra}" is missing for {what} ({failure}); pip install "gensdk[{extra}]"'
        ) from failure


def _keep_logs_printable() -> None:
    """Python prints unhandled errors on stderr, and they quote names of files."""
    import logging  # which all that trains imports, and nothing else need

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record), lines=True)

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Formatter())
