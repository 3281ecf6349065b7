"""The names of the Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0): ``DIGIT_SPEAKER_TAKE.wav``.

3,000 recordings of six speakers at 8 kHz; takes 0 to 4 of each digit and speaker are its official test part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from gensdk_training.data.dataset import Split
from gensdk_training.family import CLASS_JOIN, LabelPart

TEST_TAKES = 5
"""The first ones of each digit and speaker."""
PARTS = ("digit", "speaker")
_NAME = re.compile(r"([0-9])_([A-Za-z]{1,60})_([0-9]{1,6})")


def are_spoken_digits(names: Sequence[str]) -> bool:
    """Whether all files are named so, whatever folder they are in."""
    return bool(names) and all(_NAME.fullmatch(PurePosixPath(name).stem) for name in names)


def take_of(name: str) -> int:
    """The number of the take; ValueError for another name."""
    return int(_match(name)[3])


def classes_of(names: Sequence[str], labels: str) -> tuple[list[str], tuple[LabelPart, ...]]:
    """The class of each file, and the parts of which the classes are made.

    `labels`: "auto" for "7-theo", digit and speaker; "digit" or "speaker" for one of them alone.
    """
    found = [_match(name).groups()[:2] for name in names]
    if labels in PARTS:
        return [parts[PARTS.index(labels)] for parts in found], ()
    values = [tuple(sorted({parts[at] for parts in found})) for at in range(len(PARTS))]
    made = tuple(LabelPart(name=name, values=each) for name, each in zip(PARTS, values, strict=True))
    return [CLASS_JOIN.join(parts) for parts in found], made


def official_part(names: Sequence[str], split: Split) -> list[int]:
    """The places of the files of the official test part, or of the others."""
    return [at for at, name in enumerate(names) if (take_of(name) < TEST_TAKES) == (split == "test")]


def _match(name: str) -> re.Match[str]:
    found = _NAME.fullmatch(PurePosixPath(name).stem)
    if found is None:
        raise ValueError(f"expected a name DIGIT_SPEAKER_TAKE, got {name[:80]!r}")
    return found
