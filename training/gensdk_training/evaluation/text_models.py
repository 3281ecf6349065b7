"""Evaluating a model of text: n-grams, a Fréchet distance of sentence features, n-gram models both ways, and the
model's own likelihood beside an n-gram model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.outputs.text import TextOutput
from gensdk_runtime.text.tokens import Int64
from gensdk_runtime.text.vocabulary import Vocabulary
from gensdk_training.data.dataset import Dataset
from gensdk_training.data.text_set import TextDataset
from gensdk_training.evaluation.evaluation_report import Better, Measure
from gensdk_training.evaluation.labels import chosen_of, label_draw
from gensdk_training.evaluation.measures import TEXT_METRICS
from gensdk_training.evaluation.result import Asked, Evaluation, evaluation_of
from gensdk_training.evaluation.subject import MAX_SAMPLES
from gensdk_training.metrics.bleu import ORDERS, bleu_against, self_bleu
from gensdk_training.metrics.fid import feature_statistics, frechet_distance
from gensdk_training.metrics.kneser_ney import KneserNey
from gensdk_training.metrics.ngrams import TOKENIZATION, distinct_ngrams, words_of
from gensdk_training.metrics.sentence_features import NAME, SentenceFeatures
from gensdk_training.run_config import DataConfig

COMPARED = 1000
"""Texts at most that BLEU compares: it grows with the number of texts."""
NGRAM_ORDER = 3

Words = Sequence[str]


@dataclass(frozen=True)
class TextParts:
    """The words of the samples, of as many training texts (the floor), of the test texts, and of all training
    texts."""

    samples: Sequence[Words]
    floor: Sequence[Words]
    test: Sequence[Words]
    train: Sequence[Words]


def evaluate_texts(bundle: Bundle, data: DataConfig, asked: Asked, *, named: bool) -> Evaluation:
    """Samples against the test part, beside as many training texts.

    `named`: the metrics were named, and each must be possible. Raises :class:`InputError` for data that are no
    texts, a count out of range, and metrics of other kinds.
    """
    if named and asked.wanted - {*TEXT_METRICS}:
        others = ", ".join(sorted(asked.wanted - {*TEXT_METRICS}))
        raise InputError(f"can't measure {others} of texts; leave it out, or name {', '.join(TEXT_METRICS)}")
    if not 2 <= asked.count <= MAX_SAMPLES:
        raise InputError(f"expected 2 to {MAX_SAMPLES} samples, got {asked.count}")
    with closing(data.load(split="train")) as train, closing(data.load(split="test")) as test:
        own, against = _texts(train), _texts(test)
        asked.say(f"drawing {asked.count} samples")
        with Generator.load(bundle, backend=asked.backend) as generator:
            classes = label_draw(generator.model, train)
            samples = generator.sample(
                asked.count,
                seed=asked.seed,
                label=classes.for_model(asked.count, asked.seed),
                progress=asked.progress,
                **asked.options,
            )
            rows: list[Measure] = []
            notes: list[str] = []
            if "bits" in asked.wanted and (named or _judges(generator)):
                asked.say("judging the test texts")
                rows, notes = own_bits(generator, vocabulary_of(bundle), own, against)
        asked.say("comparing texts")
        everything = [words_of(text) for text in own]
        floor = [everything[at] for at in chosen_of(train, asked.count, asked.seed)]
        parts = TextParts(
            [words_of(text) for text in samples.texts], floor, [words_of(text) for text in against], everything
        )
        model = bundle.manifest.model
        empty = sum(not words for words in parts.samples)
        return evaluation_of(
            asked,
            model,
            samples,
            train,
            test,
            labels=classes.told,
            measures=(*text_measures(parts, asked.wanted), *rows),
            notes=(
                f"words: {TOKENIZATION}",
                f"features: {NAME}",
                *([f"{empty} of the samples are empty"] if empty else []),
                *notes,
                *classes.notes,
            ),
        )


def _judges(generator: Generator) -> bool:
    return generator.can("log_likelihood") and generator.model.num_classes is None


def vocabulary_of(bundle: Bundle) -> Vocabulary:
    """What the tokens of a model of texts say."""
    return cast(TextOutput, output_of(bundle.manifest.model.output).with_files(bundle)).vocabulary


def own_bits(
    generator: Generator, vocabulary: Vocabulary, train: Sequence[str], test: Sequence[str]
) -> tuple[list[Measure], list[str]]:
    """The bits that the model needs for a token of the test texts, their ends among them, and those that an n-gram
    model of the same tokens of the training texts needs; and what was left out, in words.

    :class:`InputError` for a model without a likelihood, and where no text fits the model.
    """
    if not _judges(generator):
        raise InputError(f"model {generator.model.name!r} tells no likelihood of texts; leave bits out")
    length, end = generator.model.output.shape[0], vocabulary.special.end
    encoded = [tuple(vocabulary.encode(text).tokens) for text in test]
    most = length if end is None else length - 1
    fitting = [row for row in encoded if len(row) <= most and (end is not None or len(row) == length)]
    if not fitting:
        raise InputError(f"no test text has the {most} tokens that the model takes; leave bits out")
    rest = vocabulary.special.pad if vocabulary.special.pad is not None else end
    tokens: Int64 = np.full((len(fitting), length), rest or 0, np.int64)
    for place, row in zip(tokens, fitting, strict=True):
        place[: len(row) + 1] = row if end is None else (*row, end)
    lengths = np.array([len(row) for row in fitting], np.int64)
    counts = lengths + (end is not None)
    bits = float((generator.log_likelihood(tokens, lengths=lengths) * counts).sum() / counts.sum())
    known = frozenset(map(str, range(vocabulary.size)))
    chain = KneserNey([[*map(str, vocabulary.encode(text).tokens)] for text in train], NGRAM_ORDER, known)
    floor = chain.bits_per_token([[*map(str, row)] for row in fitting])
    detail = (
        f"a token of {len(fitting)} test texts, in the model's own vocabulary; beside it: a {NGRAM_ORDER}-gram "
        "model (Kneser-Ney) of the training texts' tokens"
    )
    left = len(test) - len(fitting)
    notes = [f"bits: {left} test texts are too long for the model, and left out"] if left else []
    return [_row("bits", "bits a token of the test texts", bits, floor, "lower", detail)], notes


def _texts(data: Dataset) -> tuple[str, ...]:
    if not isinstance(data, TextDataset):
        raise InputError(f"the model makes texts; give data of texts, not {data.info.name!r}")
    return data.texts


def text_measures(parts: TextParts, wanted: frozenset[str]) -> list[Measure]:
    """The rows of :data:`TEXT_METRICS`, as far as they are `wanted`; of no words at all none but what counts
    copies."""
    rows: list[Measure] = []
    spoken = any(parts.samples) and any(parts.test)
    for name, measure in _MEASURES.items():
        if name in wanted and (spoken or name == "copied"):
            rows += measure(parts)
    return rows


def _bleu(parts: TextParts) -> list[Measure]:
    test, count = parts.test, min(COMPARED, len(parts.samples), len(parts.floor))
    own, floor = (bleu_against(texts[:count], test) for texts in (parts.samples, parts.floor))
    detail = f"{count} samples, each against all {len(test)} test texts; floor: {count} training texts"
    return [
        _row(f"bleu{n}", f"BLEU-{n} against the test", own.bleu(n), floor.bleu(n), "near floor", detail)
        for n in ORDERS
    ]


def _self_bleu(parts: TextParts) -> list[Measure]:
    count = min(COMPARED, len(parts.samples), len(parts.floor))
    own, floor = (self_bleu(texts[:count]) for texts in (parts.samples, parts.floor))
    detail = f"each of {count} samples against the others; above the floor they are more alike than the data"
    return [
        _row(f"self_bleu{n}", f"self-BLEU-{n}", own.bleu(n), floor.bleu(n), "near floor", detail) for n in ORDERS
    ]


def _distinct(parts: TextParts) -> list[Measure]:
    count = min(len(parts.samples), len(parts.floor))
    detail = f"different n-grams over all, of {count} texts"
    rows = []
    for n in (1, 2, 3):
        if all(any(len(words) >= n for words in texts[:count]) for texts in (parts.samples, parts.floor)):
            own, floor = (distinct_ngrams(texts[:count], n) for texts in (parts.samples, parts.floor))
            rows.append(_row(f"distinct{n}", f"distinct-{n}", own, floor, "near floor", detail))
    return rows


def _sentence_fd(parts: TextParts) -> list[Measure]:
    if min(len(parts.train), len(parts.test), len(parts.floor)) < 2:
        return []
    features = SentenceFeatures.learn(parts.train)
    real = feature_statistics(features.read(parts.test))
    own, floor = (
        frechet_distance(feature_statistics(features.read(texts)), real) for texts in (parts.samples, parts.floor)
    )
    detail = f"{len(parts.samples)} samples against {len(parts.test)} test texts; floor: training texts"
    return [_row("sentence_fd", "Fréchet distance of sentences", own, floor, "lower", detail)]


def _ngram(parts: TextParts) -> list[Measure]:
    model = KneserNey(parts.train, NGRAM_ORDER)
    own, test = model.bits_per_token(parts.samples), model.bits_per_token(parts.test)
    detail = f"bits a token under a {NGRAM_ORDER}-gram model of the training texts; floor: the test texts"
    return [_row("ngram_bits", "how likely an n-gram model finds it", own, test, "near floor", detail)]


def _reverse_ngram(parts: TextParts) -> list[Measure]:
    known = frozenset(word for words in parts.train for word in words)
    models = (KneserNey(texts, NGRAM_ORDER, known) for texts in (parts.samples, parts.floor))
    own, floor = (model.bits_per_token(parts.test) for model in models)
    detail = (
        f"bits a token of the test texts under a {NGRAM_ORDER}-gram model of the samples; floor: of as many "
        "training "
        "texts"
    )
    return [_row("reverse_ngram_bits", "what an n-gram model learns of it", own, floor, "lower", detail)]


def _copied(parts: TextParts) -> list[Measure]:
    known = {tuple(words) for words in parts.train}
    judged = (parts.samples, parts.test)
    own, floor = (sum(tuple(words) in known for words in texts) / len(texts) for texts in judged)
    detail = "word for word a training text; floor: the test texts"
    return [_row("copied", "share of copies", own, floor, "near floor", detail)]


_MEASURES: dict[str, Callable[[TextParts], list[Measure]]] = {
    "bleu": _bleu,
    "self_bleu": _self_bleu,
    "distinct": _distinct,
    "sentence_fd": _sentence_fd,
    "ngram": _ngram,
    "reverse_ngram": _reverse_ngram,
    "copied": _copied,
}


def _row(name: str, title: str, value: float, floor: float, better: Better, detail: str) -> Measure:  # noqa: PLR0917
    return Measure(name=name, title=title, value=value, floor=floor, better=better, detail=detail)
