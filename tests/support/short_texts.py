"""Texts of a few words, for families that learn texts, and the same in styles."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from gensdk_training.data.load import load_data
from gensdk_training.data.text_set import TextDataset

SUBJECTS = ("the cat", "a dog", "the old bird", "it")
VERBS = ("sat down", "ran", "sees the red house", "sang")
ENDS = (".", "!", " today.", " again, and again.")
STYLES = {"!": "loud", " today.": "new", " again, and again.": "long"}
"""Of a text by its end; others have none."""


@functools.cache
def short_texts_file() -> Path:
    """All 64 sentences of 3 to 11 words and marks, four times."""
    path = Path(tempfile.mkdtemp(prefix="gensdk-texts-")) / "sentences.txt"
    texts = [f"{subject} {verb}{end}" for subject in SUBJECTS for verb in VERBS for end in ENDS]
    path.write_text("".join(f"{text}\n" for text in texts * 4))
    return path


@functools.cache
def short_texts() -> TextDataset:
    """All of them."""
    data = load_data(str(short_texts_file()))
    assert isinstance(data, TextDataset)
    return data


@functools.cache
def styled_texts_file() -> Path:
    """A table of the 48 sentences that have a style, four times."""
    path = Path(tempfile.mkdtemp(prefix="gensdk-texts-")) / "styles.tsv"
    texts = [
        f"{subject} {verb}{end}\t{style}"
        for subject in SUBJECTS
        for verb in VERBS
        for end, style in STYLES.items()
    ]
    path.write_text("text\tlabel\n" + "".join(f"{text}\n" for text in texts * 4))
    return path


@functools.cache
def styled_texts() -> TextDataset:
    """All of them, of three styles."""
    data = load_data(str(styled_texts_file()))
    assert isinstance(data, TextDataset)
    return data
