"""Points as training data: mixtures by name, and files of unknown origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.samples import Samples, Timings
from gensdk_runtime.spec.outputs import PointsSpec
from gensdk_training.data import load_data
from gensdk_training.data.feed import Feed
from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.data.point_set import PointDataset
from gensdk_training.metrics.classifier import LabelledImages
from gensdk_training.metrics.modes import mixture_modes
from gensdk_training.run import train
from support.tiny import tiny_points


def loaded(spec: object, **options: Any) -> PointDataset:
    dataset = load_data(str(spec), **options)
    assert isinstance(dataset, PointDataset)
    return dataset


def cloud(n: int = 50, dimensions: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(3.0, 2.0, size=(n, dimensions))


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_mixture_has_all_its_modes_evenly(name: str, split: Any) -> None:
    mixture, data = MIXTURES[name], loaded(name, split=split)
    report = mixture_modes(data.points, mixture.centers, mixture.sigma)
    assert report.covered == len(mixture.places) == data.info.num_classes
    assert report.high_quality == pytest.approx(1 - np.exp(-4.5), abs=0.003), "of a Gaussian in the plane"
    assert report.reverse_kl < 1e-9
    assert data.labels is not None
    nearest = np.linalg.norm(data.points[:, None] - mixture.centers, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, data.labels)
    assert loaded(name, split=split).fingerprint == data.fingerprint


def test_the_grid_and_the_ring_are_those_of_the_papers() -> None:
    grid, ring = MIXTURES["25gaussians"], MIXTURES["8gaussians"]
    assert (len(grid.places), grid.sigma) == (25, 0.05)
    assert sorted({x for x, _ in grid.places}) == [-4, -2, 0, 2, 4]
    np.testing.assert_allclose(np.linalg.norm(ring.centers, axis=1), 2.0)
    assert (len(ring.places), ring.sigma) == (8, 0.02)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_training_sees_points_scaled_and_statistics_bring_them_back(dtype: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", points=(cloud() * (1, 5, 1)).astype(dtype))
    data = loaded(tmp_path / "some.npz")
    batch = data.batch(np.arange(50))
    assert batch.images.dtype == np.float32
    assert np.abs(batch.images).max() == pytest.approx(1.0, abs=1e-3)
    info = data.info.points
    assert info is not None
    np.testing.assert_allclose(np.array(info.center) + info.scale * batch.images, data.points, atol=1e-3)
    assert info.value_range[0] < data.points.min()
    assert info.value_range[1] > data.points.max()
    assert data.info.output.shape == (3,)
    fed = Feed(data, seed=0, batch_size=8, device=Accelerator(cpu=True).device).batch(0)
    assert tuple(fed.images.shape) == (8, 3)
    with pytest.raises(InputError, match="are points"):
        _ = data.info.image


def test_both_splits_have_the_statistics_of_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=cloud(), y=np.arange(50) % 4)
    train, test = (loaded(tmp_path / "some.npz", holdout=0.2, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (40, 10)
    assert train.info.points == test.info.points
    assert train.info.num_classes == test.info.num_classes == 4
    together = np.sort(np.concatenate([train.points, test.points]), axis=0)
    np.testing.assert_array_equal(together, np.sort(cloud().astype(np.float32), axis=0))


@pytest.mark.parametrize(
    ("text", "labels", "shape", "classes"),
    [
        ("1,2\n3,4.5\n-1e3,7\n", "auto", (3, 2), None),
        ("x,y\n1,2\n3,4\n", "auto", (2, 2), None),
        ("x,y\n1,2\n3,4\n", "y", (2, 1), ("2", "4")),
        ("x,target\n1,2\n3,4\n", "auto", (2, 2), None),
        ("Label,x\nb,2\na,4\n", "auto", (2, 1), ("a", "b")),
        ("x,CLASS\n1,7\n3,1999\n", "auto", (2, 1), ("7", "1999")),
        ("x;label\n1.5;b\n2;a\n", "auto", (2, 1), ("a", "b")),
        ("x\ty\n1\t2\n3\t4\n", "auto", (2, 2), None),
        ('"x","y","label"\n"1","2","a, b"\n"3","4","c"\n', "auto", (2, 2), ("a, b", "c")),
        ("x,label\n1,999999999999999999999999\n2,1\n", "auto", (2, 1), ("1", "999999999999999999999999")),
        ("x,label\n1,-1\n2,1\n", "auto", (2, 1), ("-1", "1")),
        ("x,label\n1,999999\n2,1\n", "auto", (2, 1), ("1", "999999")),
        ("x0,x1,label\n1,2,cat\n3,4,ant\n", "auto", (2, 2), ("ant", "cat")),
        ("x0,x1,label\n1,2,1\n3,4,0\n", "none", (2, 2), None),
        ("a,kind,b\n1,10,2\n3,9,4\n", "kind", (2, 2), ("9", "10")),
        ("\ufeff1\r\n\r\n2\r\n", "auto", (2, 1), None),
    ],
)
def test_csv_files(text: str, labels: str, shape: tuple[int, int], classes: Any, tmp_path: Path) -> None:
    (tmp_path / "some table.csv").write_bytes(text.encode())
    data = loaded(tmp_path / "some table.csv", labels=labels)
    assert data.points.shape == shape
    assert data.info.class_names == classes
    assert data.info.name == "some-table"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there are no points"),
        (b"x,y\n", "there are no points"),
        (b"1,2\n3\n", "no table of numbers|columns in each line"),
        (b"1,2\n3,4,5\n", "columns in each line"),
        (b"1,2\n3,four\n", "no table of numbers"),
        (b"1,2\nnan,4\n", "NaN, infinite or huge"),
        (b"1,2\n3,1e30\n", "NaN, infinite or huge"),
        (b"1,2\n1,2\n", "all points are the same"),
        (b"\xff\xfe\x00", "no table of numbers"),
        (b"label\na\nb\n", "no table|columns|expected points"),
        (b"1,2\n3,1e400\n", "NaN, infinite or huge"),
        (b"1,2\n3,\n", "column number 2 has '' in point 2"),
        (b"x,kind\n1,cat\n2,dog\n", "column 'kind' has 'cat' in point 1; if it is the class write --labels kind"),
        (b"x,y\n1,2\n3,\n4,5\n", "column 'y' has '' in point 2; take such points out$"),
        (
            b"x,y\n1,2\n3,n/a\n",
            "has 'n/a' in point 2; take such points out, or if it is the class write --labels y$",
        ),
        (b"x,my kind\n1,a\n2,b\n", "if it is the class write --labels 'my kind'$"),
        (b"1,2\n3,a\n", "column number 2 has 'a' in point 2; take such points out$"),
        (b"1 2\n3 4\n", "expected commas, semicolons or tabs between columns$"),
        (b"x;y\n1,5;2,5\n3;4\n", "write decimals with a point"),
        (b"x,label,class\n1,2,3\n4,5,6\n", "columns 'label' and 'class' may both be labels"),
        (b",x,y\n0,1,2\n1,5,6\n2,3,4\n", "counts the lines, as an index does"),
        (b"x,label\n1,2\n3\n", "expected 2 columns in each line, got 1 in point 2"),
        (b"x,label\n1,2,3\n3,4\n", "expected 2 columns in each line, got 3 in point 1"),
        (b'x,label\n1,"a\n3,4\n', "no table of numbers"),
        (b"x,y\n1,2_0\n3,4\n", "has '2_0' in point 1"),
        ("x,label\n1,a\n2,b\n".encode("utf-16"), "no table of numbers in UTF-8"),
    ],
)
def test_csv_refusals(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as failure:
        load_data(str(tmp_path / "some.csv"))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_tables_are_read_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    whole = b'x,y,"label"\n' + b"".join(b"%d.5,-%de1,%d\n" % (n, n, n % 3) for n in range(9))
    pieces = [
        b",",
        b"\n",
        b'"',
        b";",
        b"\xff",
        b"nan",
        b"1e999",
        b"9" * 400,
        b"\0",
        b"\r",
        b"\t",
        b"x",
        b" ",
        b"-",
    ]
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(0, len(data)))
            data[at : at + int(random.integers(0, 4))] = pieces[random.integers(0, len(pieces))]
        (tmp_path / "some.csv").write_bytes(data)
        refusal = ""
        try:
            loaded(tmp_path / "some.csv", labels=str(random.choice(["auto", "none", "y"])))
        except InputError as failure:
            refusal = str(failure)
        assert refusal.isprintable()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.zeros((0, 2))}, "expected points"),
        ({"points": np.zeros((3, 5000))}, "4096 dimensions"),
        ({"points": np.array([[0.0, np.inf]])}, "NaN, infinite"),
        ({"points": np.ones((4, 2))}, "all points are the same"),
        ({"points": 1e9 + 1e-4 * cloud()}, "too close for float32"),
        ({"points": cloud(4), "labels": np.arange(3)}, "expected 4 labels"),
        ({"points": np.zeros((4, 2), np.int64)}, "NHWC, NCHW or NHW"),
    ],
)
def test_npz_refusals(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_data(str(tmp_path / "some.npz"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size and channels are for images"),
        ({"channels": 3}, "size and channels are for images"),
        ({"holdout": 0.5}, "own test split"),
        ({"labels": "mode"}, "no labels 'mode'"),
        ({"inputs": "25gaussians"}, "are for images"),
    ],
)
def test_options_of_images_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data("8gaussians", **options)


def test_points_are_no_domain_no_classifier_s_images_and_can_t_be_flipped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="some of these data are points"):
        load_data("a=8gaussians,b=25gaussians")
    data = loaded("8gaussians")
    with pytest.raises(InputError, match="expected images uint8"):
        LabelledImages.of(data)
    config = tiny_points("gan")
    flipped = config.model_copy(update={"data": config.data.model_copy(update={"augment": ("flip",)})})
    with pytest.raises(InputError, match="augment changes images"):
        train(flipped, tmp_path / "run", dataset=data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_drawn_points_can_be_trained_on(suffix: str, tmp_path: Path) -> None:
    points = cloud().astype(np.float32)
    keys = tuple(SampleKey(0, i) for i in range(50))
    samples = Samples(
        points,
        keys,
        output_of(PointsSpec(dimensions=points.shape[1], value_range=(-9.0, 9.0))),
        {},
        {},
        Timings(0.0, 0.0, ()),
    )
    np.testing.assert_array_equal(loaded(samples.save(tmp_path / f"drawn.{suffix}")).points, points)


def test_chosen_classes_of_points_are_scaled_as_all_of_them() -> None:
    whole, part = loaded("8gaussians"), loaded("8gaussians", only=("3", "5"))
    chosen = np.flatnonzero(np.isin(np.asarray(whole.labels), [3, 5]))
    assert np.array_equal(part.batch(np.arange(len(part))).images, whole.batch(chosen).images)
    assert part.info.points == whole.info.points
    assert part.info.class_names == ("3", "5")
