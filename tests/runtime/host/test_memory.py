"""What memory is left is asked of the system before something large; too little is one line on stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gensdk_runtime.host import control_groups, memory
from gensdk_runtime.host.system import free_memory, physical_memory
from support.another_os import LINUX, WINDOWS


def limited(mebibytes: int, *arguments: object) -> tuple[int, str]:
    """Code and stderr of the command line with so much address space."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({mebibytes << 20},) * 2)"
    code += "; from gensdk.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GENSDK_TUNE": "off"},
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not LINUX, reason="other systems don't heed the limit")
@pytest.mark.parametrize(("mebibytes", "n"), [(1200, 5_000_000), (700, 5_000_000), (300, 200_000)])
def test_samples_that_a_limit_forbids_end_in_one_line(tmp_path: Path, mebibytes: int, n: int) -> None:
    target = tmp_path / "samples.npz"
    more = ("--backend", "onnxruntime", "--threads", "1")
    code, err = limited(mebibytes, "sample", "digits-vae", "-n", n, "-o", target, *more)
    assert code in (4, 5), err
    assert len(err.strip().splitlines()) == 1, err
    assert "memory" in err
    assert not list(tmp_path.iterdir())


def test_the_least_of_all_limits_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine, two nested control groups and no limit of address space, as Linux writes them."""
    group = tmp_path / "sys/fs/cgroup/pod/box"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/box\n")
    (tmp_path / "proc/self/mountinfo").write_text("32 31 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 90 kB\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    (group.parent / "memory.max").write_text("8000\n")
    (group.parent / "memory.current").write_text("5000\n")
    (group.parent / "memory.stat").write_text("anon 4000\ninactive_file 600\n")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_address_space", lambda: None)
    assert memory.available_memory() == 8000 - 5000 + 600
    (group / "memory.max").write_text("1500\n")
    assert memory.available_memory() == 500
    assert list(memory.memory_limits()) == [8000, 1500]


def test_what_was_granted_once_is_granted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend keeps what a frame took; the next one uses it again."""
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    room = memory.Room(host=True)
    assert room.lacks(90) is None
    monkeypatch.setattr(memory, "available_memory", lambda: 10)
    assert room.lacks(90) is None
    assert room.lacks(91) == 10
    assert memory.Room(host=False).lacks(10**9) is None


def test_the_machine_has_memory() -> None:
    assert physical_memory() > 2**28


@pytest.mark.skipif(not WINDOWS, reason="Windows tells its memory in a call")
def test_what_windows_calls_free_is_what_is_available() -> None:
    free = free_memory()
    assert free is not None
    assert 0 < free <= physical_memory()
    assert memory.available_memory() == pytest.approx(free, rel=0.5)
