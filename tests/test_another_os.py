"""gensdk as on Windows and macOS: what the imitation does, and the rooms that touch the system, run under it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gensdk.cli.train import absolute_source
from gensdk_runtime.media.video.address import is_address, masked
from gensdk_runtime.spec.fields import check_path
from gensdk_training.data.domains import domains_of
from support import another_os

ROOT = Path(__file__).parent.parent
ROOMS = (
    "tests/runtime/host/test_own_files.py",
    "tests/runtime/host/test_locks.py",
    "tests/runtime/host/test_writing.py",
    "tests/runtime/host/test_user_cache.py",
    "tests/runtime/host/test_memory.py",
    "tests/runtime/bundles/test_bundle_writing.py",
    "tests/runtime/bundles/test_bundle.py",
    "tests/runtime/tuning/test_tuning_store.py",
    "tests/cli/test_tables.py",
    "tests/training/test_checkpoint.py",
    "tests/export/test_refusals.py",
)
"""Where files are kept, locked, written whole and read as untrusted input, and what a console is told."""
EXCUSES = {
    "POSIX permissions",
    "modes are POSIX",
    "locks tell who lives on POSIX systems",
    "an open bundle stands",
    "elsewhere an open bundle is replaced",
    "files that are open can't be swapped",
    "elsewhere an open file is replaced at once",
    "other systems don't heed the limit",
    "where the cache lies elsewhere",
    "Windows tells its memory in a call",
}
"""Why a test of the rooms may be skipped: it is about what one system has, or does otherwise."""
CHECKS = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[1])


def refused(kind, call, *given):
    try:
        call(*given)
    except kind as failure:
        return type(failure) is kind
    return False


# As a module of gensdk sees the world, and as all others do.
ours = {"__name__": "gensdk_runtime.imitated", "folder": folder}
exec("import os, sys, signal\\nfrom pathlib import Path\\nimport os.path as p", ours)
seen, real = ours["os"], os
(folder / "read").write_bytes(b"x")
answers = {"platform": ours["sys"].platform, "others": sys.platform, "cloexec": hasattr(seen, "O_CLOEXEC")}
answers["fork"], answers["hangup"] = hasattr(seen, "fork"), hasattr(ours["signal"], "SIGHUP")
answers["affinity"], answers["allocate"] = hasattr(seen, "sched_getaffinity"), hasattr(seen, "posix_fallocate")
exec("def fcntl():\\n    import fcntl", ours)
answers["fcntl"] = not refused(ModuleNotFoundError, ours["fcntl"])
exec("def proc():\\n    Path('/proc/self/status').open()", ours)
answers["proc"] = not refused(FileNotFoundError, ours["proc"])
exec("def write():\\n    (folder / 'text').write_text('one\\\\nline')", ours)
ours["write"]()
answers["newline"] = (folder / "text").read_bytes()
exec("def other_case():\\n    (folder / 'TEXT').open('xb')", ours)
answers["case"] = not refused(FileExistsError, ours["other_case"])
with (folder / "read").open("rb") as file:
    answers["sync"] = not refused(OSError, real.fsync, file.fileno())
    answers["replace"] = not refused(PermissionError, real.replace, folder / "text", folder / "read")
    answers["remove"] = not refused(PermissionError, (folder / "read").unlink)
    (folder / "inside").mkdir()
answers["folder"] = not refused(PermissionError, seen.open, folder, seen.O_RDONLY)
exec("def device():\\n    (folder / 'nul.txt').open('wb')", ours)
answers["device"] = not refused(OSError, ours["device"])
print(answers)
"""
EVERYWHERE = {"others": sys.platform, "affinity": False, "allocate": False, "proc": False, "case": False}
ANSWERS = {
    "windows": {
        **EVERYWHERE,
        **dict.fromkeys(
            ("cloexec", "fork", "hangup", "fcntl", "sync", "replace", "remove", "folder", "device"), False
        ),
        "platform": "win32",
        "newline": b"one\r\nline",
    },
    "macos": {
        **EVERYWHERE,
        **dict.fromkeys(
            ("cloexec", "fork", "hangup", "fcntl", "sync", "replace", "remove", "folder", "device"), True
        ),
        "platform": "darwin",
        "newline": b"one\nline",
    },
}

