"""An NVIDIA driver that is not there: libcuda and libnvidia-ml from a few lines of C, for other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import another_os

needs_compiler = pytest.mark.skipif(
    another_os.platform() != "linux" or shutil.which("gcc") is None, reason="gcc, and Linux's loader"
)

CUDA = """
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return %(error)d; }
int cuDriverGetVersion(int *version) { *version = %(cuda)d; return 0; }
int cuDeviceGetCount(int *count) { *count = %(count)d; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "%(name)s", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  if (which == 75) *value = %(major)d; else if (which == 76) *value = %(minor)d; else return 1;
  return 0;
}
"""
NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.82.07", size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = %(cuda)d; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = %(count)d; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { strncpy(name, "%(name)s", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *info) { info[0] = 24ull << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  *major = %(major)d; *minor = %(minor)d; return 0;
}
"""


def build_library(path: Path, code: str, *, needs: tuple[Path, ...] = ()) -> Path:
    """A shared library from C, under its own file name; `needs`: libraries that it lists as needed."""
    source = path.with_suffix(".c")
    source.write_text(code)
    command = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}", "-o", str(path)]
    subprocess.run([*command, str(source), *map(str, needs)], check=True)
    return path


def build_driver(
    folder: Path,
    *,
    capability: tuple[int, int] = (8, 9),
    cuda: int = 13020,
    count: int = 1,
    error: int = 0,
    name: str = "NVIDIA Stub",
) -> Path:
    """`folder` with both libraries: of a driver with `count` such GPUs, or whose cuInit gives `error`."""
    folder.mkdir(exist_ok=True)
    values = {"major": capability[0], "minor": capability[1], "cuda": cuda, "count": count, "error": error}
    build_library(folder / "libcuda.so.1", CUDA % (values | {"name": name}))
    build_library(folder / "libnvidia-ml.so.1", NVML % (values | {"name": name}))
    return folder


def run_with_driver(folder: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python`` with the driver of `folder`, or with none."""
    environment = dict(os.environ)
    environment.pop("LD_LIBRARY_PATH", None)
    if folder is not None:
        environment["LD_LIBRARY_PATH"] = str(folder)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
