"""Trains the embedded bundles anew, from their recipes, and puts them into the package.

    python benchmarks/zoo.py                        # all four; about 15 minutes on two cores
    python benchmarks/zoo.py --only digits-vae

A run that is there already is continued or, when it is done, only exported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from recipes import EMBEDDED, RECIPES

from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bundles.embedded import FOLDER
from gensdk_runtime.errors import GensdkError
from gensdk_training.run import train


@click.command(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/zoo"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="[default: the package]")
@click.option("--only", type=click.Choice(EMBEDDED), multiple=True, help="Only this model; may repeat.")
def main(runs: Path, out: Path, only: tuple[str, ...]) -> None:
    """Trains and exports."""
    out.mkdir(parents=True, exist_ok=True)
    for name in only or EMBEDDED:
        run, bundle = runs / name, out / f"{name}.gsdk"
        print(f"== {name}", flush=True)
        try:
            train(RECIPES[name].run_config(), run, resume=run.exists())
            options = ExportOptions(fp16=True, as_zip=True, share_features=RECIPES[name].share_features)
            report = export_run(run, bundle, options)
        except GensdkError as failure:
            print(f"error: {failure}", file=sys.stderr)
            sys.exit(failure.exit_code)
        print(report.text())
        print(f"{bundle}: {report.bundle_bytes / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