pytestmark = pytest.mark.skipif(another_os.wanted() is not None, reason="the suite runs as another system already")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it asks /proc which files are open")


def environment(system: str) -> dict[str, str]:
    return {**os.environ, another_os.VARIABLE: system, "PYTHONPATH": str(another_os.SITE), "GENSDK_TUNE": "off"}


@on_linux
@pytest.mark.parametrize("system", ANSWERS)
def test_what_the_imitation_does(tmp_path: Path, system: another_os.System) -> None:
    command = [sys.executable, "-c", CHECKS, str(tmp_path)]
    done = subprocess.run(command, env=environment(system), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == ANSWERS[system]


def run_rooms(system: another_os.System, *options: str, report: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    command += [f"--junitxml={report}", "--override-ini=junit_family=xunit1"]  # which names the files
    return subprocess.run(
        command, cwd=ROOT, env=environment(system), capture_output=True, encoding="utf-8", check=False
    )


def outcomes(report: Path) -> tuple[Counter[str], set[str]]:
    """How many tests of each file passed, and why others were skipped."""
    passed: Counter[str] = Counter()
    reasons = set()
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        passed[case.attrib["file"]] += skipped is None
        if skipped is not None:
            reasons.add(skipped.attrib["message"])
    return passed, reasons


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("system", ANSWERS)
def test_the_rooms_that_touch_the_system(tmp_path: Path, system: another_os.System) -> None:
    """And they do run: a file that is skipped as a whole ends well, too."""
    done = run_rooms(system, "-x", *ROOMS, report=tmp_path / "report.xml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed, reasons = outcomes(tmp_path / "report.xml")
    assert {room for room, count in passed.items() if count} == {*ROOMS}
    assert reasons <= EXCUSES


@on_linux
@pytest.mark.parametrize("system", ANSWERS)
def test_a_model_is_trained_exported_sampled_and_proven(tmp_path: Path, system: another_os.System) -> None:
    """From data to pictures through the command line: children, caches and all that is written."""

    def gensdk(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gensdk", *arguments],
            cwd=ROOT,
            env={**environment(system), "GENSDK_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            encoding="cp1252" if system == "windows" else "utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run, bundle, picture = (str(tmp_path / name) for name in ("run", "made.gsdk", "picture.png"))
    training = ("train", "gan", "--data", "digits", "--batch-size", "8", "--no-tensorboard", "--out", run)
    gensdk(*training, "--steps", "2")
    gensdk("train", "gan", "--out", run, "--resume", "--steps", "3")
    for _ in range(2):  # the second time over what stands there
        gensdk("export", run, "--output", bundle)
    gensdk("sample", bundle, "-n", "2", "--output", picture)
    gensdk("verify", bundle)
    assert gensdk("inspect", bundle)
    assert Path(picture).stat().st_size
    assert not [*tmp_path.rglob("*.new-*")]


ON_A_DRIVE = [r"C:\me@home\film.mp4", "C:/me@home/film.mp4", r"D:\data=1\x.npz", "d:/a?b=c.png"]


@pytest.mark.parametrize("path", ON_A_DRIVE)
def test_a_file_on_a_drive_is_no_address_and_has_no_secrets(path: str) -> None:
    assert not is_address(path)
    assert masked(path) == path


@pytest.mark.parametrize("path", [*ON_A_DRIVE, r"graphs\x.onnx", "C:x", "graphs/nul.onnx", "x.", "a/b ", "a:b"])
def test_no_path_of_a_bundle_means_something_else_on_windows(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


@pytest.mark.parametrize("path", [r"C:\data\x", "C:/data/x", r"\\server\share\x"])
def test_data_on_a_drive_keep_their_name(path: str) -> None:
    assert domains_of(f"a={path},b={path}2") == [("a", path), ("b", f"{path}2")]
    assert absolute_source(f"{path}.npz:images") == f"{path}.npz:images"
    assert absolute_source(f"mnist:{path}") == f"mnist:{path}"
