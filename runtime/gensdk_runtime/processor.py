"""The processor that this process runs on: its name, and how much of it may be used. Nothing here is slow."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_CPUINFO_BYTES = 4096  # the first of its cores; a large machine lists hundreds
_MOUNTS_BYTES = 2**20
_MAX_GROUPS = 64
_ROOT = Path("/")


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
    """The limit of a container or service in cores; None where there is none.

    The lowest of this process's control group and of all groups around it (cgroup 2 and cgroup 1), as far as they
    can be seen from here.
    """
    quotas = [quota for folder in _control_groups() if (quota := _quota_of(folder)) is not None]
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
    siblings = _head("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip()
    first, dash, last = siblings.partition("-")
    if dash and first.isdigit() and last.isdigit():
        return max(1, int(last) - int(first) + 1)
    return max(1, len(siblings.split(",")))


def _control_groups() -> list[Path]:
    """The folders of this process's groups with a say on the processor, and of all groups around them."""
    mounts = list(_cgroup_mounts())
    folders: list[Path] = []
    for line in _head("/proc/self/cgroup", _MOUNTS_BYTES).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for kind, options, root, top in mounts:
            if (kind == "cgroup2" and not controllers) or (
                kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options
            ):
                inside = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/") + "/") else ""
                parts = [part for part in inside.split("/") if part]
                # Groups outside the process's namespace are called ..; only the top can be read then.
                parts = [] if ".." in parts else parts[:_MAX_GROUPS]
                folders += [_ROOT.joinpath(top.lstrip("/"), *parts[:depth]) for depth in range(len(parts) + 1)]
    return list(dict.fromkeys(folders))


def _cgroup_mounts() -> Iterator[tuple[str, list[str], str, str]]:
    """Kind, options, what group is mounted, and where, of each mount of control groups (see proc(5))."""
    for line in _head("/proc/self/mountinfo", _MOUNTS_BYTES).splitlines():
        before, dash, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if dash and len(fields) > 4 and len(about) > 2 and about[0] in ("cgroup", "cgroup2"):
            yield about[0], about[2].split(","), _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(path: str) -> str:
    """Spaces and the like stand in mountinfo as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _quota_of(folder: Path) -> float | None:
    """The limit of one control group in cores."""
    quota, _, period = _read(folder / "cpu.max", _CPUINFO_BYTES).strip().partition(" ")
    if not quota:
        quota = _read(folder / "cpu.cfs_quota_us", _CPUINFO_BYTES).strip()
        period = _read(folder / "cpu.cfs_period_us", _CPUINFO_BYTES).strip()
    whole = quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if whole else None


def _head(path: str, limit: int = _CPUINFO_BYTES) -> str:
    return _read(_ROOT / path.lstrip("/"), limit)


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
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
