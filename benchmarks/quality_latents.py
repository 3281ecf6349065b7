"""Models with a latent for each image: how well they find it again, what is missing in it, and what it is.

An autoencoder against a VAE and a Gaussian mixture; BiGAN; GLO and GON, which find a latent by gradients, against
as many principal components; and what a semi-supervised GAN can tell apart with few labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from quality_subject import Entry, Subject, sample_and_judge
from recipes import LATENT_RECIPES
from rows import Row, above, at_least, at_most
from sklearn.decomposition import PCA
from torch.nn import functional

from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import FeedforwardSpec
from gensdk_training.families.gmm import Gmm
from gensdk_training.families.sgan import Classifier, Sgan, SganConfig
from gensdk_training.family import Batch
from gensdk_training.metrics.classifier import LabelledImages, to_tensor
from gensdk_training.run import load_run

SEEDS = (0, 1, 2)
FOUND = 1000
"""Test images that are found again, at most."""
RECONSTRUCTION, COMPLETION = "reconstruction, RMSE", "completion of the right half, RMSE"
SAMPLES = "samples, classifier-FID"
BASELINE_STEPS = 600
PLAIN: dict[str, Any] = {
    **{"architecture": "conv", "classifier_channels": 24, "weight_norm": False, "learning_rate": 1e-3},
    **{"noise": 0.15, "feature_noise": 0.0, "dropout": 0.3},
}
"""The other network that learns from sgan's labelled images alone: with so few, convolutions are the better
guess."""


def measure_latents(subject: Subject) -> Iterator[Row]:
    """What the bundle of one model can do; errors are of values in [-1, 1]."""
    test = LabelledImages.of(subject.data("test"))
    real = to_tensor(test.images).numpy()
    with subject.generator() as generator:
        report = sample_and_judge(subject, generator)
        yield subject.row(SAMPLES, report.fid, detail=f"{report.count} samples, floor {report.floor:.2f}")
        program = generator.model.program
        encodes = isinstance(program, FeedforwardSpec) and program.encoder is not None
        if encodes or generator.model.inversion is not None:
            yield from found_again(subject, generator, real[:FOUND])
        if encodes:
            yield completed(subject, generator, real)
        if isinstance(program, FeedforwardSpec) and program.classifier is not None:
            yield from classified(subject, generator, test)
    trained = load_run(subject.run)
    if isinstance(trained.family, Gmm):
        nats = trained.family.negative_log_likelihood(trained.networks, Batch(torch.from_numpy(real)))
        yield subject.row("-log p(x) of test images, nats", float(nats.mean()), detail="a density in [-1, 1]")


def found_again(subject: Subject, generator: Generator, real: NDArray[np.float32]) -> Iterator[Row]:
    """The error of reconstructed test images; beside it that of as many principal components."""
    found = generator.reconstruct(real).array
    yield subject.row(RECONSTRUCTION, rmse(found, real), detail=f"{len(real)} test images")
    latent = int(subject.recipe.config["latent"])
    flat = real.reshape(len(real), -1)
    known = to_tensor(LabelledImages.of(subject.data("train")).images).numpy()
    pca = PCA(latent, random_state=0).fit(known.reshape(len(known), -1))
    again = pca.inverse_transform(pca.transform(flat)).astype(np.float32)
    yield subject.row(f"reconstruction by PCA-{latent}, RMSE", rmse(again, flat), detail="a baseline, linear")


def completed(subject: Subject, generator: Generator, real: NDArray[np.float32]) -> Row:
    """The error in the right half of images whose right half is missing; beside it that of the mean image."""
    mask = np.arange(real.shape[3]) < real.shape[3] // 2
    whole = np.broadcast_to(mask, real.shape[2:])
    found = generator.reconstruct(real, mask=whole).array
    mean = to_tensor(LabelledImages.of(subject.data("train")).images).numpy().mean(axis=0, keepdims=True)
    detail = f"the mean image: {rmse(np.broadcast_to(mean, real.shape)[..., ~mask], real[..., ~mask]):.3f}"
    return subject.row(COMPLETION, rmse(found[..., ~mask], real[..., ~mask]), detail=detail)


def classified(subject: Subject, generator: Generator, test: LabelledImages) -> Iterator[Row]:
    """The classifier's accuracy; the gate is what the same network, or a convolutional one, gets from the same
    labels and nothing else."""
    right = generator.classify(test.images).argmax(axis=1) == test.labels
    labels = subject.recipe.config["labels"]
    alone = alone_with_its_labels(subject, test)
    detail = f"{labels} labels, {len(right)} test images; without the others {alone:.3f}"
    yield subject.row("classifier, test accuracy", float(right.mean()), at_least(alone), detail)


def alone_with_its_labels(subject: Subject, test: LabelledImages) -> float:
    """The best test accuracy of the classifiers that learn from sgan's labelled images alone."""
    trained = load_run(subject.run)
    told, config = trained.networks["classifier"], trained.family.config.model_dump(mode="json")
    assert isinstance(told, Classifier)
    found = []
    for changed in ({}, PLAIN):
        family = Sgan(SganConfig.from_dict({**config, **changed}, what="baseline"), trained.data_info)
        torch.manual_seed(subject.recipe.seed)
        network = family.build_networks()["classifier"]
        assert isinstance(network, Classifier)
        network.images, network.labels = told.images, told.labels
        found.append(supervised_accuracy(network, family.config.learning_rate, test))
    return max(found)


def supervised_accuracy(network: Classifier, learning_rate: float, test: LabelledImages) -> float:
    """The test accuracy of `network` when it learns from its labelled images."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    network.train()
    for step in range(BASELINE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / BASELINE_STEPS)
        images, labels = network.labelled(64)
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        predicted = torch.cat([network(part).argmax(dim=1) for part in to_tensor(test.images).split(500)])
    return float((predicted.numpy() == test.labels).mean())


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


ENTRIES = {
    name: Entry(
        recipe, measure_latents, SEEDS if name in {"digits-ae", "digits-plain-vae", "digits-gmm"} else (0,), True
    )
    for name, recipe in LATENT_RECIPES.items()
}
