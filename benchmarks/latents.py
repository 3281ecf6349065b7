"""An autoencoder against a VAE, a Gaussian mixture and a BiGAN; and what a semi-supervised GAN can tell apart.

Trains what RUNS does not hold yet, exports it, and works with the bundles through the runtime, as a user would:
the error of reconstructed and of completed test images, the classifier-FID of samples, the accuracy of a
classifier trained with few labels. Prints one table, writes it as JSON, and exits with 1 on a missed gate.

    python benchmarks/latents.py                               # digits
    python benchmarks/latents.py --mnist FOLDER                # all
    python benchmarks/latents.py --only digits-ae --only digits-plain-vae
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from quality import Row, Subject, above, at_most, floor, print_table, sample_and_judge
from recipes import LATENT_RECIPES

from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.generator import Generator
from gensdk_runtime.manifest import FeedforwardSpec
from gensdk_training.families.gmm import Gmm
from gensdk_training.family import Batch
from gensdk_training.metrics.classifier import LabelledImages, to_tensor
from gensdk_training.run import load_run

RECONSTRUCTION, COMPLETION = "reconstruction, RMSE", "completion of the right half, RMSE"
SAMPLES = "samples, classifier-FID"


def measure(subject: Subject) -> Iterator[Row]:
    """What the bundle of one model can do; errors are of values in [-1, 1]."""
    test = LabelledImages.of(subject.data("test"))
    real = to_tensor(test.images).numpy()
    with subject.generator() as generator:
        report = sample_and_judge(subject, generator)
        yield subject.row(SAMPLES, report.fid, detail=f"{report.count} samples, floor {report.floor:.2f}")
        program = generator.model.program
        assert isinstance(program, FeedforwardSpec)
        if program.encoder is not None:
            found = generator.reconstruct(real).array
            yield subject.row(RECONSTRUCTION, rmse(found, real), detail=f"{len(real)} test images")
            yield completed(subject, generator, real)
        if program.classifier is not None:
            right = generator.classify(test.images).argmax(axis=1) == test.labels
            labels = subject.recipe.config["labels"]
            detail = f"{labels} labels, {len(right)} test images"
            yield subject.row("classifier, test accuracy", float(right.mean()), detail=detail)
    trained = load_run(subject.runs / subject.name)
    if isinstance(trained.family, Gmm):
        nats = trained.family.negative_log_likelihood(trained.networks, Batch(torch.from_numpy(real)))
        yield subject.row("-log p(x) of test images, nats", float(nats.mean()), detail="a density in [-1, 1]")


def completed(subject: Subject, generator: Generator, real: NDArray[np.float32]) -> Row:
    """The error in the right half of images whose right half is missing; beside it that of the mean image."""
    mask = np.arange(real.shape[3]) < real.shape[3] // 2
    whole = np.broadcast_to(mask, real.shape[2:])
    found = generator.reconstruct(real, mask=whole).array
    mean = to_tensor(LabelledImages.of(subject.data("train")).images).numpy().mean(axis=0, keepdims=True)
    detail = f"the mean image: {rmse(np.broadcast_to(mean, real.shape)[..., ~mask], real[..., ~mask]):.3f}"
    return subject.row(COMPLETION, rmse(found[..., ~mask], real[..., ~mask]), detail=detail)


def rmse(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(np.subtract(a, b, dtype=np.float64)).mean()))


def autoencoder_against_vae(rows: list[Row]) -> Iterator[Row]:
    """The gates: what an autoencoder is better at than a VAE, and what it is worse at."""
    values = {(row.model, row.measure): row.value for row in rows}
    for name, bound in ((RECONSTRUCTION, at_most(1.0)), (SAMPLES, above(1.0))):
        pair = [values.get((model, name)) for model in ("digits-ae", "digits-plain-vae")]
        if pair[0] is not None and pair[1] is not None:
            text, passed = bound(pair[0] / pair[1])
            yield Row("digits-ae / plain-vae", name, pair[0] / pair[1], text, passed)


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/latents"), show_default=True)
@click.option("--mnist", type=click.Path(path_type=Path, exists=True), help="Folder with MNIST's idx files.")
@click.option("--only", multiple=True, type=click.Choice(list(LATENT_RECIPES)), help="A model; may be repeated.")
def main(*, runs: Path, mnist: Path | None, only: tuple[str, ...]) -> None:
    rows: list[Row] = []
    names = [name for name in only or LATENT_RECIPES if mnist or LATENT_RECIPES[name].data != "mnist"]
    try:
        for name in names:
            subject = Subject(name, LATENT_RECIPES[name], runs, mnist, embedded=False)
            subject.train()
            rows += list(measure(subject))
            if not any(row.model == subject.recipe.data for row in rows):
                rows += list(floor(subject))
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    rows += list(autoencoder_against_vae(rows))
    print_table(rows)
    record = {"rows": [asdict(row) for row in rows], "machine": this_machine().model_dump(mode="json")}
    path = runs / "latents.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(f"written to {path}")
    sys.exit(1 if any(row.passed is False for row in rows) else 0)


if __name__ == "__main__":
    main()
