"""The bar: there on long work, in every way of splitting it; silent on short work and where nobody watches."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gensdk_runtime.generator import Generator
from gensdk_runtime.host import progress
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.plan.costs import Choice
from support.cost_tables import store_costs
from support.models import MODELS, generator

PROGRAM = """
import sys
from gensdk_runtime.host import progress
progress.PATIENCE = 0.0
from gensdk import Generator
with Generator.load(sys.argv[1]) as generator:
    generator.sample(int(sys.argv[2]), seed=0)
"""


def on_terminal(command: list[str], env: dict[str, str]) -> str:
    """What `command` writes to stderr, which is a terminal; stdout is none."""
    parent, child = pty.openpty()
    process = subprocess.Popen(command, env=env, stderr=child, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(child)
    seen = b""
    end = time.monotonic() + 120
    while time.monotonic() < end and select.select([parent], [], [], 120)[0]:
        try:
            data = os.read(parent, 65536)
        except OSError:  # Linux: nobody has the other end any more
            break
        if not data:
            break
        seen += data
    os.close(parent)
    assert process.wait(60) == 0, seen.decode(errors="replace")
    return seen.decode(errors="replace")


ROUNDS = {
    "one batch a round": [Choice(threads=1)],
    "several batches a round": [Choice(threads=1), Choice(threads=1, workers=2)],
}


@pytest.mark.parametrize("choices", ROUNDS.values(), ids=ROUNDS)
@pytest.mark.parametrize("bundle", ["digits-ddpm", "digits-dcgan"])
def test_a_terminal_shows_the_bar_however_the_work_is_split(bundle, choices, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    store_costs(bundle, choices)
    env = {**os.environ, "GENSDK_TUNE": "", "TERM": "xterm", "COLUMNS": "80"}
    shown = on_terminal([sys.executable, "-P", "-c", PROGRAM, bundle, "40"], env)
    assert f"sampling {bundle}" in shown
    assert "100%" in shown


@pytest.mark.parametrize("program", MODELS)
def test_the_whole_of_the_work_is_told_once(program, monkeypatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(Progress, "_tell", lambda self, done: told.append(done / self._parts))
    with generator(MODELS[program]()) as sampling:
        sampling.sample(20, seed=0, progress=True, batch_size=3)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert len(told) > 1


def test_short_work_shows_nothing(capsys) -> None:
    with Generator.load("digits-dcgan", backend="onnxruntime") as sampling:
        sampling.sample(2, seed=0, progress=True)
    assert capsys.readouterr().err == ""
