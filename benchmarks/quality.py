"""Likelihoods, classifier-FID and label accuracy of the zoo, against their gates.

Trains what RUNS does not hold yet (about 15 minutes on two cores), exports it, and samples from the bundles
through the runtime, as a user would. Prints one table, writes it as JSON, and exits with 1 on a missed gate.

    python benchmarks/quality.py --mnist FOLDER                # all
    python benchmarks/quality.py --only digits-ddpm            # one model
    python benchmarks/quality.py --embedded                    # the bundles that gensdk ships, no training
    python benchmarks/quality.py --only digits-ddpm --distill  # and students of 4, 2 and 1 steps
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

import click
import numpy as np
import torch
from recipes import RECIPES, Recipe
from rich.console import Console
from rich.table import Table

from gensdk_export.export import export_run
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.embedded import embedded_names
from gensdk_runtime.errors import BundleError, GensdkError
from gensdk_runtime.generator import Generator
from gensdk_runtime.manifest import SolverName, TimestepSpacing
from gensdk_training.data import Dataset
from gensdk_training.data.dataset import Split
from gensdk_training.families.vae import Vae
from gensdk_training.family import Batch
from gensdk_training.metrics.classifier import LabelledImages, cached_classifier, to_tensor
from gensdk_training.metrics.quality import ImageJudge, QualityReport
from gensdk_training.run import TrainedRun, load_run, train
from gensdk_training.torch_backend import torch_sessions

COUNT = 1440
"""Images for each FID: as many of each digit, and about as many as the training images behind the floor."""

SEEDS = range(5)
"""Seeds of COUNT images each, where two ways of sampling are compared: the same noise for both."""

STUDENTS = ((4, 4), (2, 2), (1, 2))
"""For each student the steps it samples in, and how many of its teacher's one of them stands for. The first one's
teacher is the model itself, each next one's is the student before it."""

STUDENT = {"prediction_type": "v_prediction", "steps": 1500, "learning_rate": 1e-3, "lr_schedule": "linear"}
"""How students are trained."""

GUIDANCE = 2.0
"""The guidance_scale at which label accuracy is measured."""

Gate = Callable[[float], tuple[str, bool]]


class SampleOptions(TypedDict, total=False):
    """What is varied of :meth:`Generator.sample`."""

    solver: SolverName
    num_inference_steps: int
    timestep_spacing: TimestepSpacing
    guidance_scale: float


FEW_STEPS = SampleOptions(solver="dpmsolver++", num_inference_steps=10, timestep_spacing="quadratic")
"""The best solver at 10 steps; docs/performance.md has the others."""


@dataclass(frozen=True)
class Row:
    """One measured value. `gate` is the bound as text; empty for a value that is only reported."""

    model: str
    measure: str
    value: float
    gate: str = ""
    passed: bool | None = None
    detail: str = ""


def at_most(bound: float) -> Gate:
    return lambda value: (f"<= {bound:.4g}", value <= bound)


def at_least(bound: float) -> Gate:
    return lambda value: (f">= {bound:.4g}", value >= bound)


def above(bound: float) -> Gate:
    return lambda value: (f"> {bound:.4g}", value > bound)


@dataclass(frozen=True)
class Subject:
    """One model to measure: its recipe, its data, and where its run, bundle and classifier lie."""

    name: str
    recipe: Recipe
    runs: Path
    mnist: Path | None
    embedded: bool
    distill: bool = False

    def row(self, measure: str, value: float, gate: Gate | None = None, detail: str = "") -> Row:
        """A row of this model."""
        value = float(value)
        text, passed = gate(value) if gate else ("", None)
        return Row(self.name, measure, value, text, passed, detail)

    def data(self, split: Split) -> Dataset:
        """One part of the recipe's data."""
        return self.recipe.run_config(self.mnist).data.load(split=split)

    @cached_property
    def judge(self) -> ImageJudge:
        """A classifier of the same data, trained once and kept with the runs, and its floor."""
        train_part, test_part = LabelledImages.of(self.data("train")), LabelledImages.of(self.data("test"))
        return ImageJudge(cached_classifier(train_part, self.runs / "classifiers"), train_part, test_part)

    def train(self) -> None:
        """Trains the run to its end; what is there already is continued, or left when it is complete."""
        if not self.embedded:
            run = self.runs / self.name
            train(self.recipe.run_config(self.mnist), run, resume=(run / "run.json").exists(), tensorboard=False)

    def generator(self) -> Generator:
        """The model as a user has it: its EMA weights in a bundle, run by the default backend."""
        if self.embedded:
            return Generator.load(self.name)
        bundle, run = self.runs / f"{self.name}.gsdk", self.runs / self.name
        trained = load_run(run)
        now = (trained.provenance, trained.family.export_plan(trained.networks).model)
        try:
            with Bundle.open(bundle) as opened:
                fresh = (opened.manifest.provenance, opened.manifest.model) == now
        except BundleError:
            fresh = False
        if not fresh:
            export_run(run, bundle)
        return Generator.load(bundle)

    def raw_generator(self) -> Generator:
        """The same model with the weights as the optimizer left them, as live torch modules."""
        return live_generator(load_run(self.runs / self.name, ema=False))

    def student(self, teacher: Path, steps: int, teacher_steps: int) -> Path:
        """The run of a student, trained to its end."""
        run = self.runs / f"{self.name}-{steps}-steps"
        more = {"distill_from": str(teacher), "distill_steps": steps, "teacher_steps": teacher_steps}
        config = replace(self.recipe, config={**self.recipe.config, **STUDENT, **more}).run_config(self.mnist)
        train(config, run, resume=(run / "run.json").exists(), tensorboard=False)
        return run


