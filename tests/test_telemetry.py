"""Nothing that gensdk does reaches for the network, and no package below it leaves files in the home folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.another_os import WINDOWS

STRACE = shutil.which("strace")

GUARD = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"):
        os.write(2, f"LOOK-UP {event} {arguments}\\n".encode())
        os._exit(99)
    if event in ("socket.connect", "socket.sendto") and arguments[0].family.name in ("AF_INET", "AF_INET6"):
        os.write(2, f"CONNECTION {event} {arguments}\\n".encode())
        os._exit(99)

sys.addaudithook(refuse)
"""

SAMPLING = """
from importlib.util import find_spec
from gensdk import Generator
with Generator.load("digits-dcgan") as generator:
    generator.sample(4, seed=0)
if find_spec("openvino"):
    with Generator.load("digits-dcgan", backend="openvino") as generator:
        generator.sample(4, seed=0)
"""

MAKING = """
from gensdk.cli.main import main

def run(arguments):
    try:
        main(arguments)
    except SystemExit as end:
        return end.code

train = ["train", "vae", "--data", "digits", "--steps", "2", "--out", "run", "--set", "channels=4"]
assert run(train) == 0
assert run(["export", "run", "-o", "made.gsdk"]) == 0
assert run(["bench", "made.gsdk", "--backend", "onnxruntime", "--duration", "0.05", "--plot", "plot.png"]) == 0
"""


def traced(program: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], Path, str]:
    """Runs `program` as a user would, outside CI, with an empty home; how it ended, the home, and what it asked of
    the network (all system calls under strace, where there is one)."""
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    hushed = ("CI", "GENSDK_TUNE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "GITHUB_ACTIONS")
    ours = ("ORT_", "HF_")
    env = {key: value for key, value in os.environ.items() if key not in hushed and not key.startswith(ours)}
    env |= {"HOME": str(home), "GENSDK_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", GUARD + program]
    if STRACE is not None:
        command = [STRACE, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace), *command]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    return done, home, trace.read_text(errors="replace") if trace.exists() else ""


@pytest.mark.parametrize("program", [SAMPLING, MAKING], ids=["load and sample with auto", "train, export, bench"])
def test_nothing_is_looked_up_and_nothing_left_in_the_home_folder(program: str, tmp_path: Path) -> None:
    done, home, trace = traced(program, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == []
    assert re.findall(r".*sa_family=AF_INET.*", trace) == []


def run(program: str, **env: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "HF_"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", program], env={**kept, **env}, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_users_own_switch_wins() -> None:
    program = "import os, gensdk; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(program) == "1"
    assert run(program, ORT_DISABLE_TELEMETRY="0") == "0"


def test_openvino_reports_where_the_user_opted_in_and_nowhere_else(tmp_path: Path) -> None:
    program = """
import sys
from gensdk_runtime.backends.openvino.importing import quiet_openvino
with quiet_openvino():
    print(sys.modules.get("openvino_telemetry", "left alone"))
print("openvino_telemetry" in sys.modules)
"""
    home = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    folder = tmp_path / ("Intel Corporation" if WINDOWS else "intel")
    assert run(program, **home) == "None\nFalse"
    folder.mkdir()
    (folder / "openvino_telemetry").write_text("0")
    assert run(program, **home) == "None\nFalse"
    (folder / "openvino_telemetry").write_text("1\n")
    assert run(program, **home) == "left alone\nFalse"


def test_switching_off_loads_nothing_more() -> None:
    """It runs with every import of gensdk."""
    program = "import sys, typing; before = set(sys.modules); import gensdk; print(*(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in run(program).split()}
    assert loaded <= {"gensdk", "gensdk_runtime", "__future__", "importlib", "typing"}
