"""Inputs beside images: pairs stay pairs through order, splits and augmentations; collections are drawn apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.augment import Augment
from gensdk_training.data.dataset import Split
from gensdk_training.data.feed import Feed
from gensdk_training.data.load import load_data
from gensdk_training.examples import Examples

COUNT = 40


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose pixels all say their number, and inputs with the same number in one channel and a ramp."""
    path = tmp_path_factory.mktemp("data") / "pairs.npz"
    number = np.arange(COUNT, dtype=np.uint8)[:, None, None]
    ramp = np.arange(16, dtype=np.uint8) * 10
    images = np.stack([np.broadcast_to(number, (COUNT, 16, 16))] * 3, axis=-1).copy()
    images[..., 2] = ramp
    inputs = np.broadcast_to(number, (COUNT, 16, 16)).copy()
    inputs[:, 8:] = ramp
    np.savez(path, colour=images, outline=inputs, few=inputs[:7])
    return path


def feed(
    path: Path, *, paired: bool, inputs: str = "outline", augment: Augment | None = None, size: int = 8
) -> Feed:
    data = load_data(f"{path}:colour", inputs=f"{path}:{inputs}", paired=paired)
    return Feed(data, seed=3, batch_size=size, device=torch.device("cpu"), augment=augment)


def numbers(tensor: torch.Tensor) -> NDArray[np.int64]:
    """The number that each image says in its first pixel."""
    return np.rint((tensor[:, 0, 0, 0].numpy() + 1) * 127.5).astype(np.int64)


def test_pairs_stay_pairs(pairs: Path) -> None:
    found = feed(pairs, paired=True)
    assert found.dataset.info.source is not None
    assert found.dataset.info.source.channels == 1
    for number in range(7):
        batch = found.batch(number)
        assert batch.sources is not None
        np.testing.assert_array_equal(numbers(batch.images), numbers(batch.sources))


def test_both_parts_of_a_split_are_pairs(pairs: Path) -> None:
    parts = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        data = load_data(f"{pairs}:colour", inputs=f"{pairs}:outline", holdout=0.25, split=split)
        assert data.sources is not None
        indices = np.arange(len(data))
        mine, theirs = data.batch(indices).images[:, 0, 0, 0], data.sources.batch(indices).images[:, 0, 0, 0]
        np.testing.assert_array_equal(mine, theirs)
        parts.append(set(mine.tolist()))
    assert parts[0] | parts[1] == set(range(COUNT))
    assert not parts[0] & parts[1]


def test_collections_are_drawn_apart_and_each_is_seen_whole(pairs: Path) -> None:
    found = feed(pairs, paired=False, inputs="few", size=7)
    seen, apart = set(), False
    for number in range(10):
        batch = found.batch(number)
        assert batch.sources is not None
        seen |= set(numbers(batch.sources).tolist())
        apart |= bool((numbers(batch.images) != numbers(batch.sources)).any())
    assert seen == set(range(7))
    assert apart


def test_pairs_need_as_many_inputs(pairs: Path) -> None:
    with pytest.raises(InputError, match=r"a pair for each of the 40 images, got 7 inputs; write --unpaired"):
        load_data(f"{pairs}:colour", inputs=f"{pairs}:few")


@pytest.mark.parametrize("kinds", [("flip",), ("shift",), ("flip", "shift")])
def test_augmentations_keep_pairs_aligned_and_repeat(pairs: Path, kinds: tuple[str, ...]) -> None:
    """The ramps of both show how each was moved; a batch is the same whenever it is asked for."""
    augment = Augment(kinds, seed=5)  # type: ignore[arg-type]
    found, again = feed(pairs, paired=True, augment=augment), feed(pairs, paired=True, augment=augment)
    plain = feed(pairs, paired=True)
    changed = False
    for number in (3, 0, 2):
        batch = found.batch(number)
        assert batch.sources is not None
        torch.testing.assert_close(batch.images[:, 2, 10], batch.sources[:, 0, 10])
        assert batch.images.shape == plain.batch(number).images.shape
        changed |= not torch.equal(batch.images, plain.batch(number).images)
    assert changed
    torch.testing.assert_close(again.batch(2).images, found.batch(2).images)


def test_collections_are_augmented_apart(pairs: Path) -> None:
    batch = feed(pairs, paired=False, augment=Augment(("shift",), seed=0)).batch(0)
    assert batch.sources is not None
    assert not torch.equal(batch.images[:, 2, 10], batch.sources[:, 0, 10])


def test_the_fingerprint_covers_the_inputs(pairs: Path, tmp_path: Path) -> None:
    with np.load(pairs) as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    changed["outline"][3, 0, 0] += 1
    np.savez(tmp_path / "pairs.npz", **changed)
    prints = [
        load_data(f"{path}:colour", inputs=f"{path}:outline").fingerprint
        for path in (pairs, tmp_path / "pairs.npz")
    ]
    assert prints[0] != prints[1]


def test_examples_come_back_and_are_drawn_side_by_side(pairs: Path, tmp_path: Path) -> None:
    batch = feed(pairs, paired=True).spread(5)
    assert batch.sources is not None
    examples = Examples.of(batch.sources, batch.images)
    examples.save(tmp_path)
    loaded = Examples.load(tmp_path)
    assert loaded is not None
    assert loaded.targets is not None
    np.testing.assert_array_equal(loaded.sources, examples.sources)
    np.testing.assert_array_equal(loaded.targets[:, 0, 0, 0], [0, 9, 19, 29, 39])
    assert loaded.picture(loaded.targets).shape[2] == 3
    assert Examples.load(tmp_path / "nothing") is None
    (tmp_path / "examples.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="not a whole"):
        Examples.load(tmp_path)


def test_collections_become_domains(pairs: Path) -> None:
    data = load_data(f"colour={pairs}:colour,few={pairs}:few")
    assert data.info.class_names == ("colour", "few")
    assert (data.info.count, data.info.channels) == (COUNT + 7, 3)
    batch = data.batch(np.array([0, COUNT - 1, COUNT, COUNT + 6]))
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.images[:, 0, 0, 0].tolist() == [0, COUNT - 1, 0, 6]
    splits: tuple[Split, ...] = ("train", "test")
    both = f"a={pairs}:colour,b={pairs}:outline"
    train, test = (load_data(both, holdout=0.25, split=split) for split in splits)
    assert (len(train), len(test)) == (60, 20)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ("a={0}:colour", "2 to 100 domains"),
        ("a={0}:colour,a={0}:few", "2 to 100 domains"),
        ("a=no,b=no", "no data"),
    ],
)
def test_other_domains_are_refused(pairs: Path, parts: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_data(parts.format(pairs))
