"""The report of an import: what was taken for granted, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gensdk_export.export_report import ExportReport
from gensdk_runtime.errors import InputError


@dataclass(frozen=True)
class Guess:
    """Something that the file does not say: `what` was taken as `value` because of `reason`.

    `option` is the option that says it instead; empty where there is none.
    """

    what: str
    value: str
    reason: str
    option: str = ""

    def text(self) -> str:
        """One line."""
        remedy = f"; {self.option} says otherwise" if self.option else ""
        return f"{self.what}: {self.value} ({self.reason}{remedy})"


@dataclass(frozen=True)
class ImportReport:
    """The bundle that was written: `export` as of any export, and the `guesses` that led to it."""

    export: ExportReport
    guesses: tuple[Guess, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {**self.export.to_dict(), "guesses": [vars(guess) for guess in self.guesses]}

    def text(self) -> str:
        """The report as plain text, guesses first."""
        return "\n".join([*(f"guessed {guess.text()}" for guess in self.guesses), self.export.text()])


def check_size(path: Path, most: int) -> int:
    """The size of the file `path` in bytes; :class:`InputError` unless it is a file of 1 to `most` bytes."""
    try:
        found = path.is_file()
        size = path.stat().st_size if found else 0
    except (OSError, ValueError) as failure:
        raise InputError(f"can't read {str(path)!r}: {failure}") from None
    if not found:
        raise InputError(f"expected a file, got {str(path)!r}, which is none; give the path of the model")
    if not 0 < size <= most:
        raise InputError(f"{path}: expected a file of 1 to {most} bytes, got {size}")
    return size


def bundle_name(stem: str) -> str:
    """A name for a model from that of its file: letters, digits, ``_``, ``-`` and ``.``, at most 60."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-.") else "-" for letter in stem
    )
    kept = kept.strip("-.")[:60]
    return kept if kept[:1].isalpha() else f"model-{kept}".rstrip("-")
