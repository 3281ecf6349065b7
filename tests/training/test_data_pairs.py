"""Pairs of files are found by name: whatever is missing, broken or renamed, those that remain are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_training.data import load_data
from gensdk_training.data.description import describe
from gensdk_training.data.feed import Feed
from gensdk_training.family import Batch
from support.image_folders import numbers, write_image, write_images

COUNT = 12


def said(tensor: torch.Tensor | None) -> list[int]:
    """The number that each image says."""
    assert tensor is not None
    return np.rint((tensor[:, 0, 0, 0].numpy() + 1) * 127.5).astype(int).tolist()


def an_epoch(data: Any) -> Batch:
    feed = Feed(data, seed=1, batch_size=len(data), device=torch.device("cpu"))
    try:
        return feed.batch(0)
    finally:
        feed.close()


def pairs(root: Path, **options: Any) -> Any:
    return load_data(str(root / "data"), inputs=str(root / "inputs"), **options)


FATES = st.lists(
    st.sampled_from(["whole", "whole", "whole", "gone", "broken", "cut"]), min_size=COUNT, max_size=COUNT
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mine=FATES,
    theirs=FATES,
    suffixes=st.tuples(st.sampled_from([".png", ".bmp"]), st.sampled_from([".png", ".bmp", ".PNG"])),
    folders=st.sampled_from([("", ""), ("cat/", "cat/"), ("cat/", "")]),
    upper=st.booleans(),
    memory=st.sampled_from([0, 1 << 20]),
    holdout=st.sampled_from([0.0, 0.4]),
)
def test_pairs_match_under_any_deletion(
    mine: list[str],
    theirs: list[str],
    suffixes: tuple[str, str],
    folders: tuple[str, str],
    upper: bool,
    memory: int,
    holdout: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("pairs")
    for side, fates, folder, suffix in zip(("data", "inputs"), (mine, theirs), folders, suffixes, strict=True):
        (root / side).mkdir()
        for number, fate in enumerate(fates):
            name = f"pic{number}"
            path = root / side / folder / f"{name.upper() if upper and side == 'inputs' else name}{suffix}"
            if fate == "gone":
                continue
            whole = write_image(path, number + 1).read_bytes()
            if fate == "broken":
                path.write_bytes(b"no image")
            elif fate == "cut":
                path.write_bytes(whole[: len(whole) - 14])
    readable = [n + 1 for n in range(COUNT) if mine[n] == theirs[n] == "whole"]
    found: list[int] = []
    refusals: list[str] = []
    for split in ("train", "test") if holdout else ("train",):
        try:
            data = pairs(root, memory_limit=memory, holdout=holdout, split=split)
            batch = an_epoch(data)
        except (InputError, TrainingError) as failure:  # nothing is left of one side, or of a part
            refusals.append(str(failure))
            continue
        assert said(batch.images) == said(batch.sources)
        told = describe(data)
        assert told.inputs is not None
        assert told.inputs.count == told.count == len(data)
        if memory:
            assert f"{len(readable)} pairs by" in told.pairs
        found += said(batch.images)
        data.close()
    if memory and not holdout:
        assert sorted(found) == readable
    assert set(found) <= set(readable)
    assert all(refusal.isprintable() for refusal in refusals)


def test_names_that_only_partly_agree_pair_by_name(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [f"{n}.png" for n in range(10)])
    for n in range(1, 11):
        write_image(tmp_path / "inputs" / f"{n}.png", n)
    data = pairs(tmp_path)
    batch = an_epoch(data)
    assert said(batch.images) == said(batch.sources)
    assert sorted(said(batch.images)) == list(range(1, 10))
    assert describe(data).pairs == (
        "9 pairs by their paths; left out: 1 images without an input, 1 inputs without an image"
    )


def test_names_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [f"photo{n}.png" for n in range(3)])
    write_images(tmp_path / "inputs", [f"mask{n}.png" for n in range(3)])
    with pytest.raises(InputError, match="no file of the inputs is called as one of the images"):
        pairs(tmp_path)
    assert len(pairs(tmp_path, paired=False)) == 3


def test_the_same_name_in_two_folders_is_no_pair(tmp_path: Path) -> None:
    write_images(tmp_path / "data", ["cat/1.png", "dog/2.png"])
    write_images(tmp_path / "inputs", ["cat/2.png", "dog/2.png"])
    data = pairs(tmp_path)
    assert numbers(data.batch(np.arange(len(data))).images) == [1]
    (tmp_path / "inputs" / "dog" / "2.png").unlink()
    with pytest.raises(InputError, match="no file of the inputs"):
        pairs(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "data", ["1.png", "1.bmp"])
    write_images(tmp_path / "inputs", ["1.png"])
    with pytest.raises(InputError, match="several files are called '1' but for their suffix"):
        pairs(tmp_path)


def test_skipped_inputs_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [f"{n}.png" for n in range(4)])
    write_images(tmp_path / "inputs", [f"{n}.png" for n in range(4)])
    (tmp_path / "inputs" / "2.png").write_bytes(b"broken")
    (tmp_path / "data" / "1.png").write_bytes(b"broken")
    data = pairs(tmp_path)
    assert (len(data), data.skipped.count) == (2, 2)


def test_files_and_arrays_are_no_pairs_and_arrays_need_one_count(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [f"{n}.png" for n in range(3)])
    np.savez(tmp_path / "inputs.npz", images=np.full((3, 4, 4), 99, np.uint8))
    with pytest.raises(InputError, match="files on one side and an array on the other"):
        load_data(str(tmp_path / "data"), inputs=str(tmp_path / "inputs.npz"))


def test_a_file_that_breaks_later_takes_its_partner_along(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [f"{n}.png" for n in range(6)])
    write_images(tmp_path / "inputs", [f"{n}.png" for n in range(6)])
    data = pairs(tmp_path, memory_limit=0)
    (tmp_path / "data" / "1.png").write_bytes(b"broken")
    (tmp_path / "inputs" / "2.png").write_bytes(b"broken")
    (tmp_path / "data" / "3.png").write_bytes(b"broken")
    batch = an_epoch(data)
    assert said(batch.images) == said(batch.sources)
    assert set(said(batch.images)) == {0, 4, 5}
    for side in ("data", "inputs"):
        for n in (0, 4, 5):
            (tmp_path / side / f"{n}.png").write_bytes(b"broken")
    with pytest.raises(TrainingError, match="can be read any more"):
        an_epoch(data)
    data.close()
