"""A forked child samples as its parent does, or is told that it can't; it never waits for ever.

Each case is a program of its own, so that no thread of the test's process plays a part.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gensdk_runtime.bundles.embedded import embedded_path
from gensdk_runtime.plan.costs import Choice
from support.another_os import WINDOWS
from support.cost_tables import store_costs

pytestmark = pytest.mark.skipif(WINDOWS, reason="needs fork")

BEGIN = """
import os, sys, threading, time
import numpy as np
from gensdk import BackendError, Generator

def in_child(work):
    "What `work` says in a forked child, which then ends as any program does."
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            print(work(), flush=True)
        except BackendError as failure:
            print("BackendError:", failure, flush=True)
        sys.exit(0)
    end = time.monotonic() + 60
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, 9)
            sys.exit("the child hangs")
        time.sleep(0.01)
"""

TWO = Choice(threads=1, workers=2)
CHOICES = {
    "workers": [Choice(threads=1), TWO],
    "threads inside": [Choice(threads=2)],
    "spinning": [Choice(threads=2, spinning=True)],
}
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")


def run(program: str, cache: Path, *, tune: bool = True) -> list[str]:
    env = {**os.environ, "GENSDK_CACHE": str(cache), "GENSDK_TUNE": "" if tune else "off"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", BEGIN + program],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def stored(bundle: str, choices: list[Choice], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENSDK_CACHE", str(cache))
    store_costs(bundle, choices)
    return cache


SAME = """
generator = Generator.load("digits-dcgan")
expected = generator.sample(7, seed=1).data
work = lambda: np.array_equal(generator.sample(7, seed=1).data, expected)
in_child(work)
in_child(lambda: in_child(work))
print(work())
"""


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_children_and_grandchildren_draw_the_parents_samples(choices, tmp_path, monkeypatch) -> None:
    lines = run(SAME, stored("digits-dcgan", choices, tmp_path / "cache", monkeypatch))
    assert [line for line in lines if line != "None"] == ["True", "True", "True"]


BUSY = """
generator = Generator.load("digits-dcgan", backend="onnxruntime", threads=2) if {explicit} else \\
    Generator.load("digits-dcgan")
expected = generator.sample(7, seed=1).data
over = threading.Event()
def busy():
    while not over.is_set():
        generator.sample(5, seed=2)
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(6):
    in_child(lambda: np.array_equal(generator.sample(7, seed=1).data, expected))
over.set()
"""


@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "onnxruntime"])
def test_a_fork_while_other_threads_sample(explicit, tmp_path, monkeypatch) -> None:
    cache = stored("digits-dcgan", CHOICES["workers"], tmp_path / "cache", monkeypatch)
    assert run(BUSY.format(explicit=explicit), cache) == ["True"] * 6


ARENA = """
from gensdk_runtime.backends.onnxruntime import memory
generator = Generator.load("digits-dcgan", backend="onnxruntime")
generator.sample(2, seed=1)
work = lambda: (memory._bounded, generator.sample(2, seed=1).images.shape)
in_child(work)
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
in_child(work)
over.set()
"""


def test_a_child_shares_the_bounded_arena_only_where_no_thread_can_hold_its_lock(tmp_path) -> None:
    assert run(ARENA, tmp_path, tune=False) == ["(True, (2, 8, 8, 1))", "(False, (2, 8, 8, 1))"]


WITH_OPENVINO = """
generator = Generator.load("digits-dcgan")
if {sampled}:
    generator.sample(7, seed=1)
with Generator.load("digits-dcgan", backend="onnxruntime") as other:
    expected = other.sample(7, seed=1).data
def work():
    samples = generator.sample(7, seed=1)
    return samples.settings["backend"], samples.settings.get("fallback", "")[:60], \\
        bool(np.allclose(samples.data, expected, atol=1e-4))
