"""Bundles with right checksums that ask for more than there is, or never end: each is refused in one line.

Each runs in a process of its own with a limit, so that what is not refused fails here and not the machine.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, InputError, IntegrityError
from gensdk_runtime.host.known_files import is_known
from gensdk_runtime.onnx_files.scan import MAX_NODES, scan
from gensdk_runtime.plan.first_run import ENVIRONMENT, try_first
from support.another_os import LINUX
from support.bombs import BOMBS, bomb_bundle, endless, functions, graph_of, node
from support.processes import wait_until_gone
from support.tiny_bundle import lay_out, pack, refusal, sealed, tiny_files

GENSDK = Path(sys.executable).parent / "gensdk"
ENDLESS = ("a loop without end", "a loop without end, of constants")
REFUSED_UNREAD = ("functions",)
HUNGRY = [kind for kind in BOMBS if kind not in (*ENDLESS, *REFUSED_UNREAD)]
LIMIT = 2**30
FIRM = 6 * 2**30
"""What the test's process may have at most: bombs ask for 32 GiB."""

pytestmark = pytest.mark.skipif(not LINUX, reason="limits are set as Linux does")


def command(
    tmp_path: Path, *arguments: str, patience: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GENSDK_CACHE": str(tmp_path / "cache"), "GENSDK_MEMORY_LIMIT": str(LIMIT), **environment}
    return subprocess.run(
        [str(GENSDK), *arguments],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (FIRM, FIRM)),
    )


SAMPLES = """
import json, sys
from gensdk import BackendError, Generator
said = {}
for path in sys.argv[1:]:
    try:
        with Generator.load(path, backend="onnxruntime") as generator:
            generator.sample(1, seed=0)
    except BackendError as failure:
        said[path] = str(failure)
with Generator.load("digits-vae", backend="onnxruntime") as generator:
    said["digits-vae"] = str(len(generator.sample(2, seed=0)))
print(json.dumps(said))
"""


