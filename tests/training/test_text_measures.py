"""Measures of text: BLEU against sacrebleu and by hand, Kneser-Ney by hand, what each tells apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_training.evaluation.measures import TEXT_METRICS
from gensdk_training.evaluation.text_models import TextParts, text_measures
from gensdk_training.metrics.bleu import ORDERS, References, bleu_against, corpus_matches, self_bleu
from gensdk_training.metrics.fid import feature_statistics, frechet_distance
from gensdk_training.metrics.kneser_ney import DISCOUNT, END, KneserNey
from gensdk_training.metrics.ngrams import distinct_ngrams, ngrams, words_of
from gensdk_training.metrics.sentence_features import SentenceFeatures

words = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12)
corpora = st.lists(words, min_size=2, max_size=8)


def sentences(count: int, seed: int) -> list[list[str]]:
    """A grammar of a few words, whose order matters."""
    random = np.random.default_rng(seed)
    parts = (["the", "a"], ["red", "old", "big"], ["cat", "dog", "bus"], ["sees", "eats"], ["it", "him"], ["."])
    return [[str(random.choice(part)) for part in parts] for _ in range(count)]


def test_bleu_by_hand() -> None:
    """Papineni et al. (2002), example 2: "the" counts twice at most."""
    found = bleu_against(
        [["the"] * 7],
        [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]],
        2,
    )
    assert (found.matched, found.total) == ((2, 0), (7, 6))
    assert (found.words, found.references) == (7, 7)
    assert found.bleu(1) == pytest.approx(2 / 7)
    assert found.bleu(2) == 0.0
    assert found.bleu(2, "exp") == pytest.approx(math.sqrt(2 / 7 * 1 / 12))
    short = bleu_against([["a", "b"]], [list("abcd")], 2)
    assert short.bleu(2) == pytest.approx(math.exp(1 - 4 / 2))


@given(corpora)
def test_laws_of_bleu(texts: list[list[str]]) -> None:
    whole = bleu_against(texts, texts)
    longest = max(map(len, texts))
    for order in range(1, 6):
        assert whole.bleu(order) == pytest.approx(1.0 if longest >= order else 0.0)
    half = bleu_against(texts, texts[:1])
    for order in (1, 2):
        assert 0 <= half.bleu(order) <= whole.bleu(order) + 1e-12
    assert all(m <= t for m, t in zip(half.matched, half.total, strict=True))
    assert bleu_against(texts, texts[::-1]) == whole


@given(corpora)
def test_self_bleu_is_bleu_against_the_others(texts: list[list[str]]) -> None:
    rows = [(own, References([*texts[:at], *texts[at + 1 :]], 5)) for at, own in enumerate(texts)]
    assert self_bleu(texts) == corpus_matches(rows)


def test_self_bleu_tells_a_collapse() -> None:
    varied, same = sentences(50, 0), [["the", "red", "cat", "sees", "it", "."]] * 50
    assert self_bleu(same).bleu(4) == 1.0
    assert self_bleu(varied).bleu(5) < 0.95
    with pytest.raises(InputError, match="two texts or more"):
        self_bleu(varied[:1])
    for own, refs in (([], varied), (varied, []), ([[]], varied)):
        with pytest.raises(InputError, match="expected"):
            bleu_against(own, refs)


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("smoothing", ["none", "exp"])
def test_bleu_is_that_of_sacrebleu(smoothing: Any, data: st.DataObject) -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu, of the extra dev, is not installed")
    count = data.draw(st.integers(1, 5))
    rows = [(data.draw(words), data.draw(st.lists(words, min_size=2, max_size=2))) for _ in range(count)]
    order = data.draw(st.integers(1, 5))
    own = corpus_matches(((text, References(refs, order)) for text, refs in rows), order)
    theirs = sacrebleu.metrics.BLEU(
        tokenize="none", smooth_method=smoothing, max_ngram_order=order, force=True
    ).corpus_score(
        [" ".join(text) for text, _ in rows], [[" ".join(refs[at]) for _, refs in rows] for at in (0, 1)]
    )
    assert list(own.matched) == theirs.counts
    assert list(own.total) == theirs.totals
    assert (own.words, own.references) == (theirs.sys_len, theirs.ref_len)
    if all(own.total):  # an order without n-grams is 0 here, and left out of its mean there
        assert 100 * own.bleu(order, smoothing) == pytest.approx(theirs.score, abs=1e-9)
    else:
        assert own.bleu(order, smoothing) == 0.0


@pytest.mark.parametrize("order", ORDERS)
def test_bleu_of_sentences_is_that_of_sacrebleu(order: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu, of the extra dev, is not installed")
    own, refs = sentences(40, 1), [sentences(40, 2), sentences(40, 3)]
    found = corpus_matches((text, References(pair, 5)) for text, *pair in zip(own, *refs, strict=True))
    judge = sacrebleu.metrics.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    theirs = judge.corpus_score([" ".join(text) for text in own], [[" ".join(t) for t in ref] for ref in refs])
    assert 100 * found.bleu(order) == pytest.approx(theirs.score)


def test_words_and_distinct_ngrams() -> None:
    assert words_of("A cat's mat.") == ["a", "cat", "'", "s", "mat", "."]
    assert ngrams(list("abab"), 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert distinct_ngrams([list("abab")], 2) == pytest.approx(2 / 3)
    assert distinct_ngrams([["a"], ["a"]], 1) == 0.5
    with pytest.raises(InputError, match="3 words or more"):
        distinct_ngrams([["a", "b"]], 3)


def test_kneser_ney_by_hand() -> None:
    """Two texts, "a b" and "a c", in bigrams.

    Bigrams: (begin, a) 2, (a, b) 1, (a, c) 1, (b, end) 1, (c, end) 1: n_1 = 4, n_2 = 1, D = 4 / 6. How many words
    each follows: a 1, b 1, c 1, end 2: n_1 = 3, n_2 = 1, D = 3 / 5, of 5 in all. V = a, b, c, end, unknown = 5.
    """
    model = KneserNey([["a", "b"], ["a", "c"]], 2)
    uniform = 1 / 5
    below = 3 / 5 * 4 / 5 * uniform
    one = {"a": 0.4 / 5 + below, "b": 0.4 / 5 + below, "c": 0.4 / 5 + below, END: 1.4 / 5 + below, "zebra": below}
    assert sum(one.values()) == pytest.approx(1)
    d = 4 / 6
    assert model.probability("a", []) == pytest.approx((2 - d) / 2 + d * 1 / 2 * one["a"])
    assert model.probability("b", ["a"]) == pytest.approx((1 - d) / 2 + d * 2 / 2 * one["b"])
    assert model.probability("zebra", ["a"]) == pytest.approx(d * one["zebra"])
    assert model.probability(END, ["zebra"]) == pytest.approx(one[END]), "a past that was never seen"
    bits = -sum(
        map(math.log2, (model.probability("a", []), model.probability("b", ["a"]), model.probability(END, ["b"])))
    )
    assert model.bits_per_token([["a", "b"]]) == pytest.approx(bits / 3)
    assert DISCOUNT == 0.75
    single = KneserNey([["a"]], 1)  # a 1, end 1: no n_2
    assert single.probability("a", []) == pytest.approx(0.25 / 2 + 0.75 * 2 / 2 / 3)


@given(corpora, st.integers(1, 4), words)
def test_probabilities_sum_to_one(texts: list[list[str]], order: int, past: list[str]) -> None:
    model = KneserNey(texts, order)
    everything = [*model.known, END, "an unknown word"]
    assert len(everything) == model.size
    assert sum(model.probability(word, past) for word in everything) == pytest.approx(1)
    assert model.bits_per_token([*texts, past, []]) > 0


def test_an_ngram_model_likes_what_it_knows() -> None:
    train, test = sentences(500, 0), sentences(100, 1)
    shuffled = [list(np.random.default_rng(at).permutation(text)) for at, text in enumerate(test)]
    bits = [KneserNey(train, order).bits_per_token(test) for order in (1, 2, 3)]
    assert bits[2] < bits[1] < bits[0]
    assert KneserNey(train).bits_per_token(shuffled) > 2 * bits[2]
    for texts, order in (([], 2), (train, 0), (train, 9)):
        with pytest.raises(InputError, match="expected texts, and an order"):
            KneserNey(texts, order)


def test_features_feel_words_and_their_order() -> None:
    train, test, more = sentences(400, 0), sentences(300, 1), sentences(300, 2)
    features = SentenceFeatures.learn(train)
    real = feature_statistics(features.read(test))

    def distance(texts: list[list[str]]) -> float:
        return frechet_distance(feature_statistics(features.read(texts)), real)

    shuffled = [list(np.random.default_rng(at).permutation(text)) for at, text in enumerate(more)]
    narrow = [text for text in more if "cat" in text]
    floor = distance(more)
    assert floor < 0.2 * distance(narrow)
    assert floor < 0.2 * distance(shuffled)
    assert distance([more[0]] * 300) > distance(narrow)
    with pytest.raises(InputError, match="two training texts"):
        SentenceFeatures.learn(train[:1])


def parts(samples: list[list[str]]) -> TextParts:
    train = sentences(400, 0)
    return TextParts(samples, train[: len(samples)], sentences(100, 1), train)


def test_rows_of_an_evaluation() -> None:
    rows = {row.name: row for row in text_measures(parts(sentences(80, 5)), frozenset(TEXT_METRICS))}
    assert set(rows) == {
        *(f"bleu{n}" for n in ORDERS),
        *(f"self_bleu{n}" for n in ORDERS),
        *(f"distinct{n}" for n in (1, 2, 3)),
        "sentence_fd",
        "ngram_bits",
        "reverse_ngram_bits",
        "copied",
    }
    for row in rows.values():
        assert row.floor is not None
        assert row.value == pytest.approx(row.floor, rel=0.35, abs=0.05), row.name
    for name in set(TEXT_METRICS) - {"bits"}:  # those are told by a generator
        assert text_measures(parts(sentences(80, 5)), frozenset([name]))


def test_a_collapse_and_noise_show_in_the_rows() -> None:
    same = {row.name: row for row in text_measures(parts([sentences(1, 0)[0]] * 80), frozenset(TEXT_METRICS))}
    for name, worse in (("self_bleu4", 1), ("distinct2", -1), ("sentence_fd", 1), ("reverse_ngram_bits", 1)):
        floor = same[name].floor
        assert floor is not None
        assert worse * (same[name].value - floor) > 0.02, name
    noise = [list(np.random.default_rng(at).permutation(text)) for at, text in enumerate(sentences(80, 3))]
    mixed = {row.name: row for row in text_measures(parts(noise), frozenset(TEXT_METRICS))}
    for name, worse in (("bleu4", -1), ("sentence_fd", 1), ("ngram_bits", 1), ("reverse_ngram_bits", 1)):
        floor = mixed[name].floor
        assert floor is not None
        assert worse * (mixed[name].value - floor) > 0.02, name
    silent = text_measures(parts([[], []]), frozenset(TEXT_METRICS))
    assert [row.name for row in silent] == ["copied"]
