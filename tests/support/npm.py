"""A package from npm in one pinned version, for tests on what others published; skips where it can't be had."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest


def npm_package(spec: str, integrity: str, folder: Path) -> Path:
    """Unpacks ``NAME@VERSION`` below `folder`; `integrity`: its SHA-512 as lock files have it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"{spec} comes from npm, which is not installed")
    command = [npm, "pack", spec, "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not answer for {spec}")
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        pytest.skip(f"npm can't get {spec}")
    digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    assert digest == integrity, f"npm's {spec} is not the pinned one"
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"
