"""A run folder that somebody sent, and a disk that is full: nothing is lost, nothing blocks, one line each."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gensdk_runtime.errors import GensdkError, InputError, TrainingError
from gensdk_training.board import Board
from gensdk_training.checkpoint import checkpoint_paths
from gensdk_training.run import load_run, read_run_config, train
from support.tiny import tiny_run

resource = pytest.importorskip("resource", reason="POSIX's limits and special files")

CONSTANT = {"lr_schedule": "constant"}
OWN = ("run.json", "diagnosis.json", ".lock", "checkpoints", "previews", "logs")
FILES = ("run.json", ".lock", "state.json", "model.safetensors", "ema.safetensors", "optimizer.safetensors")
READ = tuple(name for name in FILES if name != ".lock")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as it comes, which may go on to six steps."""
    run = tmp_path_factory.mktemp("sent") / "run"
    train(tiny_run("pix2pix", steps=2, preview_every=2, config=CONSTANT), run, progress=False)
    return run


@pytest.fixture
def run(sent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sent, tmp_path / "run", symlinks=True))


def go_on(run: Path, **settings: Any) -> None:
    train(
        tiny_run("pix2pix", steps=4, preview_every=2, config=CONSTANT, **settings),
        run,
        resume=True,
        progress=False,
    )


def place(run: Path, name: str) -> Path:
    """Where a file of a run lies: in the run itself, or in its checkpoint."""
    in_checkpoint = name == "state.json" or name.endswith(".safetensors")
    return (checkpoint_paths(run / "checkpoints")[0] if in_checkpoint else run) / name


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def one_line(failure: pytest.ExceptionInfo[GensdkError]) -> None:
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 600