in_child(work)
"""


@needs_openvino
@pytest.mark.parametrize(
    ("sampled", "backend", "said"),
    [(False, "openvino", ""), (True, "onnxruntime", "run in a process that was forked")],
    ids=["loaded", "sampled"],
)
def test_openvino_is_replaced_where_its_threads_stayed_behind(
    sampled, backend, said, tmp_path, monkeypatch
) -> None:
    choices = [Choice(backend="openvino", threads=1), Choice(backend="openvino", threads=1, workers=2)]
    cache = stored("digits-dcgan", choices, tmp_path / "cache", monkeypatch)
    lines = run(WITH_OPENVINO.format(sampled=sampled).replace("[:60]", ""), cache)
    assert len(lines) == 1
    assert lines[0].startswith(f"('{backend}', ")
    assert said in lines[0]
    assert lines[0].endswith("True)")


OPENVINO_BY_NAME = """
generator = Generator.load("digits-dcgan", backend="openvino")
generator.sample(3, seed=1)
in_child(lambda: generator.sample(3, seed=1))
in_child(lambda: Generator.load("digits-dcgan", backend="openvino").sample(3, seed=1))
"""


@needs_openvino
def test_openvino_by_name_says_why_not(tmp_path) -> None:
    lines = run(OPENVINO_BY_NAME, tmp_path / "cache", tune=False)
    assert len(lines) == 2
    assert all(line.startswith("BackendError: OpenVINO can't run in a process that was forked") for line in lines)
    assert all("without --preload" in line for line in lines)


CLOSED_BUNDLE = """
from gensdk import Bundle
with Bundle.open(r"{path}") as bundle:
    generator = Generator.load(bundle, backend="onnxruntime")
expected = generator.sample(5, seed=1).data
in_child(lambda: np.array_equal(generator.sample(5, seed=1).data, expected))
generator.close()
in_child(lambda: generator.sample(5, seed=1))
with Generator.load(r"{path}", backend="onnxruntime") as generator:
    size = os.path.getsize(r"{path}")
    with open(r"{path}", "r+b") as file:
        file.write(b"x" * size)
    in_child(lambda: generator.sample(5, seed=1))
"""


def test_what_the_child_can_not_open_again_is_said(tmp_path) -> None:
    source = embedded_path("digits-dcgan")
    assert source is not None
    path = tmp_path / "copy.gsdk"
    path.write_bytes(source.read_bytes())
    lines = run(CLOSED_BUNDLE.format(path=path), tmp_path / "cache", tune=False)
    assert lines[0] == "True"
    assert lines[1].startswith("BackendError:")
    assert "closed" in lines[1]
    assert "can't be opened again after this process was forked" in lines[2]


SESSIONS = """
from gensdk import Bundle
from gensdk_runtime.backends import create_backend
from gensdk_runtime.plan.runner import open_runner
with Bundle.open("digits-dcgan") as bundle:
    runner = open_runner(bundle, create_backend("onnxruntime", threads=2), "fp32")
    generator = Generator.from_sessions(bundle.manifest.model, runner.sessions)
generator.sample(3, seed=0)
in_child(lambda: generator.sample(3, seed=0))
print(len(generator.sample(3, seed=0).data))
"""


def test_sessions_of_the_callers_own_are_refused_in_the_child(tmp_path) -> None:
    lines = run(SESSIONS, tmp_path / "cache", tune=False)
    assert "was opened before this process was forked" in lines[0]
    assert lines[1] == "3"


ZIP_AT_ONCE = """
generator = Generator.load("digits-dcgan", backend="onnxruntime")
expected = generator.sample(2, seed=1).data
pids = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            generator._executor.after_fork(); generator._executor.runners.after_fork()
            assert np.array_equal(generator.sample(2, seed=1).data, expected)
        os._exit(0)
    pids.append(pid)
print([os.waitpid(pid, 0)[1] for pid in pids])
"""


def test_children_read_the_same_open_file_at_once(tmp_path) -> None:
    """They share its place with each other, which only a read at a given place does not mind."""
    assert run(ZIP_AT_ONCE, tmp_path / "cache", tune=False) == [str([0] * 6)]


LIKELIHOOD = """
generator = Generator.load("digits-pixelcnn")
generator.sample(3, seed=1)
images = np.zeros((2, 8, 8), np.uint8)
with Generator.load("digits-pixelcnn", backend="onnxruntime") as other:
    expected = other.log_likelihood(images, [0, 1])
in_child(lambda: np.allclose(generator.log_likelihood(images, [0, 1]), expected, rtol=1e-4))
"""


@needs_openvino
def test_what_runs_graph_by_graph_is_replaced_too(tmp_path, monkeypatch) -> None:
    choices = [Choice(backend="openvino", threads=1)]
    assert run(LIKELIHOOD, stored("digits-pixelcnn", choices, tmp_path / "cache", monkeypatch)) == ["True"]
