"""The examples run, and show what they say."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_disjoint_supports_show_the_plateau_and_the_slope(tmp_path: Path) -> None:
    pytest.importorskip("gensdk_training")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plot.png"
    command = [sys.executable, str(EXAMPLES / "disjoint_supports.py"), "--out", str(picture)]
    done = subprocess.run(
        [*command, "--count", "120", "--steps", "120"], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    for theta, js, w in [tuple(map(float, row)) for row in rows]:
        if theta:
            assert js == pytest.approx(math.log(2), abs=0.03)
        assert w == pytest.approx(abs(theta), abs=0.1)
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = subprocess.run([*command[:-1], "plot.gif"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (5, 1)
