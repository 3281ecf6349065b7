"""Lets gensdk run as on Windows or macOS, for a whole run of the suite: ``GENSDK_TESTS_OS=windows pytest ...``.

Two parts, since two things differ there:

- **What is there.** Modules of gensdk, and they alone, import stand-ins for ``os``, ``sys``, ``signal`` and the
  like (:mod:`support.another_os.modules`): what typeshed, the stubs that mypy reads, doesn't list for the other
  system is missing, and a module of which nothing is left can't be imported. All others keep the real ones.
- **What happens.** Files obey the rules of the other system (:mod:`support.another_os.files`), in the calls that
  pathlib, shutil and zipfile end in too; those rules hold for all where that does no harm.

Processes that are started do the same: ``site/sitecustomize.py`` lies on their path.

It does not: change what a path looks like (tests give such paths as text), replace what native libraries do with
files, take links or permissions away, or limit the length of paths.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal, get_args

System = Literal["windows", "macos"]
VARIABLE = "GENSDK_TESTS_OS"
PLATFORM = {"windows": "win32", "macos": "darwin"}
SITE = Path(__file__).parent / "site"


def wanted() -> System | None:
    """The system that the environment asks for; None: the one that is there."""
    name = os.environ.get(VARIABLE, "")
    if name and name not in get_args(System):
        raise ValueError(f"expected {VARIABLE} windows or macos, got {name!r}")
    return name or None  # type: ignore[return-value] # one of them


def platform() -> str:
    """``sys.platform`` as gensdk sees it."""
    system = wanted()
    return sys.platform if system is None else PLATFORM[system]


def install(system: System) -> None:
    """From now on, in this process and in those that it starts. Before gensdk is imported, and once."""
    from support.another_os import files, modules

    if any(name.partition(".")[0].startswith("gensdk") for name in sys.modules):
        raise RuntimeError("gensdk is imported already, with the modules of the system that is there")
    sys.path.insert(0, str(SITE))  # gensdk hands its own path on to its children
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH"))))
    if system == "windows":
        os.environ["PYTHONIOENCODING"] = "cp1252"  # of pipes and files there, unlike of the console
        _separate_temporary_files()
    files.install(system)
    modules.install(system)


def _separate_temporary_files() -> None:
    """Away from those of other processes: they lock theirs, and would take what is not locked for abandoned."""
    prefix = "gensdk-as-windows-"
    if not Path(tempfile.gettempdir()).name.startswith(prefix):
        folder = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix=prefix)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


WINDOWS, MACOS, LINUX = (platform() == name for name in ("win32", "darwin", "linux"))
"""What gensdk runs as: for the marks of tests that can't hold on one of them."""
