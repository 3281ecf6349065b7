"""An n-gram model with interpolated Kneser-Ney smoothing: the baseline that needs no network, in bits per token.

Kneser & Ney (1995), "Improved backing-off for m-gram language modeling", in the interpolated form of Chen &
Goodman (1999), "An empirical study of smoothing techniques for language modeling", eq. 24 and 26. With h the last
words and h' all of them but the first,

    p(w | h) = max(c(h w) - D, 0) / c(h) + D N(h) / c(h) * p(w | h')

c counts at the highest order how often ``h w`` stands in the training texts, and at lower ones how many different
words it follows; c(h) is the sum over w, N(h) how many different w follow h. ``D = n_1 / (n_1 + 2 n_2)`` of each
order, of how many n-grams have the count 1 and 2; 0.75 where there are none of either. Below the words stands the
uniform distribution over the V words known, the end and one for all unknown words: no text is impossible. Texts
are surrounded by begins and one end, which counts as a token.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.ngrams import NGram, Words

BEGIN, END, UNKNOWN = "<begin>", "<end>", "<unknown>"
"""No text spells them: splitting takes their brackets off."""
DISCOUNT = 0.75
MAX_ORDER = 8


@dataclass(frozen=True)
class _Level:
    """The counts of one order: of each h the w, c(h) and N(h); and D."""

    followers: dict[NGram, Counter[str]]
    sums: dict[NGram, int]
    discount: float


class KneserNey:
    """A model of `order` words, learnt from `texts`. `known`: the words that count as such, None: those of
    `texts`.

    Models can be compared where they know the same words: what one does not know costs it little. Raises
    :class:`InputError` for no texts, and an order out of 1 to 8.
    """

    def __init__(self, texts: Sequence[Words], order: int = 3, known: frozenset[str] | None = None) -> None:
        if not texts or not 1 <= order <= MAX_ORDER:
            raise InputError(f"expected texts, and an order from 1 to {MAX_ORDER}, got {len(texts)} and {order}")
        self.order = order
        self.known = frozenset(word for words in texts for word in words) if known is None else known
        self.size = len(self.known) + 2
        counts: Counter[NGram] = Counter()
        for words in texts:
            inner = (word if word in self.known else UNKNOWN for word in words)
            padded = (*[BEGIN] * (order - 1), *inner, END)
            counts.update(zip(*(padded[start:] for start in range(order)), strict=False))
        self._levels: list[_Level] = []
        for _ in range(order):
            self._levels.insert(0, _level(counts))
            counts = Counter(ngram[1:] for ngram in counts)  # how many different words each follows

    def probability(self, word: str, history: Words) -> float:
        """p(word | the last words of `history`), in (0, 1]; words that are not known count as one."""
        inner = [each if each in self.known or each == BEGIN else UNKNOWN for each in history]
        past = tuple(([BEGIN] * (self.order - 1) + inner)[len(inner) :])
        word = word if word in self.known or word == END else UNKNOWN
        p = 1.0 / self.size
        for length, level in enumerate(self._levels):
            h = past[len(past) - length :]
            total = level.sums.get(h)
            if total is None:
                break  # what was never seen has no longer past that was
            followers = level.followers[h]
            own = max(followers[word] - level.discount, 0.0) / total
            p = own + level.discount * len(followers) / total * p
        return p

    def bits_per_token(self, texts: Sequence[Words]) -> float:
        """-log2 of the probability of `texts` over the number of their tokens, the ends among them."""
        bits, count = 0.0, 0
        for words in texts:
            tokens = [*words, END]
            for at, word in enumerate(tokens):
                bits -= math.log2(self.probability(word, tokens[max(0, at - self.order + 1) : at]))
            count += len(tokens)
        if not count:
            raise InputError("expected texts to judge, got none")
        return bits / count


def _level(counts: Counter[NGram]) -> _Level:
    followers: defaultdict[NGram, Counter[str]] = defaultdict(Counter)
    for ngram, count in counts.items():
        followers[ngram[:-1]][ngram[-1]] = count
    ones, twos = (sum(count == n for count in counts.values()) for n in (1, 2))
    discount = ones / (ones + 2 * twos) if ones and twos else DISCOUNT
    return _Level(dict(followers), {h: sum(own.values()) for h, own in followers.items()}, discount)
