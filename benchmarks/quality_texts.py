"""GANs of texts against what papers leave out: maximum likelihood, at temperatures.

    python benchmarks/quality_texts.py --only oracle                               # half an hour on one core
    python benchmarks/quality_texts.py --only captions --captions image_coco.txt.gz  # half an hour on one core
    python benchmarks/quality_texts.py --only style --sentiment FOLDER             # quality_style.py; half an hour

`oracle`: SeqGAN's synthetic benchmark (Yu et al. 2017, section 5.1). For each seed a language model learns by
maximum likelihood, is exported, and goes on as SeqGAN; both are sampled through their bundles. NLL-oracle says
how well sentences are made, NLL-test how many of the oracle's own sentences the model still knows: a model that
always says one good sentence has the best NLL-oracle, so neither says anything alone. A temperature below 1
trades one for the other without any training. Two questions, and a gate each: is SeqGAN better than maximum
likelihood at the temperature with the best NLL-oracle, chosen on another seed's model; and at the temperature
with SeqGAN's own NLL-test? The paper's settings are 120 epochs, 16 rollouts and 200 rounds of 15 updates of the
discriminator; what fits into minutes stands in MLE and GAME below.

`captions`: a language model and ScratchGAN on captions: a Fréchet distance of sentences, BLEU and self-BLEU beside
those of training texts, and the bits a token of the test texts beside an n-gram model's.

What RUNS holds already is not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from quality_style import measure_style
from quality_subject import Entry, Subject
from rows import Row, above, at_most, over_seeds, print_table
from sequence_recipes import TEXT_RECIPES

from gensdk_export.export import export_run
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.generator import Generator
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_oracle import TextOracle, drawn_sentences
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.networks.language_model import LanguageModel
from gensdk_training.run import load_run, train
from gensdk_training.run_config import DataConfig, RunConfig
from gensdk_training.text_family import TextFamily

COUNT = 1000
"""Sentences that are judged, of each model at each temperature."""
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
CHOOSING, JUDGING = 1000, 0
"""Seeds of the samples that a temperature is chosen by, and of those that it is judged by."""
PUBLISHED = "the paper, with another oracle and 120 epochs: random 10.310, MLE 9.038, SeqGAN 8.736"

MLE: dict[str, Any] = {
    "embedding": 32,
    "hidden": 32,
    "dropout": 0.0,
    "cuts": False,
    "likelihood_steps": 1000,
    "learning_rate": 1e-2,
    "steps": 1000,
}
"""6.4 epochs."""
GAME: dict[str, Any] = {"discriminator_steps": 150, "rollouts": 4, "adversarial_learning_rate": 5e-3}
GAME_STEPS = 80
CAPTIONS: dict[str, dict[str, Any]] = {
    "seqgan": {
        "embedding": 96,
        "hidden": 192,
        "dropout": 0.25,
        "likelihood_steps": 900,
        "steps": 900,
        "learning_rate": 5e-3,
        "lr_schedule": "cosine",
    },
    "scratchgan": {
        "embedding": 96,
        "hidden": 192,
        "batch_size": 128,
        "steps": 5000,
        "generator_learning_rate": 2e-3,
        "discriminator_learning_rate": 2e-3,
    },
}
"""The first is maximum likelihood alone."""


@dataclass(frozen=True)
class Told:
    """NLL-oracle and NLL-test of a model at a temperature, in nats a token."""

    oracle: float
    test: float


def trained(config: RunConfig, folder: Path, minutes: float | None = None) -> Path:
    """The bundle of a run, which is trained to the end of its steps, or for so many minutes."""
    bundle = folder.with_name(f"{folder.name}-{config.config['steps']}.gsdk")
    if not bundle.exists():
        resume = (folder / "run.json").exists()
        train(config, folder, resume=resume, tensorboard=False, max_seconds=minutes and 60 * minutes)
        export_run(folder, bundle)
    return bundle


def oracle_run(seed: int, *, game: bool) -> RunConfig:
    steps = MLE["steps"] + (GAME["discriminator_steps"] + GAME_STEPS if game else 0)
    config = {**MLE, **GAME, "steps": steps}
    data = DataConfig(source="oracle")
    return RunConfig(family="seqgan", data=data, config=config, seed=seed, preview_every=0, log_every=50)


def told(bundle: Path, test_nll: float, *, temperature: float, seed: int) -> Told:
    with Generator.load(bundle) as generator:
        drawn = generator.sample(COUNT, seed=seed, temperature=temperature, progress=False)
    return Told(TextOracle().nll(drawn.array), test_nll)


@torch.no_grad()
def test_nlls(folder: Path, temperatures: Sequence[float]) -> list[float]:
    """NLL-test of the first sentences of the oracle's test part under the network of a run, at temperatures."""
    run = load_run(folder)
    assert isinstance(run.family, TextFamily)
    network, ends = run.networks["generator"].eval(), run.family.ends
    assert isinstance(network, LanguageModel)
    tokens = torch.from_numpy(drawn_sentences(10_000)[:COUNT].copy())
    totals = np.zeros(len(temperatures))
    for part in torch.split(tokens, 100):
        logits = network(ends.before(part))
        for number, temperature in enumerate(temperatures):
            log_p = torch.log_softmax(logits / temperature, dim=-1).gather(-1, part.unsqueeze(-1))
            totals[number] -= float(log_p.sum())
    return [float(total) / tokens.numel() for total in totals]


