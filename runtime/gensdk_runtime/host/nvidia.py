"""The NVIDIA GPUs of this machine: what shows of them, and what their driver says.

The driver is asked through its own libraries, never through a framework: ``cuInit`` in a child process, since a
process that has called it can't go on with CUDA after a fork, and NVML, which leaves no trace, for the version.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.child_process import Limits, run_module
from gensdk_runtime.host.control_groups import file_text

MODULE = "gensdk_runtime.host.nvidia"
SECONDS = 30.0
"""What the driver has to answer: without its daemon it wakes each GPU first."""

CUDA_LIBRARY, NVML_LIBRARY = (
    ("nvcuda.dll", "nvml.dll") if sys.platform == "win32" else ("libcuda.so.1", "libnvidia-ml.so.1")
)
_ROOT = Path("/")
_PCI_NVIDIA, _PCI_DISPLAY = "0x10de", "0x03"
_TEGRA = b"nvidia,tegra"
_DRIVERS = (  # where /proc does not tell: Linux in a sandbox, Jetson, WSL, Windows
    ("usr/lib/x86_64-linux-gnu", "libcuda.so.*"),
    ("usr/lib/aarch64-linux-gnu", "libcuda.so.*"),
    ("usr/lib/aarch64-linux-gnu/nvidia", "libcuda.so.*"),
    ("usr/lib/aarch64-linux-gnu/tegra", "libcuda.so.*"),
    ("usr/lib64", "libcuda.so.*"),
    ("usr/lib/wsl/lib", "libcuda.so*"),
)
_MAX_GPUS = 64
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NO_GPU = 100  # CUDA_ERROR_NO_DEVICE
_ERRORS = {  # of cuInit: https://docs.nvidia.com/cuda/cuda-driver-api, CUresult
    34: "the driver's library is a stub, for building alone",
    _NO_GPU: "the driver finds no GPU",
    101: "the driver knows no GPU of this number (CUDA_VISIBLE_DEVICES)",
    802: "the system is not ready yet (the fabric manager does not run)",
    803: "the driver's library does not fit the kernel module; restart the machine",
    804: "the compatibility libraries do not run on this GPU",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA reaches: its compute `capability` as (major, minor), and its `memory` in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory / 2**30:.0f} GiB)"


@dataclass(frozen=True)
class Driver:
    """What the driver says. `cuda`: the newest CUDA that it knows, 13020 for 13.2; `version`: its own, if known.

    `problem` is empty where CUDA reaches the `gpus`, in CUDA's order: those of CUDA_VISIBLE_DEVICES alone. With
    `fault` it is the driver's own: one is there, and it does not say that there is no GPU.
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: int = 0
    version: str = ""
    problem: str = ""
    fault: bool = False

    def __str__(self) -> str:
        cuda = f"CUDA {self.cuda // 1000}.{self.cuda % 1000 // 10}" if self.cuda else ""
        return ", ".join(each for each in (self.version, cuda) if each) or "no version"


def nvidia_driver() -> Driver:
    """What the driver of this machine says; asked once, and quick where there is none."""
    return _driver(os.environ.get("CUDA_VISIBLE_DEVICES"))


@lru_cache(maxsize=4)
def _driver(visible: str | None) -> Driver:
    """`visible` is what the answer depends on; a child inherits it."""
    try:
        ctypes.CDLL(CUDA_LIBRARY)
    except OSError:
        return Driver(problem=f"no NVIDIA driver was found ({CUDA_LIBRARY})")
    try:
        done = run_module(MODULE, timeout=SECONDS, limits=Limits(memory=None))
        return driver_from(json.loads(done.output))
    except UnavailableError:  # a program that can start no other
        return driver_from(ask_nvml(NVML_LIBRARY))
    except TimeoutError:
        said = f"the NVIDIA driver did not answer within {SECONDS:.0f} s (try nvidia-smi)"
        return Driver(problem=said, fault=True)
    except (ValueError, KeyError, TypeError):
        said = "the NVIDIA driver crashed as it was asked for its GPUs (try nvidia-smi)"
        return Driver(problem=said, fault=True)


def driver_from(answer: dict[str, Any]) -> Driver:
    """From what a child has printed. Raises ValueError, KeyError or TypeError for anything else."""
    gpus = tuple(
        Gpu(str(each["name"]), (int(each["major"]), int(each["minor"])), int(each["memory"]))
        for each in answer["gpus"]
    )
    problem = str(answer["problem"]) or ("" if gpus else _ERRORS[_NO_GPU])
    fault = problem not in ("", _ERRORS[_NO_GPU])
    return Driver(gpus, int(answer["cuda"]), str(answer["version"]), problem, fault)


