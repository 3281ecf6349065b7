"""BLEU: how many of a text's n-grams stand in references, by a definition that does not change with a library.

Papineni et al. (2002), "BLEU: a Method for Automatic Evaluation of Machine Translation", of a whole corpus: with
c_n the n-grams of all hypotheses that are in the references (each at most as often as in the reference that has it
most) and t_n all of them, ``p_n = c_n / t_n`` and

    BLEU-N = min(1, exp(1 - r / c)) * exp(sum_{n <= N} log(p_n) / N)

c: words of the hypotheses; r: of each the nearest length of a reference, the shorter of two. `smoothing`, where no
n-gram of an order matches: "none": BLEU is 0; "exp": 1 / (2^k t_n) at the k-th such order, as mteval-v13a and
sacrebleu do.

For models that invent texts all real texts are the references of each sample; self-BLEU (Zhu et al. 2018,
"Texygen") takes the other samples: high where samples are alike. Both grow with the number of references, so a "
"value belongs
to its numbers of texts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.ngrams import NGram, Words, ngrams

ORDERS = (2, 3, 4, 5)
"""N of the BLEU that evaluations tell."""
Smoothing = Literal["none", "exp"]


@dataclass(frozen=True)
class Matches:
    """Of a corpus: `matched` and `total` n-grams of each order from 1, `words` of the hypotheses and of the
    nearest `references`."""

    matched: tuple[int, ...]
    total: tuple[int, ...]
    words: int
    references: int

    def bleu(self, order: int, smoothing: Smoothing = "none") -> float:
        """BLEU of this order, in [0, 1]."""
        if not 1 <= order <= len(self.matched):
            raise InputError(f"expected an order from 1 to {len(self.matched)}, got {order}")
        if not any(self.matched[:order]):
            return 0.0  # as sacrebleu does, whatever the smoothing
        logs, missing = 0.0, 0
        for matched, total in zip(self.matched[:order], self.total[:order], strict=True):
            if not total or (not matched and smoothing == "none"):
                return 0.0
            missing += matched == 0
            logs += math.log(matched / total if matched else 1.0 / (2.0**missing * total))
        brief = min(0.0, 1.0 - self.references / self.words)
        return math.exp(brief + logs / order)


class References:
    """Texts that others are compared with: of each n-gram the largest count in one text, whose that is, and the
    largest in another."""

    def __init__(self, texts: Sequence[Words], order: int) -> None:
        if not texts:
            raise InputError("expected references, got none")
        self.order = order
        self._lengths = Counter(map(len, texts))
        self._best: dict[NGram, tuple[int, int, int]] = {}
        for owner, words in enumerate(texts):
            for each in range(1, order + 1):
                for ngram, count in ngrams(words, each).items():
                    most, whose, second = self._best.get(ngram, (0, -1, 0))
                    self._best[ngram] = (count, owner, most) if count > most else (most, whose, max(second, count))

    def allowed(self, ngram: NGram, without: int | None) -> int:
        """The largest count of `ngram` in one reference, `without` the text of that number."""
        most, whose, second = self._best.get(ngram, (0, -1, 0))
        return second if whose == without else most

    def nearest_length(self, length: int, without_own: bool) -> int:
        """The length of a reference that is nearest to `length`; `without_own`: once that one does not count."""
        lengths = sorted(n for n, count in self._lengths.items() if count - (without_own and n == length) > 0)
        if not lengths:
            raise InputError("expected two texts or more, to compare each with the others")
        at = bisect_left(lengths, length)
        near = lengths[max(0, at - 1) : at + 1]
        return min(near, key=lambda n: (abs(n - length), n))


def corpus_matches(hypotheses: Iterable[tuple[Words, References]], order: int = max(ORDERS)) -> Matches:
    """The counts of hypotheses, each with references of its own."""
    return _matches(((words, references, None) for words, references in hypotheses), order)


def bleu_against(texts: Sequence[Words], references: Sequence[Words], order: int = max(ORDERS)) -> Matches:
    """The counts of `texts`, each against all `references`. :class:`InputError` where there are none of either."""
    known = References(references, order)
    return corpus_matches(((words, known) for words in texts), order)


def self_bleu(texts: Sequence[Words], order: int = max(ORDERS)) -> Matches:
    """The counts of each of `texts` against all the others. :class:`InputError` for fewer than two."""
    known = References(texts, order)
    return _matches(((words, known, at) for at, words in enumerate(texts)), order)


def _matches(rows: Iterable[tuple[Words, References, int | None]], order: int) -> Matches:
    matched, total = [0] * order, [0] * order
    length = nearest = 0
    for words, references, own in rows:
        length += len(words)
        nearest += references.nearest_length(len(words), own is not None)
        for each in range(1, order + 1):
            for ngram, count in ngrams(words, each).items():
                total[each - 1] += count
                matched[each - 1] += min(count, references.allowed(ngram, own))
    if not length:
        raise InputError("expected texts with words in them, got none")
    return Matches(tuple(matched), tuple(total), length, nearest)
