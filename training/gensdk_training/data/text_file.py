"""Files of texts: a text a line (``.txt``), tables with tabs (``.tsv``), JSON lines (``.jsonl``), each also
packed by gzip (``.gz``). Read whole, within limits, as strict UTF-8; what was skipped or taken for a column is
told.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.printable import printable
from gensdk_training.data.csv_file import LABEL_COLUMNS
from gensdk_training.data.text_options import TextOptions

TEXT_SUFFIXES = (".txt", ".tsv", ".jsonl", ".txt.gz", ".tsv.gz", ".jsonl.gz")
TEXT_COLUMNS = ("text", "sentence", "caption", "review")
"""Names of a column of texts, whatever their case."""
MAX_BYTES = 2**28
"""Of a file, unpacked."""
CHUNK = 2**20
MAX_CHARACTERS = 2**16
"""Of one text."""
PEEKED = 100
"""Lines that tell whether a file is a table."""


@dataclass
class TextRows:
    """`texts`, the label of each as it stands in the file (None: there are none), and `notes` on how they were
    read."""

    texts: list[str]
    labels: list[Any] | None
    notes: list[str] = field(default_factory=list)


def is_text(path: Path) -> bool:
    """True for files of texts, by their suffix."""
    return path.name.lower().endswith(TEXT_SUFFIXES)


def read_texts(path: Path, labels: str, options: TextOptions) -> TextRows:
    """The texts of a file, cleaned, none of them empty; see :class:`TextOptions`. `labels`: "auto", "none", or the
    name or number of a column.

    Raises :class:`InputError` for a file too large, broken, not UTF-8, or without texts.
    """
    lines = _decoded(_content(path), path).replace("\r\n", "\n").split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path}: there are no texts in it; expected one a line")
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix == "jsonl":
        rows = _json_rows(path, numbered, labels, options)
    elif options.table or (options.table is None and (suffix == "tsv" or _is_table(numbered))):
        rows = _table_rows(path, numbered, labels, options)
    else:
        if labels not in ("auto", "none"):
            raise InputError(f"{path}: it has no columns, so no labels {labels[:40]!r}; leave --labels out")
        rows = TextRows([line for _, line in numbered], None)
    if blank := len(lines) - len(numbered) - (not lines[-1].strip()):
        rows.notes.append(f"{blank} empty lines skipped")
    return _cleaned(path, rows)


def _content(path: Path) -> bytes:
    data = bytearray()
    try:
        with path.open("rb") as file:
            reader = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            while len(data) <= MAX_BYTES and (piece := reader.read(min(CHUNK, MAX_BYTES + 1 - len(data)))):
                data += piece
    except (OSError, EOFError, zlib.error) as failure:
        what = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
        raise InputError(f"{path}: can't be read ({printable(str(what))[:120]}); fetch it again") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES} bytes of text, more than are read at once; split it")
    return bytes(data)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise InputError(
            f"{path}: byte 0x{data[failure.start]:02x} at {failure.start} (line {line}) is not UTF-8; convert "
            "it, as "
            "with iconv -f latin1 -t utf-8"
        ) from None


def _is_table(numbered: Sequence[tuple[int, str]]) -> bool:
    counts = {line.count("\t") for _, line in numbered[:PEEKED]}
    return len(counts) == 1 and counts != {0}


def _table_rows(path: Path, numbered: Sequence[tuple[int, str]], labels: str, options: TextOptions) -> TextRows:
    cells = [line.split("\t") for _, line in numbered]
    width = len(cells[0])
    wrong = next((at for at, row in enumerate(cells) if len(row) != width), None)
    if wrong is not None:
        raise InputError(
            f"{path}: expected {width} columns in each line, got {len(cells[wrong])} in line {numbered[wrong][0]}"
        )
    first = [cell.strip().casefold() for cell in cells[0]]
    headed = bool({*first} & {*TEXT_COLUMNS, *LABEL_COLUMNS})
    names = [cell.strip() for cell in cells[0]] if headed else [str(number + 1) for number in range(width)]
    body = cells[1:] if headed else cells
    if not body:
        raise InputError(f"{path}: there are no texts in it; expected one a line")
    text = _column(path, names, options.column, "texts") if options.column is not None else None
    label = _label_column(path, names, body, labels, options)
    if text is None:
        known = [at for at, name in enumerate(names) if name.casefold() in TEXT_COLUMNS]
        others = known or [at for at in range(width) if at != label]
        text = max(others, key=lambda at: sum(len(row[at]) for row in body), default=0)
    notes = [f"a table of {width} columns; texts are column {names[text]!r}"]
    notes += [f"labels are column {names[label]!r}"] if label is not None else []
    found = None if label is None else [row[label].strip() for row in body]
    return TextRows([row[text] for row in body], found, notes)


def _label_column(
    path: Path, names: Sequence[str], body: Sequence[Sequence[str]], labels: str, options: TextOptions
) -> int | None:
    if labels == "none":
        return None
    if labels != "auto":
        return _column(path, names, labels, "labels")
    named = [at for at, name in enumerate(names) if name.casefold() in LABEL_COLUMNS]
    if options.threshold is None:
        return named[0] if len(named) == 1 else None
    scores = named or [at for at in range(len(names)) if _are_scores([row[at] for row in body])]
    if len(scores) != 1:
        raise InputError(f"{path}: {len(scores)} of its columns may be scores; name one with --labels")
    return scores[0]


def _are_scores(cells: Sequence[str]) -> bool:
    """True for numbers some of which are fractions."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return False
    return any(value != int(value) for value in values if abs(value) < 1e15)


