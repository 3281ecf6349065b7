r"""Texts as lines of a file: a line break inside of a text is written ``\n``, a backslash ``\\``, a tab ``\t``."""

from __future__ import annotations

import re

_WRITTEN = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_READ = {written: character for character, written in _WRITTEN.items()}
_PATTERN = re.compile(r"\\[\\ntr]")


def as_line(text: str) -> str:
    """`text` on one line; :func:`from_line` gives it back."""
    return "".join(_WRITTEN.get(character, character) for character in text)


def from_line(line: str) -> str:
    """The text that :func:`as_line` wrote."""
    return _PATTERN.sub(lambda found: _READ[found[0]], line)
