"""A ``.csv`` file of points: numbers, a point a line. Columns are what their header says, and are told."""

from __future__ import annotations

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.printable import printable
from gensdk_training.data.dataset import LoadOptions, plain_name
from gensdk_training.data.point_set import PointDataset, points_from_array

LABEL_COLUMNS = ("label", "labels", "class", "classes")
"""Headers of a column of classes, whatever their case. Other names (``y``, ``target``) may be measurements."""
MAX_BYTES = 1 << 30
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class _Table:
    """The lines of a file that hold points, `names` of the columns (empty: the file has none), and `separator`."""

    path: Path
    lines: list[str]
    names: list[str]
    separator: str
    width: int

    def column(self, number: int) -> list[str]:
        """The cells of one column, without the white space around them."""
        try:
            return [row[number].strip() for row in csv.reader(self.lines, delimiter=self.separator)]
        except (csv.Error, IndexError) as failure:
            raise InputError(f"{self.path}: no table of numbers ({_problem(failure)}); write it again") from None

    def title(self, number: int) -> str:
        name = self.names[number] if self.names else ""
        return repr(printable(name)[:40]) if name else f"number {number + 1}"


def load_csv(path: Path, options: LoadOptions) -> PointDataset:
    """Numbers with commas between (or semicolons, or tabs), a point a line; a header may name the columns.

    ``labels="auto"`` takes a column called ``label`` or ``class`` for the class of each point, any other value the
    column of that name; all other columns are dimensions. Raises :class:`InputError` for what is no such table.
    """
    table = _read(path)
    label = _label_column(table, options)
    kept = [number for number in range(table.width) if number != label]
    if not kept:
        raise InputError(f"{path}: expected points, and its only column are labels")
    array = _numbers(table, kept)
    if table.names and not table.names[kept[0]] and np.array_equal(array[:, 0], np.arange(len(array))):
        raise InputError(
            f"{path}: its first column has no name and counts the lines, as an index does; take it out (pandas: "
            "index=False), or name it"
        )
    labels = None if label is None or options.labels == "none" else _labels(table.column(label))
    dataset = points_from_array(plain_name(path.stem), array, labels, options, what=path.name)
    told = ", ".join(table.title(number) for number in kept[:10]) + (", ..." if len(kept) > 10 else "")
    dataset.findings.note(f"columns that are dimensions: {told}")
    if label is not None:
        use = "left out" if labels is None else "the label"
        dataset.findings.note(f"column {table.title(label)} is {use}")
    return dataset


def _read(path: Path) -> _Table:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: expected a file of at most {MAX_BYTES} bytes; split it, or write an .npz")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError, MemoryError) as failure:
        if isinstance(failure, InputError):
            raise
        raise InputError(f"{path}: no table of numbers in UTF-8 ({_problem(failure)}); write it again") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: there are no points in it; expected a line of numbers for each")
    separator = max(SEPARATORS, key=lines[0].count)
    try:
        first = [cell.strip() for cell in next(csv.reader(lines[:1], delimiter=separator, strict=True))]
        names = [] if all(_is_number(cell) for cell in first) else first
        rows = lines[1:] if names else lines
        _check_width(path, rows, separator, len(first))
    except csv.Error as failure:
        raise InputError(f"{path}: no table of numbers ({_problem(failure)}); write it again") from None
    if not rows:
        raise InputError(f"{path}: there are no points in it; expected a line of numbers for each")
    return _Table(path, rows, names, separator, len(first))


def _check_width(path: Path, rows: list[str], separator: str, width: int) -> None:
    for number, line in enumerate(rows, 1):
        found = line.count(separator) + 1
        if '"' in line:  # a separator may stand inside quotes
            found = len(next(csv.reader([line], delimiter=separator, strict=True)))
        if found != width:
            raise InputError(f"{path}: expected {width} columns in each line, got {found} in point {number}")


def _numbers(table: _Table, columns: list[int]) -> NDArray[Any]:
    """float64 [n, D] of these columns."""
    try:
        return np.loadtxt(
            table.lines,
            delimiter=table.separator,
            usecols=columns,
            ndmin=2,
            comments=None,
            dtype=np.float64,
            quotechar='"',
        )
    except (ValueError, MemoryError, OverflowError) as failure:
        for number in columns:
            cells = table.column(number)
            at, wrong = next(((i, c) for i, c in enumerate(cells, 1) if not _is_number(c)), (0, ""))
            if at:
                raise InputError(
                    f"{table.path}: no table of numbers: column {table.title(number)} has "
                    f"{printable(wrong)[:40]!r} in point {at}; {_remedy(table, number, cells, wrong)}"
                ) from None
        raise InputError(f"{table.path}: no table of numbers ({_problem(failure)}); write it again") from None


def _remedy(table: _Table, number: int, cells: list[str], wrong: str) -> str:
    """What to do about `wrong`, the first of the `cells` of a column that is no number."""
    if table.width == 1 and len(wrong.split()) > 1:
        return "expected commas, semicolons or tabs between columns"
    if "," in wrong:
        return "write decimals with a point"
    take_out = "take such points out"
    if not wrong or not table.names or not table.names[number]:
        return take_out
    as_class = f"if it is the class write --labels {shlex.quote(printable(table.names[number])[:40])}"
    return f"{take_out}, or {as_class}" if any(map(_is_number, cells)) else as_class


def _label_column(table: _Table, options: LoadOptions) -> int | None:
    """The column of labels; with ``labels="none"`` the one that would be, since it is no dimension either."""
    folded = [name.casefold() for name in table.names]
    if options.labels in ("auto", "none"):
        found = [number for number, name in enumerate(folded) if name in LABEL_COLUMNS]
        if len(found) > 1 and options.labels == "auto":
            told = " and ".join(table.title(number) for number in found)
            raise InputError(f"{table.path}: columns {told} may both be labels; name one with --labels")
        return found[0] if found else None
    found = [number for number, name in enumerate(table.names) if name == options.labels]
    found = found or [number for number, name in enumerate(folded) if name == options.labels.casefold()]
    if len(found) != 1:
        problem = "several columns" if found else "no column"
        near = did_you_mean(options.labels[:80], [printable(name) for name in table.names if name])
        raise InputError(f"{table.path}: {problem} {options.labels[:80]!r}{near}")
    return found[0]


def _labels(cells: list[str]) -> NDArray[Any]:
    """Whole numbers where all are, otherwise names."""
    if all(cell.isascii() and cell.isdigit() and len(cell) < 18 for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64)
    return np.array(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _problem(failure: Exception) -> str:
    text = printable(str(failure).splitlines()[0]) if str(failure) else type(failure).__name__
    return text[:120]