def _column(path: Path, names: Sequence[str], wanted: str | int, what: str) -> int:
    """The place of a column by its name, or by its number from 1."""
    text = str(wanted)
    if text in names:
        return list(names).index(text)
    if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= len(names):
        return int(text) - 1
    raise InputError(f"{path}: no column {text[:80]!r} of {what}{did_you_mean(text[:80], map(printable, names))}")


def _json_rows(path: Path, numbered: Sequence[tuple[int, str]], labels: str, options: TextOptions) -> TextRows:
    rows = []
    for number, line in numbered:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is no JSON object; expected one a line, as {{'text': '...'}}")
        rows.append((number, row))
    keys = list(rows[0][1])
    text = str(options.column) if options.column is not None else _key(keys, TEXT_COLUMNS)
    label = None if labels == "none" else _key(keys, LABEL_COLUMNS) if labels == "auto" else labels
    for number, row in rows:
        if text is None or not isinstance(row.get(text), str):
            near = did_you_mean(str(text), [printable(key) for key in keys])
            raise InputError(f"{path}: line {number} has no text under {text or 'text'!r}{near}")
        if label is not None and not isinstance(row.get(label), str | int | float):
            raise InputError(
                f"{path}: line {number} has no label under {printable(label)[:80]!r}; name another key"
            )
    notes = [f"texts are {text!r}" + (f", labels {label!r}" if label is not None else "")]
    found = None if label is None else [row[label] for _, row in rows]
    return TextRows([row[text] for _, row in rows], found, notes)


def _key(keys: Sequence[str], known: Sequence[str]) -> str | None:
    return next((key for key in keys if key.casefold() in known), None)


def _cleaned(path: Path, rows: TextRows) -> TextRows:
    """Composed (NFC), white space as single spaces, without characters that nobody sees; empty ones are gone."""
    texts, kept, unseen = [], [], 0
    for at, text in enumerate(rows.texts):
        composed = " ".join(unicodedata.normalize("NFC", text).split())
        seen = composed if composed.isprintable() else "".join(c for c in composed if c.isprintable())
        unseen += seen != composed
        if len(seen) > MAX_CHARACTERS:
            raise InputError(
                f"{path}: text {at + 1} has {len(seen)} characters, at most {MAX_CHARACTERS} are read"
            )
        if seen := " ".join(seen.split()):
            texts.append(seen)
            kept.append(at)
    if not texts:
        raise InputError(f"{path}: there are no texts in it; expected one a line")
    notes = list(rows.notes)
    if unseen:
        notes.append(f"{unseen} texts had characters that nobody sees, such as U+200D, which are left out")
    if len(kept) < len(rows.texts):
        notes.append(f"{len(rows.texts) - len(kept)} texts are empty and left out")
    labels = None if rows.labels is None else [rows.labels[at] for at in kept]
    return TextRows(texts, labels, notes)
