"""Laws of the semi-supervised GAN: K + 1 classes from K logits, and which labels it looks at."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.families.sgan import Classifier, Sgan, SganConfig, log_fake, log_real
from gensdk_training.family import Batch, DataInfo

DATA = DataInfo(name="x", channels=1, height=8, width=8, count=60, num_classes=3)


def _family(**config: Any) -> tuple[Sgan, dict[str, Any]]:
    settings = {"labels": 12, "latent": 4, "generator_channels": 4, "classifier_channels": 4, **config}
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


def test_data_without_enough_labels_is_told() -> None:
    with pytest.raises(InputError, match="has none; dcgan needs none"):
        Sgan(SganConfig(), DATA.model_copy(update={"num_classes": None}))
    with pytest.raises(InputError, match="at least 3, one a class"):
        _family(labels=2)
    family, networks = _family()
    with pytest.raises(InputError, match="expected 4 images of class 2, found 0; lower labels"):
        family.look(networks, lambda count: Batch(torch.zeros(20, 1, 8, 8), torch.arange(20) % 2))
