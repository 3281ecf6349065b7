"""What the job with the lowest versions installs follows from pyproject.toml, and is allowed by it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def test_every_requirement_has_a_lowest_version_that_pip_is_held_to() -> None:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / ".ci" / "lowest.py")
    assert spec is not None
    assert spec.loader is not None
    lowest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lowest)
    known = (Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    pinned = {one.name.lower(): Version(next(iter(one.specifier)).version) for one in known}
    pins = [Requirement(line) for line in lowest.pins()]
    assert len(pins) == len(lowest.lowest()) > 8
    for pin in pins:
        asked = lowest.lowest()[pin.name]
        assert pin.specifier.contains(asked) or pin.name == "torch"
        assert pinned[pin.name.lower()] >= Version(asked), "what is tested everywhere else is allowed too"
