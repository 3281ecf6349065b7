"""n-grams of texts, the pieces that measures of text count, and distinct-n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gensdk_runtime.errors import InputError
from gensdk_runtime.text.words import split_words

TOKENIZATION = "lower case, words and marks of punctuation"
"""How measures find the words of a text, whatever a model's own vocabulary is: pinned, since values of BLEU with
other rules can't be compared (Post 2018)."""

Words = Sequence[str]
NGram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text by :data:`TOKENIZATION`."""
    return split_words(text.lower())


def ngrams(words: Words, order: int) -> Counter[NGram]:
    """How often each run of `order` words stands in `words`."""
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def distinct_ngrams(texts: Sequence[Words], order: int) -> float:
    """Distinct-n (Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models"): the
    share in [0, 1] of different n-grams among all of `texts`. It falls with the number of texts: compare equal
    numbers. :class:`InputError` where no text is long enough."""
    counts: Counter[NGram] = Counter()
    for words in texts:
        counts.update(ngrams(words, order))
    total = sum(counts.values())
    if not total:
        raise InputError(f"expected texts of {order} words or more, got none")
    return len(counts) / total
