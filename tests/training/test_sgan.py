"""Laws of the semi-supervised GAN: K + 1 classes from K logits, and which labels it looks at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_training.checkpoint import checkpoint_paths
from gensdk_training.families.sgan import AS_IT_WAS, Classifier, Sgan, SganConfig, log_fake, log_real
from gensdk_training.family import Batch, DataInfo
from gensdk_training.run import load_run, train
from gensdk_training.run_config import read_run_config
from support.tiny import tiny_run

DATA = DataInfo(name="x", channels=1, height=8, width=8, count=60, num_classes=3)


def _family(**config: Any) -> tuple[Sgan, dict[str, Any]]:
    settings = {"labels": 12, "latent": 4, "generator_hidden": [8], "classifier_hidden": [16, 8], **config}
    family = Sgan(SganConfig.from_dict(settings, what="config"), DATA)
    torch.manual_seed(0)
    return family, family.build_networks()


def _batch(count: int) -> Batch:
    levels = torch.randint(0, 256, (count, 1, 8, 8))
    return Batch(levels / 127.5 - 1, torch.arange(count) // 2 % 3)


def test_k_logits_are_k_plus_one_classes() -> None:
    logits = 30 * torch.randn(50, 4, dtype=torch.float64)
    odds = torch.log_softmax(torch.cat((logits, torch.zeros(50, 1)), dim=1), dim=1)
    torch.testing.assert_close(log_fake(logits), odds[:, -1])
    torch.testing.assert_close(log_real(logits), torch.logsumexp(odds[:, :-1], dim=1))
    assert torch.isfinite(log_real(torch.tensor([[-1e4, -1e4], [1e4, 1e4]]))).all()


def test_as_many_images_of_each_class_are_labelled_as_they_are() -> None:
    family, networks = _family(labels=14)
    batch = _batch(60)
    family.look(networks, lambda count: batch)
    classifier = networks["classifier"]
    assert isinstance(classifier, Classifier)
    assert torch.bincount(classifier.labels).tolist() == [4, 4, 4]
    images, labels = classifier.labelled(200)
    assert set(labels.tolist()) == {0, 1, 2}
    assert batch.labels is not None
    for image, label in zip(images, labels, strict=True):
        same = (batch.images - image).abs().flatten(1).amax(dim=1) < 1e-5
        assert batch.labels[same].tolist() == [int(label)]


def test_other_labels_change_nothing_but_the_log() -> None:
    family, networks = _family()
    batch = _batch(16)
    found = []
    for labels in (batch.labels, torch.zeros(16, dtype=torch.int64), None):
        torch.manual_seed(3)
        found.append(family.loss("classifier", networks, Batch(batch.images, labels)))
    assert found[0].total == found[1].total == found[2].total
    assert "accuracy" in found[0].logs
    assert "accuracy" not in found[2].logs


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_noise_goes_into_every_layer_while_it_trains_and_nowhere_else(architecture: str) -> None:
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    for deviations in ({"noise": 0.5, "feature_noise": 0.0}, {"noise": 0.0, "feature_noise": 0.5}):
        _, networks = _family(architecture=architecture, classifier_channels=4, **deviations)
        classifier = networks["classifier"]
        assert not torch.equal(classifier(images), classifier(images))
        classifier.eval()
        assert torch.equal(classifier(images), classifier(images))
    _, networks = _family(architecture=architecture, classifier_channels=4, noise=0.0, feature_noise=0.0)
    assert torch.equal(networks["classifier"](images), networks["classifier"](images))


def test_the_size_of_a_normalized_weight_changes_nothing() -> None:
    _, networks = _family()
    classifier, images = networks["classifier"].eval(), torch.rand(6, 1, 8, 8)
    expected = classifier(images)
    with torch.no_grad():
        for name, weight in classifier.named_parameters():
            if name.endswith("original1"):
                weight.mul_(7)
    torch.testing.assert_close(classifier(images), expected)


def test_the_weight_of_the_unlabelled_scales_their_loss_alone() -> None:
    totals = []
    for weight in (0.0, 1.0, 2.0):
        family, networks = _family(unlabelled_weight=weight)
        torch.manual_seed(3)
        totals.append(family.loss("classifier", networks, _batch(16)))
    assert totals[0].total == totals[0].logs["supervised"] == totals[2].logs["supervised"]
    torch.testing.assert_close(totals[2].total - totals[1].total, totals[1].total - totals[0].total)


def test_a_run_of_before_the_new_settings_stays_what_it_was() -> None:
    old = {
        "labels": 12,
        "labelled_batch": 64,
        "latent": 4,
        "generator_channels": 4,
        "classifier_channels": 4,
        "objective": "feature_matching",
        "noise": 0.15,
        "dropout": 0.3,
        "learning_rate": 1e-3,
    }
    family = Sgan(SganConfig.from_dict(old, what="config"), DATA)
    assert (family.config.architecture, family.config.feature_noise) == ("conv", 0.0)
    keys = set(family.build_networks()["classifier"].state_dict())
    layers = {
        f"{name}.{part}" for name in ("features.0.0", "features.0.2", "head.1") for part in ("weight", "bias")
    }
    assert keys == {"images", "labels"} | layers
    assert SganConfig.from_dict({"dropout": 0.3}, what="config").architecture == "mlp"


def test_such_a_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = {"generator_channels": 4, "classifier_channels": 4, **AS_IT_WAS}
    train(tiny_run("sgan", steps=2, config=small), run, progress=False, tensorboard=False)
    newer = set(AS_IT_WAS) | {"generator_hidden", "classifier_hidden"}
    for path in (run / "run.json", checkpoint_paths(run / "checkpoints")[0] / "state.json"):
        text = json.loads(path.read_text())
        for settings in (text.get("run", text)["config"], text.get("identity", {})):
            for key in [key for key in settings if key.removeprefix("config.") in newer]:
                del settings[key]
        path.write_text(json.dumps(text))
    begun = read_run_config(run)
    assert not newer & begun.config.keys()
    longer = begun.model_copy(update={"config": {**begun.config, "steps": 3}})
    assert load_run(run).family.config.architecture == "conv"
    with pytest.raises(TrainingError, match=r"'config\.steps' was 2, is 3"):
        train(longer, run, resume=True, progress=False, tensorboard=False)
    assert train(begun, run, resume=True, progress=False, tensorboard=False).step == 2


def test_data_without_enough_labels_is_told() -> None:
    with pytest.raises(InputError, match="has none; dcgan needs none"):
        Sgan(SganConfig(), DATA.model_copy(update={"num_classes": None}))
    with pytest.raises(InputError, match="at least 3, one a class"):
        _family(labels=2)
    family, networks = _family()
    with pytest.raises(InputError, match="expected 4 images of class 2, found 0; lower labels"):
        family.look(networks, lambda count: Batch(torch.zeros(20, 1, 8, 8), torch.arange(20) % 2))
