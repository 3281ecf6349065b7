"""Tables as text in any width, in which no number and no word is ever broken.

Cells are wrapped at spaces alone. Where even that does not fit, each row becomes a list of ``name: value`` lines.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence

GAP = "  "
RULE = "─"
NARROWEST = 20
"""Columns on a terminal that are used in any case: some say 0 or 1 where they don't know."""


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    width: int | None = None,
    right: Collection[int] = (),
) -> str:
    """The table as lines, each ended. `width`: columns on the terminal, None where there is no limit.

    `right`: the numbers of the columns that are set to the right.
    """
    cells = [[_one_line(cell) for cell in row] for row in rows]
    if width is None:
        widths: list[int] | None = _widths(columns, cells)
    else:
        width = max(width, NARROWEST)
        widths = _fitting(columns, cells, width - len(GAP))
    head = [*wrapped(title, width)] if title else []
    body = _as_list(columns, cells, width) if widths is None else _as_table(columns, cells, widths, right)
    return "".join(line.rstrip() + "\n" for line in (*head, *body))


def wrapped(text: str, width: int | None, *, indent: str = "") -> Iterator[str]:
    """`text` in lines of at most `width` columns, but for longer words; further lines begin with `indent`."""
    if width is None:
        yield text
        return
    line = text[: len(text) - len(text.lstrip())] if text.strip() else ""
    for word in text.split():
        longer = f"{line} {word}" if line.strip() else line + word
        if line.strip() and cell_width(longer) > width:
            yield line
            longer = indent + word
        line = longer
    yield line


def cell_width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        for mark in text
    )


def _one_line(cell: object) -> str:
    text = str(cell)
    return " ".join(text.split()) if "\n" in text or "\t" in text else text


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """What each column takes unwrapped."""
    return [max(map(cell_width, texts)) for texts in zip(columns, *cells, strict=True)]


def _fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Widths that add up to `width` at most, none below the longest word of its column; None: there are none."""
    widths = _widths(columns, cells)
    least = [
        max((cell_width(word) for text in texts for word in text.split()), default=0)
        for texts in zip(columns, *cells, strict=True)
    ]
    room = width - len(GAP) * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:  # the widest column that can gives way
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _as_table(
    columns: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], right: Collection[int]
) -> Iterator[str]:
    yield from _row(columns, widths, right)
    yield GAP + RULE * (sum(widths) + len(GAP) * (len(widths) - 1))
    for row in cells:
        yield from _row(row, widths, right)


def _row(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> Iterator[str]:
    parts = [
        [text] if cell_width(text) <= width else list(wrapped(text, width))
        for text, width in zip(row, widths, strict=True)
    ]
    for number in range(max(map(len, parts))):
        texts = [part[number] if number < len(part) else "" for part in parts]
        padded = (
            " " * (width - cell_width(text)) + text if i in right else text + " " * (width - cell_width(text))
            for i, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        yield GAP + GAP.join(padded)


def _as_list(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Each row as its first cell, and below it what else is known."""
    for row in cells:
        first = f"{columns[0]}: {row[0].strip()}" if columns[0] else row[0].strip()
        yield from wrapped(first, width, indent=2 * GAP)
        for name, text in zip(columns[1:], row[1:], strict=True):
            if text.strip():
                yield from wrapped(f"{GAP}{name}: {text.strip()}" if name else GAP + text, width, indent=2 * GAP)
