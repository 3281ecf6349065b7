"""Text from files, folders and other libraries, as it may reach a terminal, a page or a model card.

A name in a stranger's file may hold escape sequences that a terminal obeys (they set its title, move the cursor or
write to the clipboard), characters that turn the direction of text around, or invisible ones. They are shown,
never sent.
"""

from __future__ import annotations

import re

_SPACES = "\t\n\v\f\r"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with what is not printable written out, as ``\x1b`` or ``\u202e``; plain text comes back as it is.

    Line ends and tabs become spaces, so that it is one line; with `lines` they stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or (lines and character in "\n\t") else _shown(character)
        for character in text
    )


def markdown(text: str) -> str:
    """`text` on one line, for a Markdown file: nothing in it is markup, HTML or a link."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def _shown(character: str) -> str:
    return " " if character in _SPACES else character.encode("unicode_escape").decode("ascii")
