"""Vocabularies by character: a text is the sequence of its characters (Unicode code points, composed by NFC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gensdk_runtime.text.vocabulary import ListedVocabulary, register_vocabulary


@register_vocabulary
class Characters(ListedVocabulary):
    """Each token but the special ones is one character; line breaks and tabs may be among them.

    ``encode(decode(tokens)) == tokens`` for tokens that are no specials and whose text NFC leaves as it is.
    """

    kind: Literal["characters"] = "characters"

    line_breaks = True

    def problem(self, token: str) -> str:
        """Too long, or changed by normalization."""
        return super().problem(token) or ("" if len(token) == 1 else "is no single character")

    def pieces(self, text: str) -> list[str]:
        """Its characters."""
        return list(text)

    def joined(self, pieces: Sequence[str]) -> str:
        """One behind the other."""
        return "".join(pieces)

    @property
    def rule(self) -> str:
        """As in "characters, lower case"."""
        return "characters" + (", lower case" if self.lower_case else "")
