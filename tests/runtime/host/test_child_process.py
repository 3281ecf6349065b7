"""Children: started in one place, gone with their parent, and held within limits."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.host.child_process import Limits, death, end, run_module, start_module
from gensdk_runtime.host.memory_limit import memory_limit, parse_bytes
from support.another_os import LINUX, WINDOWS
from support.processes import alive, wait_until_gone

ROOT = Path(__file__).parent.parent.parent.parent
FOLDERS = ("gensdk", "runtime", "training", "export", "benchmarks")
STARTERS = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OTHERS = {"os.system", "os.popen", "os.fork", "os.posix_spawn", "os.execv", "os.execvp", "os.startfile"}

pytestmark = pytest.mark.skipif(WINDOWS, reason="limits are set by POSIX systems")


def started_by(path: Path) -> set[str]:
    """Calls in the file that start a process."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if (
                (name.startswith("subprocess.") and name.split(".")[1] in STARTERS)
                or name in OTHERS
                or name.startswith(("os.spawn", "multiprocessing.", "ProcessPool"))
            ):
                found.add(name)
    return found


def test_processes_are_started_in_one_place() -> None:
    files = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    one = ROOT / "runtime" / "gensdk_runtime" / "host" / "child_process.py"
    assert started_by(one)
    assert not {str(path.relative_to(ROOT)): calls for path in files - {one} if (calls := started_by(path))}


@pytest.fixture
def module(tmp_path):
    """Makes a module of some code, to be run as a child."""

    def make(code: str) -> dict[str, object]:
        (tmp_path / "work.py").write_text(code)
        return {"paths": [tmp_path]}

    return make


def test_a_child_runs_to_its_end_and_says_what_it_printed(module) -> None:
    how = module("import sys\nprint(sys.argv[1:])\nprint('why', file=sys.stderr)\nsys.exit(3)\n")
    done = run_module("work", "a", "b c", timeout=60, **how)
    assert (done.code, done.output.strip(), done.errors.strip()) == (3, "['a', 'b c']", "why")


def test_a_child_that_takes_too_long_is_gone_when_we_say_so(module, tmp_path) -> None:
    pid = str(tmp_path / "pid")
    how = module(f"import os, time\nopen({pid!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    with pytest.raises(TimeoutError, match="over 3 s"):
        run_module("work", timeout=3, **how)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_more_memory_than_allowed_is_an_error_in_the_child_alone(module) -> None:
    how = module("import numpy\nprint('began')\nnumpy.ones(2**28, dtype='float64')\nprint('got it')\n")
    done = run_module("work", timeout=60, limits=Limits(memory=2**30), **how)
    assert done.code
    assert "began" in done.output
    assert "got it" not in done.output
    assert "MemoryError" in done.errors


def test_more_processor_time_than_allowed_ends_the_child(module) -> None:
    done = run_module("work", timeout=60, limits=Limits(processor_seconds=1), **module("while True: pass\n"))
    assert done.code == -signal.SIGXCPU
    assert "more processor time" in death(done.code)


def test_a_child_goes_when_its_input_ends_even_in_the_middle_of_work(module) -> None:
    process = start_module("work", **module("print('began', flush=True)\nwhile True: pass\n"))
    assert process.stdout.readline() == b"began\n"
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


HOLDS_THE_INTERPRETER = "import ctypes\nprint('began', flush=True)\nctypes.PyDLL(None).sleep(600)\n"
PARENT = """
import os, sys
from gensdk_runtime.host.child_process import start_module
process = start_module("work", paths=[sys.argv[1]])
process.stdout.readline()
keep = os.dup(process.stdin.fileno())  # as where a fork of the parent holds the pipe open
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not LINUX, reason="the system's own word that a parent died")
@pytest.mark.parametrize("code", [HOLDS_THE_INTERPRETER, "print('began', flush=True)\nwhile True: pass\n"])
def test_a_killed_parent_takes_its_children_along(module, tmp_path, code) -> None:
    module(code)
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_until_gone(child)


def test_ending_a_child_twice_does_nothing(module) -> None:
    process = start_module("work", **module("import time\ntime.sleep(600)\n"))
    assert end(process) == -signal.SIGKILL
    assert end(process) == -signal.SIGKILL
    process.stdout.close()


@pytest.mark.parametrize("executable", ["", "/opt/app/photo-booth"])
def test_a_program_that_is_no_interpreter_starts_none(monkeypatch, executable) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(UnavailableError, match="no Python interpreter"):
        start_module("work")


def test_the_memory_limit_is_what_the_user_says(monkeypatch) -> None:
    monkeypatch.delenv("GENSDK_MEMORY_LIMIT", raising=False)
    assert memory_limit() >= 2 * 2**30
    monkeypatch.setenv("GENSDK_MEMORY_LIMIT", "off")
    assert memory_limit() is None
    monkeypatch.setenv("GENSDK_MEMORY_LIMIT", "3GiB")
    assert memory_limit() == 3 * 2**30
    for wrong in ("0", "much", "-1", "1e9", "4 G x"):
        monkeypatch.setenv("GENSDK_MEMORY_LIMIT", wrong)
        with pytest.raises(InputError, match="GENSDK_MEMORY_LIMIT"):
            memory_limit()
    assert parse_bytes("12 K", "x") == 12 * 1024
