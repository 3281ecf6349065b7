"""Vocabularies by word, with one of two rules.

"spaces": white space separates tokens, and a single space joins them. For texts whose punctuation was split off
before.

"punctuation": a word is a run of letters, digits, marks and underscores; each other character that is no white "
"space
is a token of its own: ``don't stop.`` is ``don ' t stop .`` To join, closing punctuation takes no space before it,
opening punctuation none behind it, apostrophes and hyphens none on either side, and of straight double quotes
every second one closes. So joining loses spaces (``well - known`` comes back as ``well-known``), but no token:
between two words there is always a space or a mark, so a text that was joined gives the same tokens again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

from gensdk_runtime.text.vocabulary import ListedVocabulary, register_vocabulary

Joining = Literal["punctuation", "spaces"]

CLOSING = frozenset(".,!?;:%)]}…’”»、。，！？；：）")
"""No space before these."""
OPENING = frozenset("([{#@$£€¿¡“«‘（")
"""No space behind these."""
TIGHT = frozenset("'-/–—")
"""No space on either side."""


def split_words(text: str) -> list[str]:
    """`text` by the rule "punctuation"."""
    pieces: list[str] = []
    for part in text.split():
        start = 0
        for at, character in enumerate(part):
            if not in_word(character):
                pieces += [part[start:at]] if at > start else []
                pieces.append(character)
                start = at + 1
        pieces += [part[start:]] if start < len(part) else []
    return pieces


def join_words(pieces: Sequence[str]) -> str:
    """The text of `pieces` by the rule "punctuation"."""
    text: list[str] = []
    quoted, tight = False, True
    for piece in pieces:
        closes = piece in CLOSING or piece in TIGHT or (piece == '"' and quoted)
        text.append(piece if tight or closes else f" {piece}")
        if piece == '"':
            quoted = not quoted
        tight = piece in OPENING or piece in TIGHT or (piece == '"' and quoted)
    return "".join(text)


def in_word(character: str) -> bool:
    """True for what words are made of: letters, digits, marks and underscores."""
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


@register_vocabulary
class Words(ListedVocabulary):
    """Each token but the special ones is a word, or a mark. `joining`: the rule.

    ``encode(decode(tokens)) == tokens`` for tokens that are no specials.
    """

    kind: Literal["words"] = "words"
    joining: Joining = "punctuation"

    def problem(self, token: str) -> str:
        """What splitting would never give, or a mark that would melt into the character before it."""
        if unicodedata.category(token[0]).startswith("M"):
            return "begins with a mark that belongs to the character before it"
        return super().problem(token) or ("" if self.pieces(token) == [token] else "is more than one word")

    def pieces(self, text: str) -> list[str]:
        """By the rule."""
        return split_words(text) if self.joining == "punctuation" else text.split()

    def joined(self, pieces: Sequence[str]) -> str:
        """By the rule."""
        return join_words(pieces) if self.joining == "punctuation" else " ".join(pieces)

    @property
    def rule(self) -> str:
        """As in "words and marks, lower case"."""
        what = "words and marks of punctuation" if self.joining == "punctuation" else "words between spaces"
        return what + (", lower case" if self.lower_case else "")
