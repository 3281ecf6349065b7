"""How good translations are, each family beside its baselines: one table, and a grid of pictures for each run.

Trains what RUNS does not hold yet (each model takes up to 15 minutes on two cores), exports it, and translates
images that no training saw through the runtime, as a user would. DATA is a folder with emoji_pairs/, mnist/ and
dcss_tiles32/.

    python benchmarks/translation.py --data DATA                # all
    python benchmarks/translation.py --data DATA --only pix2pix,pix2pix-l1,pix2pix-gan
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rows import Row, at_least, at_most, print_table
from translation_recipes import EMOJI, MNIST, RECIPES, TranslationRecipe

from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_pixels import resize
from gensdk_runtime.media.images import encode_image, image_grid, write_atomically
from gensdk_training.data import Dataset, load_data
from gensdk_training.data.classes import as_classes
from gensdk_training.data.dataset import Split
from gensdk_training.examples import Examples
from gensdk_training.metrics.classifier import ImageClassifier, LabelledImages, cached_classifier, to_tensor
from gensdk_training.metrics.fid import feature_statistics, frechet_distance
from gensdk_training.networks.srresnet import shrink
from gensdk_training.run import load_run, train

Images = NDArray[np.uint8]
COUNT = 1000
"""Test images that are enlarged, at most."""
PICTURED = 24


@dataclass(frozen=True)
class Subject:
    """One run: its recipe, and where data and runs lie."""

    name: str
    data: Path
    runs: Path

    @property
    def recipe(self) -> TranslationRecipe:
        """How it is trained."""
        return RECIPES[self.name]

    def row(self, measure: str, value: float, gate: Any = None, detail: str = "") -> Row:
        """A row of this model."""
        text, passed = gate(float(value)) if gate else ("", None)
        return Row(self.name, measure, float(value), text, passed, detail)

    def train(self) -> None:
        """Trains the run to its end; what is there already is continued, or left when it is complete."""
        if self.recipe.start_from is not None:
            Subject(self.recipe.start_from, self.data, self.runs).train()
        more = {}
        if self.recipe.family == "srgan" and self.recipe.config["objective"] == "gan":
            judge_of_enlarged(self)
            more["extractor"] = str(next(enlarged_folder(self).rglob("*.safetensors")).absolute())
        config, run = self.recipe.run_config(self.data, self.runs, **more), self.runs / self.name
        train(config, run, resume=(run / "run.json").exists(), tensorboard=False)

    @cached_property
    def generator(self) -> Generator:
        """The model as a user has it: in a bundle with bytes in and out, run by the default backend."""
        bundle = self.runs / f"{self.name}.gsdk"
        if not bundle.exists():
            export_run(self.runs / self.name, bundle, ExportOptions(fp16=True))
        return Generator.load(bundle)

    def test(self) -> Dataset:
        """What no training saw."""
        return self.recipe.data(self.data).load(split="test")

    def translate(self, images: Images) -> Images:
        """uint8 [n, H, W, C] through the bundle."""
        parts = [self.generator.translate(images[i : i + 64]) for i in range(0, len(images), 64)]
        return np.concatenate([np.asarray(part) for part in parts])

    def picture(self, sources: Images, results: Images, targets: Images | None) -> None:
        """Saves a grid beside the run."""
        shown = np.linspace(0, len(sources) - 1, min(PICTURED, len(sources))).astype(int)
        examples = Examples(sources[shown], None if targets is None else targets[shown])
        save_grid(examples.picture(results[shown]), self)


def save_grid(grid: Images, subject: Subject) -> None:
    """Saves a picture beside the run of `subject`."""
    path = subject.runs / f"{subject.name}.png"
    write_atomically(path, encode_image(grid, ".png", {"model": subject.name}))


def classifier(
    data: str, folder: Path, labels: str, holdout: float, channels: int | None = None
) -> tuple[ImageClassifier, LabelledImages]:
    """A classifier of these images, trained once, and the images that it did not see."""

    def part(split: Split) -> Dataset:
        return load_data(data, labels=labels, holdout=holdout, split=split, channels=channels)

    train, test = part("train"), part("test")
    alike = as_classes(test, train.info.class_names or ())  # a class may have no image in the test part
    return cached_classifier(LabelledImages.of(train), folder / "classifiers"), LabelledImages.of(alike)


def enlarged_folder(subject: Subject) -> Path:
    """Where the classifier of the images that `subject` enlarges is kept."""
    return subject.runs / ("mnist" if subject.recipe.images == MNIST else "sprites")


def judge_of_enlarged(subject: Subject) -> ImageClassifier:
    """The classifier of the images that `subject` enlarges; its features are a loss of SRGAN too."""
    recipe, folder = subject.recipe, enlarged_folder(subject)
    if recipe.images == MNIST:
        return classifier(f"mnist:{subject.data / MNIST}", folder, "auto", 0.0)[0]
    return classifier(str(subject.data / recipe.images), folder, "category", recipe.holdout, recipe.channels)[0]


def feature_distance(judge: ImageClassifier, results: Images, real: Images) -> float:
    """Fréchet distance of the classifier's features."""
    return frechet_distance(feature_statistics(judge.features(results)), feature_statistics(judge.features(real)))


