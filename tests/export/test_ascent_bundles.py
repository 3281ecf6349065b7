"""Exported models that optimize their input, on ONNX Runtime, against the same search in PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk.cli.main import run
from gensdk_runtime.conditions.image import ImageCondition
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_training.graphs.input_gradient import InputGradient
from support.models import feedforward_model

pytestmark = pytest.mark.slow

Export = Callable[[str], Any]


def images(n: int) -> np.ndarray:
    """uint8 [n, 8, 8, 1]."""
    return ImageCondition(SourceSpec(channels=1, height=8, width=8), feedforward_model()).examples(n)


def checksums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def photograph() -> np.ndarray:
    """scikit-image's cat, a grey part of it of odd size: uint8 [75, 101, 1]."""
    data = pytest.importorskip("skimage.data")
    grey = data.chelsea()[40:190:2, 80:282:2].mean(axis=2)
    return np.rint(grey).astype(np.uint8)[..., None]


def searched_in_torch(
    module: InputGradient, feeds: tuple[torch.Tensor, ...], start: torch.Tensor, steps: int
) -> Any:
    """The best objective of Adam's steps, as the AnoGAN paper searches."""
    z = start.clone().requires_grad_()
    optimizer, best = torch.optim.Adam([z], lr=0.05), torch.full((len(z),), torch.inf)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps + 1):
        optimizer.zero_grad()
        objective = module.objective(z, *feeds)
        best = torch.minimum(best, objective.detach())
        torch.autograd.backward(objective.sum(), inputs=[z])
        optimizer.step()
        schedule.step()
    return best.numpy()


def test_scores_are_those_of_pytorch(exported: Export) -> None:
    found, given = exported("anogan"), images(5)
    x = torch.from_numpy(given).permute(0, 3, 1, 2).float() / 127.5 - 1
    modules = found.plan.modules
    with torch.no_grad():
        start, features = modules["encoder"](x), modules["features"](x)
    expected = searched_in_torch(modules["inversion"], (x, features), start, 40)
    with Generator.load(found.bundle, backend="onnxruntime") as generator:
        scores = generator.detect(given, num_inference_steps=40, patience=0).scores
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


@pytest.mark.parametrize("family", ["anogan", "glo", "gon"])
def test_a_batch_of_images_equals_one_by_one(family: str, exported: Export) -> None:
    given = images(4)
    with Generator.load(exported(family).bundle, backend="onnxruntime") as generator:
        together = generator.invert(given, num_inference_steps=10, seed=[0] * 4)
        alone = [generator.invert(given[i : i + 1], num_inference_steps=10) for i in range(4)]
        np.testing.assert_allclose(together.latents, np.concatenate([one.latents for one in alone]), atol=1e-3)
        np.testing.assert_allclose(together.objective, np.concatenate([one.objective for one in alone]), rtol=1e-3)


@pytest.mark.parametrize("family", ["anogan", "glo"])
def test_the_search_finds_what_the_model_made(family: str, exported: Export) -> None:
    with Generator.load(exported(family).bundle, backend="onnxruntime") as generator:
        made = generator.sample(3, seed=1).array
        begun = generator.invert(made, num_inference_steps=0)
        found = generator.invert(made, num_inference_steps=120)
    assert (found.objective < 0.5 * begun.objective).all()


def test_gons_latent_is_one_gradient(exported: Export) -> None:
    found, given = exported("gon"), images(3)
    encoder = found.plan.modules["encoder"]
    x = torch.from_numpy(given).permute(0, 3, 1, 2).float() / 127.5 - 1
    size = found.plan.model.graph("encoder").outputs[0].shape[1]
    _, gradient = encoder.gradient(torch.zeros(3, size), x)
    with torch.no_grad():
        decoded = encoder.gradient.objective.network(-gradient)
    with Generator.load(found.bundle, backend="onnxruntime") as generator:
        inversion = generator.invert(given)
        refined = generator.invert(given, num_inference_steps=30)
    assert (inversion.steps == 0).all()
    np.testing.assert_allclose(encoder.gaussian(torch.from_numpy(inversion.latents)), -gradient, atol=1e-4)
    np.testing.assert_allclose(inversion.images, decoded, atol=1e-4)
    assert (refined.objective < inversion.objective).all(), "more steps come nearer"


@pytest.mark.parametrize("family", ["anogan", "glo", "gon"])
def test_what_is_found_is_what_is_sampled_from(family: str, exported: Export) -> None:
    """One space of latents: encode, invert, reconstruct and sample mean the same by them."""
    given = images(3)
    with Generator.load(exported(family).bundle, backend="onnxruntime") as generator:
        found = generator.invert(given, batch_size=2, seed=[0] * 3)
        alone = np.concatenate([generator.encode(given[i : i + 1]) for i in range(3)])
        latents, again = generator.encode(given), generator.reconstruct(given).array
        made = generator.sample(3, latents=found.latents).array
    np.testing.assert_allclose(latents, found.latents, atol=1e-3)
    np.testing.assert_allclose(latents, alone, atol=1e-3)
    np.testing.assert_allclose(made, found.images, atol=1e-4)
    np.testing.assert_allclose(again, found.images, atol=1e-3)


