"""Style transfer on sentiment, against copying, retrieval and an exchange of words (see quality_texts.py).

Sources are three of the sets of short texts with a mean sentiment in [-4, 4] that come with VADER (Hutto &
Gilbert 2014): film reviews, reviews of products, tweets. Texts within THRESHOLD of 0, and of LENGTH tokens or
more, are left out. A tenth of the texts is for the test, a tenth for validation, by a fixed permutation; settings
were chosen on the validation part alone.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rows import Row, above, at_least, over_seeds

from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_training.data.text_options import TextOptions
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

SOURCES = ("movieReviewSnippets", "amazonReviewSnippets", "tweets")
THRESHOLD, LENGTH = 1.0, 20
SETTINGS: dict[str, Any] = {}
"""The family's defaults."""
LEAST_STYLE = 0.8
SHOWN = (
    "the food was terrible and the staff was rude.",
    "an intelligent and moving film.",
    "the battery is excellent.",
    "this is a boring waste of time.",
)
SEVERAL = 10_000
"""More than there are test texts."""
SYSTEMS = ("", "copied", "retrieved", "exchanged")


def joined(folder: Path, out: Path) -> Path:
    """One table of the three sets: number, score, text."""
    lines = []
    for name in SOURCES:
        path = folder / f"{name}_GroundTruth.txt.gz"
        if not path.exists():
            raise InputError(f"{path}: not there; give the folder of VADER's sets with --sentiment")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines += [line.rstrip("\n") for line in file]
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return out


def style_run(table: Path, seed: int) -> RunConfig:
    text = TextOptions(threshold=THRESHOLD, length=LENGTH, valid=0.1, min_count=1)
    data = DataConfig(source=str(table), holdout=0.1, text=text)
    return RunConfig(family="textstyle", data=data, config=SETTINGS, seed=seed, preview_every=0, log_every=50)


def measure_style(runs: Path, sentiment: str, seeds: Sequence[int]) -> Iterator[Row]:
    table = joined(Path(sentiment), runs / "sentiment.tsv")
    yield from over_seeds([list(style_rows(runs / f"style-seed{seed}", table, seed)) for seed in seeds])


def style_rows(folder: Path, table: Path, seed: int) -> Iterator[Row]:
    bundle, started = folder.with_suffix(".gsdk"), time.monotonic()
    if not bundle.exists():
        resume = (folder / "run.json").exists()
        train(style_run(table, seed), folder, resume=resume, tensorboard=False, progress=False)
        click.echo(f"seed {seed}: trained in {time.monotonic() - started:.0f} s")
        export_run(folder, bundle, ExportOptions(fp16=True))
    proof = verify_bundle(bundle)
    click.echo(f"seed {seed}: verified: {proof.ok}")
    report = evaluate(str(bundle), str(table), count=SEVERAL, seed=0, progress=False).report
    found = {measure.name: measure for measure in report.measures}
    for system in SYSTEMS:
        name = system or "textstyle"
        for measure in ("style", "content", "fluency"):
            row = found[f"{measure}_{system}" if system else measure]
            gate, passed = "", None
            if not system and measure == "style":
                gate, passed = at_least(LEAST_STYLE)(row.value)
            elif not system and measure == "content":
                gate, passed = above(found["content_retrieved"].value)(row.value)
            yield Row(name, measure, row.value, gate, passed, "" if row.floor is None else f"real {row.floor:.4g}")
    with Generator.load(bundle) as generator:
        for text in SHOWN:
            made = [
                generator.sample(1, seed=0, prompt=text, label=label, progress=False).texts[0] for label in (0, 1)
            ]
            click.echo(f"seed {seed}: {text} -> {made[0]} | {made[1]}")
