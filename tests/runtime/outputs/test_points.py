"""Models of points: sampling, files, pictures, and clear refusals of all that is for images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.bench.latency_report import BenchSettings
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.outputs.image import check_target, image_of
from gensdk_runtime.outputs.points import MARGIN, SIZE, scatter
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import PointsSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.image_bytes import settings_in
from support.models import diffusion_model, feedforward_model, generator, label_tensor, tensor

RANGE = (-4.0, 4.0)


def points_model(dimensions: int = 2, classes: int | None = None) -> ModelSpec:
    inputs = [tensor("z", "noise", "batch", 5, distribution="normal")]
    inputs += [label_tensor("batch")] if classes else []
    out = tensor("points", "points", "batch", dimensions, value_range=RANGE)
    return ModelSpec(
        name="points",
        family="test",
        program=FeedforwardSpec(graph="generator"),
        graphs=(GraphSpec(name="generator", inputs=tuple(inputs), outputs=(out,)),),
        output=PointsSpec(dimensions=dimensions, value_range=RANGE),
        conditions=label_conditions(classes),
        max_batch=8,
    )


def drawn(n: int = 11, dimensions: int = 2, classes: int | None = None) -> Samples:
    with generator(points_model(dimensions, classes)) as model:
        return model.sample(n, seed=3)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_points_don_t_depend_on_their_batch(dimensions: int) -> None:
    with generator(points_model(dimensions, 3)) as model:
        samples = model.sample(20, seed=3)
        head = model.sample(4, seed=3, batch_size=3)
        again = model.sample(seed=samples.seeds[7:9], n=2, label=samples.labels[7:9])
    assert samples.points.shape == (20, dimensions)
    assert samples.points.dtype == np.float32
    assert samples.points is samples.array
    np.testing.assert_array_equal(head.points, samples.points[:4])
    np.testing.assert_array_equal(again.points, samples.points[7:9])


def test_points_are_made_by_feedforward_models() -> None:
    model = points_model()
    assert model.largest_tensor == 5
    diffusion = {**diffusion_model().model_dump(mode="json"), "output": {"kind": "points", "dimensions": 2}}
    with pytest.raises(ManifestError, match="'points' is made by feedforward, not diffusion"):
        ModelSpec.from_dict(diffusion, what="model", error=ManifestError)
    assert ModelSpec.from_json(model.to_json(), what="model") == model


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("classes", [None, 3])
def test_saved_points_come_back(dimensions: int, classes: int | None, tmp_path: Path) -> None:
    samples = drawn(11, dimensions, classes)
    with np.load(samples.save(tmp_path / "all.npz")) as file:
        np.testing.assert_array_equal(file["array"], samples.points)
        assert "images" not in file.files
        assert ("labels" in file.files) is (classes is not None)
    lines = samples.save(tmp_path / "all.csv").read_text().splitlines()
    assert lines[0].split(",") == [f"x{i}" for i in range(dimensions)] + (["label"] if classes else [])
    rows = np.array([line.split(",") for line in lines[1:]])
    np.testing.assert_array_equal(rows[:, :dimensions].astype(np.float32), samples.points)
    if samples.labels is not None:
        np.testing.assert_array_equal(rows[:, -1].astype(int), samples.labels)
    picture = samples.save(tmp_path / "all.png")
    assert settings_in(picture)["seeds"] == [list(key) for key in samples.seeds]
    assert (
        decode(picture.read_bytes(), 3).shape
        == samples.picture().shape
        == (SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3)
    )


@pytest.mark.parametrize("name", ["some.gif", "folder", "x.txt"])
def test_other_files_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use a file with one of"):
        drawn().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"can't write .csv"):
        check_target("images.csv")


@pytest.mark.parametrize("options", [{"layout": "grid"}, {"columns": 2}, {"scale": 2}])
def test_what_is_for_grids_is_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are for images"):
        drawn().save(tmp_path / "x.png", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_for_images_is_refused() -> None:
    with generator(points_model()) as model:
        for attempt, message in (
            (lambda: model.sample(2, output_type="uint8"), "which have no bytes"),
            (lambda: model.sample(2).images, "are points, not images"),
            (lambda: model.translate(np.zeros((4, 4, 3), np.uint8)), "does not translate"),
            (lambda: model.log_likelihood(np.zeros((1, 2))), "needs an autoregressive model"),
            (lambda: image_of(model.model), r"makes points of shape \[2\]"),
        ):
            with pytest.raises(InputError, match=message):
                attempt()
    with generator(feedforward_model()) as model, pytest.raises(InputError, match="are images"):
        _ = model.sample(1).points


def test_the_picture_shows_each_point_in_its_place() -> None:
    corners = np.array([[-4, -4], [4, 4], [-4, 4]], np.float32)
    picture = scatter(corners, RANGE)
    plot = picture[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE]
    dark = [plot[row, column].min() < 200 for row, column in ((-1, 0), (0, -1), (0, 0), (-1, -1))]
    assert dark == [True, True, True, False]
    labelled = scatter(corners, RANGE, np.array([0, 1, 2]))
    colours = {
        tuple(labelled[MARGIN + row % SIZE, MARGIN + column % SIZE]) for row, column in ((-1, 0), (0, -1), (0, 0))
    }
    assert len(colours) == 3


def test_points_outside_are_counted_on_the_picture_and_not_drawn() -> None:
    inside = np.zeros((5, 2), np.float32)
    with_outside = np.concatenate([inside, np.full((3, 2), 9, np.float32)])
    one, two = scatter(inside, RANGE), scatter(with_outside, RANGE)
    np.testing.assert_array_equal(one[MARGIN:], two[MARGIN:])
    assert (one[:MARGIN] != two[:MARGIN]).any()
    all_outside = scatter(with_outside[5:], RANGE)
    assert (all_outside[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE] == 255).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.zeros(3), np.full((2, 2), np.nan), np.zeros((2, 0))])
def test_what_can_t_be_drawn_is_told(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected finite points"):
        scatter(bad.astype(np.float32), RANGE)


def test_very_many_points_are_drawn_at_once() -> None:
    many = np.random.default_rng(0).normal(size=(200_000, 2)).astype(np.float32)
    assert scatter(many, RANGE).min() < 100


def test_points_are_measured_like_images() -> None:
    settings = BenchSettings(warmup_ms=0, duration_s=0, iterations=2)
    (case,) = measure([Target("points", lambda: generator(points_model()), batch=4)], settings)
    assert case.subject.image == (2,)
    assert type(case).from_json(case.to_json(), what="case") == case
