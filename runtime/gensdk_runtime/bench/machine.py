"""The machine that a measurement ran on: what must agree before two measurements may be compared."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from importlib import metadata
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from gensdk_runtime.host.child_process import run_program
from gensdk_runtime.host.nvidia import nvidia_driver
from gensdk_runtime.host.processor import cpu_model, cpu_quota, system_name, usable_cores
from gensdk_runtime.host.system import physical_memory
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.strict import StrictModel


def _check_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("text that is not printable")
    return value


def shown(text: str) -> str:
    """The part of `text` that a report holds."""
    return printable(text)[:500]


Text = Annotated[str, Field(max_length=500), AfterValidator(_check_printable)]

_PACKAGES = (
    "gensdk",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
)
_HARDWARE = ("cpu", "cores", "cpu_quota", "memory_gib", "gpus", "system")
_SOFTWARE = ("os", "python")


class Machine(StrictModel):
    """Hardware and software under a measurement.

    `cores` counts those that this process may use, `cpu_quota` is a container's limit in cores, `memory_gib`
    is rounded, `load_average` is that of 1, 5 and 15 minutes when the measurement began (empty where the
    system has none).
    """

    cpu: Text
    cores: Annotated[int, Field(ge=1, le=65536)]
    cpu_quota: float | None
    memory_gib: Annotated[int, Field(ge=0)]
    gpus: Annotated[tuple[Text, ...], Field(max_length=64)]
    system: Text
    os: Text
    python: Text
    versions: Annotated[dict[Text, Text], Field(max_length=64)]
    load_average: Annotated[tuple[float, ...], Field(max_length=3)]

    def hardware_differences(self, other: Machine) -> tuple[str, ...]:
        """Keys that make two measurements incomparable, as ``key: 'mine' here, 'theirs' there``."""
        return tuple(
            f"{key}: {getattr(self, key)!r} here, {getattr(other, key)!r} there"
            for key in _HARDWARE
            if getattr(self, key) != getattr(other, key)
        )

    def software_differences(self, other: Machine) -> tuple[str, ...]:
        """Versions that differ; often they are the very thing under test."""
        mine = {key: str(getattr(self, key)) for key in _SOFTWARE} | self.versions
        theirs = {key: str(getattr(other, key)) for key in _SOFTWARE} | other.versions
        return tuple(
            f"{key}: {mine.get(key, 'none')!r} here, {theirs.get(key, 'none')!r} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        )


def this_machine() -> Machine:
    """What is known of this machine without special rights; never raises."""
    return Machine(
        cpu=shown(cpu_model()),
        cores=usable_cores(),
        cpu_quota=cpu_quota(),
        memory_gib=round(physical_memory() / 2**30),
        gpus=_gpus(),
        system=platform.system(),
        os=shown(system_name()),
        python=platform.python_version(),
        versions={name: version for name in _PACKAGES if (version := _version(name))},
        load_average=tuple(round(load, 2) for load in os.getloadavg()) if hasattr(os, "getloadavg") else (),
    )


def speed_probe_ns(pieces: int = 50) -> int:
    """Mean time of a fixed piece of numpy work (one thread, about a tenth of a millisecond without neighbours).

    Stored with each run, it tells a slow model from a slow hour of the machine. The mean over several
    milliseconds, because on a busy machine the scheduler interrupts it every few milliseconds.
    """
    values = np.arange(48 * 48, dtype=np.float32).reshape(48, 48) / 2304
    start = time.perf_counter_ns()
    for _ in range(pieces):
        product = values
        for _ in range(20):
            product = np.tanh(product @ values)
        np.sort(product, axis=None)
    return max(1, (time.perf_counter_ns() - start) // pieces)


def _gpus() -> tuple[str, ...]:
    listing = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    lines = listing.splitlines()
    if not lines:  # the driver answers in places where its programs are not on the path, such as WSL
        driver = nvidia_driver()
        lines = [f"{gpu.name}, {driver.version}" for gpu in driver.gpus]
    return tuple(shown(line.strip()) for line in lines if line.strip())[:64]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _output(name: str, *arguments: str) -> str:
    """What the program prints; empty where it is missing, fails or hangs."""
    with contextlib.suppress(OSError):
        done = run_program(name, *arguments, timeout=10)
        if done is not None and done.code == 0:
            return done.output.strip()
    return ""
