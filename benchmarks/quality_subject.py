"""A model whose quality is measured: trained by its recipe, sampled from its bundle, judged by a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Unpack

from recipes import Recipe
from rows import Gate, Row

from gensdk_export.export import export_run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BundleError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.settings import SampleOptions
from gensdk_training.data import Dataset
from gensdk_training.data.dataset import Split
from gensdk_training.evaluation.labels import chosen_of
from gensdk_training.evaluation.subject import Reference, draw, open_reference
from gensdk_training.metrics.classifier import LabelledImages, cached_classifier
from gensdk_training.metrics.quality import ImageJudge, QualityReport
from gensdk_training.run import TrainedRun, load_run, train
from gensdk_training.run_config import RunConfig
from gensdk_training.torch_backend import torch_sessions

COUNT = 1440
"""Images for each FID: about as many as the training images behind the floor."""


@dataclass(frozen=True)
class Subject:
    """One model of one seed: its recipe, its data, and where its run, bundle and classifier lie."""

    name: str
    recipe: Recipe
    runs: Path
    mnist: Path | None
    embedded: bool = False
    distill: bool = False
    chorales: Path | None = None
    spoken_digits: Path | None = None
    captions: Path | None = None
    faces: Path | None = None

    @property
    def drawn_faces(self) -> Path:
        """The folder with the drawn faces."""
        if self.faces is None:
            raise InputError("where are the drawn faces? Give --drawn-faces, what benchmarks/drawn_faces.py wrote")
        return self.faces

    @property
    def config(self) -> RunConfig:
        """The run of its recipe."""
        given = (self.mnist, self.chorales, self.spoken_digits, self.captions)
        return self.recipe.run_config(*given, drawn_faces=self.faces)

    def row(self, measure: str, value: float, gate: Gate | None = None, detail: str = "") -> Row:
        """A row of this model."""
        value = float(value)
        text, passed = gate(value) if gate else ("", None)
        return Row(self.name, measure, value, text, passed, detail)

    def data(self, split: Split) -> Dataset:
        """One part of the recipe's data."""
        return self.config.data.load(split=split)

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.runs / (f"{self.name}-seed{self.recipe.seed}" if self.recipe.seed else self.name)

    @property
    def bundle(self) -> Path:
        """Its bundle."""
        return self.run.with_name(self.run.name + ".gsdk")

    @property
    def source(self) -> str:
        """Its bundle, or the name of the embedded one, as :func:`evaluate` takes it."""
        return self.name if self.embedded else str(self.bundle)

    @cached_property
    def judge(self) -> ImageJudge:
        """A classifier of the same data, trained once and kept with the runs, and its floor."""
        train_part, test_part = LabelledImages.of(self.data("train")), LabelledImages.of(self.data("test"))
        chosen = chosen_of(self.data("train"), COUNT, 0)
        some = LabelledImages(train_part.images[chosen], train_part.labels[chosen])
        return ImageJudge(cached_classifier(train_part, self.runs / "classifiers"), some, test_part)

    def reference(self, generator: Generator) -> Reference:
        """The data as ``gensdk evaluate`` has them for the model of `generator`."""
        return open_reference(generator.model, self.config.data)

    def train(self) -> None:
        """Trains the run to its end; what is there already is continued, or left when it is complete."""
        if not self.embedded:
            resume = (self.run / "run.json").exists()
            train(self.config, self.run, resume=resume, tensorboard=False)

    def generator(self) -> Generator:
        """The model as a user has it: its EMA weights in a bundle, run by the default backend."""
        if self.embedded:
            return Generator.load(self.name)
        trained = load_run(self.run)
        now = (trained.provenance, trained.family.export_plan(trained.networks).model)
        try:
            with Bundle.open(self.bundle) as opened:
                fresh = (opened.manifest.provenance, opened.manifest.model) == now
        except BundleError:
            fresh = False
        if not fresh:
            export_run(self.run, self.bundle)
        return Generator.load(self.bundle)

    def raw_generator(self) -> Generator:
        """The same model with the weights as the optimizer left them, as live torch modules."""
        return live_generator(load_run(self.run, ema=False))


Measure = Callable[[Subject], Iterator[Row]]


@dataclass(frozen=True)
class Entry:
    """What is measured of a recipe, and with which seeds it is trained. `judged`: by a classifier of the data,
    whose floor belongs beside it."""

    recipe: Recipe
    measure: Measure
    seeds: tuple[int, ...] = (0,)
    judged: bool = False


def live_generator(trained: TrainedRun) -> Generator:
    """A run's networks as live torch modules, without an export."""
    plan = trained.family.export_plan(trained.networks)
    return Generator.from_sessions(plan.model, torch_sessions(plan))


def sample_and_judge(
    subject: Subject, generator: Generator, seed: int = 0, **options: Unpack[SampleOptions]
) -> QualityReport:
    """COUNT samples as ``gensdk evaluate`` draws them: the classes in the shares of the training images."""
    reference = subject.reference(generator)
    drawn = draw(generator, reference, COUNT, seed, progress=False, **options)
    reference.close()
    return subject.judge.measure(drawn.samples.images, drawn.labels)


def floor(subject: Subject) -> Iterator[Row]:
    """What the training images get in a generator's place, and how far the classifier can be trusted."""
    judge, data = subject.judge, subject.recipe.data
    yield Row(data, "classifier-FID, floor", judge.floor, detail="training against test images")
    yield Row(data, "classifier accuracy", judge.classifier_accuracy, detail=judge.classifier.extractor)


def against(report: QualityReport) -> str:
    accuracy = "" if report.label_accuracy is None else f"; label accuracy {report.label_accuracy:.3f}"
    return f"{report.count} samples against {report.reference_count} test images, not resized{accuracy}"
