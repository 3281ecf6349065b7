"""How long the search for a latent takes, for each image: in batches, one by one, and as PyTorch does it.

RUN is a finished run of anogan (``benchmarks/quality.py --only mnist-anogan-0`` leaves one). Every way makes the
same Adam steps from where the encoder puts the same images, all take turns, and the largest difference of their
scores is printed too. One by one in PyTorch, with autograd in every step, is how AnoGAN is commonly run.

    python benchmarks/inversion.py runs/quality/mnist-anogan-0 --mnist FOLDER
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from numpy.typing import NDArray

from gensdk_export.export import export_run
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.generator import Generator
from gensdk_training.data import load_data
from gensdk_training.families.anogan import Anogan, AnomalyScore, Features
from gensdk_training.metrics.classifier import LabelledImages, to_tensor
from gensdk_training.networks.gan_networks import ConvDiscriminator
from gensdk_training.run import TrainedRun, load_run

Images = NDArray[np.uint8]
Scores = NDArray[np.floating]
RATE = 0.05


def by_runtime(generator: Generator, images: Images, steps: int) -> Scores:
    """The scores of one call."""
    options: dict[str, Any] = {
        "patience": 0,
        "lr_schedule": "linear",
        "learning_rate": RATE,
        "progress": False,
    }
    return generator.detect(images, num_inference_steps=steps, **options).scores


def by_torch(trained: TrainedRun, images: Images, steps: int) -> Scores:
    """The same search with autograd and torch.optim.Adam: the best score of each image on its way."""
    networks = trained.networks
    features = Features(cast(ConvDiscriminator, networks["discriminator"]).body)
    family = trained.family
    assert isinstance(family, Anogan)
    score = AnomalyScore(networks["generator"], features, family.config.feature_weight)
    target = to_tensor(images)
    with torch.no_grad():
        wanted = features(target)
        z = networks["encoder"](target)
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    best = torch.full((len(images),), torch.inf)
    for _ in range(steps):
        scores = score(z, target, wanted)
        best = torch.minimum(best, scores.detach())
        (z.grad,) = torch.autograd.grad(scores.sum(), z)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return torch.minimum(best, score(z, target, wanted)).numpy()


def one_by_one(search: Callable[[Images], Scores], images: Images) -> Scores:
    """A call for each image."""
    return np.concatenate([search(image[None]) for image in images])


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--mnist", type=click.Path(path_type=Path, exists=True), required=True, help="The four idx files.")
@click.option("--batch", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option("--singles", type=click.IntRange(1, 64), default=4, show_default=True, help="Images, one by one.")
@click.option("--steps", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=7, show_default=True)
@click.option("--threads", type=int, help="CPU threads of every way. [default: as many as cores]")
@click.option("--json", "as_json", is_flag=True)
def main(**options: Any) -> None:
    """Measures."""
    trained = load_run(options["run"])
    bundle = options["run"].with_name(options["run"].name + ".gsdk")
    if not bundle.exists():
        export_run(options["run"], bundle)
    tests = LabelledImages.of(load_data(f"mnist:{options['mnist']}", split="test"))
    images, few = tests.images[: options["batch"]], tests.images[: options["singles"]]
    steps, threads = options["steps"], options["threads"] or torch.get_num_threads()
    torch.set_num_threads(threads)
    for network in trained.networks.values():
        network.eval().requires_grad_(requires_grad=False)
    with Generator.load(bundle, backend="onnxruntime", threads=threads) as generator:

        def ours(given: Images) -> Scores:
            return by_runtime(generator, given, steps)

        def theirs(given: Images) -> Scores:
            return by_torch(trained, given, steps)

        ways: dict[str, tuple[Callable[[], Scores], int]] = {
            f"gensdk, batch of {len(images)}": (lambda: ours(images), len(images)),
            "gensdk, one by one": (lambda: one_by_one(ours, few), len(few)),
            f"PyTorch, batch of {len(images)}": (lambda: theirs(images), len(images)),
            "PyTorch, one by one": (lambda: one_by_one(theirs, few), len(few)),
        }
        seconds, scores = in_turn(ways, options["rounds"])
    report(seconds, scores, as_json=options["as_json"])


def in_turn(
    ways: dict[str, tuple[Callable[[], Scores], int]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Scores]]:
    """Seconds for each image of every way, round by round after one that warms up; and the scores."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {name: search() for name, (search, _) in ways.items()}
    for _ in range(rounds):
        for name, (search, count) in ways.items():
            start = time.perf_counter()
            search()
            seconds[name].append((time.perf_counter() - start) / count)
    return seconds, scores


def report(seconds: dict[str, list[float]], scores: dict[str, Scores], *, as_json: bool) -> None:
    """Medians, and how many times the first way is faster, round by round."""
    first, first_scores = next(iter(seconds.values())), next(iter(scores.values()))
    found = {}
    for name, values in seconds.items():
        ratios = np.array(values) / np.array(first)
        count = min(len(scores[name]), len(first_scores))
        apart = np.abs(scores[name][:count] / first_scores[:count] - 1).max()
        low, middle, high = (float(value) for value in np.quantile(ratios, (0, 0.5, 1)))
        found[name] = {
            "milliseconds": 1e3 * float(np.median(values)),
            "times": middle,
            "range": [low, high],
            "scores_apart": float(apart),
        }
        if not as_json:
            print(
                f"{name:22} {found[name]['milliseconds']:8.2f} ms an image, {middle:6.2f} times the first "
                f"({low:.2f} .. {high:.2f}); scores apart by {apart:.1e} of their size"
            )
    if as_json:
        print(json.dumps({"ways": found, "machine": this_machine().model_dump(mode="json")}, indent=2))


if __name__ == "__main__":
    main()