def sweep(bundle: Path, nlls: Sequence[float], seed: int) -> list[Told]:
    pairs = zip(TEMPERATURES, nlls, strict=True)
    return [told(bundle, nll, temperature=temperature, seed=seed) for temperature, nll in pairs]


def measure_oracle(runs: Path, seeds: Sequence[int]) -> Iterator[Row]:
    folders = {seed: runs / f"oracle-seed{seed}" for seed in seeds}
    likelihood: dict[int, list[Told]] = {}
    chosen_by: dict[int, list[Told]] = {}
    seqgan: dict[int, Told] = {}
    for seed, folder in folders.items():
        bundle = trained(oracle_run(seed, game=False), folder)
        kept = folder.with_name(f"{folder.name}-nll.npy")
        if not kept.exists():  # the folder goes on as SeqGAN's
            np.save(kept, np.array(test_nlls(folder, TEMPERATURES)))
        nlls = np.load(kept).tolist()
        likelihood[seed], chosen_by[seed] = sweep(bundle, nlls, JUDGING), sweep(bundle, nlls, CHOOSING)
        game = trained(oracle_run(seed, game=True), folder)
        (own,) = test_nlls(folder, (1.0,))
        seqgan[seed] = told(game, own, temperature=1.0, seed=JUDGING)
    yield from over_seeds([list(rows_of(likelihood[seed], seqgan[seed])) for seed in seeds])
    floor = TextOracle().nll(drawn_sentences(10_000)[:COUNT])
    yield Row("oracle", "NLL-oracle of its own sentences", floor, detail="the floor of both")
    yield from verdicts(likelihood, chosen_by, seqgan)


def rows_of(sweeps: Sequence[Told], seqgan: Told) -> Iterator[Row]:
    for temperature, each in zip(TEMPERATURES, sweeps, strict=True):
        name = f"likelihood, temperature {temperature:g}"
        yield Row(name, "NLL-oracle", each.oracle)
        yield Row(name, "NLL-test", each.test)
    yield Row("seqgan", "NLL-oracle", seqgan.oracle)
    yield Row("seqgan", "NLL-test", seqgan.test)


def verdicts(
    likelihood: dict[int, list[Told]], chosen_by: dict[int, list[Told]], seqgan: dict[int, Told]
) -> Iterator[Row]:
    """How much lower SeqGAN's NLL-oracle is than that of likelihood: means over the seeds."""
    seeds = list(likelihood)
    best, same, plain = [], [], []
    for number, seed in enumerate(seeds):
        other = chosen_by[seeds[(number + 1) % len(seeds)]]
        at = int(np.argmin([each.oracle for each in other]))
        best.append(likelihood[seed][at].oracle - seqgan[seed].oracle)
        plain.append(likelihood[seed][0].oracle - seqgan[seed].oracle)
        same.append(at_the_same_test(likelihood[seed], seqgan[seed].test) - seqgan[seed].oracle)
    for measure, values, gated in (
        ("better than likelihood at temperature 1 by", plain, False),
        ("better than likelihood at its best temperature by", best, True),
        ("better than likelihood at the same NLL-test by", same, True),
    ):
        mean = float(np.mean(values))
        text, passed = above(0.0)(mean) if gated else ("", None)
        detail = f"{min(values):.3f} .. {max(values):.3f}, nats a token; {PUBLISHED}"
        yield Row("seqgan", measure, mean, text, passed, detail)


