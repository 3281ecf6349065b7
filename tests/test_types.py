"""What a type checker makes of calls that users write: mypy over a few lines, with the errors of this project."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[1]
CALLS = """
import numpy as np
from PIL import Image

from gensdk import Generator, Samples
from gensdk_runtime.programs.base import StepEnd


def silent(step: StepEnd) -> None:
    print(step.step)


def calls(generator: Generator, photo: Image.Image, array: np.ndarray) -> None:
    reveal_type(generator.translate(photo))
    reveal_type(generator.translate(array, tile=0, resize=(64, 64)))
    reveal_type(generator.translate([photo, array]))
    samples = generator.sample(2, seed=np.int64(3), label=np.array([1, 2]), callback_on_step_end=silent)
    generator.sample(2, seed=np.array([1, 2]), label=[np.int64(1), 2], callback_on_step_end=lambda step: None)
    generator.sample(2, seed=samples.seeds, callback_on_step_end=lambda step: np.bool_(True))
    generator.walk([0, np.int64(1), (0, 17)], 4, label=np.int64(1))
    reveal_type(samples[0])
    reveal_type(samples[:2])
    reveal_type([each for each in samples])
    reveal_type(len(samples))


def wrong(generator: Generator) -> None:
    generator.sample("three")
    generator.translate("photo.png")
"""
BYTES = r"numpy\.ndarray\[.*unsignedinteger.*_8Bit.*\]"
REVEALED = [BYTES, BYTES, rf"(builtins\.)?list\[{BYTES}\]", *[r"gensdk_runtime\.samples\.Samples"] * 2]
REVEALED += [r"(builtins\.)?list\[gensdk_runtime\.samples\.Samples\]", r"(builtins\.)?int"]


@pytest.mark.slow
def test_calls_of_users_have_the_types_that_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "application.py"
    source.write_text(CALLS)
    monkeypatch.chdir(ROOT)  # the file of settings names paths from there
    cache = tmp_path / "cache" if "PYTEST_XDIST_WORKER" in os.environ else ROOT / ".mypy_cache"
    arguments = ["--config-file", "pyproject.toml", "--cache-dir", str(cache), str(source)]
    out, err, _ = api.run(["--python-executable", sys.executable, *arguments])
    lines = [line.partition("application.py:")[2] for line in out.splitlines() if "application.py:" in line]
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    errors = [line for line in lines if " error: " in line]
    assert not err
    for found, expected in zip(revealed, REVEALED, strict=True):
        assert re.fullmatch(expected, found), found
    assert len(errors) == 2, errors
    assert 'Argument 1 to "sample" of "Generator" has incompatible type "str"' in errors[0]
    assert "translate" in errors[1]
