"""Frames of any size through engines that were built with the exported profiles, on a GPU that the CPU plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_export.engines import build_engines
from gensdk_export.graphs import multiples
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_export.receptive_proof import with_proved_field
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.tensorrt import backend as tensorrt
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.package import Log, Toolkit
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe, batch_axis, image_axes
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import BackendError, GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods.tiles import Cut
from gensdk_runtime.spec.conditions import ReceptiveField, SourceSpec
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec
from gensdk_runtime.spec.model import ModelSpec
from support.plans import DIGITS, family_plan

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")

from support.host_gpu import SIDES, HostCuda, HostTrt  # noqa: E402

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "x2": ("srgan", {"channels": 2, "blocks": 1}),
    "U-Net": ("pix2pix", {"channels": 2}),
    "U-Net that is cut": ("pix2pix", {"channels": 2, "depth": 2, "norm": "batch"}),
}
TRAINED_AT = (64, 256)
FRAMES = {"240x320": (240, 320), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}


@dataclass(frozen=True)
class Exported:
    model: ModelSpec
    data: bytes

    @property
    def source(self) -> SourceSpec:
        source = self.model.source
        assert source is not None
        return source

    def frame(self, height: int, width: int) -> np.ndarray:
        coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 1), dtype=np.uint8)
        smooth = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        return np.ascontiguousarray(np.broadcast_to(smooth, (height, width, self.source.channels)))


@dataclass(frozen=True)
class Source(MemoryGraph):
    """As a bundle has it."""

    source: SourceSpec | None = None
    largest: int = 64

    def largest_batch(self) -> int:
        return self.largest

    def translated(self) -> SourceSpec | None:
        return self.source

    def elements(self) -> None:
        return None

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        return ()

    def trusts(self, spec: EngineSpec) -> bool:
        return False

    def read_engine(self, spec: EngineSpec) -> bytes:
        raise AssertionError


@pytest.fixture(scope="module", params=[(name, size) for name in MODELS for size in TRAINED_AT], ids=str)
def exported(request: pytest.FixtureRequest) -> Exported:
    name, size = request.param
    family, config = MODELS[name]
    side = 2 * size if name == "x2" else size
    plan = family_plan(family, data=DIGITS.model_copy(update={"height": side, "width": side}), **config)
    graph = plan.model.graphs[0]
    images = required_examples(plan.model, 1)["image"]
    feeds = {"source": (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)}
    data = export_onnx(graph, plan.modules[graph.name], feeds, multiples(plan.model))
    made = Exported(with_proved_field(plan.model, {graph.name: data}), data)
    assert (made.source.height, made.source.width) == (size, size)
    return made


@pytest.fixture(scope="module")
def whole(exported: Exported) -> Iterator[Callable[[str], np.ndarray]]:
    """Each frame through ONNX Runtime, in one piece."""
    graph, known = exported.model.graphs[0], {}
    session = create_backend("onnxruntime", threads=1).open(graph, MemoryGraph(exported.data), precision="fp32")
    with Generator.from_sessions(exported.model, {graph.name: session}) as generator:

        def of(name: str) -> np.ndarray:
            if name not in known:
                known[name] = generator.translate(exported.frame(*FRAMES[name]), tile=0)
            return known[name]

        yield of


@pytest.fixture
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A backend whose engines are really built, for images of the sizes that `axes` names."""
    kind = getattr(request, "param", "rtx")
    cuda = HostCuda()
    toolkit = Toolkit(tensorrt.KINDS[kind], HostTrt(trt, cuda, builds=True), Log(trt))
    monkeypatch.setattr(device, "cuda", lambda: cuda)
    monkeypatch.setattr(tensorrt, "load_package", lambda runtime: toolkit)
    return lambda **axes: tensorrt.TensorRtBackend(kind, axes=axes, cache=EngineCache(tmp_path))


def opened(exported: Exported, backend: Any) -> Generator:
    graph = exported.model.graphs[0]
    session = backend.open(graph, Source(exported.data, exported.source), precision="fp32")
    return Generator.from_sessions(exported.model, {graph.name: session})


@pytest.mark.parametrize(
    ("host", "frame"),
    [
        ("rtx", "240x320"),
        ("classic", "240x320"),
        ("classic", "720p"),
        pytest.param("rtx", "1080p", marks=pytest.mark.slow),
        pytest.param("classic", "4K", marks=pytest.mark.slow),
    ],
    indirect=["host"],
)
def test_frames_come_out_right(exported: Exported, whole: Any, host: Any, frame: str) -> None:
    """Whole or in tiles, without a word, and as ONNX Runtime has them."""
    image = exported.frame(*FRAMES[frame])
    with opened(exported, host()) as generator:
        got = generator.translate(image)
    assert np.abs(got.astype(int) - whole(frame)).max() <= 1


X2 = pytest.mark.parametrize("exported", [("x2", 64)], ids=str, indirect=True)
CUT = pytest.mark.parametrize("exported", [("x2", 64), ("U-Net that is cut", 64)], ids=str, indirect=True)
BOTH = pytest.mark.parametrize("host", ["rtx", "classic"], indirect=True)


@CUT
@BOTH
@pytest.mark.parametrize("beyond", [0, 3, 40])
def test_tiles_are_no_larger_than_the_engine_takes(exported: Exported, whole: Any, host: Any, beyond: int) -> None:
    cut, multiple = Cut.of(exported.source), exported.source.multiple
    most = (cut.smallest + cut.step - 1 + beyond + multiple - 1) // multiple * multiple
    sides = AxisRange(multiple, multiple, most)
    with opened(exported, host(height=sides, width=sides)) as generator:
        for tile in (None, cut.smallest, 4000):
            got = generator.translate(exported.frame(240, 320), tile=tile)
            assert np.abs(got.astype(int) - whole("240x320")).max() <= 1
        with pytest.raises(InputError, match=f"tiles of at least {cut.smallest} pixels for this model, got 8"):
            generator.translate(exported.frame(240, 320), tile=8)


