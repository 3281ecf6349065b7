"""Results: what they record draws them again; what is written can be read."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import encode_image, read_settings
from support.models import MODELS, diffusion_model, feedforward_model, generator

PASSED = ("num_inference_steps", "solver", "eta", "guidance_scale", "timestep_spacing", "clip_sample")


@pytest.mark.parametrize("program", MODELS)
@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("label", [None, 2])
def test_saved_settings_draw_the_same_samples(program, num_classes, label, tmp_path: Path) -> None:
    with generator(MODELS[program](num_classes)) as model:
        samples = model.sample(3, seed=7, label=label if num_classes else None)
        grid = read_settings(samples.save(tmp_path / "grid.png"))
        samples.save(tmp_path / "folder")
        second = read_settings(tmp_path / "folder" / "00001.png")
        for saved, expected in ((grid, samples.array), (second, samples.array[1:2])):
            options = {name: saved[name] for name in PASSED if name in saved}
            again = model.sample(saved["n"], seed=saved["seeds"], label=saved["labels"], **options)
            np.testing.assert_array_equal(again.array, expected)
        with np.load(samples.save(tmp_path / "all.npz")) as file:
            again = model.sample(3, seed=file["seeds"], label=grid["labels"])
        np.testing.assert_array_equal(again.array, samples.array)


def test_settings_of_a_stopped_run_tell_what_there_is(tmp_path: Path) -> None:
    with generator(diffusion_model()) as model:
        samples = model.sample(10, seed=0, callback_on_step_end=lambda step: True)
    saved = read_settings(samples.save(tmp_path / "stopped.png"))
    assert saved["n"] == len(saved["seeds"]) == len(samples) == 8
    assert saved["stopped"] is True


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    with generator(diffusion_model(3)) as model:
        samples = model.sample(
            np.int64(2),  # type: ignore[arg-type]
            seed=np.uint64(3),  # type: ignore[arg-type]
            label=np.int32(1),  # type: ignore[arg-type]
            num_inference_steps=np.int64(4),  # type: ignore[arg-type]
            guidance_scale=np.float32(2.0),  # type: ignore[arg-type]
            batch_size=np.int64(1),  # type: ignore[arg-type]
        )
        plain = model.sample(2, seed=3, label=1, num_inference_steps=4, guidance_scale=2.0)
    np.testing.assert_array_equal(samples.array, plain.array)
    assert json.dumps(dict(samples.settings)) == json.dumps(dict(plain.settings))
    assert samples.save(tmp_path / "grid.png").exists()


@pytest.mark.parametrize("size", ["4", 2.5, 0, -1, 9])
def test_batch_sizes_that_are_none(size) -> None:
    with generator(feedforward_model()) as model, pytest.raises(InputError, match="batch_size"):
        model.sample(2, batch_size=size)


def test_layouts_and_scales_that_are_none(tmp_path: Path) -> None:
    with generator(feedforward_model()) as model:
        samples = model.sample(2, seed=0)
    with pytest.raises(InputError, match="did you mean 'grid'"):
        samples.save(tmp_path / "x.png", layout="gird")  # type: ignore[arg-type]
    for options in ({"scale": -1}, {"columns": 0}, {"scale": 0}):
        with pytest.raises(InputError, match="from 1 to"):
            samples.save(tmp_path / "x.png", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_an_image_too_large_for_its_format_is_one_clear_error(suffix) -> None:
    with pytest.raises(InputError, match=r"use \.png"):
        encode_image(np.zeros((1, 70_000, 1), np.uint8), suffix, {})


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't read"):
        read_settings(tmp_path / "none.png")
    data = encode_image(np.zeros((4, 4, 1), np.uint8), ".png", {"n": 1})
    (tmp_path / "x.png").write_bytes(data.replace(b'{"n"', b'{"n{'))
    with pytest.raises(InputError, match="damaged"):
        read_settings(tmp_path / "x.png")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    with generator(feedforward_model()) as model:
        samples = model.sample(1, seed=0)
    before = os.umask(0o077)
    try:
        path = samples.save(tmp_path / "x.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]


def test_a_program_without_a_console_can_sample(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with generator(feedforward_model()) as model:
        assert len(model.sample(2)) == 2
