"""Modes of 25 Gaussians: modes covered, high quality and reverse KL of five GANs, over a list of seeds.

Trains what RUNS does not hold yet (each model up to 4 minutes on one quiet core), exports it, and draws 2,500
points through the runtime, as a user would. Prints one table with the mean and the range over the seeds, writes it
as JSON, and a picture for each model and seed. Exits with 1 where WGAN-GP misses its gate with any seed.

    python benchmarks/gaussians.py                                   # all, three seeds: an hour
    python benchmarks/gaussians.py --only gan,pacgan --seeds 0
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from quality import Gate, Row, at_least, at_most, print_table

from gensdk_export.export import export_run
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import write_atomically
from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.metrics.modes import ModeReport, mixture_modes
from gensdk_training.run import DataConfig, RunConfig, train

DATA = "25gaussians"
COUNT = 2500
"""Points that are judged, as in the PacGAN paper."""
SEEDS = (0, 1, 2)
SAMPLING_SEED = 0

_POINTS = {"hidden": [128, 128, 128], "latent": 2, "ema_decay": 0.99}
_GAME = {
    **_POINTS,
    "batch_size": 240,  # a multiple of the packing
    "steps": 12000,
    "generator_learning_rate": 5e-4,
    "discriminator_learning_rate": 5e-4,
}

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("gan", _GAME),
    "pacgan": ("gan", {**_GAME, "packing": 3}),
    "wgan": (
        "wgan",
        {
            **_POINTS,
            "batch_size": 256,
            "steps": 3000,
            "generator_learning_rate": 5e-4,
            "discriminator_learning_rate": 5e-4,
        },
    ),
    "wgan-gp": (
        "wgan_gp",
        {
            **_POINTS,
            "batch_size": 256,
            "steps": 5500,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "beta1": 0.0,
            "ema_decay": 0.997,
        },
    ),
    "sngan": (
        "sngan",
        {
            **_POINTS,
            "batch_size": 256,
            "steps": 3000,
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "beta1": 0.5,
        },
    ),
}
"""Family and settings of each model; all on the same data, with networks of the same size. WGAN-GP's are tuned for
its gate; the others are near their papers' and were not tuned."""

GATES: dict[tuple[str, str], Gate] = {
    ("wgan-gp", "modes"): at_least(25),
    ("wgan-gp", "high quality"): at_least(0.80),
    ("wgan-gp", "reverse KL"): at_most(0.05),
}


@dataclass(frozen=True)
class Subject:
    """One model of one seed, and where runs lie."""

    name: str
    seed: int
    runs: Path

    @property
    def run(self) -> Path:
        """Its folder."""
        return self.runs / f"{self.name}-{self.seed}"

    def train(self) -> None:
        """Trains the run to its end; what is there already is continued, or left when it is complete."""
        family, config = RECIPES[self.name]
        run = RunConfig(
            family=family,
            data=DataConfig(source=DATA),
            config=config,
            seed=self.seed,
            log_every=200,
            checkpoint_every=1000,
            preview_every=0,
        )
        train(run, self.run, resume=(self.run / "run.json").exists(), tensorboard=False)

    def judge(self) -> ModeReport:
        """The modes of points drawn through the bundle, which are saved as a picture too."""
        bundle = self.run.with_suffix(".gsdk")
        if not bundle.exists():
            export_run(self.run, bundle)
        with Generator.load(bundle) as generator:
            samples = generator.sample(COUNT, seed=SAMPLING_SEED)
        samples.save(self.run.with_suffix(".png"))
        mixture = MIXTURES[DATA]
        return mixture_modes(samples.points, mixture.centers, mixture.sigma)


def rows_of(name: str, reports: Sequence[ModeReport]) -> Iterator[Row]:
    """Mean over the seeds, and the range; the gate holds where every seed keeps it."""
    measures = {
        "modes": [float(report.covered) for report in reports],
        "high quality": [report.high_quality for report in reports],
        "reverse KL": [report.reverse_kl for report in reports],
    }
    for measure, values in measures.items():
        gate = GATES.get((name, measure))
        verdicts = [gate(value) for value in values] if gate else []
        detail = f"{min(values):.4g} .. {max(values):.4g} over {len(values)} seed{'s' * (len(values) > 1)}"
        text, passed = (verdicts[0][0], all(passed for _, passed in verdicts)) if verdicts else ("", None)
        yield Row(name, measure, sum(values) / len(values), text, passed, detail)


def names(context: Any, parameter: Any, text: str | None) -> tuple[str, ...]:
    """Recipes with commas between."""
    chosen = tuple(text.split(",")) if text else tuple(RECIPES)
    for name in chosen:
        if name not in RECIPES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(RECIPES)}")
    return chosen


def numbers(context: Any, parameter: Any, text: str) -> tuple[int, ...]:
    """Seeds with commas between."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected seeds with commas between, got {text[:60]!r}") from None


@click.command(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/gaussians"), show_default=True)
@click.option("--only", callback=names, help="Models, with commas between. [default: all]")
@click.option("--seeds", callback=numbers, default=",".join(map(str, SEEDS)), show_default=True)
def main(runs: Path, only: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    rows: list[Row] = []
    record = []
    for name in only:
        reports = []
        for seed in seeds:
            subject = Subject(name, seed, runs.absolute())
            subject.train()
            reports.append(subject.judge())
            record.append({"model": name, "seed": seed, **reports[-1].to_dict()})
        rows += rows_of(name, reports)
    print_table(rows)
    written = {"rows": [asdict(row) for row in rows], "seeds": record}
    write_atomically(runs / "gaussians.json", (json.dumps(written, indent=2) + "\n").encode())
    click.echo(f"pictures and figures are in {runs}")
    sys.exit(1 if any(row.passed is False for row in rows) else 0)


if __name__ == "__main__":
    main()
