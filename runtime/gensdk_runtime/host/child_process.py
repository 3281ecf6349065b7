"""Starts every process that gensdk starts, so that none imports code from the user's working directory.

A child gets the interpreter's ``-P``, its own working directory (the root of the file system), and the paths from
which this process imports, without the working directory and the folder of the user's script: an
``onnxruntime.py`` from a stranger may lie there. What a folder holds is taken from there only if gensdk itself was
imported from it. A child ends with its parent, whatever it is doing (:mod:`gensdk_runtime.host.child_main`), and
within limits of memory and processor time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, AnyStr

import gensdk_runtime
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.memory_limit import memory_limit
from gensdk_runtime.host.user_cache import ENVIRONMENT as CACHE_VARIABLE

MAIN = "gensdk_runtime.host.child_main"
PYTHONS = ("python", "pypy")
MAX_OUTPUT = 2**20
"""Bytes at the end of what a child printed that are looked at."""

_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Lists of folders in which an empty entry means the working directory."""


@dataclass(frozen=True)
class Limits:
    """What a child may take: `memory` in bytes of its own, `processor_seconds` of all its threads together.

    None: no limit; `memory` is :func:`memory_limit` unless given. Enforced by the operating system on Linux and
    macOS; elsewhere there is only the time that its parent waits for it.
    """

    memory: int | None = field(default_factory=memory_limit)
    processor_seconds: int | None = None


@dataclass(frozen=True)
class Finished:
    """How a child ended; `output` and `errors` are the last MAX_OUTPUT bytes of what it printed."""

    code: int
    output: str
    errors: str


def start_python(
    arguments: Sequence[str],
    *,
    paths: Sequence[str | Path] = (),
    environment: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.PIPE,
    stderr: int | IO[Any] | None = subprocess.DEVNULL,
    text: bool = False,
    python: Path | None = None,
) -> subprocess.Popen[Any]:
    """A Python process with `arguments`; it finds the packages of this one, and those in `paths`.

    `environment` is added to this process's own. `python`: the interpreter of another environment, whose packages
    it finds in place of ours. Paths among the arguments must be absolute. Raises
    :class:`UnavailableError` where no process can be started.
    """
    try:
        return subprocess.Popen(
            [python_executable() if python is None else str(python), "-P", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            cwd=Path(sys.prefix).anchor,
            env={**child_environment(paths, ours=python is None), **(environment or {})},
        )
    except OSError as failure:
        raise UnavailableError(f"no process can be started ({failure.strerror or failure})") from None


def start_module(
    module: str, *arguments: str, limits: Limits | None = None, lifeline: bool = True, **how: Any
) -> subprocess.Popen[Any]:
    """``python -m module arguments`` as a child that ends with this process, within `limits`.

    `lifeline`: it ends when its standard input does; False for a module that reads its input, and sees to that
    itself. `how`: as for :func:`start_python`.
    """
    limits = limits or Limits()
    order = {
        "module": module,
        "parent": os.getpid(),
        "lifeline": lifeline,
        "memory": limits.memory,
        "processor_seconds": limits.processor_seconds,
    }
    return start_python(["-m", MAIN, json.dumps(order), *arguments], stdin=subprocess.PIPE, **how)


def piped(stream: IO[AnyStr] | None) -> IO[AnyStr]:
    """The stream of a child that was started with a pipe for it."""
    if stream is None:
        raise ValueError("expected a child with a pipe for this stream")
    return stream


def run_module(module: str, *arguments: str, timeout: float, limits: Limits | None = None, **how: Any) -> Finished:
    """Runs a module as a child to its end; after `timeout` seconds it is killed, with :class:`TimeoutError`."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start_module(module, *arguments, limits=limits, stdout=output, stderr=errors, **how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{module} took over {timeout:.0f} s") from None
        finally:
            end(process)
        return Finished(process.returncode, _tail(output), _tail(errors))


def run_program(name: str, *arguments: str, timeout: float, cwd: str | Path | None = None) -> Finished | None:
    """What a program of the system (npm, nvidia-smi) says; None where it is missing.

    It is looked for in the absolute folders of PATH, never in the working directory. OSError where it does not
    start, TimeoutError where it takes over `timeout` seconds.
    """
    program = shutil.which(name, path=os.pathsep.join(_absolute(os.environ.get("PATH", os.defpath))))
    if program is None or not Path(program).is_absolute():
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd=cwd or Path(sys.prefix).anchor,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it took over {timeout:.0f} s") from None
    return Finished(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def end(process: subprocess.Popen[Any], patience: float = 0.0) -> int:
    """Ends a child, whatever it does, after `patience` seconds to end by itself; its exit code."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def death(code: int | None) -> str:
    """How a child ended, in words, from its exit code."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return (
                f"it took more processor time than it may ({name})"
                if name == "SIGXCPU"
                else f"it crashed ({name})"
            )
    return f"it ended (exit code {code})"


def python_executable() -> str:
    """The interpreter to start; :class:`UnavailableError` in a frozen or embedding program, which is not one."""
    name = os.path.basename(sys.executable or "").lower()  # noqa: PTH119 - may be empty
    if getattr(sys, "frozen", False) or not name.startswith(PYTHONS):
        raise UnavailableError("this program is no Python interpreter, so it can't start a process of its own")
    return sys.executable


def child_environment(paths: Sequence[str | Path] = (), *, ours: bool = True) -> dict[str, str]:
    """The environment of a child: `paths`, then the trusted ones of this process (where `ours`), and nothing
    relative."""
    found = dict(os.environ)
    first = [str(Path(path).absolute()) for path in paths]
    found["PYTHONPATH"] = os.pathsep.join([*first, *(trusted_paths() if ours else ())])
    found["PYTHONSAFEPATH"] = "1"  # for children of children
    for name in _SEARCHED:
        if name in found:
            found[name] = os.pathsep.join(_absolute(found[name]))
            if not found[name]:
                del found[name]
    for name in (CACHE_VARIABLE, "TMPDIR"):
        if found.get(name):
            found[name] = str(Path(found[name]).expanduser().absolute())
    return found


def trusted_paths() -> list[str]:
    """The import paths of this process, in order, that a child may have; see the module."""
    doubtful = {os.path.realpath(path) for path in _doubtful()}
    sure = {os.path.realpath(path) for path in _sure()}
    return [
        path
        for path in sys.path
        if os.path.isabs(path) and (os.path.realpath(path) in sure or os.path.realpath(path) not in doubtful)  # noqa: PTH117
    ]


def _doubtful() -> Iterator[str]:
    """The working directory, and the folder from which the user's script runs."""
    with contextlib.suppress(OSError):
        yield os.getcwd()  # noqa: PTH109 - text
    if os.environ.get("PWD"):
        yield os.environ["PWD"]  # where it was started, if it went elsewhere
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file and getattr(main, "__spec__", None) is None:
        yield os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120 - text


def _sure() -> Iterator[str]:
    """Python's own folders, and the one from which gensdk was imported."""
    yield from sysconfig.get_paths().values()
    yield from site.getsitepackages()
    yield from (str(Path(folder).parent) for folder in gensdk_runtime.__path__)


def _absolute(folders: str) -> list[str]:
    return [folder for folder in folders.split(os.pathsep) if os.path.isabs(folder)]  # noqa: PTH117 - text


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_OUTPUT))
    return file.read().decode(errors="replace")