@X2
@BOTH
def test_where_no_tile_fits_an_image_is_resized_with_a_word(exported: Exported, host: Any) -> None:
    smallest = Cut.of(exported.source).smallest
    sides = AxisRange(1, 64, smallest - 1)
    with opened(exported, host(height=sides, width=sides)) as generator:
        most = rf"at most {smallest - 1} x {smallest - 1} \(height x width\)"
        tiles = f"tiles have to be of {smallest} pixels at least"
        said = f"the engine of model .* takes images of {most}, and {tiles}: 240 x 320 was resized"
        with pytest.warns(GensdkWarning, match=said):
            assert generator.translate(exported.frame(240, 320)).shape[:2] == (480, 640)
        with pytest.warns(GensdkWarning, match="tiles were ruled out"):
            generator.translate(exported.frame(240, 320), tile=0)
        message = f"takes height from 1 to {smallest - 1}, got 240; Generator.translate cuts larger images"
        with pytest.raises(BackendError, match=message):
            generator.sample(image=exported.frame(240, 320)[None])


@X2
@BOTH
def test_images_of_one_call_go_as_many_at_once_as_a_profile_takes(exported: Exported, host: Any) -> None:
    """An engine's profile for many is for small ones."""
    graph = exported.model.graphs[0]
    reference = create_backend("onnxruntime", threads=1).open(graph, MemoryGraph(exported.data), precision="fp32")
    with (
        Generator.from_sessions(exported.model, {graph.name: reference}) as expected,
        opened(exported, host()) as generator,
    ):
        for side in (60, 300):
            images = np.stack([exported.frame(side, side + 4), exported.frame(side, side + 4)[::-1]] * 2)
            for many in (generator.sample(image=images).array, generator.sample(image=images[:3]).array):
                wanted = expected.sample(image=images[: len(many)]).array
                np.testing.assert_allclose(many, wanted, atol=1e-5)
            np.testing.assert_array_equal(generator.translate(images), expected.translate(images))


@X2
@BOTH
def test_a_camera_keeps_its_buffers(exported: Exported, host: Any) -> None:
    """One upload, one download, one synchronization a frame, and nothing allocated."""
    image = exported.frame(64, 64)
    with opened(exported, host()) as generator:
        prepared = generator.prepare(size=(64, 64))
        for _ in range(3):
            prepared.translate(image)
        cuda = device.cuda()
        cuda.calls.clear()
        for _ in range(5):
            prepared.translate(image)
        counted = ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "allocated", "captured")
        assert [cuda.calls[each] for each in counted] == [5, 5, 0, 0]


@X2
def test_an_exported_engine_says_how_large_its_images_may_be(exported: Exported) -> None:
    graph = exported.model.graphs[0]
    (engine,) = build_engines(
        exported.model,
        [(graph, exported.data, "fp32")],
        batch=None,
        axes={},
        runtime="tensorrt-rtx",
        say=lambda _: None,
    )
    assert engine.spec.axes == {"height": (1, 64, 4096), "width": (1, 64, 4096)}
    assert (engine.spec.min_batch, engine.spec.opt_batch, engine.spec.max_batch) == (
        1,
        1,
        exported.model.max_batch,
    )


@pytest.mark.parametrize("is_rtx", [True, False])
def test_many_images_have_no_more_pixels_than_the_largest_one(exported: Exported, is_rtx: bool) -> None:
    batch = batch_axis(64, images=True, is_rtx=is_rtx)
    axes = {"batch": batch, **image_axes(exported.source, bounded=not is_rtx)}
    single, many = Recipe(exported.model.graphs[0], "fp32", axes).profiles(is_rtx=is_rtx)
    own, multiple = exported.source.height, exported.source.multiple
    assert (single["batch"], many["batch"]) == (AxisRange(1, 1, 1), batch)
    assert single["height"].maximum >= 4096 // multiple * multiple - (0 if is_rtx else 2048)
    assert single["height"].optimum == max(own, 512)
    assert many["height"].optimum == own
    assert own < many["height"].maximum <= 4 * own
    assert (
        64 * many["height"].maximum * many["width"].maximum <= single["height"].maximum * single["width"].maximum
    )
    assert {span.maximum % multiple for span in (*map(single.get, SIDES), *map(many.get, SIDES))} == {0}


def test_attention_bounds_the_largest_image() -> None:
    """Where a tensor would have more elements than there are numbers for."""
    plain = SourceSpec(channels=3, height=64, width=64, multiple=8)
    field = ReceptiveField(whole=True, bytes_per_pixel=600.0, bytes_per_square=1.0)
    attends = plain.model_copy(update={"receptive_field": field})
    assert image_axes(None) == {}
    assert image_axes(plain)["height"] == AxisRange(8, 64, 4096)
    assert image_axes(attends)["width"] == AxisRange(8, 64, 304)  # 304^4 elements of 4 bytes are just below 2^33
    wide = plain.model_copy(update={"receptive_field": ReceptiveField(whole=True, bytes_per_pixel=2000.0)})
    assert image_axes(wide)["width"].maximum == 4096
    assert image_axes(wide, bounded=True)["width"].maximum == 2072
