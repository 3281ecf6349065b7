"""Models that turn images into images: exported with any size, in each form, and proved."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.plan import ExportPlan

MULTIPLE, CLASSES = 4, ("red", "green", "blue")


class Network(nn.Module):
    """Down by four and up again, with a skip; a label shifts the channels."""

    def __init__(self, scale: int, classes: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 4, stride=4)
        self.up = nn.ConvTranspose2d(8, 8, 4, stride=4)
        self.skip = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.shift = nn.Embedding(classes, 3) if classes else None

    def forward(self, source: Tensor, label: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.up(torch.relu(self.down(source))) + self.skip(source))
        image: Tensor = self.last(hidden)
        if self.shift is not None and label is not None:
            image = image + self.shift(label)[:, :, None, None]
        return torch.tanh(image)


def plan(scale: int, *, labelled: bool = False, any_size: bool = True) -> ExportPlan:
    torch.manual_seed(0)
    source = SourceSpec(channels=3, height=24, width=32, multiple=MULTIPLE, scale=scale, margin=8)
    image = ImageSpec(channels=3, height=24 * scale, width=32 * scale)
    network = Network(scale, len(CLASSES) if labelled else 0)
    names = {"num_classes": len(CLASSES), "class_names": CLASSES} if labelled else {}
    return translation_plan("tiny", "toy", network, source, image, any_size=any_size, **names)


FORMS: list[dict[str, Any]] = [
    {"scale": 1},
    {"scale": 2},
    {"scale": 2, "labelled": True},
    {"scale": 1, "any_size": False},
]


EXPORTS = [(form, uint8) for form in FORMS for uint8 in (False, True)]
OF_ANY_SIZE = [(form, uint8) for form, uint8 in EXPORTS if form.get("any_size", True)]
"""A graph of a fixed size takes no whole image to compare with."""


@pytest.fixture(scope="module", params=EXPORTS, ids=str)
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan, bool]:
    form, uint8 = request.param
    made, out = plan(**form), tmp_path_factory.mktemp("bundle") / "toy.gsdk"
    export_plan(made, Provenance(), out, ExportOptions(fp16=True, uint8=uint8))
    return out, made, uint8


def label_of(made: ExportPlan, n: int) -> list[int] | None:
    return [i % 3 for i in range(n)] if made.model.num_classes else None


def expected(made: ExportPlan, images: Any) -> Any:
    """What PyTorch makes of uint8 [n, H, W, 3], as float32 [n, 3, H', W']."""
    source = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    label = label_of(made, len(images))
    more = () if label is None else (torch.tensor(label),)
    with torch.inference_mode():
        return made.modules["translator"](source, *more).numpy()


def test_it_verifies_in_both_precisions(exported: tuple[Path, ExportPlan, bool]) -> None:
    assert verify_bundle(exported[0], backend="onnxruntime").ok
    with Bundle.open(exported[0]) as bundle:
        spec = bundle.manifest.model.graphs[0].input("source")
    assert spec is not None
    assert spec.dtype == ("uint8" if exported[2] else "float32")


def test_it_draws_what_pytorch_draws(exported: tuple[Path, ExportPlan, bool]) -> None:
    path, made, _ = exported
    images = required_examples(made.model, 3)["image"]
    with Generator.load(path, backend="onnxruntime", threads=1) as loaded:
        samples = loaded.sample(image=images, label=label_of(made, 3))
        np.testing.assert_allclose(samples.array, expected(made, images), atol=1e-5)
        for size in (1, 2):
            again = loaded.sample(image=images, label=label_of(made, 3), batch_size=size)
            np.testing.assert_allclose(again.array, samples.array, atol=1e-6)
        pixels = loaded.sample(image=images, label=label_of(made, 3), output_type="uint8")
        assert np.abs(pixels.images.astype(int) - samples.images.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(24, 32), (23, 30), (25, 33), (5, 7), (1, 40)])
def test_sizes_come_back_as_they_went_in(exported: tuple[Path, ExportPlan, bool], size: tuple[int, int]) -> None:
    path, made, _ = exported
    source = made.model.source
    assert source is not None
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    label = 1 if made.model.num_classes else None
    fixed = not isinstance(made.model.graphs[0].inputs[0].shape[2], str)
    too_large = fixed and (size[0] > 24 or size[1] > 32)  # and too small for tiles
    told = pytest.warns(GensdkWarning, match="was resized") if too_large else nullcontext()
    with Generator.load(path, backend="onnxruntime", threads=1) as loaded:
        with told:
            result = loaded.translate(image, label=label)
        assert result.shape == (size[0] * source.scale, size[1] * source.scale, 3)
        if max(size) <= 40:
            with pytest.raises(InputError, match="tiles of at least"):
                loaded.translate(np.resize(image, (60, 60, 3)), label=label, tile=20)
        with pytest.warns(GensdkWarning, match="was resized") if too_large else nullcontext():
            several = loaded.translate([image, image[: size[0] // 2 + 1]], label=label)
    np.testing.assert_array_equal(several[0], result)
    assert several[1].shape[0] == (size[0] // 2 + 1) * source.scale


@pytest.mark.parametrize("exported", OF_ANY_SIZE, ids=str, indirect=True)
def test_tiles_leave_no_seam(exported: tuple[Path, ExportPlan, bool]) -> None:
    path, made, _ = exported
    image = np.random.default_rng(0).integers(0, 256, (150, 201, 3), dtype=np.uint8)
    label = 2 if made.model.num_classes else None
    with Generator.load(path, backend="onnxruntime", threads=1) as loaded:
        whole = loaded.translate(image, label=label, tile=0)
        tiled = loaded.translate(image, label=label, tile=72)
    assert isinstance(whole, np.ndarray)
    assert isinstance(tiled, np.ndarray)
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1


def test_a_fixed_size_takes_larger_images_in_tiles(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = SourceSpec(channels=3, height=96, width=96, multiple=MULTIPLE, margin=8)
    image = ImageSpec(channels=3, height=96, width=96)
    made = translation_plan("tiny", "toy", Network(1, 0), source, image, any_size=False)
    export_plan(made, Provenance(), tmp_path / "fixed.gsdk")
    large = np.random.default_rng(0).integers(0, 256, (100, 230, 3), dtype=np.uint8)
    with Generator.load(tmp_path / "fixed.gsdk", backend="onnxruntime", threads=1) as loaded:
        result = loaded.translate(large)
    assert isinstance(result, np.ndarray)
    direct = expected(made, np.pad(large, ((0, 0), (0, 2), (0, 0)), mode="reflect")[None])[0, :, :, :230]
    bytes_expected = np.rint((direct + 1) * 127.5).transpose(1, 2, 0)
    assert np.abs(result.astype(int) - bytes_expected).max() <= 1


def test_real_images_are_proved_and_stay_at_home(tmp_path: Path) -> None:
    examples = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    made = replace(plan(1), examples={"image": examples})
    for keep in (False, True):
        out = tmp_path / f"{keep}.gsdk"
        export_plan(made, Provenance(), out, ExportOptions(keep_examples=keep))
        with Bundle.open(out) as bundle:
            golden = load_golden(bundle)
        kept = [run.conditions["image"] for run in golden.trajectories]
        assert len(kept) == (2 if keep else 1)
        assert any((image == examples).all(axis=(1, 2, 3)).any() for run in kept for image in run) is keep