def measure_pix2pix(subject: Subject) -> Iterator[Row]:
    """Mean absolute difference from the real answers, and how real the answers look."""
    test = subject.test()
    assert test.sources is not None
    indices = np.arange(len(test))
    targets, sources = test.batch(indices).images, test.sources.batch(indices).images
    results = subject.translate(sources)
    judge, _ = classifier(f"{subject.data / EMOJI}:color", subject.runs, "group", subject.recipe.holdout)
    subject.picture(sources, results, targets)
    yield subject.row(
        "L1, of 255", np.abs(results.astype(float) - targets).mean(), detail=f"{len(test)} test images"
    )
    detail = "features of a classifier of the emoji's groups"
    yield subject.row("feature distance", feature_distance(judge, results, targets), detail=detail)


def measure_cyclegan(subject: Subject) -> Iterator[Row]:
    """How well the way back finds the source, and how real the results look."""
    test = subject.test()
    assert test.sources is not None
    sources, real = (data.batch(np.arange(len(data))).images for data in (test.sources, test))
    results = subject.translate(sources)
    inverse = load_run(subject.runs / subject.name).networks["inverse"]
    with torch.inference_mode():
        back = torch.cat([inverse(to_tensor(results[i : i + 32])) for i in range(0, len(results), 32)])
    error = float((back - to_tensor(sources)).abs().mean()) * 127.5
    subject.picture(sources, results, None)
    yield subject.row("reconstruction L1, of 255", error, detail=f"{len(sources)} test images, F(G(x))")
    judge, _ = classifier(f"{subject.data / EMOJI}:color", subject.runs, "group", subject.recipe.holdout)
    yield subject.row("feature distance to the style", feature_distance(judge, results, real))
    yield subject.row(
        "feature distance of the sources", feature_distance(judge, sources, real), detail="untranslated"
    )


def measure_stargan(subject: Subject) -> Iterator[Row]:
    """Images of each domain in each other one: how near they come to its real ones. The picture has the source,
    then one column for each domain."""
    test = subject.test()
    batch, names = test.batch(np.arange(len(test))), test.info.class_names or ()
    assert batch.labels is not None
    judge, _ = classifier(f"{subject.data / EMOJI}:color", subject.runs, "group", subject.recipe.holdout)
    shown = [batch.images]
    for target, name in enumerate(names):
        others = batch.images[batch.labels != target]
        results = np.asarray(subject.generator.translate(others, label=[target] * len(others)))
        real = batch.images[batch.labels == target]
        before = feature_distance(judge, others, real)
        detail = f"{len(others)} test images of the other domains; untranslated {before:.4g}"
        yield subject.row(f"feature distance to {name}", feature_distance(judge, results, real), detail=detail)
        shown.append(np.asarray(subject.generator.translate(batch.images, label=[target] * len(batch.images))))
    chosen = np.linspace(0, len(test) - 1, PICTURED).astype(int)
    save_grid(image_grid(np.concatenate(shown, axis=2)[chosen], columns=6), subject)