def test_a_graph_that_wants_more_memory_than_it_may_have_is_an_error(tmp_path) -> None:
    """One line each, and the process that loaded them goes on."""
    paths = {kind: str(bomb_bundle(tmp_path / f"{number}.gsdk", kind)) for number, kind in enumerate(HUNGRY)}
    env = {**os.environ, "GENSDK_CACHE": str(tmp_path / "cache"), "GENSDK_MEMORY_LIMIT": str(LIMIT)}
    done = subprocess.run(
        [sys.executable, "-c", SAMPLES, *paths.values()], env=env, capture_output=True, text=True, check=False,
        timeout=300, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (FIRM, FIRM)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for kind, path in paths.items():
        assert "GENSDK_MEMORY_LIMIT" in said[path], (kind, said.get(path))
        assert "\n" not in said[path]
    assert said["digits-vae"] == "2"


@pytest.mark.parametrize("kind", ["a loop that doubles", "a shape that is computed"])
def test_measuring_a_bomb_costs_the_child_alone(tmp_path, kind) -> None:
    path = bomb_bundle(tmp_path / "bomb.gsdk", kind)
    done = command(tmp_path, "sample", str(path), "-n", "1", GENSDK_TUNE="")
    # OpenVINO may see through the shape, and then draws the sample without that memory.
    seen_through = kind == "a shape that is computed" and "openvino" in done.stdout
    assert done.returncode == (0 if seen_through else 4), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_graph_without_end_is_tried_where_it_can_be_ended(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ENVIRONMENT, "2")
    with Bundle.open(bomb_bundle(tmp_path / "bomb.gsdk", kind)) as bundle:
        for _ in range(2):  # it is not remembered as one that ends
            with pytest.raises(BackendError, match=r"did not come to an end within 2 s; set GENSDK_FIRST_RUN"):
                try_first(bundle.graph_source("generator", "fp32"), "fp32")


def test_a_loop_that_ends_is_tried_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(BOMBS, "calm", lambda: endless(turns=3))
    with Bundle.open(bomb_bundle(tmp_path / "calm.gsdk", "calm")) as bundle:
        source = bundle.graph_source("generator", "fp32")
        digest = bundle.manifest.files[source.file].sha256
        assert not is_known(digest, "ran")
        try_first(source, "fp32")
        assert is_known(digest, "ran")
        monkeypatch.setattr("gensdk_runtime.plan.first_run.run_module", None)
        try_first(source, "fp32")


def test_a_graph_without_loops_is_not_tried(tmp_path, monkeypatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr("gensdk_runtime.plan.first_run.run_module", lambda *given, **_: tried.append(given))
    with Bundle.open("digits-vae") as bundle:
        try_first(bundle.graph_source("decoder", "fp32"), "fp32")
    assert not tried


@pytest.mark.parametrize("given", ["0", "soon", "-3", "nan", "1e9"])
def test_the_time_of_a_first_run_is_checked(tmp_path, monkeypatch, given) -> None:
    monkeypatch.setenv(ENVIRONMENT, given)
    with Bundle.open("digits-vae") as bundle, pytest.raises(InputError, match="GENSDK_FIRST_RUN"):
        try_first(bundle.graph_source("decoder", "fp32"), "fp32")


def test_ctrl_c_ends_a_run_that_would_never_end(tmp_path) -> None:
    path = bomb_bundle(tmp_path / "bomb.gsdk", "a loop without end")
    env = {**os.environ, "GENSDK_FIRST_RUN": "off", "GENSDK_MEMORY_LIMIT": str(LIMIT)}
    arguments = [str(GENSDK), "sample", str(path), "-n", "1", "--backend", "onnxruntime"]
    with subprocess.Popen(arguments, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for_processor_time(process.pid, 2.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == "stopped"


HANGS = """
import numpy as np
from gensdk.cli import ctrl_c
ctrl_c.listen()
np.linalg.svd(np.random.default_rng(0).random((3000, 3000)))
"""


def test_a_second_ctrl_c_ends_what_hears_of_none(tmp_path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", HANGS], env=env, stderr=subprocess.PIPE, text=True) as process:
        wait_for_processor_time(process.pid, 1.5)
        process.send_signal(signal.SIGINT)
        time.sleep(1.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == "stopped\n"


def test_killing_the_tuner_takes_its_children_along(tmp_path) -> None:
    path = bomb_bundle(tmp_path / "bomb.gsdk", "a loop without end")
    env = {**os.environ, "GENSDK_CACHE": str(tmp_path / "cache"), "GENSDK_MEMORY_LIMIT": str(LIMIT)}
    with subprocess.Popen(
        [str(GENSDK), "tune", str(path)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(600):
            children = children_of(process.pid)
            if any(processor_seconds(child) > 1.5 for child in children):
                break
            time.sleep(0.1)
        process.kill()
    assert children
    for child in children:
        wait_until_gone(child)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_processor_time(pid: int, seconds: float) -> None:
    """Until it has worked so long: started, loaded, and in the loop."""
    for _ in range(1200):
        if processor_seconds(pid) > seconds:
            return
        time.sleep(0.05)
    raise AssertionError("it does not work")


# ---- what is refused before it is read


def test_functions_that_stand_for_too_much_are_refused() -> None:
    for depth in (18, 40, 99):
        with pytest.raises(IntegrityError, match=f"stand for more than {MAX_NODES} nodes"):
            scan(functions(depth))
    assert scan(functions(10)).inputs == ("z",)


def test_functions_in_a_circle_or_too_deep_are_refused() -> None:
    with pytest.raises(IntegrityError, match="call each other without end"):
        scan(functions(3, circle=True))
    with pytest.raises(IntegrityError, match="nested deeper"):
        scan(functions(3000, calls=1))


def test_a_compiled_engine_in_a_graph_is_refused() -> None:
    hidden = node("EPContext", ["z"], ["grown"], domain="com.microsoft", embed_mode=1, ep_cache_context=b"code")
    with pytest.raises(IntegrityError, match=r"compiled engine \(EPContext\), which is code"):
        scan(graph_of([hidden], []))


TEXTS = {
    "a constant": lambda: [node("Constant", [], ["grown"], value_strings=[b"x" * 100])],
    "a tensor": lambda: [node("Constant", [], ["grown"], value=helper.make_tensor("t", 8, [1], [b"x"]))],
    "a cast": lambda: [node("Cast", ["z"], ["grown"], to=8)],
    "a table": lambda: [node("LabelEncoder", ["z"], ["grown"], domain="ai.onnx.ml", values_strings=[b"x"])],
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_refused_since_nothing_bounds_their_memory(kind) -> None:
    with pytest.raises(IntegrityError, match="works on texts"):
        scan(graph_of(TEXTS[kind](), []))
    scan(graph_of([node("Cast", ["z"], ["grown"], to=1)], []))


def test_a_zip_that_unpacks_to_far_more_is_refused_unread(tmp_path) -> None:
    """Each entry alone is below the limit of one."""
    rng = np.random.default_rng(0)
    block = rng.bytes(6 * 2**10) + bytes(2**20 - 6 * 2**10)  # shrinks 170 times
    files = sealed({**tiny_files(), **{f"extra/{number}": block * 8 for number in range(40)}})
    path = pack(tmp_path / "bomb.gsdk", files, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 4 * 2**20
    refusal(path, IntegrityError, r"grows from \d+ to \d+ bytes .*unzip it")


def test_a_bundle_over_the_limit_is_refused_unread_and_the_user_may_raise_it(tmp_path, monkeypatch) -> None:
    path = lay_out(tmp_path / "x", sealed(tiny_files()))
    monkeypatch.setenv("GENSDK_BUNDLE_LIMIT", "100")
    refusal(path, IntegrityError, "at most 100 are read; set GENSDK_BUNDLE_LIMIT")
    monkeypatch.setenv("GENSDK_BUNDLE_LIMIT", "1MiB")
    Bundle.open(path).close()


def test_a_graph_larger_than_an_onnx_file_can_be_is_refused_unread(tmp_path) -> None:
    """A hole in a file takes no room on the disk, and all of it in memory."""
    path = lay_out(tmp_path / "x", sealed(tiny_files()))
    manifest = (path / "manifest.json").read_text()
    size = len(tiny_files()["graphs/scale.onnx"])
    (path / "manifest.json").write_text(manifest.replace(f'"size": {size}', f'"size": {2**31}'))
    with (path / "graphs/scale.onnx").open("r+b") as file:
        file.truncate(2**31)
    refusal(path, IntegrityError, "over 2 GiB, more than an ONNX file can")
