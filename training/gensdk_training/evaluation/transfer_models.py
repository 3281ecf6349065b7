"""Evaluating a model that writes texts anew in another style: is it that style, is it still what was said, is it a
text; each beside real texts, copies, and the two baselines that need no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.data.dataset import Dataset, Labels
from gensdk_training.data.text_set import TextDataset
from gensdk_training.evaluation.evaluation_report import Measure
from gensdk_training.evaluation.labels import chosen_of, label_draw
from gensdk_training.evaluation.measures import TRANSFER_METRICS
from gensdk_training.evaluation.result import Asked, Evaluation, evaluation_of
from gensdk_training.evaluation.text_models import NGRAM_ORDER, vocabulary_of
from gensdk_training.metrics.bleu import References, corpus_matches
from gensdk_training.metrics.kneser_ney import KneserNey
from gensdk_training.metrics.ngrams import TOKENIZATION, Words, words_of
from gensdk_training.metrics.text_judge import NAME, TextJudge
from gensdk_training.metrics.transfer_baselines import ORDER, TransferBaselines
from gensdk_training.run_config import DataConfig


@dataclass(frozen=True)
class Transfers:
    """Texts written anew: the words of `sources` of `styles` int64 [n], and what each system, by its name, made of
    them in the styles `asked` int64 [n]."""

    sources: Sequence[Words]
    styles: Labels
    asked: Labels
    made: Mapping[str, Sequence[Words]]


def evaluate_transfers(bundle: Bundle, data: DataConfig, asked: Asked, *, named: bool) -> Evaluation:
    """The test texts in the next style of each, by the model and by the baselines.

    `named`: the metrics were named, and each must be possible. Raises :class:`InputError` for data that are no
    texts of several styles, a model without styles, and metrics of other kinds.
    """
    if named and (others := sorted(asked.wanted - {*TRANSFER_METRICS})):
        raise InputError(
            f"can't measure {', '.join(others)} of a text in another style; leave it out, or name "
            f"{', '.join(TRANSFER_METRICS)}"
        )
    model = bundle.manifest.model
    if model.num_classes is None:
        raise InputError(f"model {model.name!r} takes no style to write in; there is no measure of it")
    with closing(data.load(split="train")) as train, closing(data.load(split="test")) as test:
        (texts, styles), (own, known) = _styled(test), _styled(train)
        places, vocabulary = chosen_of(test, asked.count, asked.seed), vocabulary_of(bundle)
        numbers = label_draw(model, train).numbers
        rows = [vocabulary.encode(texts[at]).tokens for at in places]
        target = (styles[places] + 1) % len(numbers)
        asked.say(f"writing {len(rows)} test texts in another style")
        with Generator.load(bundle, backend=asked.backend) as generator:
            samples = generator.sample(
                len(rows),
                seed=asked.seed,
                prompt=rows,
                label=[int(number) for number in numbers[target]],
                progress=asked.progress,
                **asked.options,
            )
        asked.say("comparing with real texts and baselines")
        learnt = [words_of(text) for text in own]
        sources = [words_of(texts[at]) for at in places]
        baselines = TransferBaselines(learnt, known, len(numbers))
        made: dict[str, Sequence[Words]] = {
            "": [words_of(text) for text in samples.texts],
            "copied": sources,
            "retrieved": baselines.retrieved(sources, target),
            "exchanged": baselines.exchanged(sources, styles[places], target),
        }
        transfers = Transfers(sources, styles[places], target, made)
        return evaluation_of(
            asked,
            model,
            samples,
            train,
            test,
            labels="of each test text the style after its own",
            measures=tuple(transfer_measures(transfers, learnt, known, asked.wanted)),
            notes=(
                f"words: {TOKENIZATION}",
                f"judge of styles, trained on the training texts: {NAME}",
                "retrieved: a training text of the other style that is like the source; exchanged: the source "
                "with marking words of such a text in place of its own (Li et al. 2018)",
            ),
        )


def transfer_measures(
    transfers: Transfers, texts: Sequence[Words], labels: Labels, wanted: frozenset[str]
) -> list[Measure]:
    """The rows of :data:`TRANSFER_METRICS`, as far as they are `wanted`, of each system; judged by what was learnt
    from the training `texts` and their `labels` int64 [N]."""
    rows = []
    if "style" in wanted:
        judge = TextJudge(texts, labels)
        real = float((judge.classes(transfers.sources) == transfers.styles).mean())
        detail = "the judge takes it for the style asked for; beside it: the judge on real test texts"
        for system, made in transfers.made.items():
            share = float((judge.classes(made) == transfers.asked).mean())
            rows.append(_row("style", system, "share in the style asked for", share, real, "higher", detail))
    if "content" in wanted:
        found = {system: content(made, transfers.sources) for system, made in transfers.made.items()}
        detail = f"BLEU-{ORDER} against its source; beside it: that of retrieval; a copy has 1"
        for system, value in found.items():
            beside = found["retrieved"]
            rows.append(_row("content", system, "content kept", value, None, "higher", detail, beside))
    if "fluency" in wanted:
        chain = KneserNey(texts, NGRAM_ORDER)
        real = chain.bits_per_token(transfers.sources)
        detail = f"bits a token under a {NGRAM_ORDER}-gram model of the training texts; beside it: the test texts"
        for system, made in transfers.made.items():
            bits = chain.bits_per_token(made)
            rows.append(
                _row("fluency", system, "how likely an n-gram model finds it", bits, real, "near floor", detail)
            )
    return rows


def content(made: Sequence[Words], sources: Sequence[Words]) -> float:
    """BLEU of the corpus `made`, each text against its own source alone; 0 where no text has words."""
    if not any(made):
        return 0.0
    pairs = ((words, References([source], ORDER)) for words, source in zip(made, sources, strict=True))
    return corpus_matches(pairs, ORDER).bleu(ORDER)


def _styled(data: Dataset) -> tuple[tuple[str, ...], Labels]:
    """The texts and their styles."""
    if not isinstance(data, TextDataset):
        raise InputError(f"the model writes texts; give data of texts, not {data.info.name!r}")
    if data.labels is None or (data.info.num_classes or 0) < 2:
        raise InputError(f"the data {data.info.name!r} have no styles; give a column of labels, or a threshold")
    return data.texts, data.labels


def _row(  # noqa: PLR0917 - a table reads by columns
    name: str,
    system: str,
    title: str,
    value: float,
    floor: float | None,
    better: str,
    detail: str,
    baseline: float | None = None,
) -> Measure:
    return Measure.model_validate(
        {
            "name": f"{name}_{system}" if system else name,
            "title": f"{title}, {system}" if system else title,
            "value": value,
            "floor": floor,
            "baseline": baseline,
            "better": better,
            "detail": detail,
        }
    )