def ask_cuda(library: str) -> dict[str, Any]:
    """What CUDA's driver library says: `gpus`, `cuda`, and the `problem` where it refuses. Starts CUDA here."""
    cuda = ctypes.CDLL(library)
    version, count, gpus = ctypes.c_int(), ctypes.c_int(), []
    cuda.cuDriverGetVersion(ctypes.byref(version))
    error = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    for index in range(min(count.value, _MAX_GPUS)):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        error = (
            cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
            or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        )
        if error:
            break
        gpus.append(_gpu(name.value, major.value, minor.value, memory.value))
    problem = _ERRORS.get(error, f"CUDA does not start (error {error}; try nvidia-smi)") if error else ""
    return {"gpus": gpus, "cuda": version.value, "version": "", "problem": problem}


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def ask_nvml(library: str) -> dict[str, Any]:
    """The same from NVML, which knows nothing of CUDA_VISIBLE_DEVICES, and the driver's own `version`."""
    found: dict[str, Any] = {"gpus": [], "cuda": 0, "version": "", "problem": "NVML was not found"}
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return found
    if nvml.nvmlInit_v2():
        return found | {"problem": "NVML does not start (try nvidia-smi)"}
    text, cuda, count = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_int(), ctypes.c_uint()
    nvml.nvmlSystemGetDriverVersion(text, _NAME_BYTES)
    nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(min(count.value, _MAX_GPUS)):
        device, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(_NAME_BYTES), _NvmlMemory()
        major, minor = ctypes.c_int(), ctypes.c_int()
        if not (
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
            or nvml.nvmlDeviceGetName(device, name, _NAME_BYTES)
            or nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
            or nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        ):
            found["gpus"].append(_gpu(name.value, major.value, minor.value, int(memory.total)))
    nvml.nvmlShutdown()
    return found | {"cuda": cuda.value, "version": text.value.decode(errors="replace"), "problem": ""}


def _gpu(name: bytes, major: int, minor: int, memory: int) -> dict[str, Any]:
    return {"name": name.decode(errors="replace"), "major": major, "minor": minor, "memory": memory}


def gpus_in_sight() -> tuple[str, ...] | None:
    """NVIDIA GPUs that the system itself shows, whether or not a driver is there; None where it can't tell."""
    devices = _ROOT / "sys/bus/pci/devices"
    tree = file_text(_ROOT / "proc/device-tree/compatible")
    if _TEGRA.decode() in tree:
        return (f"Jetson ({tree.split(chr(0), 1)[0]})",)
    if sys.platform != "linux" or not devices.is_dir():
        return None
    return tuple(
        f"{path.name} ({_PCI_NVIDIA[2:]}:{file_text(path / 'device').strip()[2:]})"
        for path in sorted(devices.iterdir())[:4096]
        if file_text(path / "vendor").strip() == _PCI_NVIDIA and file_text(path / "class").startswith(_PCI_DISPLAY)
    )[:_MAX_GPUS]


@lru_cache(maxsize=1)
def signs_of_gpus() -> tuple[str, ...]:
    """The driver and the GPUs in words, without asking the driver, which takes long; empty where there is none."""
    proc = _ROOT / "proc/driver/nvidia"
    if (proc / "version").exists():
        driver = file_text(proc / "version").splitlines()[:1]
        infos = [file_text(path / "information") for path in sorted((proc / "gpus").glob("*"))[:_MAX_GPUS]]
        models = [
            line.partition(":")[2].strip() for info in infos for line in info.splitlines() if "Model" in line
        ]
        return (*driver, *models)
    if sys.platform == "win32":
        drivers = [Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", CUDA_LIBRARY)]
        return tuple(f"{path.name} {path.stat().st_size}" for path in drivers if path.exists())
    dev = _ROOT / "dev"
    devices = [path.name for path in sorted(dev.glob("nvidia[0-9]*"))]
    if not devices and not any((dev / node).exists() for node in ("dxg", "nvhost-gpu", "nvgpu")):  # WSL, Jetson
        return ()
    drivers = [path for folder, name in _DRIVERS for path in sorted((_ROOT / folder).glob(name))]
    return (*devices, *(f"{path.name} {path.stat().st_size}" for path in drivers))


def main() -> None:
    """The child: asks both libraries and prints what they say."""
    print(json.dumps(ask_cuda(CUDA_LIBRARY) | {"version": ask_nvml(NVML_LIBRARY)["version"]}))


if __name__ == "__main__":
    main()
