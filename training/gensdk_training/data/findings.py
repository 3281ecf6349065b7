"""What loading found besides the data: unusable files, links, values as they were read."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from gensdk_runtime.printable import printable

log = logging.getLogger("gensdk.data")

MAX_NAMED = 20
"""So many skipped files are named one by one; the rest is only counted."""


class SkipLog:
    """Counts files that can't be used, by reason; names each once, up to a limit."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.named: list[str] = []

    def add(self, name: str, problem: str) -> None:
        """Counts one file and names it in the log."""
        self.count += 1
        self.reasons[printable(problem)] += 1
        if self.count <= MAX_NAMED:
            self.named.append(printable(f"{name}: {problem}"))
            log.warning("skipped %s", self.named[-1])
        if self.count == MAX_NAMED:
            log.warning("more skipped files are counted, but not named")

    def absorb(self, other: SkipLog) -> None:
        """Counts what `other` counted, too."""
        self.count += other.count
        self.reasons.update(other.reasons)
        self.named = [*self.named, *other.named][:MAX_NAMED]


@dataclass
class Findings:
    """`values`: the range as read, in words; of texts the rule. `extent`: how large a text is, in words.
    `left_out`: files that are no images by their suffix, counted by it. `links`: links that were followed,
    `outside` of them to places outside of the folder. `split`: which part of the data this is; `pairs`: how they
    were found. `notes`: anything else to know."""

    values: str = ""
    extent: str = ""
    left_out: Counter[str] = field(default_factory=Counter)
    links: int = 0
    outside: int = 0
    split: str = ""
    pairs: str = ""
    notes: list[str] = field(default_factory=list)

    def absorb(self, other: Findings, name: str) -> None:
        """Adds what was found in a part of the data that is called `name`."""
        self.values = "; ".join(filter(None, (self.values, f"{name}: {other.values}")))
        self.left_out.update(other.left_out)
        self.links += other.links
        self.outside += other.outside
        self.split = "; ".join(filter(None, (self.split, other.split and f"{name}: {other.split}")))
        for text in other.notes:
            self.note(f"{name}: {text}")

    def note(self, text: str) -> None:
        """Keeps a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)