def test_dreams_climb_over_octaves_and_leave_the_weights_alone(exported: Export) -> None:
    bundle, photo = exported("deepdream").bundle, photograph()
    before, heard = checksums(bundle), []
    with Generator.load(bundle, backend="onnxruntime") as generator:
        dreamt = generator.dream(
            photo, octaves=3, num_inference_steps=6, callback_on_step_end=lambda step: bool(heard.append(step))
        )
        again = generator.dream(photo, octaves=3, num_inference_steps=6)
        other = generator.dream(photo, octaves=3, num_inference_steps=6, seed=1)
        with pytest.raises(InputError, match="no option 'octave'; did you mean 'octaves'"):
            generator.dream(photo, octave=3)
        with pytest.raises(InputError, match="starts from the image that it is given; leave start out"):
            generator.dream(photo, start="noise")
        layer = generator.dream(photo, octaves=1, num_inference_steps=2, layer="conv1", channel=3)
        with pytest.raises(InputError, match="octave_scale above 1"):
            generator.dream(photo, octave_scale=1.0)
        with pytest.raises(InputError, match=r"uint8 \[H, W, 1\]"):
            generator.dream(np.zeros((32, 32, 3), np.uint8))
    assert dreamt.shape == layer.shape == photo.shape
    assert [step.x0.shape[2:] for step in heard[::6]] == [(38, 52), (54, 72), (75, 101)]
    for first in range(0, 18, 6):
        heights = [float(step.objective[0]) for step in heard[first : first + 6]]
        assert heights == sorted(heights), "each step climbs"
        assert heights[-1] > 1.05 * heights[0]
    np.testing.assert_array_equal(dreamt, again)
    assert not np.array_equal(dreamt, other)
    assert not np.array_equal(layer, photo)
    assert checksums(bundle) == before


def test_the_command_line_detects_and_dreams(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, report = tmp_path / "parts", tmp_path / "report"
    parts.mkdir()
    for i, image in enumerate(images(3)):
        (parts / f"{i}.png").write_bytes(encode_image(image, ".png", {}))
    common = ["--backend", "onnxruntime", "--steps", "5"]
    anogan = str(exported("anogan").bundle)
    assert run(["detect", anogan, str(parts), "--normal", str(parts), "-o", str(report), *common]) == 0
    told = json.loads((report / "report.json").read_text())
    assert [row["name"] for row in told["images"]] == ["0.png", "1.png", "2.png"]
    assert sum(row["anomalous"] for row in told["images"]) == 1, (
        "the 95 % quantile of three lies below the largest"
    )
    assert sorted(path.name for path in report.glob("*.png")) == [row["heat_map"] for row in told["images"]]
    assert run(["detect", anogan, str(parts), *common]) == 5
    assert run(["detect", anogan, str(tmp_path / "none.png"), "--threshold", "1", *common]) == 5
    (parts / "large.png").write_bytes(encode_image(photograph(), ".png", {}))
    assert run(["detect", anogan, str(parts), "--threshold", "1", *common]) == 5
    (parts / "deep").mkdir()
    (parts / "deep" / "broken.png").write_bytes(b"no image")
    capsys.readouterr()
    assert run(["detect", anogan, str(parts), "--threshold", "1", "--size", "8", "--json", *common]) == 0
    found = capsys.readouterr()
    told = json.loads(found.out)
    assert [row["name"] for row in told["images"]] == ["0.png", "1.png", "2.png", "large.png"]
    assert [row["name"] for row in told["skipped"]] == ["deep/broken.png"]
    assert "skipped deep/broken.png" in found.err
    assert run(["detect", anogan, str(parts), "--threshold", "1", "--size", "16", *common]) == 5
    assert run(["detect", anogan, str(parts), "--threshold", "nan", *common]) == 5
    assert "expected threshold as a finite number, got nan" in capsys.readouterr().err
    np.savez(tmp_path / "parts.npz", images=images(3)[..., 0] / 255)
    assert run(["detect", anogan, str(tmp_path / "parts.npz"), "--threshold", "1", *common]) == 0
    made = tmp_path / "dream.png"
    dream = ["dream", str(parts / "large.png"), "--bundle", str(exported("deepdream").bundle), "--octaves", "2"]
    assert run([*dream, "-o", str(made), *common]) == 0
    assert made.exists()
    assert capsys.readouterr().err == ""
    coloured = np.random.default_rng(0).integers(0, 256, (20, 20, 4), np.uint8)
    (tmp_path / "coloured.png").write_bytes(encode_image(coloured, ".png", {}))
    dream[1] = str(tmp_path / "coloured.png")
    assert run([*dream, "-o", str(made), *common]) == 0
    told_aside = capsys.readouterr().err
    assert "colours are dropped" in told_aside
    assert "transparency is laid over white" in told_aside
    assert run([*dream, "--layer", "conv9", "-o", str(made), *common]) == 5
