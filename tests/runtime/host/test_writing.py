"""Files and folders are written all or nothing, where the user said, and what killed writers left is swept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host import atomic
from gensdk_runtime.host.scratch import PREFIX, scratch_folder
from gensdk_runtime.media.images import write_atomically
from support.another_os import WINDOWS
from support.tiny_bundle import tiny_files, tiny_manifest

posix = pytest.mark.skipif(WINDOWS, reason="locks tell who lives on POSIX systems")


@pytest.fixture(params=["nothing.out", "/nowhere/at/all", "../elsewhere"])
def dangling(request, tmp_path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    link = folder / "out"
    link.symlink_to(request.param)
    return link


def test_a_bundle_is_not_written_through_a_link_to_nothing(dangling, tmp_path) -> None:
    for as_zip in (False, True):
        with pytest.raises(BundleError, match="a link to something that is not there; remove it"):
            write_bundle(dangling, tiny_manifest(), tiny_files(), as_zip=as_zip)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "out"]


@pytest.mark.parametrize("suffix", [".png", ".npz"])
def test_samples_replace_a_link_and_not_what_it_names(tmp_path, suffix) -> None:
    target, link = tmp_path / "target", tmp_path / f"out{suffix}"
    link.symlink_to(target)
    with Generator.load("digits-vae", backend="onnxruntime") as generator:
        generator.sample(2, seed=0).save(link)
        assert not link.is_symlink()
        assert not target.exists()
        target.write_bytes(b"somebody's")
        link.unlink()
        link.symlink_to(target)
        generator.sample(2, seed=0).save(link)
    assert target.read_bytes() == b"somebody's"
    assert not link.is_symlink()


def test_a_folder_of_samples_behind_a_link_to_nothing_is_refused(tmp_path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with Generator.load("digits-vae", backend="onnxruntime") as generator:
        samples = generator.sample(2, seed=0)
    with pytest.raises(Exception, match="can't write"):
        samples.save(tmp_path / "out", layout="folder")
    assert not (tmp_path / "nowhere").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from gensdk_runtime.host import atomic
from gensdk_runtime.host.scratch import scratch_folder
with atomic.sibling(Path(sys.argv[1]), folder=True) as new, scratch_folder() as scratch:
    (new / "half").write_bytes(b"x")
    (scratch / "half").write_bytes(b"x")
    print(new, scratch, sep="\\n", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


@posix
def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}

    def start(mode: str) -> tuple[subprocess.Popen[str], list[Path]]:
        command = [sys.executable, "-c", KILLED, str(tmp_path / "one target"), mode]
        process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return process, [Path(process.stdout.readline().rstrip()) for _ in range(2)]

    killed, left = start("killed")
    assert killed.wait(30) == -signal.SIGKILL
    assert all(path.exists() for path in left)
    living, held = start("living")
    try:
        assert not any(path.exists() for path in left)  # the second one swept
        atomic._swept.clear()
        write_atomically(tmp_path / "another target", b"x")
        with scratch_folder(), atomic.sibling(tmp_path / "a third", folder=False):
            assert all((path / "half").exists() for path in held)
    finally:
        living.communicate("")
    assert not any(path.exists() for path in held)
    for process in (killed, living):
        process.stdin.close()
        process.stdout.close()


@posix
def test_nothing_but_our_own_is_swept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (".x.new", ".x.new-1234567", ".x.new-1234567g", "x.new-12345678", "gensdk", "gensdk-other"):
        (tmp_path / name).mkdir()
    (tmp_path / ".link.new-12345678").symlink_to(tmp_path / "gensdk")
    before = {path.name for path in tmp_path.iterdir()}
    with scratch_folder() as folder:
        assert re.fullmatch(re.escape(PREFIX) + ".+", folder.name)
        with atomic.sibling(tmp_path / "x", folder=True):
            pass
    assert {path.name for path in tmp_path.iterdir()} == before


def test_small_files_are_written_whole(tmp_path) -> None:
    target = tmp_path / "x.json"
    for number in range(3):
        write_atomically(target, json.dumps([number]).encode())
        assert json.loads(target.read_bytes()) == [number]
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert np.bitwise_and(target.stat().st_mode, 0o600) == 0o600


@pytest.mark.skipif(not WINDOWS, reason="elsewhere an open file is replaced at once")
def test_a_file_that_someone_reads_is_replaced_once_it_is_closed(tmp_path: Path) -> None:
    atomic.write_file(tmp_path / "x", b"old")
    reader = (tmp_path / "x").open("rb")
    closing = threading.Timer(0.2, reader.close)
    closing.start()
    atomic.write_file(tmp_path / "x", b"new", durable=True)
    closing.join()
    assert reader.closed
    assert (tmp_path / "x").read_bytes() == b"new"
