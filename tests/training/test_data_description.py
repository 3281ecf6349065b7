"""What a folder is taken for: splits, classes, links, files left out; and what is said is what is trained on."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gensdk.cli.main import run
from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.description import describe, merged
from gensdk_training.data.feed import Feed
from gensdk_training.run import DataConfig, RunConfig, load_run, train
from support.image_folders import numbers, write_image, write_images
from support.tiny import tiny_run


def loaded(folder: Path, **options: Any) -> tuple[list[int], list[str]]:
    """The numbers that the images say, and the class of each."""
    data = load_data(str(folder), **options)
    batch = data.batch(np.arange(len(data)))
    names = data.info.class_names or ()
    data.close()
    classes = [] if batch.labels is None else [names[label] for label in batch.labels]
    return numbers(batch.images), classes


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Train", "Valid"), ("training", "validation"), ("train", "dev")]
)
def test_splits_by_any_usual_name_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    write_images(
        tmp_path, [f"{name}/{kind}/{i}.png" for name in names for kind in ("cat", "dog") for i in range(2)]
    )
    assert loaded(tmp_path) == ([0, 1, 2, 3], ["cat", "cat", "dog", "dog"])
    assert loaded(tmp_path, split="test") == ([4, 5, 6, 7], ["cat", "cat", "dog", "dog"])
    assert set(loaded(tmp_path, layout="classes")[1]) == set(names)
    described = describe(load_data(str(tmp_path)))
    assert described.split == f"train: the folder {names[0]}/, beside {names[1]}/"


@pytest.mark.parametrize(
    "tops", [("train",), ("test", "val"), ("train", "cat"), ("train", "Train", "test"), ("train", "test", "other")]
)
def test_what_may_be_splits_or_classes_is_asked(tops: tuple[str, ...], tmp_path: Path) -> None:
    write_images(tmp_path, [f"{top}/{i}.png" for top in tops for i in range(2)])
    with pytest.raises(InputError, match=r"splits of the data, or classes\? Say --layout"):
        load_data(str(tmp_path))
    assert set(loaded(tmp_path, layout="classes")[1]) == set(tops)
    if tops[0] == "train" and "Train" not in tops:
        assert loaded(tmp_path, layout="splits")[0] == [0, 1]


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    write_images(tmp_path, ["test/0.png", "dev/1.png", "ops/2.png"])
    assert loaded(tmp_path) == ([1, 2, 0], ["dev", "ops", "test"])
    with pytest.raises(InputError, match="no folder train/"):
        load_data(str(tmp_path), layout="splits")


def test_validation_beside_a_test_is_said_to_be_unused(tmp_path: Path) -> None:
    write_images(tmp_path, ["train/0.png", "val/1.png", "test/2.png"])
    assert loaded(tmp_path, split="test")[0] == [2]
    assert describe(load_data(str(tmp_path), split="test")).split == "test: the folder test/; val/ not used"


def test_links_are_followed_counted_and_never_go_round(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", ["cat/0.png", "cat/1.png"])
    root = tmp_path / "photos"
    write_image(root / "dog" / "7.png", 7)
    (root / "cat").symlink_to(elsewhere / "cat")
    (root / "dog" / "8.png").symlink_to(write_image(tmp_path / "eight.png", 8))
    (root / "dog" / "round").symlink_to(root)
    (root / "cat2").symlink_to(root / "dog")
    (root / "up").symlink_to(tmp_path)
    (root / "dog" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "gone").symlink_to(tmp_path / "nothing")
    (root / "self").symlink_to(root / "self")
    os.mkfifo(root / "dog" / "pipe.png")
    data = load_data(str(root))
    told = describe(data)
    assert numbers(data.batch(np.arange(4)).images) == [0, 1, 7, 8]
    assert told.classes == {"cat": 2, "dog": 2}
    assert (told.links, told.outside) == (2, 2)
    assert told.reasons["a link that leads nowhere"] == 2
    assert told.reasons["it is no plain file"] == 1
    assert told.skipped == sum(told.reasons.values()) == 7


def test_reasons_that_differ_in_numbers_alone_are_told_as_one() -> None:
    reasons = {
        "a link that leads nowhere": 3,
        "cut (6 bytes not processed)": 2,
        "ends at 4000, as 12 bits do": 1,
        "ends at 4080, as 12 bits do": 4,
        "cut (26 bytes not processed)": 1,
        "7 bytes": 1,
    }
    assert list(merged(reasons).items()) == [
        ("ends at 4000 to 4080, as 12 bits do", 5),
        ("a link that leads nowhere", 3),
        ("cut (6 to 26 bytes not processed)", 3),
        ("7 bytes", 1),
    ]


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path: Path) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    for name in ("a.heic", "b.HEIC", "c.txt", "README", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"x")
    told = describe(load_data(str(tmp_path)))
    assert told.left_out == {".heic": 2, ".txt": 1, "without suffix": 1}
    assert any("left out  4 files: .heic (2)" in line for line in told.lines())


def test_classes_without_a_whole_image_are_no_classes(tmp_path: Path) -> None:
    write_images(tmp_path, ["ant/0.png", "bee/1.png", "cat/2.png"])
    whole = (tmp_path / "bee" / "1.png").read_bytes()
    (tmp_path / "bee" / "1.png").write_bytes(whole[:-30])
    (tmp_path / "empty").mkdir()
    assert loaded(tmp_path) == ([0, 2], ["ant", "cat"])
    told = describe(load_data(str(tmp_path)))
    assert told.classes == {"ant": 1, "cat": 1}
    assert any("bee" in note for note in told.notes)
    assert any("empty" in note for note in told.notes)


def test_class_folders_of_any_name_come_to_a_checkpoint_and_a_model(tmp_path: Path) -> None:
    names = [
        b"caf\xe9",
        "a\u00a0b".encode(),
        "\U0001f469\u200d\U0001f680".encode(),
        b"two\nlines",
        b"\x1b]0;x\x07",
    ]
    for number, name in enumerate(names):
        folder = Path(os.fsdecode(os.fsencode(tmp_path / "data") + b"/" + name))
        for i in range(4):
            write_image(folder / f"{i}.png", 20 * number + i, (8, 8))
    settings = {**tiny_run("dcgan").config, "conditional": True, "steps": 2, "batch_size": 4}
    config = RunConfig(family="dcgan", data=DataConfig(source=str(tmp_path / "data")), config=settings)
    result = train(config, tmp_path / "run", progress=False, tensorboard=False)
    assert result.data is not None
    assert len(result.data.classes) == 5
    assert all(line.isprintable() for line in result.data.lines())
    trained = load_run(tmp_path / "run")
    model = trained.family.export_plan(trained.networks).model
    assert model.class_names == tuple(result.data.classes)
    told = json.loads((tmp_path / "run" / "data.json").read_text())
    assert told["classes"] == result.data.classes


FILES = st.lists(
    st.tuples(
        st.sampled_from(["ant", "bee", "train", "test", ""]),
        st.sampled_from(["deep/", ""]),
        st.integers(0, 99),
        st.sampled_from([".png", ".bmp", ".PNG", ".txt", ".cut.png", ".png.bak"]),
        st.sampled_from([(6, 6), (6, 6), (8, 5)]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=FILES,
    size=st.sampled_from([None, (6, 6)]),
    layout=st.sampled_from(["auto", "splits", "classes"]),
    labels=st.sampled_from(["auto", "none"]),
    holdout=st.sampled_from([0.0, 0.3]),
    memory=st.sampled_from([0, 1 << 20]),
    only=st.booleans(),
)
def test_what_is_said_is_what_is_trained_on(
    files: list[Any],
    size: Any,
    layout: Any,
    labels: str,
    holdout: float,
    memory: int,
    only: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("generated")
    for top, deep, number, suffix, shape in files:
        path = root / top / f"{deep}{number}{suffix}"
        if suffix in (".txt", ".png.bak"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            continue
        whole = write_image(path, 2 * number, shape).read_bytes()
        if suffix == ".cut.png":
            path.write_bytes(whole[:20])
    options: dict[str, Any] = {"layout": layout, "labels": labels, "holdout": holdout, "size": size}
    chosen = ("bee",) if only else ()
    data, refusal = None, ""
    try:
        data = load_data(str(root), memory_limit=memory, only=chosen, **options)
    except InputError as failure:
        refusal = str(failure)
    assert refusal.isprintable()
    assume(data is not None)
    assert data is not None
    told = describe(data)
    feed = Feed(data, seed=3, batch_size=len(data), device=torch.device("cpu"))
    batch = feed.batch(0)  # an epoch
    shown = list(told.classes)
    assert told.count == len(batch.images) == len(data)
    assert (told.channels, told.height, told.width) == tuple(batch.images.shape[1:])
    classes = [] if batch.labels is None else [shown[label] for label in batch.labels]
    assert Counter(classes) == Counter(told.classes)
    assert sum(told.sizes.values()) == told.count
    assert only <= (shown == ["bee"])
    every = [path for path in root.rglob("*") if path.is_file()]
    if not any((root / name).exists() for name in ("train", "test")) and holdout == 0 and not only:
        assert told.count + told.skipped + sum(told.left_out.values()) == len(every)
    feed.close()
    data.close()


def test_a_dry_run_says_it_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "photos", [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)], (8, 8))
    (tmp_path / "photos" / "cat" / "note.txt").write_bytes(b"x")
    asked = ["train", "vae", "--data", str(tmp_path / "photos"), "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    assert run(asked) == 0
    block = capsys.readouterr().out
    assert block.startswith("data: photos, 6 images of 8x8x1 (height x width x channels)\n")
    assert "  classes   2: cat (3), dog (3)\n" in block
    assert "  left out  1 files: .txt (1)\n" in block
    assert run([*asked, "--json", "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"cat": 3, "dog": 3}
    assert sorted(tmp_path.rglob("*")) == before
    assert run([*asked[:-1], "--out", str(tmp_path / "run"), "--set", "steps=1", "--no-tensorboard"]) == 0
    assert capsys.readouterr().out.startswith(block)
    assert (tmp_path / "run" / "data.json").is_file()
    assert run([*asked, "--value-range", "0,1"]) == 5
    assert "leave it out" in capsys.readouterr().err
    assert run(asked[:-1]) == 5
    assert "--out is missing" in capsys.readouterr().err
