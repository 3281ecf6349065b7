"""Likelihoods, classifier-FID and label accuracy of models of images from noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from quality_subject import (
    COUNT,
    Entry,
    Subject,
    against,
    live_generator,
    sample_and_judge,
)
from recipes import RECIPES
from rows import Gate, Row, above, at_least, at_most

from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.settings import SampleOptions
from gensdk_training.families.vae import Vae
from gensdk_training.family import Batch
from gensdk_training.metrics.classifier import LabelledImages, to_tensor
from gensdk_training.run import load_run, train

PAIRED_SEEDS = range(5)
"""Seeds of COUNT images each, where two ways of sampling are compared: the same noise for both."""

STUDENTS = ((4, 4), (2, 2), (1, 2))
"""For each student the steps it samples in, and how many of its teacher's one of them stands for. The first one's
teacher is the model itself, each next one's is the student before it."""

STUDENT = {"prediction_type": "v_prediction", "steps": 1500, "learning_rate": 1e-3, "lr_schedule": "linear"}
"""How students are trained."""

GUIDANCE = 2.0
"""The guidance_scale at which label accuracy is measured."""

FEW_STEPS = SampleOptions(solver="dpmsolver++", num_inference_steps=10, timestep_spacing="quadratic")
"""The best solver at 10 steps; docs/performance.md has the others."""

FEW = (5, 10, 20)
"""Steps at which a flow is measured beside a ddpm of the same network and training."""

FLOW_STEPS = (
    SampleOptions(solver="euler", timestep_spacing="trailing"),
    SampleOptions(solver="dpmsolver++", timestep_spacing="trailing"),
)
"""How a flow is sampled; of all spacings this one is best for it at each number of steps, on training images."""

FLOW_GATES: Mapping[str, Mapping[int, Gate]] = {"digits": {10: at_most(15)}, "mnist": {}}
"""Bounds of its classifier-FID at some numbers of steps, on each data."""

REFLOW = {"steps": 1500, "learning_rate": 1e-3, "lr_schedule": "linear"}
"""How a flow is straightened."""


def measure_ddpm(subject: Subject) -> Iterator[Row]:
    with subject.generator() as generator:
        fids = {}
        for steps in (10, 20, 50, 200):
            report = sample_and_judge(subject, generator, num_inference_steps=steps)
            fids[steps] = report.fid
            gate = at_most(15) if steps == 50 else None
            yield subject.row(f"classifier-FID, DDIM {steps}", report.fid, gate, against(report))
        yield few_steps(subject, generator)
        yield from at_few_steps(subject, generator, FEW_STEPS)
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
    """The best solver at 10 steps against DDIM at 50, both from the noise of each of PAIRED_SEEDS.

    The difference is judged pair by pair: one seed's noise moves both distances together.
    """
    few, many = (
        np.array([sample_and_judge(subject, generator, seed, **options).fid for seed in PAIRED_SEEDS])
        for options in (FEW_STEPS, SampleOptions(solver="ddim", num_inference_steps=50))
    )
    difference = few - many
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    detail = (
        f"{FEW_STEPS['timestep_spacing']} spacing, {len(PAIRED_SEEDS)} seeds of {COUNT}; "
        f"minus DDIM 50: {difference.mean():+.3f} +- {error:.3f} (standard error)"
    )
    name = f"classifier-FID, {FEW_STEPS['solver']} {FEW_STEPS['num_inference_steps']}"
    return subject.row(name, few.mean(), at_most(float(many.mean())), detail)


def at_few_steps(
    subject: Subject,
    generator: Generator,
    options: SampleOptions,
    gates: Mapping[int, Gate] | None = None,
    counts: Sequence[int] = FEW,
    *,
    what: str = "",
) -> Iterator[Row]:
    """Classifier-FID in each number of steps, each from the noise of PAIRED_SEEDS. `what`: of a further model."""
    for steps in counts:
        drawn = SampleOptions(**{**options, "num_inference_steps": steps})
        fids = np.array([sample_and_judge(subject, generator, seed, **drawn).fid for seed in PAIRED_SEEDS])
        detail = (
            f"{drawn['timestep_spacing']} spacing, {len(fids)} seeds of {COUNT}; "
            f"+- {fids.std(ddof=1) / math.sqrt(len(fids)):.3f} (standard error)"
        )
        name = f"classifier-FID, {what and what + ', '}{drawn['solver']} {steps} steps"
        yield subject.row(name, fids.mean(), (gates or {}).get(steps), detail)