def test_a_whole_run_goes_on_and_leaves_no_temporary_files(run: Path) -> None:
    for folder, name in (
        (run, ".run.json.new-0badf00d"),
        (run, ".examples.npz.0badf00d"),
        (run, ".diagnosis.json.new-0badf00d"),
        (run / "previews", ".step-0000002.png.0badf00d"),
    ):
        (folder / name).write_text("left by kill -9")
    left = run / "checkpoints" / ".step-0000002.new-0badf00d"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    go_on(run)
    assert checkpoint_paths(run / "checkpoints")[0].name == "step-0000004"
    assert not [str(path) for path in run.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("name", OWN)
def test_what_a_link_leads_to_stays_as_it_was(run: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    shutil.copytree(run, precious)
    before, is_folder = tree(precious), (run / name).is_dir()
    if is_folder:
        shutil.rmtree(run / name)
    else:
        (run / name).unlink(missing_ok=True)
        (precious / name).touch()
        before = tree(precious)
    (run / name).symlink_to(precious / name)
    if name == "diagnosis.json":  # only looked at, and not through a link
        go_on(run)
        assert not (run / name).is_symlink()
    else:
        with pytest.raises((InputError, TrainingError), match="it is a link, which is not followed") as failure:
            go_on(run)
        one_line(failure)
    assert tree(precious) == before


def test_a_dangling_link_makes_nothing_where_it_points(run: Path, tmp_path: Path) -> None:
    for name in (".lock", "logs"):
        target = run / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        target.symlink_to(tmp_path / "made by mistake")
        with pytest.raises(InputError, match="it is a link"):
            go_on(run)
        target.unlink()
    assert not (tmp_path / "made by mistake").exists()


@pytest.mark.parametrize(
    ("name", "open_it"), [("run.json", go_on), (".lock", go_on), *((name, load_run) for name in READ)]
)
def test_a_pipe_neither_blocks_nor_crashes(run: Path, name: str, open_it: Callable[[Path], object]) -> None:
    path = place(run, name)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises((InputError, TrainingError), match="not a plain file") as failure:
        open_it(run)
    one_line(failure)


@pytest.mark.parametrize("name", READ)
def test_a_device_is_not_read_without_end(run: Path, name: str) -> None:
    path = place(run, name)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises((InputError, TrainingError), match="it is a link") as failure:
        load_run(run)
    one_line(failure)


@pytest.mark.parametrize("name", READ)
def test_a_file_without_end_is_refused_by_its_size(run: Path, name: str) -> None:
    os.truncate(place(run, name), 2**42)
    with pytest.raises((InputError, TrainingError), match=f"{2**42} bytes, where at most") as failure:
        load_run(run)
    one_line(failure)


def test_a_checkpoint_that_is_a_link_is_neither_read_nor_are_its_files_removed(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    before = tree(other)
    step = checkpoint_paths(run / "checkpoints")[0]
    shutil.rmtree(step)
    step.symlink_to(other / "checkpoints" / step.name)
    with pytest.raises(InputError, match="it is a link"):
        load_run(run)
    go_on(run, keep_checkpoints=1)
    assert tree(other) == before


def test_checkpoints_of_another_run_are_not_opened_through_a_link(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    before = tree(other)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(other / "checkpoints")
    with pytest.raises(InputError, match="no whole checkpoint"):
        load_run(run)
    assert tree(other) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("channels", 1024), ("depth", 8), ("channels", 10**12), ("channels", "8"), ("channels", -1)],
)
def test_huge_settings_in_a_state_take_no_memory(run: Path, key: str, value: Any) -> None:
    path = place(run, "state.json")
    state = json.loads(path.read_text())
    state["run"]["config"][key] = value
    if key == "depth":
        for part in (state["data"], state["data"]["source"]):
            part["height"] = part["width"] = 16384
    path.write_text(json.dumps(state))
    with pytest.raises((InputError, TrainingError)) as failure:
        load_run(run)
    one_line(failure)


@pytest.mark.parametrize("count", [2**40, 10**30, -1, 0])
def test_huge_data_in_a_state_take_no_memory(tmp_path: Path, count: int) -> None:
    train(tiny_run("glo", steps=1), tmp_path, progress=False, tensorboard=False)
    path = place(tmp_path, "state.json")
    state = json.loads(path.read_text())
    state["data"]["count"] = count
    path.write_text(json.dumps(state))
    with pytest.raises((InputError, TrainingError)) as failure:
        load_run(tmp_path)
    one_line(failure)


@pytest.mark.parametrize("length", [2**40, 2**63, 0, 7])
def test_headers_of_tensors_that_lie_about_their_length_are_refused(run: Path, length: int) -> None:
    """With a checksum that holds: who sends a run can compute one."""
    import hashlib

    path = place(run, "model.safetensors")
    data = struct.pack("<Q", length) + path.read_bytes()[8:]
    path.write_bytes(data)
    state = json.loads(place(run, "state.json").read_text())
    state["sha256"]["model"] = hashlib.sha256(data).hexdigest()
    place(run, "state.json").write_text(json.dumps(state))
    with pytest.raises((InputError, TrainingError)) as failure:
        load_run(run)
    one_line(failure)


def test_settings_beyond_this_machine_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for family, config in (("wgan", {"hidden": [65536] * 8}), ("dcgan", {"generator_channels": 60_000})):
        run = tiny_run(family, config=config)
        with pytest.raises(InputError, match=r"more than the .* of this machine"):
            train(run, tmp_path / "run", progress=False, tensorboard=False)
        assert not (tmp_path / "run" / "run.json").exists(), "the folder can be used again"


def test_another_familys_run_is_told_by_its_family(run: Path) -> None:
    with pytest.raises(TrainingError, match="can't be continued: it is of a run of 'pix2pix', not of 'vae'"):
        train(tiny_run("vae"), run, resume=True, progress=False, tensorboard=False)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_weights_that_a_run_names_neither_block_nor_end_never(tmp_path: Path, kind: str) -> None:
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    for family, config in (
        ("srgan", {"objective": "gan", "extractor": str(path)}),
        ("srgan", {"objective": "gan", "extractor": f"vgg19:{path}"}),
        ("deepdream", {"weights": str(path)}),
    ):
        with pytest.raises(InputError, match="not a plain file") as failure:
            train(tiny_run(family, config=config), tmp_path / "run", progress=False, tensorboard=False)
        one_line(failure)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files can't grow over `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_the_start_is_one_line(tmp_path: Path) -> None:
    with file_limit(10), pytest.raises(TrainingError, match=r"can't write .*run\.json \(File too large\)"):
        train(tiny_run("vae"), tmp_path / "run", progress=False)
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock"]


def test_a_checkpoint_that_does_not_fit_leaves_the_last_good_one(run: Path) -> None:
    before = tree(run / "checkpoints")
    assert max(map(len, before.values())) > 20_000
    with (
        file_limit(20_000),
        pytest.raises(TrainingError, match=r"can't write checkpoint .* checkpoint is of step 2"),
    ):
        go_on(run)
    assert tree(run / "checkpoints") == before
    load_run(run)
    go_on(run)


def test_curves_that_cant_be_written_end_no_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    notes: list[str] = []
    board = Board(tmp_path / "file" / "logs", step=0, note=notes.append)
    board.scalars(1, {"loss": 1.0})
    board.close()
    assert len(notes) == 1
    assert os.strerror(errno.ENOTDIR) in notes[0]


def test_a_disk_that_fills_while_curves_are_written_ends_no_training(tmp_path: Path) -> None:
    notes: list[str] = []
    board = Board(tmp_path / "logs", step=0, note=notes.append)
    with file_limit(2000):
        for step in range(200):
            board.scalars(step, {"loss": 1.0, "other": 2.0})
        board.close()
    assert notes == ["no more curves for TensorBoard: they can't be written (File too large)"]


def test_a_run_that_was_refused_leaves_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size of 2 or more"):
        train(tiny_run("sgan", config={"batch_size": 1}), tmp_path / "run", progress=False)
    train(tiny_run("sgan", steps=1), tmp_path / "run", progress=False)
    assert read_run_config(tmp_path / "run").config["batch_size"] == 16
