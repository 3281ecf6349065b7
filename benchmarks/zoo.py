"""Trains the embedded bundles anew, from their recipes, and puts them into the package.

    python benchmarks/zoo.py                        # those of images; about 15 minutes on two cores
    python benchmarks/zoo.py --chorales Jsb16thSeparated.json.gz --captions image_coco.txt.gz    # and those two
    python benchmarks/zoo.py --only sprites --sprites dcss_tiles32_rgba.npz    # about 80 minutes
    python benchmarks/zoo.py --only digits-vae

A run that is there already is continued or, when it is done, only exported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from prompted_recipes import PROMPTED_RECIPES
from recipes import CAPTIONS, CHORALES, RECIPES, SPRITES
from sequence_recipes import EMBEDDED, MUSIC_RECIPES, TEXT_RECIPES
from sprites import prepare

from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bundles.embedded import FOLDER
from gensdk_runtime.errors import GensdkError
from gensdk_training.run import train

ALL = {**RECIPES, **MUSIC_RECIPES, **TEXT_RECIPES, **PROMPTED_RECIPES}


@click.command(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/zoo"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="[default: the package]")
@click.option("--only", type=click.Choice(EMBEDDED), multiple=True, help="Only this model; may repeat.")
@click.option(
    "--chorales", type=click.Path(path_type=Path, exists=True), help="Jsb16thSeparated.json, or .json.gz."
)
@click.option("--captions", type=click.Path(path_type=Path, exists=True), help="image_coco.txt, or .txt.gz.")
@click.option("--sprites", type=click.Path(path_type=Path, exists=True), help="dcss_tiles32_rgba.npz.")
def main(
    *,
    runs: Path,
    out: Path,
    only: tuple[str, ...],
    chorales: Path | None,
    captions: Path | None,
    sprites: Path | None,
) -> None:
    """Trains and exports."""
    out.mkdir(parents=True, exist_ok=True)
    if sprites is not None:
        prepared = runs / "sprites.npz"
        prepare(sprites, prepared)
        sprites = prepared
    given = {CHORALES: chorales, CAPTIONS: captions, SPRITES: sprites}
    for name in only or EMBEDDED:
        recipe, run, bundle = ALL[name], runs / name, out / f"{name}.gsdk"
        if given.get(recipe.data, run) is None:
            print(f"== {name}: left as it is; it needs --{recipe.data} FILE", flush=True)
            continue
        print(f"== {name}", flush=True)
        try:
            config = recipe.run_config(chorales=chorales, captions=captions, sprites=sprites)
            train(config, run, resume=run.exists())
            report = export_run(run, bundle, ExportOptions(as_zip=True, **recipe.export))
        except GensdkError as failure:
            print(f"error: {failure}", file=sys.stderr)
            sys.exit(failure.exit_code)
        print(report.text())
        print(f"{bundle}: {report.bundle_bytes / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