def live_generator(trained: TrainedRun) -> Generator:
    """A run's networks as live torch modules, without an export."""
    plan = trained.family.export_plan(trained.networks)
    return Generator.from_sessions(plan.model, torch_sessions(plan))


def sample_and_judge(
    subject: Subject, generator: Generator, seed: int = 0, **options: Unpack[SampleOptions]
) -> QualityReport:
    """COUNT samples, the classes in turn where the model has classes."""
    classes = generator.model.num_classes
    labels = np.arange(COUNT) % classes if classes else None
    label = None if labels is None else labels.tolist()
    samples = generator.sample(COUNT, seed=seed, label=label, **options)
    return subject.judge.measure(samples.images, labels)


def floor(subject: Subject) -> Iterator[Row]:
    """What the training images get in a generator's place, and how far the classifier can be trusted."""
    judge, data = subject.judge, subject.recipe.data
    yield Row(data, "classifier-FID, floor", judge.floor, detail="training against test images")
    yield Row(data, "classifier accuracy", judge.classifier_accuracy, detail=judge.classifier.extractor)


def measure_ddpm(subject: Subject) -> Iterator[Row]:
    with subject.generator() as generator:
        fids = {}
        for steps in (10, 20, 50, 200):
            report = sample_and_judge(subject, generator, num_inference_steps=steps)
            fids[steps] = report.fid
            gate = at_most(15) if steps == 50 else None
            yield subject.row(f"classifier-FID, DDIM {steps}", report.fid, gate, against(report))
        yield few_steps(subject, generator)
        if subject.distill:
            yield from measure_students(subject, generator)
        guided = sample_and_judge(subject, generator, num_inference_steps=50, guidance_scale=GUIDANCE)
    if not subject.embedded:
        with subject.raw_generator() as raw:
            fid = sample_and_judge(subject, raw, num_inference_steps=50).fid
        yield subject.row("classifier-FID, DDIM 50, raw weights", fid, above(fids[50]), "EMA must be better")
    detail = f"guidance_scale {GUIDANCE:g}, DDIM 50; FID then {guided.fid:.2f}"
    yield subject.row("label accuracy, guided", guided.label_accuracy or 0.0, at_least(0.95), detail)


def few_steps(subject: Subject, generator: Generator) -> Row:
    """The best solver at 10 steps against DDIM at 50, both from the noise of each of SEEDS.

    The difference is judged pair by pair: one seed's noise moves both distances together.
    """
    few, many = (
        np.array([sample_and_judge(subject, generator, seed, **options).fid for seed in SEEDS])
        for options in (FEW_STEPS, SampleOptions(solver="ddim", num_inference_steps=50))
    )
    difference = few - many
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    detail = (
        f"{FEW_STEPS['timestep_spacing']} spacing, {len(SEEDS)} seeds of {COUNT}; "
        f"minus DDIM 50: {difference.mean():+.3f} +- {error:.3f} (standard error)"
    )
    name = f"classifier-FID, {FEW_STEPS['solver']} {FEW_STEPS['num_inference_steps']}"
    return subject.row(name, few.mean(), at_most(float(many.mean())), detail)


def measure_students(subject: Subject, generator: Generator) -> Iterator[Row]:
    """Each student against its first teacher in as many steps of the best solver."""
    run = subject.runs / subject.name
    for steps, teacher_steps in STUDENTS:
        run = subject.student(run, steps, teacher_steps)
        with live_generator(load_run(run)) as student:
            report = sample_and_judge(subject, student)
        undistilled = SampleOptions(**{**FEW_STEPS, "num_inference_steps": steps})
        bound = sample_and_judge(subject, generator, **undistilled).fid
        name = f"classifier-FID, distilled {steps}"
        yield subject.row(name, report.fid, at_most(bound), f"the bound: not distilled; {against(report)}")


def measure_gan(subject: Subject) -> Iterator[Row]:
    with subject.generator() as generator:
        report = sample_and_judge(subject, generator)
    yield subject.row("classifier-FID", report.fid, at_most(25), against(report))
    yield subject.row("label accuracy", report.label_accuracy or 0.0, at_least(0.95))


