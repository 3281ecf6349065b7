"""Images from texts: do samples show what they were asked for?

    python benchmarks/sprites.py dcss_tiles32_rgba.npz sprites.npz
    python benchmarks/quality_prompts.py --data sprites.npz                       # text2image, trained here
    python benchmarks/quality_prompts.py --data sprites.npz --bundle told.gsdk    # and a model that has prompts
    python benchmarks/quality_prompts.py --data sprites.npz --no-train --bundle told.gsdk --steps 20

Samples are made from captions of the test part, a twentieth. R-precision: the share whose own caption is ranked
first among 32 by a matcher that saw the training part alone; beside it real test images with their captions, and
training images with wrong ones. Options of sampling are for the bundles that are given. A bundle that RUNS holds
is not made again. Each model's samples for the same texts are saved as RUNS/NAME.png.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rows import Row, print_table

from gensdk.cli.program_options import program_options
from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.generator import Generator
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

SETTINGS: dict[str, Any] = {
    "batch_size": 32,
    "steps": 3600,
    "matching_steps": 900,
    "generator_learning_rate": 6e-4,
    "discriminator_learning_rate": 1e-3,
    "ema_decay": 0.997,
    "lr_schedule": "late_linear",
}
METRICS = ("r_precision",)
"""No FID: a classifier of the kinds of sprites can't tell noise from them, and `gensdk evaluate` refuses it."""
SHOWN = (
    "monster animals green dragon",
    "monster undead skeleton",
    "item potion ruby",
    "item weapon long sword",
    "dungeon floor grass",
    "dungeon wall brick brown",
    "item ring gold",
    "monster blue",
)
EACH = 8


def prompts_run(source: str, captions: str) -> RunConfig:
    """The run of text2image."""
    data = DataConfig(source=source, captions=captions, holdout=0.05)
    return RunConfig(family="text2image", data=data, config=SETTINGS, preview_every=0, log_every=50)


def trained(folder: Path, source: str, captions: str, minutes: float) -> Path:
    """The bundle of a run of text2image, trained to the end of its steps, or for so many minutes."""
    bundle = folder.with_suffix(".gsdk")
    if not bundle.exists():
        run = prompts_run(source, captions)
        resume = (folder / "run.json").exists()
        train(run, folder, resume=resume, tensorboard=False, max_seconds=60 * minutes)
        export_run(folder, bundle, ExportOptions(fp16=True))
    return bundle


def measured(bundle: Path, source: str, captions: str, count: int, options: dict[str, Any]) -> Iterator[Row]:
    """The measures of samples of `bundle`, each beside what real images get."""
    started = time.monotonic()
    data = DataConfig(source=source, captions=captions, holdout=0.05)
    report = evaluate(
        str(bundle), source, data=data, count=count, metrics=METRICS, options=options, progress=False
    ).report
    for each in report.measures:
        beside = "" if each.floor is None else f"floor {each.floor:.4g}; "
        yield Row(bundle.stem, each.name, each.value, detail=f"{beside}{each.detail}")
    for note in report.notes:
        click.echo(f"{bundle.stem}: note: {note}")
    click.echo(f"{bundle.stem}: measured in {time.monotonic() - started:.0f} s")


def pictured(bundle: Path, out: Path, options: dict[str, Any]) -> None:
    """A row of samples for each of the texts."""
    asked = [text for text in SHOWN for _ in range(EACH)]
    with Generator.load(bundle) as generator:
        label = None if generator.model.num_classes is None else 0
        generator.sample(len(asked), seed=0, prompt=asked, label=label, **options).save(out, columns=EACH)
    click.echo(f"{out}: a row each of {', '.join(SHOWN)}")


@click.command(help=__doc__)
@click.option("--data", "source", required=True, help="Images with captions, such as of sprites.py.")
@click.option("--captions", default="captions", show_default=True, help="Their key in the file.")
@click.option("--bundle", "bundles", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--train/--no-train", "trains", default=True, help="Measure text2image too.")
@click.option("--minutes", default=12.0, show_default=True, help="Of its training, at most.")
@click.option("-n", "--count", default=1000, show_default=True, help="Samples of each model.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/prompts"), show_default=True)
@program_options()
def main(
    *,
    source: str,
    captions: str,
    bundles: tuple[Path, ...],
    trains: bool,
    minutes: float,
    count: int,
    runs: Path,
    options: dict[str, Any],
) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    try:
        own = (trained(runs / "text2image", source, captions, minutes),) if trains else ()
        for bundle in (*own, *bundles):
            chosen = {} if bundle in own else options
            rows += measured(bundle, source, captions, count, chosen)
            pictured(bundle, runs / f"{bundle.stem}.png", chosen)
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    print_table(rows)
    click.echo(str(this_machine()))


if __name__ == "__main__":
    main()