def measure_flow(subject: Subject) -> Iterator[Row]:
    """Few steps of Euler's method and of DPM-Solver++; the labels, guided."""
    with subject.generator() as generator:
        for options in FLOW_STEPS:
            yield from at_few_steps(subject, generator, options, FLOW_GATES[subject.recipe.data])
        guided = sample_and_judge(subject, generator, num_inference_steps=20, guidance_scale=GUIDANCE)
    detail = f"guidance_scale {GUIDANCE:g}, 20 steps; FID then {guided.fid:.2f}"
    yield subject.row("label accuracy, guided", guided.label_accuracy or 0.0, at_least(0.95), detail)


def measure_digits_flow(subject: Subject) -> Iterator[Row]:
    """As :func:`measure_flow`, and the same straightened: its one step against five of the flow's."""
    rows = list(measure_flow(subject))
    yield from rows
    if not subject.distill:
        return
    run = subject.run.with_name(f"{subject.run.name}-reflow")
    recipe = replace(subject.recipe, config={**subject.recipe.config, **REFLOW, "reflow_from": str(subject.run)})
    train(recipe.run_config(subject.mnist), run, resume=(run / "run.json").exists(), tensorboard=False)
    with live_generator(load_run(run)) as straight:
        gates = {1: at_most(rows[0].value)}
        yield from at_few_steps(subject, straight, FLOW_STEPS[0], gates, (1, 2, *FEW), what="reflow")


def measure_mnist_ddpm(subject: Subject) -> Iterator[Row]:
    """What the flow of MNIST is measured beside."""
    with subject.generator() as generator:
        yield from at_few_steps(subject, generator, FEW_STEPS)


def measure_students(subject: Subject, generator: Generator) -> Iterator[Row]:
    """Each student against its first teacher in as many steps of the best solver."""
    run = subject.run
    for steps, teacher_steps in STUDENTS:
        run = train_student(subject, run, steps, teacher_steps)
        with live_generator(load_run(run)) as student:
            report = sample_and_judge(subject, student)
        undistilled = SampleOptions(**{**FEW_STEPS, "num_inference_steps": steps})
        bound = sample_and_judge(subject, generator, **undistilled).fid
        name = f"classifier-FID, distilled {steps}"
        yield subject.row(name, report.fid, at_most(bound), f"the bound: not distilled; {against(report)}")


def train_student(subject: Subject, teacher: Path, steps: int, teacher_steps: int) -> Path:
    """The run of a student, trained to its end."""
    run = subject.run.with_name(f"{subject.run.name}-{steps}-steps")
    more = {"distill_from": str(teacher), "distill_steps": steps, "teacher_steps": teacher_steps}
    config = replace(subject.recipe, config={**subject.recipe.config, **STUDENT, **more})
    train(config.run_config(subject.mnist), run, resume=(run / "run.json").exists(), tensorboard=False)
    return run


def measure_gan(subject: Subject) -> Iterator[Row]:
    """Of a GAN, and of latent diffusion, with its default settings."""
    with subject.generator() as generator:
        report = sample_and_judge(subject, generator)
    yield subject.row("classifier-FID", report.fid, at_most(25), against(report))
    yield subject.row("label accuracy", report.label_accuracy or 0.0, at_least(0.95))


BITS_GATES: Mapping[str, Gate] = {"pixelcnn": at_most(1.95), "pixelrnn": at_most(1.80)}
"""Bounds of the bits/dim of digits, by family."""


def measure_pixels(subject: Subject) -> Iterator[Row]:
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
    gate = BITS_GATES[subject.recipe.family]
    yield subject.row("bits/dim", float(-total.mean() / pixels), gate, detail)
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
    trained = load_run(subject.run)
    if not isinstance(trained.family, Vae):
        raise TypeError(f"{subject.name} is no vae")
    images = to_tensor(LabelledImages.of(subject.data("test")).images)
    with torch.inference_mode():
        torch.manual_seed(0)
        nats = torch.cat(
            [trained.family.negative_elbo(trained.networks, Batch(b)) for b in torch.split(images, 500)]
        )
    yield subject.row("-ELBO, nats", nats.mean().item(), at_most(106), f"{len(nats)} grey test images")


MEASURES = {
    "digits-ddpm": measure_ddpm,
    "digits-flow": measure_digits_flow,
    "mnist-ddpm": measure_mnist_ddpm,
    "mnist-flow": measure_flow,
    "digits-ldm": measure_gan,
    "digits-dcgan": measure_gan,
    "digits-cgan": measure_gan,
    "digits-vae": measure_digits_vae,
    "digits-pixelcnn": measure_pixels,
    "digits-pixelrnn": measure_pixels,
    "mnist-vae": measure_mnist_vae,
}

SEVERAL_SEEDS = ("digits-cgan", "digits-pixelrnn")

ENTRIES = {
    name: Entry(RECIPES[name], measure, (0, 1, 2) if name in SEVERAL_SEEDS else (0,), name != "mnist-vae")
    for name, measure in MEASURES.items()
}
