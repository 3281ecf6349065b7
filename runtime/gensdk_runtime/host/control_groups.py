"""The control groups that this process belongs to: what a container or a service lets it take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

HEAD_BYTES = 4096
"""As much as is read of a file: of ``/proc/cpuinfo`` the first core; a large machine lists hundreds."""
_MOUNTS_BYTES = 2**20
_MAX_GROUPS = 64
_ROOT = Path("/")


def control_groups(controller: str) -> list[Path]:
    """The folders of this process's groups with a say on `controller` (``cpu``, ``memory``), and of all groups
    around them, as far as they can be seen from here (cgroup 2 and cgroup 1)."""
    mounts = list(_cgroup_mounts())
    folders: list[Path] = []
    for line in system_text("/proc/self/cgroup", _MOUNTS_BYTES).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for kind, options, root, top in mounts:
            if (kind == "cgroup2" and not controllers) or (
                kind == "cgroup" and controller in controllers.split(",") and controller in options
            ):
                inside = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/") + "/") else ""
                parts = [part for part in inside.split("/") if part]
                # Groups outside the process's namespace are called ..; only the top can be read then.
                parts = [] if ".." in parts else parts[:_MAX_GROUPS]
                folders += [_ROOT.joinpath(top.lstrip("/"), *parts[:depth]) for depth in range(len(parts) + 1)]
    return list(dict.fromkeys(folders))


def _cgroup_mounts() -> Iterator[tuple[str, list[str], str, str]]:
    """Kind, options, what group is mounted, and where, of each mount of control groups (see proc(5))."""
    for line in system_text("/proc/self/mountinfo", _MOUNTS_BYTES).splitlines():
        before, dash, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if dash and len(fields) > 4 and len(about) > 2 and about[0] in ("cgroup", "cgroup2"):
            yield about[0], about[2].split(","), _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(path: str) -> str:
    """Spaces and the like stand in mountinfo as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def system_text(path: str, limit: int = HEAD_BYTES) -> str:
    """The beginning of a file of the system's, such as ``/proc/meminfo``; empty where it can't be read."""
    return file_text(_ROOT / path.lstrip("/"), limit)


def file_text(path: Path, limit: int = HEAD_BYTES) -> str:
    """The first `limit` bytes of `path` as text; empty where it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""
