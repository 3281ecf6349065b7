"""How good generated images are, judged by a classifier of the same data, with the floor beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gensdk_training.data.dataset import Images, Labels
from gensdk_training.metrics.classifier import ImageClassifier, LabelledImages
from gensdk_training.metrics.fid import feature_statistics, frechet_distance


@dataclass(frozen=True)
class QualityReport:
    """The classifier-FID of `count` images against `reference_count` real ones that no training saw.

    `floor` is the distance of the training images from the same reference. Both sets are finite, so it is no
    strict bound: a model near or below it can't be told from the data by this measure. `label_accuracy` in
    [0, 1]: the share of images that the classifier gives the label they were asked for, None where none was.
    `classifier_accuracy`: the same share on the real test images.
    """

    fid: float
    floor: float
    count: int
    reference_count: int
    extractor: str
    resizing: str
    classifier_accuracy: float
    label_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        labels = "" if self.label_accuracy is None else f", label accuracy {self.label_accuracy:.3f}"
        return (
            f"classifier-FID {self.fid:.2f} (train-against-test floor {self.floor:.2f}){labels}; "
            f"{self.count} images against {self.reference_count} test images; {self.extractor}, "
            f"test accuracy {self.classifier_accuracy:.3f}; resizing: {self.resizing}"
        )


class ImageJudge:
    """Measures images against the `test` split, with a classifier that was trained on the `train` split."""

    def __init__(self, classifier: ImageClassifier, train: LabelledImages, test: LabelledImages) -> None:
        self.classifier = classifier
        self._reference = feature_statistics(classifier.features(test.images))
        own = feature_statistics(classifier.features(train.images))
        self.floor = frechet_distance(own, self._reference)
        self.classifier_accuracy = classifier.accuracy(test)

    def measure(self, images: Images, labels: Labels | None = None) -> QualityReport:
        """Judges uint8 images [n, H, W, C] of the classifier's size, and whether they show their `labels` [n]."""
        statistics = feature_statistics(self.classifier.features(images))
        accuracy = None
        if labels is not None:
            accuracy = self.classifier.accuracy(LabelledImages(images, labels))
        return QualityReport(
            fid=frechet_distance(statistics, self._reference),
            floor=self.floor,
            count=statistics.count,
            reference_count=self._reference.count,
            extractor=self.classifier.extractor,
            resizing="none",
            classifier_accuracy=self.classifier_accuracy,
            label_accuracy=accuracy,
        )
