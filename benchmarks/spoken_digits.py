"""What models of spoken digits are judged by: the data, Markov chains in bits a sample, and a classifier.

The Free Spoken Digit Dataset, its official test part (takes 0 to 4), mu-law of 256 levels. Strengths of the chains
are chosen on takes 5 to 9 of the training part. No model of gensdk is trained here.

    python benchmarks/spoken_digits.py --data fsdd:fsdd.tar.gz                    # all: some minutes on one core
    python benchmarks/spoken_digits.py --data fsdd:fsdd.tar.gz --only markov      # half a minute
    python benchmarks/spoken_digits.py --data fsdd:fsdd.tar.gz --only classifier --labels auto
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
import numpy as np
from rows import Row, print_table

from gensdk_runtime.errors import GensdkError, InputError
from gensdk_runtime.media.mu_law import LEVELS, encode
from gensdk_runtime.media.sounds import level_of
from gensdk_training.data import load_data
from gensdk_training.data.dataset import Split
from gensdk_training.data.sound_set import SoundDataset
from gensdk_training.data.spoken_digits import take_of
from gensdk_training.metrics.classifier import ClassifierSettings, train_classifier
from gensdk_training.metrics.markov_chains import fit_markov_chain
from gensdk_training.metrics.sound_pictures import labelled_pictures

MODEL = "spoken digits"
ORDERS = (0, 1, 2)
VALIDATION_TAKES = range(5, 10)
SILENCE = int(encode(np.zeros(1))[0])
STEPS = 500


def part(source: str, split: Split, labels: str) -> SoundDataset:
    dataset = load_data(source, split=split, labels=labels)
    if not isinstance(dataset, SoundDataset):
        raise InputError(f"expected spoken digits, got {dataset.info.kind}; write fsdd:PATH")
    return dataset


def facts(train: SoundDataset, test: SoundDataset) -> Iterator[Row]:
    """Files, minutes and levels."""
    rate = train.info.require_audio().sample_rate
    for name, data in (("train", train), ("test", test)):
        seconds = data.lengths / rate
        told = f"{seconds.min():.2f} to {seconds.max():.2f} s, median {np.median(seconds):.2f} s, at {rate} Hz"
        yield Row(MODEL, f"{name}: files", len(data), detail=told)
        yield Row(MODEL, f"{name}: minutes", float(seconds.sum() / 60))
        levels = [level_of(sound, rate) for sound in data.sounds]
        for what in ("peak", "rms"):
            values = [getattr(level, what) for level in levels]
            told = f"{min(values):.1f} to {max(values):.1f}"
            yield Row(MODEL, f"{name}: {what}, dB, median", float(np.median(values)), detail=told)


def chains(train: SoundDataset, test: SoundDataset) -> Iterator[Row]:
    """Bits a sample of the test part, each sound from its first sample on."""
    codes = [encode(sound[:, 0]) for sound in train.sounds]
    held = [take_of(key) in VALIDATION_TAKES for key in train.keys or ()]
    fitted_on = [code for code, out in zip(codes, held, strict=True) if not out]
    chosen_on = [code for code, out in zip(codes, held, strict=True) if out]
    test_codes = [encode(sound[:, 0]) for sound in test.sounds]
    for order in ORDERS:
        started = time.monotonic()
        chain = fit_markov_chain(fitted_on, chosen_on, order=order, levels=LEVELS, start=SILENCE)
        bits = chain.bits(test_codes)
        told = f"strengths {', '.join(f'{a:g}' for a in chain.strengths)}; {time.monotonic() - started:.0f} s"
        yield Row(MODEL, f"Markov chain of order {order}: test bits/sample", bits, detail=told)


def classifier(train: SoundDataset, test: SoundDataset, steps: int, seed: int) -> Iterator[Row]:
    """Right answers on recordings, which samples are judged beside."""
    started = time.monotonic()
    data, judged = labelled_pictures(train, training=True), labelled_pictures(test)
    judge = train_classifier(data, ClassifierSettings(steps=steps, seed=seed))
    told = f"{steps} steps, {len(data)} pictures, {judge.num_classes} classes; {time.monotonic() - started:.0f} s"
    answers = judge.predict(judged.images)
    yield Row(MODEL, "classifier: right on the test part", float((answers == judged.labels).mean()), detail=told)
    yield Row(MODEL, "classifier: right on the training part", judge.accuracy(data))
    audio, names = train.info.require_audio(), train.info.class_names or ()
    if audio.parts:
        numbers = np.array(audio.numbers_of(names))
        for at, each in enumerate(audio.parts):
            right = (numbers[answers, at] == numbers[judged.labels, at]).mean()
            yield Row(MODEL, f"classifier: {each.name} right on the test part", float(right))


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--data", required=True, help="fsdd:PATH, the archive or a folder of it.")
@click.option("--only", type=click.Choice(["facts", "markov", "classifier"]))
@click.option("--labels", default="digit", show_default=True, help="digit, speaker, or auto for both.")
@click.option("--steps", default=STEPS, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(*, data: str, only: str | None, labels: str, steps: int, seed: int) -> None:
    rows: list[Row] = []
    try:
        train, test = part(data, "train", labels), part(data, "test", labels)
        if only in (None, "facts"):
            rows += facts(train, test)
        if only in (None, "markov"):
            rows += chains(train, test)
        if only in (None, "classifier"):
            rows += classifier(train, test, steps, seed)
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    print_table(rows)


if __name__ == "__main__":
    main()
