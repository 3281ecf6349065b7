"""What lies in the working directory is never run: not by a command, not by the processes that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gensdk_runtime.host.child_process import run_program
from support.onnx_models import FLOAT, conv, convolution, write_onnx
from support.planted import imported_names, plant

GENSDK = Path(sys.executable).parent / "gensdk"

VERBS = {
    "sample with auto": ("sample", "digits-vae", "-n", "2", "--seed", "0", "-o", "out.png"),
    "tune": ("tune", "digits-vae", "--budget", "0.2"),
    "bench": ("bench", "digits-vae", "--duration", "0.05", "--warmup", "0", "--save", "report.json"),
    "import": ("import", "model.onnx", "-o", "imported.gsdk"),
}
PATIENCE = {"sample with auto": "", "tune": "", "bench": "", "import": "off"}


@pytest.fixture
def sent(tmp_path) -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    ends = ("image", FLOAT, ["batch", 3, "height", "width"]), ("out", FLOAT, ["batch", 3, "height", "width"])
    write_onnx(folder / "model.onnx", [conv("image", "out")], [ends[0]], [ends[1]], convolution())
    return folder


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GENSDK"))}
    return {**kept, "GENSDK_CACHE": str(tmp_path / "cache"), **more}


def run(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_what_lies_in_the_working_directory(sent, tmp_path, verb) -> None:
    heard = plant(sent)
    done = run([str(GENSDK), *VERBS[verb]], sent, environment(tmp_path, GENSDK_TUNE=PATIENCE[verb]))
    assert not heard.exists(), f"{heard.read_text().split()} ran"
    assert done.returncode == 0, done.stdout + done.stderr
    if verb == "sample with auto":  # the children measured, so they found their own packages
        assert list((tmp_path / "cache" / "tuning").glob("*.json"))


def test_nor_does_python_m(sent, tmp_path) -> None:
    heard = plant(sent)
    for name in sys.stdlib_module_names:  # which Python reads before us, from there
        (sent / f"{name}.py").unlink(missing_ok=True)
    done = run([sys.executable, "-m", "gensdk", *VERBS["sample with auto"]], sent, environment(tmp_path))
    assert not heard.exists(), f"{heard.read_text().split()} ran"
    assert done.returncode == 0, done.stderr


def test_nor_obeys_what_other_libraries_look_for_there(sent, tmp_path) -> None:
    """Where PATH has an empty entry, programs that Python's own library starts; and matplotlib's settings."""
    pytest.importorskip("matplotlib")
    heard = tmp_path / "heard.txt"
    for name in ("uname", "file", "latex", "nvidia-smi"):
        (sent / name).write_text(f"#!/bin/sh\necho {name} >> {heard}\n")
        (sent / name).chmod(0o755)
    (sent / "matplotlibrc").write_bytes(b"text.usetex: True\n\xff\n")
    env = environment(tmp_path, GENSDK_TUNE="off", PATH=os.pathsep.join(["", os.environ["PATH"]]))
    done = run([str(GENSDK), *VERBS["bench"], "--batch", "1", "--plot", "plot.png"], sent, env)
    assert not heard.exists(), f"{heard.read_text().split()} ran"
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPT = """
import json, os, sys
from gensdk_runtime.host.child_process import run_module
sys.path[:0] = ["", ".", "relative"]
done = run_module("told", timeout=60, paths=[sys.argv[1]])
assert not done.code, done.errors
print(done.output)
"""
TOLD = "import json, os, sys\nprint(json.dumps([sys.path, os.getcwd(), sys.argv, dict(os.environ)]))\n"


def test_a_child_has_no_path_of_the_scripts_folder_nor_of_the_working_directory(sent, tmp_path) -> None:
    plant(sent)
    for name in imported_names():
        (sent / f"{name}.py").unlink()
    elsewhere, trusted = tmp_path / "elsewhere", tmp_path / "trusted"
    elsewhere.mkdir()
    trusted.mkdir()
    (trusted / "told.py").write_text(TOLD)
    (sent / "script.py").write_text(SCRIPT)
    env = environment(
        tmp_path,
        PYTHONPATH=os.pathsep.join(["", str(elsewhere)]),
        LD_LIBRARY_PATH=os.pathsep.join(["/nowhere", "", "libraries"]),
        PATH=os.pathsep.join(["", ".", os.environ["PATH"]]),
        TMPDIR=os.path.relpath(tmp_path, elsewhere),
    )
    done = run([sys.executable, str(sent / "script.py"), str(trusted)], elsewhere, env)
    assert done.returncode == 0, done.stderr
    paths, cwd, arguments, variables = json.loads(done.stdout)
    assert not {str(sent), str(elsewhere), "", ".", "relative"} & set(paths)
    # An installation from a checkout hooks into Python by an entry that is no path.
    assert all(Path(path).is_absolute() for path in paths if not path.startswith("__editable__"))
    assert cwd == os.path.realpath(os.sep)
    assert arguments == ["told"] or arguments[0].endswith("told.py")
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["LD_LIBRARY_PATH"] == "/nowhere"
    assert all(Path(folder).is_absolute() for folder in variables["PATH"].split(os.pathsep))
    assert os.path.realpath(variables["TMPDIR"]) == str(tmp_path)


def test_programs_of_the_system_are_not_looked_for_in_the_working_directory(tmp_path, monkeypatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho planted\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", f":{os.sep}nowhere", os.path.relpath(tmp_path)):
        monkeypatch.setenv("PATH", path)
        assert run_program("nvidia-smi", timeout=10) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    found = run_program("nvidia-smi", timeout=10)
    assert found is not None
    assert found.output == "planted\n"
