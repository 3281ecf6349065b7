"""What a type checker makes of calls that users write: mypy over a few lines, strict, and with no plugin."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[1]
CONFIG = f"""
[mypy]
strict = true
mypy_path = {":".join(str(ROOT / folder) for folder in ("", "runtime", "training", "export"))}
"""
CALLS = """
import numpy as np
from PIL import Image

from gensdk import AscentSettings, DiffusionSettings, Generator, SampleOptions, Samples
from gensdk_runtime.programs.run import StepEnd


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


def options(generator: Generator, image: np.ndarray, steps: int | None) -> None:
    generator.sample(2, num_inference_steps=steps, solver="ddim", cache_interval=3, beta1=0.5, start="zeros")
    few = SampleOptions(solver="dpmsolver++", num_inference_steps=10)
    generator.sample(2, **few)
    generator.sample(2, settings=DiffusionSettings(eta=0.5), label=3)
    generator.sample(2, settings=AscentSettings(optimizer="sgd", channel=2))
    generator.sample(settings=generator.sample(settings={"eta": 0.5}).settings)
    generator.walk([0, 1], 4, solver="ddim", batch_size=2)
    generator.prepare(1, cache_interval=2)
    generator.invert(image, optimizer="lbfgs", momentum=0.5, seed=3)
    generator.detect(image, threshold=3.0, patience=5, batch_size=1)
    generator.dream(image, layer="conv1", lr_schedule="linear", octaves=2)


def wrong(generator: Generator) -> None:
    generator.sample("three")
    generator.translate("photo.png")


def wrong_options(generator: Generator, image: np.ndarray) -> None:
    generator.sample(num_inference_step=3)
    generator.sample(num_inference_steps="3")
    generator.sample(solver="euler_")
    generator.sample(clip_sample=1)
    generator.walk([0, 1], 4, etta=0.5)
    generator.interpolate(0, 1, 4, seed=3)
    generator.prepare(cache_interval=2.5)
    generator.invert(image, solver="ddim")
    generator.detect(image, start="nowhere")
    generator.dream(image, jitter="much")
    generator.sample(settings=3)
    DiffusionSettings(solvr="euler")
    AscentSettings(start="nowhere")
"""
BYTES = r"numpy\.ndarray\[.*unsignedinteger.*_8Bit.*\]"
REVEALED = [BYTES, BYTES, rf"(builtins\.)?list\[{BYTES}\]", *[r"gensdk_runtime\.samples\.Samples"] * 2]
REVEALED += [r"(builtins\.)?list\[gensdk_runtime\.samples\.Samples\]", r"(builtins\.)?int"]

REFUSED = [
    r'Unexpected keyword argument "num_inference_step" for "sample" .*; did you mean "num_inference_steps"',
    'Argument "num_inference_steps" to "sample" .* incompatible type "str"; expected "int | None"',
    """Argument "solver" to "sample" .* incompatible type "Literal\\['euler_'\\]"; expected "Literal\\['ddpm'""",
    'Argument "clip_sample" to "sample" .* incompatible type "int"; expected "bool | None"',
    'Unexpected keyword argument "etta" for "walk"',
    'Unexpected keyword argument "seed" for "interpolate"',
    'Argument "cache_interval" to "prepare" .* incompatible type "float"',
    'Unexpected keyword argument "solver" for "invert"',
    'Argument "start" to "detect" .* incompatible type',
    'Argument "jitter" to "dream" .* incompatible type',
    'Argument "settings" to "sample" .* incompatible type "int"',
    'Unexpected keyword argument "solvr" for "DiffusionSettings"',
    'Argument "start" to "AscentSettings" has incompatible type',
]


@pytest.mark.slow
def test_calls_of_users_have_the_types_that_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "application.py"
    source.write_text(CALLS)
    (tmp_path / "mypy.ini").write_text(CONFIG)  # users have their own, and not our plugin
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache" if "PYTEST_XDIST_WORKER" in os.environ else ROOT / ".mypy_cache" / "users"
    arguments = ["--config-file", "mypy.ini", "--cache-dir", str(cache), str(source)]
    out, err, _ = api.run(["--python-executable", sys.executable, *arguments])
    lines = [line.partition("application.py:")[2] for line in out.splitlines() if "application.py:" in line]
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    errors = [line.partition(" error: ")[2] for line in lines if " error: " in line]
    assert not err
    for found, expected in zip(revealed, REVEALED, strict=True):
        assert re.fullmatch(expected, found), found
    assert 'Argument 1 to "sample" of "Generator" has incompatible type "str"' in errors[0]
    assert "translate" in errors[1]
    for found, expected in zip(errors[2:], REFUSED, strict=True):
        assert re.match(expected, found), found
