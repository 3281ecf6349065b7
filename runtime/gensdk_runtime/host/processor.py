"""The processor that this process runs on: its name, and how much of it may be used. Nothing here is slow."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path

from gensdk_runtime.host.control_groups import control_groups, file_text, system_text


def cpu_model() -> str:
    """What the processor is called, as in ``AMD EPYC``; the architecture where the system does not say."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    for line in system_text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "win32":
        return platform.processor() or platform.machine()
    return platform.machine()  # not platform.processor(), which runs any `uname` that PATH leads to


def system_name() -> str:
    """The operating system as in ``Linux-6.1-x86_64-with-glibc2.36``.

    It is :func:`platform.platform` without running the ``uname`` or ``file`` that PATH finds, which could lie in
    the working directory.
    """
    parts = [platform.system(), platform.release(), platform.machine()]
    if sys.platform.startswith("linux") and (libc := "".join(platform.libc_ver())):
        parts.append(f"with-{libc}")
    return "-".join(part for part in parts if part)


def usable_cores() -> int:
    """Logical cores that this process may use, without the limit of a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota() -> float | None:
    """The limit of a container or service in cores; None where there is none.

    The lowest of this process's control group and of all groups around it (cgroup 2 and cgroup 1), as far as they
    can be seen from here.
    """
    quotas = [quota for folder in control_groups("cpu") if (quota := _quota_of(folder)) is not None]
    return round(min(quotas), 2) if quotas else None


def omp_threads() -> int | None:
    """What OMP_NUM_THREADS allows (of nested levels the first); None where it is not set, or no number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and 0 < int(first) < 2**31 else None


def cores_to_fill() -> int:
    """Threads that may and can really run at once: the usable cores, or fewer where a container's limit or
    OMP_NUM_THREADS says so."""
    quota, allowed = cpu_quota(), omp_threads()
    limits = [usable_cores()]
    limits += [] if quota is None else [math.ceil(quota)]
    limits += [] if allowed is None else [allowed]
    return max(1, min(limits))


def thread_limit() -> int | None:
    """For backends that count cores themselves: :func:`cores_to_fill` where it is below what they find."""
    cores = cores_to_fill()
    return cores if cores < usable_cores() else None


def threads_per_core() -> int:
    """Logical cores for each physical one, 2 with hyper-threading; 1 where the system does not say."""
    siblings = system_text("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip()
    first, dash, last = siblings.partition("-")
    if dash and first.isdigit() and last.isdigit():
        return max(1, int(last) - int(first) + 1)
    return max(1, len(siblings.split(",")))


def _quota_of(folder: Path) -> float | None:
    """The limit of one control group in cores."""
    quota, _, period = file_text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = file_text(folder / "cpu.cfs_quota_us").strip()
        period = file_text(folder / "cpu.cfs_period_us").strip()
    whole = quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if whole else None


def _sysctl(name: str) -> str:
    """A text of macOS's kernel; empty where it has none of that name."""
    call = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    if call is None:
        return ""
    text, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    if call(name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return text.value.decode("utf-8", "replace")
