"""What is found out of NVIDIA's GPUs, over drivers of a few lines of C and a faked file system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host import nvidia
from gensdk_runtime.host.nvidia import Driver, Gpu, ask_cuda, ask_nvml, driver_from
from support.nvidia_stubs import build_driver, needs_compiler, run_with_driver

ASK = "from gensdk_runtime.host.nvidia import nvidia_driver as ask; import sys; d = ask()\n"
TELL = "print(json.dumps([d.problem, d.cuda, d.version, [str(g) for g in d.gpus], 'torch' in sys.modules]))"


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def driver(**what: object) -> Path:
        return build_driver(tmp_path_factory.mktemp("driver") / "lib", **what)  # type: ignore[arg-type]

    return driver


@needs_compiler
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({}, ["", 13020, ["NVIDIA Stub (compute capability 8.9, 24 GiB)"]]),
        ({"count": 2, "capability": (12, 0)}, ["", 13020, ["NVIDIA Stub (compute capability 12.0, 24 GiB)"] * 2]),
        ({"count": 0}, ["the driver finds no GPU", 13020, []]),
        ({"error": 100, "count": 0}, ["the driver finds no GPU", 13020, []]),
        ({"error": 803}, ["the driver's library does not fit the kernel module; restart the machine", 13020, []]),
        ({"error": 999}, ["CUDA does not start (error 999; try nvidia-smi)", 13020, []]),
    ],
)
def test_the_driver_is_asked_in_a_process_of_its_own(drivers, what, expected) -> None:
    done = run_with_driver(drivers(**what), "-c", f"import json\n{ASK}{TELL}")
    problem, cuda, version, gpus, torch = json.loads(done.stdout)
    assert [problem, cuda, gpus] == expected
    assert version == "580.82.07"
    assert not torch


@needs_compiler
def test_a_driver_that_crashes_or_prints_costs_an_answer_alone(drivers) -> None:
    folder = drivers()
    (folder / "libcuda.so.1").write_bytes((folder / "libnvidia-ml.so.1").read_bytes())  # no such functions
    done = run_with_driver(folder, "-c", f"import json\n{ASK}{TELL}")
    assert "crashed as it was asked" in json.loads(done.stdout)[0]


def test_no_driver_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_child(*arguments: object, **how: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(nvidia, "run_module", no_child)
    monkeypatch.setattr(nvidia, "CUDA_LIBRARY", "libcuda-of-no-driver.so.1")
    nvidia._driver.cache_clear()
    found = nvidia._driver("no driver")
    assert found == Driver(problem="no NVIDIA driver was found (libcuda-of-no-driver.so.1)")


@needs_compiler
def test_a_program_that_starts_no_children_asks_nvml(drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object, **how: object) -> None:
        raise UnavailableError("no Python")

    folder = drivers(capability=(8, 6))
    monkeypatch.setattr(nvidia, "run_module", none)
    monkeypatch.setattr(nvidia, "CUDA_LIBRARY", str(folder / "libcuda.so.1"))
    monkeypatch.setattr(nvidia, "NVML_LIBRARY", str(folder / "libnvidia-ml.so.1"))
    nvidia._driver.cache_clear()
    assert nvidia._driver("frozen") == Driver((Gpu("NVIDIA Stub", (8, 6), 24 * 2**30),), 13020, "580.82.07")


@needs_compiler
def test_both_libraries_say_the_same(drivers) -> None:
    folder = drivers(count=3)
    one, other = ask_cuda(str(folder / "libcuda.so.1")), ask_nvml(str(folder / "libnvidia-ml.so.1"))
    assert driver_from(one).gpus == driver_from(other).gpus
    assert len(one["gpus"]) == 3


@pytest.mark.parametrize("answer", [{}, {"gpus": [{"name": "x"}], "cuda": 1, "version": "", "problem": ""}, []])
def test_an_answer_is_checked(answer) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        driver_from(answer)


def written(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def pci(name: str, vendor: str, kind: str, device: str = "0x2684") -> dict[str, str]:
    folder = f"sys/bus/pci/devices/{name}"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n", f"{folder}/device": f"{device}\n"}


GPU = pci("0000:01:00.0", "0x10de", "0x030000")
SOUND, OTHER = pci("0000:01:00.1", "0x10de", "0x040300"), pci("0000:00:02.0", "0x8086", "0x030000")
JETSON = {"proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0"}


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (GPU | SOUND | OTHER, ("0000:01:00.0 (10de:2684)",)),
        (SOUND | OTHER, ()),
        ({}, None),
        (JETSON, ("Jetson (nvidia,p3737-0000+p3701-0005)",)),
    ],
)
def test_the_system_shows_gpus_without_a_driver(files, seen, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(nvidia, "_ROOT", tmp_path)
    monkeypatch.setattr(nvidia.sys, "platform", "linux")
    written(tmp_path, files)
    assert nvidia.gpus_in_sight() == seen


LIBRARY = {"usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1": "x" * 7}


@pytest.mark.parametrize(
    ("files", "signs"),
    [
        ({}, ()),
        ({"dev/nvidia0": "", "dev/nvidiactl": ""}, ("nvidia0",)),
        ({"dev/dxg": ""}, ()),
        ({"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": "12345"}, ("libcuda.so.1 5",)),
        ({"dev/nvhost-gpu": ""} | LIBRARY, ("libcuda.so.1.1 7",)),
        (LIBRARY, ()),
        (
            {
                "proc/driver/nvidia/version": "NVRM 580.82\nGCC",
                "proc/driver/nvidia/gpus/0/information": "Model: L4\n",
            },
            ("NVRM 580.82", "L4"),
        ),
    ],
)
def test_signs_are_cheap(files, signs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(nvidia, "_ROOT", tmp_path)
    monkeypatch.setattr(nvidia.sys, "platform", "linux")
    written(tmp_path, files)
    nvidia.signs_of_gpus.cache_clear()
    assert nvidia.signs_of_gpus() == signs
    nvidia.signs_of_gpus.cache_clear()
