"""The zoo's quality against its gates: likelihoods, distances, modes, labels, anomalies, reconstructions.

Trains what RUNS does not hold yet, with every seed of its list, exports it, and samples from the bundles through
the runtime, as a user would. Prints one table of means and ranges over the seeds, and exits with 1 on a missed
gate. RUNS/quality.json keeps the newest rows of every model, so that models can be measured one after another.

    python benchmarks/quality.py --mnist FOLDER                # all: a few hours on two cores
    python benchmarks/quality.py --chorales FILE --only "chorales-*"
    python benchmarks/quality.py --captions FILE --only captions
    python benchmarks/quality.py --spoken-digits PATH --only "spoken-digits-*"
    python benchmarks/quality.py --mnist FOLDER --spoken-digits PATH --only "mnist-sound2image*"
    python benchmarks/drawn_faces.py fsdd.tar.gz drawn; python benchmarks/quality.py --drawn-faces drawn \
        --only drawn-faces-talkinghead
    python benchmarks/quality.py --only digits-ddpm            # one model
    python benchmarks/quality.py --only "gaussians-*"          # some
    python benchmarks/quality.py --embedded                    # the bundles that gensdk ships, no training
    python benchmarks/quality.py --only digits-ddpm --distill  # and students of 4, 2 and 1 steps
    python benchmarks/quality.py --only digits-flow --distill  # and the same, straightened (reflow)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import quality_anomaly
import quality_heard
import quality_images
import quality_latents
import quality_music
import quality_points
import quality_sounds
import quality_talking
import quality_texts
from quality_subject import Entry, Subject, floor
from recipes import CAPTIONS, CHORALES, DRAWN_FACES, SPOKEN_DIGITS
from rows import Row, over_seeds, print_table

from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.media.images import write_atomically

ENTRIES: dict[str, Entry] = {
    **quality_images.ENTRIES,
    **quality_points.ENTRIES,
    **quality_latents.ENTRIES,
    **quality_anomaly.ENTRIES,
    **quality_music.ENTRIES,
    **quality_sounds.ENTRIES,
    **quality_heard.ENTRIES,
    **quality_talking.ENTRIES,
    **quality_texts.ENTRIES,
}


def chosen(only: tuple[str, ...], given: dict[str, Path | None], *, embedded: bool) -> list[str]:
    """The models to measure; says which are left out."""
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in ENTRIES):
            raise click.UsageError(f"no model {pattern!r}; the models are {', '.join(ENTRIES)}")
    names = [name for name in ENTRIES if not only or any(fnmatchcase(name, pattern) for pattern in only)]
    missing = {data for data, path in given.items() if path is None}
    possible = [n for n in names if not needed(n) & missing]
    if embedded:
        possible = [name for name in possible if name in embedded_names()]
    for name in names:
        if name not in possible and (only or not embedded):
            lacking = sorted(needed(name) & missing)
            why = f"needs --{' PATH and --'.join(lacking)} PATH" if lacking else "not embedded"
            click.echo(f"{name}: not measured ({why})", err=True)
    return [name for name in names if name in possible]


def needed(name: str) -> set[str]:
    """The data of a model, by name."""
    recipe = ENTRIES[name].recipe
    return {recipe.data, *([] if recipe.inputs is None else [recipe.inputs])}


def measure(name: str, seeds: tuple[int, ...] | None, **options: Any) -> list[Row]:
    """The rows of one model over its seeds."""
    entry, rows = ENTRIES[name], []
    for seed in seeds or entry.seeds:
        subject = Subject(name, replace(entry.recipe, seed=seed), **options)
        subject.train()
        rows.append(list(entry.measure(subject)))
    return list(over_seeds(rows))


def floors(names: Sequence[str], **options: Any) -> dict[str, list[Row]]:
    """What real images get, of each data set that some of the models are judged on."""
    judged = {ENTRIES[name].recipe.data: name for name in names if ENTRIES[name].judged}
    return {data: list(floor(Subject(name, ENTRIES[name].recipe, **options))) for data, name in judged.items()}


def record(path: Path, rows: dict[str, list[Row]], seconds: float) -> None:
    """Puts the rows of each model into the file, in place of those it had."""
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError, TypeError):
        models = {}
    machine = this_machine().model_dump(mode="json")
    models |= {
        model: {"rows": [asdict(row) for row in found], "machine": machine} for model, found in rows.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps({"models": models, "seconds": seconds}, indent=2) + "\n"
    write_atomically(path, written.encode())


def numbers(context: Any, parameter: Any, text: str | None) -> tuple[int, ...] | None:
    """Seeds with commas between."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected seeds with commas between, got {text[:60]!r}") from None


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/quality"), show_default=True)
@click.option("--mnist", type=click.Path(path_type=Path, exists=True), help="Folder with MNIST's idx files.")
@click.option(
    "--chorales", type=click.Path(path_type=Path, exists=True), help="Jsb16thSeparated.json, or .json.gz."
)
@click.option("--spoken-digits", type=click.Path(path_type=Path, exists=True), help="fsdd.tar.gz, or its folder.")
@click.option(
    "--drawn-faces",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that benchmarks/drawn_faces.py wrote.",
)
@click.option("--captions", type=click.Path(path_type=Path, exists=True), help="image_coco.txt, or .txt.gz.")
@click.option("--only", multiple=True, help="A model, or a pattern as in gaussians-*; may be repeated.")
@click.option("--seeds", callback=numbers, help="0,1,2: instead of each model's own list.")
@click.option("--embedded", is_flag=True, help="Measure the embedded bundles; train nothing.")
@click.option(
    "--distill",
    is_flag=True,
    help="Train students of digits-ddpm, and digits-flow anew on its own samples (10 minutes each).",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Default: RUNS/quality.json.")
def main(
    *,
    runs: Path,
    mnist: Path | None,
    chorales: Path | None,
    spoken_digits: Path | None,
    drawn_faces: Path | None,
    captions: Path | None,
    only: tuple[str, ...],
    seeds: tuple[int, ...] | None,
    embedded: bool,
    distill: bool,
    json_file: Path | None,
) -> None:
    if embedded and (distill or seeds):
        raise click.UsageError("--distill and --seeds need runs of their own; leave --embedded out")
    start, found = time.monotonic(), {}
    given = {"mnist": mnist, CHORALES: chorales, SPOKEN_DIGITS: spoken_digits, CAPTIONS: captions}
    given[DRAWN_FACES] = drawn_faces
    names = chosen(only, given, embedded=embedded)
    if not names:
        raise click.ClickException("nothing to measure")
    options = {
        "runs": runs.absolute(),
        "mnist": mnist,
        "chorales": chorales,
        "spoken_digits": spoken_digits,
        "captions": captions,
        "faces": drawn_faces,
        "embedded": embedded,
        "distill": distill,
    }
    path = json_file or runs / "quality.json"
    try:
        for name in names:
            found[name] = measure(name, seeds, **options)
            record(path, found, time.monotonic() - start)
        found |= floors(names, **options)
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    rows = [row for each in found.values() for row in each]
    compared = [*quality_latents.autoencoder_against_vae(rows), *quality_points.packing_keeps_modes(rows)]
    if compared:
        found["comparisons"] = compared
    record(path, found, time.monotonic() - start)
    print_table([*rows, *compared])
    click.echo(f"written to {path}")
    sys.exit(1 if any(row.passed is False for row in [*rows, *compared]) else 0)


if __name__ == "__main__":
    main()
