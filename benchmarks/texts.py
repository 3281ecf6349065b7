"""What the measures of text say of real texts and of texts that are worse by design; and of SeqGAN's oracle.

    python benchmarks/texts.py --captions image_coco.txt.gz
    python benchmarks/texts.py --oracle

Each column of the first is a set of texts in the samples' place: other training texts (which is the floor), the
same with their words shuffled, words drawn one by one by their frequency, and one text again and again. The second
prints what three oracles say of their own sentences and of random ones, in nats a token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.host.text_table import table_text
from gensdk_training.data import load_data
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_oracle import LENGTH, ORACLE_SEED, VOCABULARY, TextOracle
from gensdk_training.data.text_set import TextDataset
from gensdk_training.evaluation.measures import TEXT_METRICS
from gensdk_training.evaluation.text_models import TextParts, text_measures
from gensdk_training.metrics.ngrams import words_of

Words = Sequence[str]
PUBLISHED = "Yu et al. (2017), with another oracle: random 10.310, MLE 9.038, SeqGAN 8.736"


def words(captions: str, split: str) -> list[Words]:
    """The words of one part, of 10 % for the test and 10 % for validation."""
    dataset = load_data(captions, holdout=0.1, split=split, text=TextOptions(valid=0.1))  # type: ignore[arg-type]
    assert isinstance(dataset, TextDataset)
    return [words_of(text) for text in dataset.texts]


def in_place_of_samples(train: Sequence[Words], count: int) -> dict[str, Sequence[Words]]:
    random = np.random.default_rng(0)
    some = [train[at] for at in random.permutation(len(train))[:count]]
    every = [word for text in train for word in text]
    return {
        "training texts": some,
        "words shuffled": [list(random.permutation(np.array(text, object))) for text in some],
        "words by frequency": [list(random.choice(np.array(every, object), len(text))) for text in some],
        "one text": [some[0]] * count,
    }


def measure_captions(captions: str, count: int) -> dict[str, dict[str, float]]:
    train, test = words(captions, "train"), words(captions, "test")
    floor = [train[at] for at in np.random.default_rng(1).permutation(len(train))[:count]]
    return {
        name: {
            row.name: row.value
            for row in text_measures(TextParts(texts, floor, test, train), frozenset(TEXT_METRICS))
        }
        for name, texts in in_place_of_samples(train, count).items()
    }


def measure_oracles(count: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(0).integers(0, VOCABULARY, (count, LENGTH))
    found = {}
    for seed in (ORACLE_SEED, 0, 1):
        oracle = TextOracle(seed)
        found[f"seed {seed}"] = {"floor": oracle.nll(oracle.draw(count)), "random": oracle.nll(random)}
    return found


@click.command()
@click.option("--captions", help="A file of texts, one a line.")
@click.option("--oracle", is_flag=True)
@click.option("--count", default=1000, show_default=True, help="Texts in the samples' place.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The values as JSON.")
def main(captions: str | None, oracle: bool, count: int, output: Path | None) -> None:
    """Prints both tables."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    if captions is not None:
        found["captions"] = measure_captions(captions, count)
    if oracle:
        found["oracle"] = measure_oracles(count)
    for title, columns in found.items():
        names = list(next(iter(columns.values())))
        rows = [[name, *(f"{values[name]:.4g}" for values in columns.values())] for name in names]
        print(table_text(["measure", *columns], rows, title=title))
    if oracle:
        print(PUBLISHED)
    print(this_machine())
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
