"""What engines need of driver, bindings and package: `gensdk env` tells it as the backend refuses it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from gensdk_runtime.backends.chain import Chain, driver_link, gpu_links, newer_driver
from gensdk_runtime.backends.tensorrt import needs
from gensdk_runtime.backends.tensorrt.package import installed
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.nvidia import Driver, driver_from
from support.nvidia_stubs import build_driver, needs_compiler, run_with_driver

needs_rtx = pytest.mark.skipif(
    "tensorrt-rtx" not in installed() or find_spec("cuda") is None,
    reason="TensorRT-RTX or cuda-bindings is missing",
)
BOTH = """
import json
from gensdk_runtime.backends import availabilities, chains, create_backend
from gensdk_runtime.errors import BackendError
said = {}
for name in ("tensorrt:rtx", "tensorrt:rtx:background"):
    try:
        create_backend(name)
    except BackendError as failure:
        said[name] = str(failure)
found = {name: [chain.problem, chain.remedy] for name, chain in chains().items()}
state = availabilities()
tensorrt = state["tensorrt"]
print(json.dumps([said, found, f"{tensorrt.reason}; {tensorrt.remedy}", state["onnxruntime"].missing]))
"""


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver") / "lib", cuda=12020)


@needs_compiler
@needs_rtx
def test_an_older_driver_is_told_as_it_is_refused(old_driver: Path) -> None:
    done = run_with_driver(old_driver, "-c", BOTH)
    assert done.returncode == 0, done.stderr
    said, found, state, missing = json.loads(done.stdout)
    for text in (*said.values(), state, *found["tensorrt:rtx"]):
        assert "update the NVIDIA driver to 580 or newer" in text
        assert "cuda-bindings==12" not in text, "the wheels of TensorRT-RTX want CUDA 13"
    assert set(said) == {"tensorrt:rtx", "tensorrt:rtx:background"}
    problem, remedy = found["tensorrt:classic"]
    assert problem
    assert "update the NVIDIA driver" in remedy
    if find_spec("tensorrt") is None:
        assert 'pip install "tensorrt-cu12>=10.1" "cuda-bindings==12.*"' in remedy
    if "has no CUDAExecutionProvider" in missing.get("cuda", ""):
        for text in (missing["cuda"], found["onnxruntime:cuda"][1]):
            assert "update the NVIDIA driver to 580 or newer" in text
            assert '"onnxruntime-gpu[cuda,cudnn]<1.27"' in text, "the last one that is made with CUDA 12"


@needs_compiler
@needs_rtx
def test_a_driver_at_fault_is_told_before_a_gpu_that_is_not_in_sight(tmp_path: Path) -> None:
    done = run_with_driver(build_driver(tmp_path / "lib", error=999), "-c", BOTH)
    assert done.returncode == 0, done.stderr
    said, found, state, _ = json.loads(done.stdout)
    for text in (*said.values(), state, found["tensorrt:rtx"][0], found["onnxruntime:cuda"][0]):
        assert text.startswith("CUDA does not start (error 999")
        assert "backend='auto'" not in text
    assert "driver" in found["onnxruntime:cuda"][1]


@pytest.mark.parametrize(
    ("wheels", "known", "older"),
    [
        (12, 12020, 'pip install "cuda-bindings==12.*"'),
        (0, 12080, 'pip install "tensorrt-cu12>=10.1" "cuda-bindings==12.*"'),
        (13, 12020, ""),
        (12, 11080, ""),
    ],
)
def test_older_bindings_are_advised_where_the_package_takes_them(
    wheels: int, known: int, older: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "built_with", lambda runtime: wheels)
    monkeypatch.setattr(needs.metadata, "version", lambda name: "13.5.0")
    said = needs._older_driver_remedy("tensorrt", known)
    assert said == newer_driver(13) + (f", or {older}" if older else "")
    assert needs._older_driver_remedy("tensorrt-rtx", known) == newer_driver(13)


def test_an_older_driver_than_the_wheels_want_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "is_installed", lambda runtime: True)
    monkeypatch.setattr(needs, "built_with", lambda runtime: 13)
    gpu = needs.Gpu("NVIDIA Double", (8, 9), 12020)
    with pytest.raises(UnavailableError, match=r"knows CUDA 12\.2, and the package is built with CUDA 13; update"):
        needs.check_fits("tensorrt-rtx", gpu)
    needs.check_fits("tensorrt-rtx", needs.Gpu("NVIDIA Double", (8, 9), 13000))


@pytest.mark.parametrize(
    ("driver", "first"),
    [
        (Driver(problem="no NVIDIA driver was found (libcuda.so.1)"), "no NVIDIA GPU was found"),
        (driver_from({"gpus": [], "cuda": 13020, "version": "580", "problem": ""}), "no NVIDIA GPU was found"),
        (driver_from({"gpus": [], "cuda": 13020, "version": "580", "problem": "it broke"}), "it broke"),
    ],
)
def test_the_cause_comes_first(driver: Driver, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_runtime.backends.chain.nvidia_driver", lambda: driver)
    monkeypatch.setattr("gensdk_runtime.backends.chain.gpus_in_sight", lambda: ())
    chain = Chain(tuple(gpu_links(lambda capability: True, "any", 13)))
    assert chain.problem.startswith(f"{first}; ")
    assert chain.remedy in chain.problem
    assert (chain.broken[0] == driver_link(driver)) == driver.fault


@needs_compiler
def test_a_gpu_that_only_the_driver_shows_is_one_of_the_machine(
    old_driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under WSL, where nvidia-smi is not on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    ask = "from gensdk_runtime.bench.machine import this_machine; print(this_machine().gpus)"
    assert run_with_driver(old_driver, "-c", ask).stdout.strip() == "('NVIDIA Stub, 580.82.07',)"
