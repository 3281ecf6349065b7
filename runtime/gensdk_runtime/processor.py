"""The processor that this process runs on: its name, and how much of it may be used. Nothing here is slow."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path

_CPUINFO_BYTES = 4096  # the first of its cores; a large machine lists hundreds


def cpu_model() -> str:
    """What the processor is called, as in ``AMD EPYC``; the architecture where the system does not say."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    for line in _head("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may use, without the limit of a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota() -> float | None:
    """A container's limit in cores (cgroup 2, else cgroup 1); None where there is none."""
    quota, _, period = _head("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not quota:
        folder = "/sys/fs/cgroup/cpu/cpu.cfs_"
        quota, period = _head(f"{folder}quota_us").strip(), _head(f"{folder}period_us").strip()
    return round(int(quota) / int(period), 2) if quota.isdigit() and period.isdigit() and int(period) else None


def cores_to_fill() -> int:
    """Threads that can really run at once: the usable cores, or fewer under a container's limit."""
    quota = cpu_quota()
    return usable_cores() if quota is None else max(1, min(usable_cores(), math.ceil(quota)))


def threads_per_core() -> int:
    """Logical cores for each physical one, 2 with hyper-threading; 1 where the system does not say."""
    siblings = _head("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip()
    first, dash, last = siblings.partition("-")
    if dash and first.isdigit() and last.isdigit():
        return max(1, int(last) - int(first) + 1)
    return max(1, len(siblings.split(",")))


def _head(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_CPUINFO_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    """A text of macOS's kernel; empty where it has none of that name."""
    call = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    if call is None:
        return ""
    text, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    if call(name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return text.value.decode("utf-8", "replace")