def measure_pixelcnn(subject: Subject) -> Iterator[Row]:
    """Bits/dim of the test images, as p(x): for a model with classes the mean of p(x|y) over all y."""
    test = LabelledImages.of(subject.data("test"))
    pixels = math.prod(test.images.shape[1:])
    with subject.generator() as generator:
        classes = generator.model.num_classes
        labels: list[int | None] = list(range(classes)) if classes else [None]
        bits = np.stack([generator.log_likelihood(test.images, label=label) for label in labels])
        report = sample_and_judge(subject, generator)
    total = np.logaddexp2.reduce(-bits * pixels, axis=0) - np.log2(len(labels))
    detail = f"{len(test)} test images" + (f"; given the true label {given(bits, test):.3f}" if classes else "")
    yield subject.row("bits/dim", float(-total.mean() / pixels), at_most(1.95), detail)
    yield subject.row("classifier-FID", report.fid, detail=against(report))


def given(bits: np.ndarray, test: LabelledImages) -> float:
    """Mean bits/dim of each image under its own label, from `bits` [classes, n]."""
    return float(bits[test.labels, np.arange(len(test))].mean())


def measure_digits_vae(subject: Subject) -> Iterator[Row]:
    with subject.generator() as generator:
        report = sample_and_judge(subject, generator)
    yield subject.row("classifier-FID", report.fid, detail=against(report))


def measure_mnist_vae(subject: Subject) -> Iterator[Row]:
    """-ELBO in nats on all test images: Bernoulli likelihood with the grey values in [0, 1] as soft targets."""
    trained = load_run(subject.runs / subject.name)
    if not isinstance(trained.family, Vae):
        raise TypeError(f"{subject.name} is no vae")
    images = to_tensor(LabelledImages.of(subject.data("test")).images)
    with torch.inference_mode():
        torch.manual_seed(0)
        nats = torch.cat(
            [trained.family.negative_elbo(trained.networks, Batch(b)) for b in torch.split(images, 500)]
        )
    yield subject.row("-ELBO, nats", nats.mean().item(), at_most(106), f"{len(nats)} grey test images")


def against(report: QualityReport) -> str:
    accuracy = "" if report.label_accuracy is None else f"; label accuracy {report.label_accuracy:.3f}"
    return f"{report.count} samples against {report.reference_count} test images, not resized{accuracy}"


MEASURES: Mapping[str, Callable[[Subject], Iterator[Row]]] = {
    "digits-ddpm": measure_ddpm,
    "digits-dcgan": measure_gan,
    "digits-vae": measure_digits_vae,
    "digits-pixelcnn": measure_pixelcnn,
    "mnist-vae": measure_mnist_vae,
}


def print_table(rows: list[Row]) -> None:
    table = Table("model", "measure", "value", "gate", "", "detail", title="quality")
    for row in rows:
        verdict = {True: "pass", False: "MISSED", None: ""}[row.passed]
        table.add_row(row.model, row.measure, f"{row.value:.4g}", row.gate, verdict, row.detail)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def chosen(only: tuple[str, ...], mnist: Path | None, *, embedded: bool) -> list[str]:
    """The models to measure; says which are left out."""
    names = [name for name in MEASURES if not only or name in only]
    possible = embedded_names() if embedded else [n for n in names if mnist or RECIPES[n].data != "mnist"]
    for name in names:
        if name not in possible:
            why = "not embedded" if embedded else "needs --mnist FOLDER"
            click.echo(f"{name}: not measured ({why})", err=True)
    return [name for name in names if name in possible]


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/quality"), show_default=True)
@click.option("--mnist", type=click.Path(path_type=Path, exists=True), help="Folder with MNIST's idx files.")
@click.option("--only", multiple=True, type=click.Choice(list(MEASURES)), help="A model; may be repeated.")
@click.option("--embedded", is_flag=True, help="Measure the embedded bundles; train nothing.")
@click.option("--distill", is_flag=True, help="Train students of digits-ddpm too (about 10 minutes more).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Default: RUNS/quality.json.")
def main(
    *,
    runs: Path,
    mnist: Path | None,
    only: tuple[str, ...],
    embedded: bool,
    distill: bool,
    json_file: Path | None,
) -> None:
    start, rows = time.monotonic(), []
    if embedded and distill:
        raise click.UsageError("--distill needs a run to learn from; leave --embedded out")
    names = chosen(only, mnist, embedded=embedded)
    if not names:
        raise click.ClickException("nothing to measure")
    try:
        for name in names:
            subject = Subject(name, RECIPES[name], runs, mnist, embedded, distill)
            subject.train()
            rows += list(MEASURES[name](subject))
            if subject.recipe.data == "digits" and not any(row.model == "digits" for row in rows):
                rows += list(floor(subject))
    except GensdkError as failure:
        raise click.ClickException(str(failure)) from None
    print_table(rows)
    record = {
        "rows": [asdict(row) for row in rows],
        "seconds": time.monotonic() - start,
        "machine": this_machine().model_dump(mode="json"),
    }
    path = json_file or runs / "quality.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(f"written to {path}")
    missed = [row for row in rows if row.passed is False]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
