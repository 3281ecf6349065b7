"""All that an installation takes exists, built, for the Arm computers of NVIDIA's Jetson line.

JetPack 6 is Ubuntu 22.04 (glibc 2.35) and brings Python 3.10, beside which a newer one is installed; JetPack 7 is
Ubuntu 24.04 (glibc 2.39) with Python 3.12. TensorRT comes with JetPack, not from a registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ELSEWHERE = {
    "tensorrt": "JetPack brings TensorRT and its Python package",
    "rtx": "TensorRT-RTX is for GPUs of the RTX line",
    "gpu": "ONNX Runtime's CUDA is for JetPack 7, whose CUDA is that of servers",
    "dev": "who develops gensdk does so elsewhere",
}
"""Extras that are not looked up for both, and why."""
EXTRAS = sorted({*PROJECT["optional-dependencies"]} - {*ELSEWHERE})
OLDEST_GLIBC = 17
MOST_ROUNDS = 12
"""Of questions to the registry; what an installation takes lies five deep."""

Needs = dict[str, tuple[set[str], SpecifierSet]]
"""Of each package by its name: the extras of it that are wanted, and the versions."""


def on_arm(python: str) -> dict[str, str]:
    """What markers ask about; pip would answer for the machine that it runs on."""
    return {
        "platform_machine": "aarch64",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }


def needed(extras: Iterable[str], python: str, known: Mapping[str, Mapping[str, Any]]) -> Needs:
    """What gensdk with its `extras` takes, as far as the metadata that are `known` say so."""
    there, optional = on_arm(python), PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    needs: Needs = {}
    waiting = [(Requirement(line), {""}) for line in lines]
    while waiting:
        wanted, of = waiting.pop()
        if wanted.marker and not any(wanted.marker.evaluate({**there, "extra": extra}) for extra in of):
            continue
        name = canonicalize_name(wanted.name)
        had, versions = needs.get(name, (None, SpecifierSet()))
        needs[name] = wanted.extras | (had or set()), versions & wanted.specifier
        if had is None or not wanted.extras <= had:
            theirs = known.get(name, {}).get("requires_dist", [])
            waiting += [(Requirement(line), {"", *needs[name][0]}) for line in theirs]
    return needs


def installed() -> dict[str, Mapping[str, Any]]:
    """What the packages of this environment need."""
    return {
        canonicalize_name(each.name): {"requires_dist": each.requires or []} for each in metadata.distributions()
    }


def found(requirements: list[str], python: str, glibc: int, *how: str) -> subprocess.CompletedProcess[str]:
    """What pip says that it would install, each without its own needs; nothing but facts is fetched."""
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, glibc + 1)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *how, "install", "--dry-run", "--quiet"]
    command += ["--no-deps", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    # Of the versions that all else is tested with: what is released elsewhere must not decide whether this passes.
    command += [f"--constraint={ROOT / 'constraints.txt'}", f"--python-version={python}", "--implementation=cp"]
    command += ["--target=nowhere", *tags, "--platform=manylinux2014_aarch64", *requirements]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}  # pip writes its report in the system's encoding
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=False)


@pytest.fixture(scope="module")
def _registry() -> None:
    if found(["click"], "3.12", 39, "--retries=0", "--timeout=10").returncode:
        pytest.skip("no registry of packages answers")


@pytest.mark.slow
@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize(
    ("python", "glibc", "extras"),
    [("3.11", 35, EXTRAS), ("3.12", 39, [*EXTRAS, "gpu"])],
    ids=["JetPack 6 with Python 3.11", "JetPack 7"],
)
def test_all_that_is_installed_is_built_for_arm(python: str, glibc: int, extras: list[str]) -> None:
    known: dict[str, Mapping[str, Any]] = {}
    wheels: dict[str, str] = {}
    here = installed()  # a guess, so that one question is enough; what counts is what the registry says
    for _ in range(MOST_ROUNDS):
        needs = needed(extras, python, {**here, **known})
        open_ = {
            name: versions
            for name, (_, versions) in needs.items()
            if name not in known or not versions.contains(known[name]["version"], prereleases=True)
        }
        if not open_:
            break
        answer = found([f"{name}{versions}" for name, versions in open_.items()], python, glibc)
        if answer.returncode and here:
            here = {}
            continue
        assert answer.returncode == 0, answer.stderr[-2000:]
        for each in json.loads(answer.stdout)["install"]:
            name = canonicalize_name(each["metadata"]["name"])
            known[name] = each["metadata"]
            wheels[name] = each["download_info"]["url"].rpartition("/")[2]
    assert not open_, f"no versions that fit together after {MOST_ROUNDS} rounds: {open_}"
    assert {"numpy", "torch", "onnxruntime"} <= {*needs}
    wrong = [
        wheels[name] for name in needs if not wheels[name].endswith("any.whl") and "aarch64" not in wheels[name]
    ]
    assert not wrong
    if "gpu" in extras:
        assert any(name.startswith("nvidia-cudnn") for name in needs), "the extras of a requirement count too"


def test_extras_and_markers_are_those_of_arm() -> None:
    """Also of a package that is met a second time, with another extra."""
    asks = {
        "onnxruntime": ['intel; platform_machine == "x86_64"', 'arm; platform_machine == "aarch64"', "shared>=1"],
        "onnxruntime-gpu": ['cudnn-of-it>=9; extra == "cudnn"', 'never; extra == "other"', "shared<3"],
        "shared": ['late; python_version >= "3.12"'],
    }
    known = {name: {"requires_dist": lines} for name, lines in asks.items()}
    needs = needed(["cpu", "gpu"], "3.11", known)
    assert {"arm", "shared", "cudnn-of-it"} <= {*needs}
    assert not {"intel", "never", "late"} & {*needs}
    assert needs["shared"][1] == SpecifierSet(">=1,<3")
    assert "late" in needed(["cpu"], "3.12", known)
