r"""Texts as lines of a file: a line break inside of a text is written ``\n``, a backslash ``\\``, a tab ``\t``."""

from __future__ import annotations

import re
from pathlib import Path

from gensdk_runtime.errors import InputError

MAX_FILE = 2**24
"""Bytes of a file of lines."""
_WRITTEN = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_READ = {written: character for character, written in _WRITTEN.items()}
_PATTERN = re.compile(r"\\[\\ntr]")


def as_line(text: str) -> str:
    """`text` on one line; :func:`from_line` gives it back."""
    return "".join(_WRITTEN.get(character, character) for character in text)


def from_line(line: str) -> str:
    """The text that :func:`as_line` wrote."""
    return _PATTERN.sub(lambda found: _READ[found[0]], line)


def lines_of(path: Path) -> list[str]:
    """The texts of a file in UTF-8, one a line as :func:`as_line` writes them. :class:`InputError` where it can't
    be read, has over MAX_FILE bytes or holds none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise InputError(f"{path} has over {MAX_FILE} bytes; give fewer lines")
        lines = data.decode("utf-8-sig").split("\n")  # Windows puts a mark in front; other breaks are texts' own
    except OSError as failure:
        raise InputError(f"can't read {path}: {failure.strerror or failure}") from None
    except UnicodeDecodeError as failure:
        raise InputError(f"can't read {path} as a text in UTF-8: {failure}; save it as UTF-8") from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path} holds no line; give one for each sample, or one for all")
    return [from_line(line.removesuffix("\r")) for line in lines]
