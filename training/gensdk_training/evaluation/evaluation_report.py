"""The report of an evaluation, as plain JSON: every measure with its floor, and what it was measured with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gensdk_runtime.spec.fields import Finite, Json
from gensdk_runtime.spec.strict import StrictModel

Better = Literal["lower", "higher", "near floor"]


class Measure(StrictModel):
    """One value. `error`: one standard error. `floor`: what training images get in the samples' place, against
    the same test images: the scale to read `value` by. `baseline`: what a simple way to make samples gets, where
    there is one. `detail`: counts, and what to know."""

    name: str
    title: str
    value: Finite
    error: Finite | None = None
    floor: Finite | None = None
    baseline: Finite | None = None
    better: Better
    detail: str = ""


class ExtractorInfo(StrictModel):
    """What made the features. `accuracy`: of a classifier on the test images, in [0, 1]."""

    name: str
    resizing: str
    feature_count: int
    accuracy: Finite | None = None


class ClassCount(StrictModel):
    """Samples that the classifier takes for this class; `share` of the class in the test images, in [0, 1]."""

    name: str
    samples: int
    share: Finite


class EvaluationReport(StrictModel):
    """All that was measured of one bundle against one data set.

    `samples`, `train_count` and `test_count` images of (height, width, channels), points of (dimensions,), or
    what else is (shape); `settings`: of the sampling. `labels`: how the classes of the samples were drawn, ""
    for a model without. `memorization` and `path`: as
    :class:`gensdk_training.metrics.neighbours.MemorizationReport` and
    :class:`gensdk_training.metrics.paths.PathCurve` give them, empty where they were not measured. `notes`: what
    a reader must know to trust the values.
    """

    schema_version: Literal[1] = 1
    model: str
    family: str
    data: str
    samples: int
    seed: int
    labels: str = ""
    image: tuple[int, ...]
    train_count: int
    test_count: int
    extractor: ExtractorInfo | None = None
    measures: tuple[Measure, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    memorization: Json = Field(default_factory=dict)
    path: Json = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Json = Field(default_factory=dict)
    seconds: Finite = 0.0
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def size(self) -> str:
        """The size of an image, as 8x8x1, or of a point, as 2."""
        return "x".join(map(str, self.image))

    def measure(self, name: str) -> Measure:
        """The measure called `name`; KeyError where it was not taken."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)