def at_the_same_test(sweeps: Sequence[Told], test: float) -> float:
    """NLL-oracle of likelihood where its NLL-test is `test`, in a line between two temperatures; at an end of the
    sweep, that of the end. NLL-test has its least value near temperature 1, and grows below."""
    least = int(np.argmin([each.test for each in sweeps]))
    falling = sweeps[least:]
    return float(np.interp(test, [each.test for each in falling], [each.oracle for each in falling]))


def measure_captions(runs: Path, captions: str, seeds: Sequence[int]) -> Iterator[Row]:
    found: dict[str, list[Row]] = {}
    for family, config in CAPTIONS.items():
        rows = []
        for seed in seeds:
            data = DataConfig(source=captions, holdout=0.1, text=TextOptions(valid=0.1, min_count=2))
            run = RunConfig(family=family, data=data, config=config, seed=seed, preview_every=0, log_every=50)
            folder = runs / f"captions-{family}-seed{seed}"
            rows.append(list(caption_rows(family, trained(run, folder, minutes=10), captions)))
        found[family] = list(over_seeds(rows))
        yield from found[family]
    distance = {family: next(row.value for row in rows if row.measure == FD) for family, rows in found.items()}
    text, passed = at_most(distance["seqgan"])(distance["scratchgan"])
    yield Row("scratchgan", "no farther than likelihood", distance["scratchgan"], text, passed, FD)


FD = "sentence_fd"


def caption_rows(family: str, bundle: Path, captions: str) -> Iterator[Row]:
    asked = ("bleu", "self_bleu", "sentence_fd", "bits", "copied")
    report = evaluate(str(bundle), captions, count=COUNT, seed=0, metrics=asked, progress=False).report
    for measure in report.measures:
        if measure.name in ("bleu4", "self_bleu4", FD, "bits", "copied"):
            yield Row(family, measure.name, measure.value, detail=f"floor {measure.floor:.4g}")
    with Generator.load(bundle) as generator:
        for text in generator.sample(3, seed=0, progress=False).texts:
            click.echo(f"{family}: {text}")


def measure_model(subject: Subject) -> Iterator[Row]:
    """The embedded model of captions, at its own temperature and top_p, beside training captions."""
    asked = ("bleu", "self_bleu", "sentence_fd", "bits", "copied")
    report = evaluate(subject.source, str(subject.captions), count=COUNT, seed=0, metrics=asked).report
    for measure in report.measures:
        gate = at_most(FARTHEST * measure.floor) if measure.name == FD else None
        yield subject.row(measure.title, measure.value, gate, f"floor {measure.floor:.4g}")
    with subject.generator() as generator:
        for text in generator.sample(10, seed=0, progress=False).texts:
            click.echo(f"{subject.name}: {text}")


ENTRIES = {name: Entry(recipe, measure_model) for name, recipe in TEXT_RECIPES.items()}
FARTHEST = 3.0
"""Times the floor's Fréchet distance; the gate of captions."""


def seeds_of(context: Any, parameter: Any, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected seeds with commas between, got {text[:60]!r}") from None


@click.command(help=__doc__)
@click.option("--only", type=click.Choice(["oracle", "captions", "style"]), required=True)
@click.option("--captions", help="A file of texts, one a line.")
@click.option("--sentiment", help="A folder with VADER's sets of short texts.")
@click.option("--seeds", default="0,1,2", show_default=True, callback=seeds_of)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/texts"), show_default=True)
def main(*, only: str, captions: str | None, sentiment: str | None, seeds: tuple[int, ...], runs: Path) -> None:
    if only == "captions" and captions is None:
        raise click.UsageError("captions need --captions FILE")
    if only == "style" and sentiment is None:
        raise click.UsageError("style needs --sentiment FOLDER")
    start = time.monotonic()
    runs.mkdir(parents=True, exist_ok=True)
    try:
        if only == "oracle":
            rows = list(measure_oracle(runs, seeds))
        elif only == "captions":
            rows = list(measure_captions(runs, captions or "", seeds))
        else:
            rows = list(measure_style(runs, sentiment or "", seeds))
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    print_table(rows)
    click.echo(f"{this_machine()}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
