"""Everything that pyproject.toml asks for exists, built, for the Arm computers of NVIDIA's Jetson line.

JetPack 6 is Ubuntu 22.04 (glibc 2.35) and brings Python 3.10, beside which a newer one is installed; JetPack 7 is
Ubuntu 24.04 (glibc 2.39) with Python 3.12. TensorRT comes with JetPack, not from a registry.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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


def asked(extras: list[str], python: str) -> list[str]:
    """The requirements of gensdk and of its `extras`, on Arm."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    there = {
        "platform_machine": "aarch64",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    wanted = [Requirement(line) for line in lines]
    return sorted(
        {
            f"{each.name}{each.specifier}"
            for each in wanted
            if each.name != "gensdk" and (each.marker is None or each.marker.evaluate(there))
        }
    )


def found(requirements: list[str], python: str, glibc: int) -> subprocess.CompletedProcess[str]:
    """What pip says that it would install, each without its own needs; nothing but facts is fetched."""
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, glibc + 1)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--retries=0",
        "--timeout=10",
        "install",
    ]
    command += ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    command += [f"--python-version={python}", "--implementation=cp", "--target=nowhere", *tags]
    command += ["--platform=manylinux2014_aarch64", *requirements]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def _registry() -> None:
    if found(["click"], "3.12", 39).returncode:
        pytest.skip("no registry of packages answers")


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize(
    ("python", "glibc", "extras"),
    [("3.11", 35, EXTRAS), ("3.12", 39, [*EXTRAS, "gpu"])],
    ids=["JetPack 6 with Python 3.11", "JetPack 7"],
)
def test_all_is_built_for_arm(python: str, glibc: int, extras: list[str]) -> None:
    requirements = asked(extras, python)
    answer = found(requirements, python, glibc)
    assert answer.returncode == 0, answer.stderr
    wheels = [each["download_info"]["url"].rpartition("/")[2] for each in json.loads(answer.stdout)["install"]]
    assert len(wheels) == len({Requirement(line).name for line in requirements}) > 8
    assert all(wheel.endswith("any.whl") or "aarch64" in wheel for wheel in wheels)