def measure_srgan(subject: Subject) -> Iterator[Row]:
    """PSNR and features against bicubic enlargement."""
    test, scale = subject.test(), subject.recipe.config["scale"]
    targets = test.batch(np.arange(min(COUNT, len(test)))).images
    small = Examples.of(shrink(to_tensor(targets), scale), None).sources
    results = subject.translate(small)
    bicubic = np.stack([enlarge(image, scale) for image in small])
    subject.picture(small, results, targets)
    judge = judge_of_enlarged(subject)
    gain = psnr(results, targets) - psnr(bicubic, targets)
    gate = at_least(4.0) if subject.name == "srresnet" else None
    yield subject.row("PSNR in dB", psnr(results, targets), detail=f"{len(targets)} test images")
    yield subject.row("PSNR over bicubic, dB", gain, gate, detail=f"bicubic {psnr(bicubic, targets):.2f}")
    yield subject.row("feature distance", feature_distance(judge, results, targets))
    yield subject.row("feature distance of bicubic", feature_distance(judge, bicubic, targets))


def enlarge(image: Images, scale: int) -> Images:
    """Bicubic (a = -0.5, as in the literature)."""
    return resize(image, image.shape[0] * scale, image.shape[1] * scale)


def psnr(images: Images, targets: Images) -> float:
    """In dB over all pixels, peak 255."""
    error = np.square(images.astype(float) - targets).mean()
    return float(10 * np.log10(255**2 / error))


MEASURES = {
    "pix2pix": measure_pix2pix,
    "cyclegan": measure_cyclegan,
    "stargan": measure_stargan,
    "srgan": measure_srgan,
}


def compared(rows: list[Row]) -> Iterator[Row]:
    """What a family promises against its baselines, where both were measured."""
    found = {(row.model, row.measure): row.value for row in rows}
    for name, baseline, measure, gate in (
        ("pix2pix", "pix2pix-gan", "L1, of 255", at_most),
        ("pix2pix", "pix2pix-l1", "feature distance", at_most),
        ("cyclegan", "cyclegan-without-cycle", "reconstruction L1, of 255", at_most),
        ("srgan", "srresnet", "feature distance", at_most),
        ("srgan-x2", "srresnet-x2", "feature distance", at_most),
    ):
        mine, theirs = found.get((name, measure)), found.get((baseline, measure))
        if mine is not None and theirs is not None:
            text, passed = gate(theirs)(mine)
            yield Row(name, f"{measure}, against {baseline}", mine, text, passed)


def names(context: Any, parameter: Any, text: str | None) -> tuple[str, ...]:
    """Recipes with commas between."""
    chosen = tuple(text.split(",")) if text else tuple(RECIPES)
    for name in chosen:
        if name not in RECIPES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(RECIPES)}")
    return chosen


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/translation"), show_default=True)
@click.option("--only", callback=names, help="Recipes, with commas between. [default: all]")
def main(data: Path, runs: Path, only: tuple[str, ...]) -> None:
    rows: list[Row] = []
    for name in only:
        subject = Subject(name, data.absolute(), runs.absolute())
        subject.train()
        rows += MEASURES[subject.recipe.family](subject)
    rows += compared(rows)
    print_table(rows)
    write_atomically(runs / "translation.json", json.dumps([asdict(row) for row in rows], indent=2).encode())
    click.echo(f"pictures and figures are in {runs}")
    sys.exit(1 if any(row.passed is False for row in rows) else 0)


if __name__ == "__main__":
    main()
