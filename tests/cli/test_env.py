"""What ``gensdk env`` says of packages that share a module, and of extras."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from gensdk.cli import env
from gensdk_runtime.backends import chains
from gensdk_runtime.backends.chain import Link
from gensdk_runtime.backends.onnxruntime import backend as onnxruntime_backend
from gensdk_runtime.backends.onnxruntime.trial import trial_link
from gensdk_runtime.host.nvidia import Driver
from support.gpu_onnxruntime import GpuOnnxRuntime, put_in
from support.nvidia_stubs import build_driver, needs_compiler, run_with_driver

BOTH = ("onnxruntime", "onnxruntime-gpu")
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ((), "pip install opencv-python"),
        (("opencv-python",), "installed (opencv-python)"),
        (("opencv-python-headless",), "installed (opencv-python-headless, for cameras; it has no windows)"),
        (("opencv-contrib-python",), "installed (opencv-contrib-python)"),
        (
            ("opencv-python", "opencv-python-headless"),
            "overwrite each other: pip uninstall -y opencv-python opencv-python-headless, "
            "then pip install opencv-python",
        ),
    ],
)
def test_any_one_package_of_opencv_will_do(
    installed: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "version", lambda name: "5.0" if name in installed else None)
    assert said in env.opencv_state()


@pytest.mark.parametrize(
    ("extra", "installed", "said"),
    [
        ("gpu", ("onnxruntime",), 'pip uninstall -y onnxruntime && pip install "gensdk[gpu]"'),
        ("cpu", ("onnxruntime-gpu",), "not needed: onnxruntime-gpu runs on the processor too"),
        ("gpu", (), 'pip install "gensdk[gpu]" (onnxruntime-gpu, cuda-bindings missing)'),
        ("gpu", ("onnxruntime-gpu",), 'pip install "gensdk[gpu]" (cuda-bindings missing)'),
        ("gpu", ("onnxruntime-gpu", "cuda-bindings"), "installed"),
        ("gpu", BOTH, 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "gensdk[gpu]"'),
        ("cpu", BOTH, 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "gensdk[cpu]"'),
        ("import", ("onnxruntime",), 'pip install "gensdk[import]" (onnx missing)'),
        ("import", ("onnx",), 'pip install "gensdk[cpu]", or "gensdk[gpu]" (ONNX Runtime is missing beside it)'),
        ("import", ("onnx", "onnxruntime-gpu"), "installed"),
    ],
)
def test_the_advice_of_an_extra_overwrites_nothing(
    extra: str, installed: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "version", lambda name: "1.0" if name in installed else None)
    assert env.extra_state(extra).startswith(said)


def test_the_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {
        extra: tuple(re.match(r"[A-Za-z0-9-]+", each)[0] for each in wanted)  # type: ignore[index]
        for extra, wanted in extras.items()
    }
    assert {extra: wanted for extra, wanted in names.items() if extra not in ("dev", "opencv")} == env.EXTRAS
    owners = [extra for extra, wanted in names.items() if {*wanted} & {*BOTH}]
    assert owners == ["cpu", "gpu"], "two of them in one environment would be two ONNX Runtimes"


CHAINS = """
import json
from gensdk_runtime.backends import get_backend
chains = get_backend("onnxruntime").chains()
found = {name: [{link.what: link.ok for link in each.links}, each.remedy] for name, each in chains.items()}
print(json.dumps(found))
"""


@needs_compiler
@pytest.mark.parametrize(("capability", "will_do"), [((8, 9), True), ((7, 5), False)])
def test_the_chain_begins_at_the_driver(capability, will_do, tmp_path: Path) -> None:
    """This machine's packages, under a driver of a few lines of C."""
    done = run_with_driver(build_driver(tmp_path / "driver", capability=capability), "-c", CHAINS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    links, remedy = found["nvtensorrtrtx"]
    assert (links["GPU"], links["driver"], links["CUDA"]) == (True, True, True)
    assert links["compute capability"] == will_do
    assert links["package"] is False
    assert ("pip install onnxruntime-ep" in remedy) == will_do
    assert found["cuda"][0]["compute capability"] is True
    assert found["cpu"] == [{"package": True}, ""]


def test_each_link_that_is_missing_is_mended_by_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, GpuOnnxRuntime(built_in=()), Driver(problem="no NVIDIA driver was found"))
    broken = {name: chain for name, chain in chains().items() if chain.broken}
    assert {"onnxruntime:cuda", "onnxruntime:tensorrt", "onnxruntime:nvtensorrtrtx"} <= broken.keys()
    for chain in broken.values():
        assert all(link.remedy and link.found and "\n" not in link.remedy for link in chain.broken)
        assert chain.remedy == chain.broken[0].remedy
    said = CliRunner().invoke(env.env, ["--explain"], catch_exceptions=False).stdout
    assert said.count("mend it: ") == len(broken)


def test_a_chain_that_holds_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def trial(provider: str) -> Link:
        tried.append(provider)
        return Link("session", provider == "cuda", "tried", "try again")

    put_in(monkeypatch, GpuOnnxRuntime())
    monkeypatch.setattr(onnxruntime_backend, "trial_link", trial)
    found = chains()
    assert tried == ["cuda", "tensorrt"]
    assert not found["onnxruntime:cuda"].broken
    assert found["onnxruntime:tensorrt"].remedy == "try again"


def test_a_trial_runs_a_graph_in_a_process_of_its_own() -> None:
    assert trial_link("cpu") == Link("session", True, "a graph ran")
    refused = trial_link("cuda")
    assert refused.ok is False
    assert "CUDAExecutionProvider" in refused.found
    assert "trial cuda" in refused.remedy
