"""AnoGAN on MNIST: one digit is normal, the others are not; beside two baselines that need no GAN.

    python benchmarks/anomaly.py --mnist FOLDER --digit 0         # about three minutes on one core

Prints the area under the ROC curve (AUC) of the search for z, of the encoder alone, and of the baselines: the
distance to the mean of the training images, and the error of their first 32 principal components. Then the time of
one image in batches of 64 and one by one, interleaved. Ends with code 1 where the AUC of the search is below 0.85.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from gensdk_export.export import export_run
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.generator import Generator
from gensdk_training.data.load import load_data
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

GATE = 0.85
COMPONENTS = 32
ROUNDS = 5
CONFIG: dict[str, Any] = {
    "latent": 32,
    "generator_channels": 24,
    "discriminator_channels": 24,
    "encoder_channels": 16,
    "spectral_norm": True,
    "generator_learning_rate": 1e-3,
    "discriminator_learning_rate": 1e-3,
    "beta1": 0.0,
    "ema_decay": 0.995,
}

Images = NDArray[np.uint8]


def digits(mnist: Path, digit: int, each: int, seed: int = 0) -> tuple[Images, Images, NDArray[np.bool_]]:
    """Training images of `digit`; test images, about `each` of it and as many others; which of them are others."""
    parts = []
    for split in ("train", "test"):
        data = load_data(f"mnist:{mnist}", split=split)
        whole = data.batch(np.arange(len(data)))
        assert whole.labels is not None
        parts.append((whole.images, whole.labels))
    (images, labels), (tests, test_labels) = parts
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero((test_labels == digit) == normal))[:each] for normal in (True, False)]
    places = np.concatenate(chosen)
    return images[labels == digit], tests[places], test_labels[places] != digit


def auc(scores: NDArray[Any], odd: NDArray[np.bool_]) -> float:
    """The chance that an anomalous image scores above a normal one; ties count half."""
    above = scores[odd][:, None] > scores[~odd][None]
    same = scores[odd][:, None] == scores[~odd][None]
    return float(above.mean() + same.mean() / 2)


def baselines(normal: Images, tests: Images) -> dict[str, NDArray[np.float64]]:
    """The squared error of the mean image, and that of the projection on the principal components."""
    flat, given = (images.reshape(len(images), -1) / 127.5 - 1 for images in (normal, tests))
    mean = flat.mean(axis=0)
    _, _, components = np.linalg.svd(flat - mean, full_matrices=False)
    rest = given - mean
    projected = rest @ components[:COMPONENTS].T @ components[:COMPONENTS]
    return {
        "mean image": np.square(rest).sum(axis=1),
        f"PCA-{COMPONENTS}": np.square(rest - projected).sum(axis=1),
    }


def timed(generator: Generator, images: Images) -> dict[str, float]:
    """Seconds for each image of a batch of 64 and of single ones: the median of rounds that take turns."""
    batches, singles = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        generator.detect(images[:64], patience=0, progress=False)
        batches.append((time.perf_counter() - start) / len(images[:64]))
        start = time.perf_counter()
        for image in images[:4]:
            generator.detect(image[None], patience=0, progress=False)
        singles.append((time.perf_counter() - start) / len(images[:4]))
    batch, single = float(np.median(batches)), float(np.median(singles))
    return {"batch_64": batch, "one_by_one": single, "ratio": single / batch}


@click.command(help=__doc__)
@click.option("--mnist", type=click.Path(path_type=Path, exists=True), required=True, help="The four idx files.")
@click.option("--digit", type=click.IntRange(0, 9), default=0, show_default=True)
@click.option("--steps", type=int, default=900, show_default=True)
@click.option("--max-seconds", type=float, default=180.0, show_default=True, help="Of training.")
@click.option(
    "--tests", type=int, default=500, show_default=True, help="Test images of the digit, and of the others."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/anomaly"), show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(*, mnist: Path, digit: int, steps: int, max_seconds: float, tests: int, out: Path, as_json: bool) -> None:
    """Trains (or takes up) a run, exports it, and measures."""
    normal, given, odd = digits(mnist, digit, tests)
    out.mkdir(parents=True, exist_ok=True)
    data, run, bundle = out / f"mnist{digit}.npz", out / f"run{digit}", out / f"anogan{digit}.gsdk"
    np.savez_compressed(data, images=normal)
    try:
        settings = RunConfig(
            family="anogan",
            data=DataConfig(source=str(data)),
            config={**CONFIG, "steps": steps},
            preview_every=0,
        )
        started = time.perf_counter()
        trained = train(settings, run, resume=run.exists(), max_seconds=max_seconds, progress=False)
        seconds = time.perf_counter() - started
        export_run(run, bundle)
    except GensdkError as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)
    with Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        searched = generator.detect(given, progress=False)
        encoded = generator.detect(given, fast=True, progress=False)
        speed = timed(generator, given)
    areas = {"AnoGAN": auc(searched.scores, odd), "encoder alone": auc(encoded.scores, odd)}
    areas |= {name: auc(scores, odd) for name, scores in baselines(normal, given).items()}
    report = {
        "digit": digit,
        "steps": trained.step,
        "training_seconds": seconds,
        "auc": areas,
        "mean_search_steps": float(searched.inversion.steps.mean()),
        "seconds_each": speed,
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        for name, area in areas.items():
            print(f"{name:14} AUC {area:.3f}")
        print(
            f"{speed['batch_64'] * 1000:.1f} ms an image in batches of 64, {speed['one_by_one'] * 1000:.1f} ms "
            f"alone ({speed['ratio']:.1f} times); {trained.step} steps in {seconds:.0f} s"
        )
    sys.exit(0 if areas["AnoGAN"] >= GATE else 1)


if __name__ == "__main__":
    main()
