"""``kill -9`` during an export leaves the old bundle or the new one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.proof.verify import verify_bundle
from support.another_os import WINDOWS
from support.exporting import serve_exports

TRIALS = 20


@pytest.mark.slow
@pytest.mark.skipif(WINDOWS, reason="no kill -9")
def test_a_kill_at_any_moment_leaves_a_whole_bundle(tmp_path: Path) -> None:
    """Half of the kills come at any moment of an export, half while it writes."""
    out, scratch = tmp_path / "bundles" / "model.gsdk", tmp_path / "scratch"
    scratch.mkdir()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_exports, args=(there, out, scratch))
    server.start()
    one_export, one_writing = here.recv()
    moments, folders = random.Random(0), {out.stat().st_ino}
    for trial in range(TRIALS):
        here.send("go")
        exporter = here.recv()
        if trial % 2:
            assert here.recv() == "writing"
            time.sleep(moments.uniform(0, 1.5 * one_writing))
        else:
            time.sleep(moments.uniform(0, one_export))
        os.kill(exporter, signal.SIGKILL)
        while here.recv() != "gone":
            pass
        with Bundle.open(out) as bundle:
            bundle.verify_files()
            assert bundle.manifest.provenance.steps in (1, 2)
        folders.add(out.stat().st_ino)
    here.send("")
    server.join(30)
    assert len(folders) > 1, (
        "no killed exporter had replaced the bundle: the kills were too early to tell anything"
    )
    assert verify_bundle(out).ok
