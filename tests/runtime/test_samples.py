"""Results: what they record draws them again; what is written can be read."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gensdk.cli.main import run
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import encode_image
from support.image_bytes import settings_in
from support.models import MODELS, diffusion_model, feedforward_model, generator

PASSED = ("num_inference_steps", "solver", "eta", "guidance_scale", "timestep_spacing", "clip_sample")


@pytest.mark.parametrize("program", MODELS)
@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("label", [None, 2])
def test_saved_settings_draw_the_same_samples(program, num_classes, label, tmp_path: Path) -> None:
    with generator(MODELS[program](num_classes)) as model:
        samples = model.sample(3, seed=7, label=label if num_classes else None)
        grid = settings_in(samples.save(tmp_path / "grid.png"))
        samples.save(tmp_path / "folder")
        second = settings_in(tmp_path / "folder" / "00001.png")
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
    saved = settings_in(samples.save(tmp_path / "stopped.png"))
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


def test_a_notebook_shows_a_picture_and_one_line(tmp_path: Path) -> None:
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        samples = generator.sample(70, seed=3)
    assert re.fullmatch(r"<Samples: 70 images of 8 x 8, of digits-vae, from seed 3, in .* s>", repr(samples))
    png = samples._repr_png_()
    assert png is not None
    (tmp_path / "shown.png").write_bytes(png)
    with Image.open(tmp_path / "shown.png") as shown:
        assert shown.size == Image.fromarray(samples[:64].picture()[..., 0]).size
    assert samples[:0]._repr_png_() is None


def test_parts_of_samples_draw_themselves_again() -> None:
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        samples = generator.sample(5, seed=3, label=[0, 1, 2, 3, 4])
        for part in (samples[3], samples[1:4], samples[-1], samples[::2]):
            told = part.settings
            again = generator.sample(told["n"], seed=told["seeds"], label=told["labels"])
            np.testing.assert_allclose(again.array, part.array, atol=1e-5)
            assert part.labels is not None
            assert told["labels"] == part.labels.tolist()
    assert [each.seeds for each in samples] == [(key,) for key in samples.seeds]
    assert np.array_equal(np.concatenate([each.array for each in samples]), samples.array)
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="from 0 to 4"):
            samples[wrong]


def test_a_folder_with_pictures_of_an_earlier_run_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = tmp_path / "many"
    command = ["sample", "digits-vae", "--backend", "onnxruntime", "--seed", "0", "-o", str(many)]
    assert run([*command, "-n", "4"]) == 0
    before = {path.name: path.read_bytes() for path in many.iterdir()}
    assert run([*command, "-n", "2"]) == 5
    assert "holds 4 pictures of an earlier run (00000.png)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in many.iterdir()} == before
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        with pytest.raises(InputError, match="earlier run"):
            generator.sample(2, seed=0).save(many)
        for path in many.iterdir():
            path.unlink()
        (many / "notes.txt").write_text("mine")
        generator.sample(2, seed=0).save(many)
    assert sorted(path.name for path in many.iterdir()) == ["00000.png", "00001.png", "notes.txt"]


def test_interpolate_names_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk = ["interpolate", "digits-vae", "--from", "1", "--to", "2", "-o", str(tmp_path / "walk.xyz")]
    assert run(walk) == 5
    told = capsys.readouterr().err
    assert ".gif" in told
    assert ".mp4" in told
    assert ".npz" in told
