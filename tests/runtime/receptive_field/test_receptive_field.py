"""Tiles give what the whole image gives, or are not cut: of graphs that see a surrounding, or all of an image."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host import memory
from gensdk_runtime.methods import translate
from gensdk_runtime.methods.tiles import Cut
from gensdk_runtime.receptive_field.field import receptive_field, with_field
from gensdk_runtime.spec.manifest import Manifest, ModelSpec
from gensdk_runtime.spec.signature import ReceptiveField
from support.onnx_graphs import OnnxBytes
from support.translation_graphs import (
    GLOBAL,
    GRAPH,
    LOCAL,
    Draw,
    Drawing,
    padded_to_a_square,
    padded_to_eight,
    translation_model,
    translation_onnx,
)


def opened(model: ModelSpec, data: bytes) -> Generator:
    backend = create_backend("onnxruntime", threads=1)
    session = backend.open(model.graphs[0], OnnxBytes(data), precision="fp32")
    return Generator.from_sessions(with_field(model, data), {GRAPH: session})


def image(height: int, width: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", LOCAL)
def test_tiles_of_a_local_model_give_the_whole(name: str) -> None:
    draw, multiple = LOCAL[name]
    model = translation_model(multiple)
    with opened(model, translation_onnx(model, draw)) as generator:
        assert generator.model.source is not None
        field = generator.model.source.receptive_field
        assert field is not None
        assert not field.whole, field.reason
        tile = Cut.of(generator.model.source).smallest
        given = image(3 * tile // multiple * multiple, (2 * tile + 13) // multiple * multiple)
        whole, tiled = (generator.translate(given, tile=size).astype(int) for size in (0, tile))
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("name", GLOBAL)
def test_a_model_that_sees_all_is_not_cut_unless_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, reason = GLOBAL[name]
    model = translation_model(8)
    monkeypatch.setattr(translate, "TILED_FROM", 64 * 64)
    given = np.concatenate([image(320, 640), np.full((320, 640, 3), 40, np.uint8)])
    with opened(model, translation_onnx(model, draw)) as generator:
        assert generator.model.source is not None
        field = generator.model.source.receptive_field
        assert field is not None
        assert field.whole
        assert re.search(reason, field.reason), field.reason
        if name != "train_mode":  # ONNX Runtime goes on from its last run
            np.testing.assert_array_equal(generator.translate(given), generator.translate(given, tile=0))
        if name != "loop_like":  # of which only this package knows nothing
            cut = generator.translate(given, tile=256)
            assert np.abs(cut.astype(int) - generator.translate(given)).max() > 1


def test_the_margin_is_what_a_pixel_sees() -> None:
    model = translation_model(1)
    for kernel, dilation in ((1, 1), (3, 1), (7, 1), (5, 4)):
        reach = kernel // 2 * dilation

        def draw(d: Drawing, x: str, kernel: int = kernel, dilation: int = dilation) -> str:
            pads = [kernel // 2 * dilation] * 4
            return d.conv(x, kernel=kernel, dilations=[dilation] * 2, pads=pads)

        assert receptive_field(model, translation_onnx(model, draw)).margin == reach


def test_tiles_of_a_graph_that_pads_by_the_size_are_padded_alike() -> None:
    model = translation_model(1)
    with opened(model, translation_onnx(model, padded_to_eight)) as generator:
        assert generator.model.source is not None
        field = generator.model.source.receptive_field
        assert field is not None
        assert (field.whole, field.grid) == (False, 8)
        tile = Cut.of(generator.model.source).smallest
        for height, width in ((3 * tile, 2 * tile + 2), (2 * tile + 6, 2 * tile + 5)):
            whole, tiled = (generator.translate(image(height, width), tile=t).astype(int) for t in (0, tile))
            assert np.abs(whole - tiled).max() <= 1


def test_a_graph_that_pads_to_a_square_is_not_cut() -> None:
    model = translation_model(1)
    field = receptive_field(model, translation_onnx(model, padded_to_a_square))
    assert field.whole
    assert "padding" in field.reason


def test_what_odd_sizes_are_padded_with_is_no_square() -> None:
    """Else a photograph of 12 million pixels would ask for a hundred times its memory, and be refused."""
    model = translation_model(1)
    field = receptive_field(model, translation_onnx(model, padded_to_eight))
    assert field.bytes_per_pixel > 0
    assert field.bytes_per_square == 0
    attention = receptive_field(
        translation_model(8), translation_onnx(translation_model(8), GLOBAL["attention"][0])
    )
    assert attention.bytes_per_square > 0


def test_positions_that_a_fixed_size_bakes_in_are_found() -> None:
    """A table of positions with a row for each place: such a graph takes one size alone, and looks local."""
    model = translation_model(1, size=24)
    field = receptive_field(model, translation_onnx(model, lambda d, x: d.add("Add", x, d.random(1, 3, 24, 24))))
    assert field.whole
    assert "place" in field.reason
    flat = receptive_field(model, translation_onnx(model, lambda d, x: d.add("Add", x, d.random(1, 3, 1, 1))))
    assert not flat.whole


def test_what_only_the_sum_for_nan_checks_sees_does_not_count() -> None:
    from support.inverting_bundle import inverting_model, inverting_onnx

    model = inverting_model()
    assert receptive_field(model, inverting_onnx(model)).model_dump(exclude={"bytes_per_pixel"}) == {
        "whole": False,
        "reason": "",
        "margin": 0,
        "grid": 1,
        "bytes_per_square": 0.0,
    }


def test_bytes_that_are_no_graph_count_as_seeing_all() -> None:
    model = translation_model(1)
    whole = translation_onnx(model, LOCAL["convolution"][0])
    for data in (b"", b"\x00" * 40, whole[: len(whole) // 2]):
        assert receptive_field(model, data).whole


def old_bundle(path: Path, model: ModelSpec, draw: Draw) -> Path:
    manifest = Manifest(model=model, graph_files={GRAPH: {"fp32": f"graphs/{GRAPH}.onnx"}})
    write_bundle(path, manifest, {f"graphs/{GRAPH}.onnx": translation_onnx(model, draw)}).close()
    return path


def test_a_bundle_that_does_not_tell_is_looked_at_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate, "TILED_FROM", 64 * 64)
    path = old_bundle(tmp_path / "old.gsdk", translation_model(1), GLOBAL["instance_norm"][0])
    with Bundle.open(path) as bundle:
        assert bundle.manifest.model.source is not None
        assert bundle.manifest.model.source.receptive_field is None
    with Generator.load(path, backend="onnxruntime", threads=1) as generator:
        given = image(600, 700)
        np.testing.assert_array_equal(generator.translate(given), generator.translate(given, tile=0))


def test_a_fixed_size_that_sees_all_gets_it_resized_with_a_word(tmp_path: Path) -> None:
    path = old_bundle(tmp_path / "fixed.gsdk", translation_model(1, size=64), GLOBAL["instance_norm"][0])
    with Generator.load(path, backend="onnxruntime", threads=1) as generator:
        with pytest.warns(GensdkWarning, match="100 x 230 was resized to 28 x 64"):
            result = generator.translate(image(100, 230))
        assert result.shape == (100, 230, 3)
        assert generator.translate(image(40, 64)).shape == (40, 64, 3)
        assert generator.translate(image(100, 230), tile=64).shape == (100, 230, 3)
        assert generator.translate(image(100, 230), resize=(28, 64)).shape == (28, 64, 3)


@pytest.mark.parametrize(
    ("size", "tile", "why"), [(32, None, "tiles have to be of .. pixels at least"), (64, 0, "ruled out")]
)
def test_a_fixed_size_that_is_resized_though_it_is_local_says_why(
    size: int, tile: int | None, why: str, tmp_path: Path
) -> None:
    path = old_bundle(tmp_path / "fixed.gsdk", translation_model(1, size=size), LOCAL["convolution"][0])
    with (
        Generator.load(path, backend="onnxruntime", threads=1) as generator,
        pytest.warns(GensdkWarning, match=why),
    ):
        assert generator.translate(image(100, 230), tile=tile).shape == (100, 230, 3)


def test_a_fixed_size_that_sees_a_surrounding_gets_tiles(tmp_path: Path) -> None:
    path = old_bundle(tmp_path / "fixed.gsdk", translation_model(1, size=64), LOCAL["convolution"][0])
    free = translation_model(1)
    with (
        Generator.load(path, backend="onnxruntime", threads=1) as generator,
        opened(free, translation_onnx(free, LOCAL["convolution"][0])) as other,
    ):
        given = image(100, 230)
        assert np.abs(generator.translate(given).astype(int) - other.translate(given, tile=0)).max() <= 1


def test_what_does_not_fit_into_memory_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    model = translation_model(1)
    monkeypatch.setattr(memory, "available_memory", lambda: 200 * 2**20)
    with opened(model, translation_onnx(model, GLOBAL["instance_norm"][0])) as generator:
        with pytest.raises(InputError, match=r"takes about .* GiB .*resize=\(.*tile=512.*tile=0") as refused:
            generator.translate(image(4000, 6000))
        assert "\n" not in str(refused.value)
        numbers = re.search(r"resize=\((\d+), (\d+)\)", str(refused.value))
        assert numbers is not None
        size = int(numbers[1]), int(numbers[2])
        assert generator.translate(image(4000, 6000), resize=size).shape == (*size, 3)


def scores(d: Drawing, x: str) -> str:
    """Each pixel with each other, before and after a softmax."""
    flat = d.add("Reshape", x, d.ints(1, 3, -1))
    weights = d.add("Softmax", d.add("MatMul", d.add("Transpose", flat, perm=[0, 2, 1]), flat))
    return d.add("Reshape", d.add("MatMul", flat, weights), d.add("Shape", x))


def test_memory_is_what_lives_at_the_same_time() -> None:
    """Two images of 64 channels in float32, twice: a backend keeps copies."""
    model = translation_model(1)
    data = translation_onnx(model, lambda d, x: d.conv(d.add("Relu", d.conv(x, 3, 64)), 64, 3))
    field = receptive_field(model, data)
    assert field.memory(1000 * 1000) == pytest.approx(2 * 4 * 128 * 1e6, rel=0.01)
    assert field.bytes_per_square == 0
    square = receptive_field(model, translation_onnx(model, scores))
    assert square.memory(10000) == pytest.approx(2 * 8 * 10000**2, rel=0.1)


def test_a_field_survives_the_manifest() -> None:
    model = translation_model(4)
    found = with_field(model, translation_onnx(model, LOCAL["windows"][0]))
    manifest = Manifest(model=found, graph_files={GRAPH: {"fp32": "graphs/g.onnx"}})
    assert Manifest.from_json(manifest.to_json(), what="m").model == found
    assert model.source is not None
    assert model.source.receptive_field is None


@pytest.mark.parametrize("name", ["windows", "sizes_of_a_skip", "coordinates", "einsum"])
def test_hostile_graphs_are_answered_and_never_raise(name: str) -> None:
    draw, multiple = LOCAL.get(name) or (GLOBAL[name][0], 8)
    model = translation_model(multiple)
    whole = onnx.load_from_string(translation_onnx(model, draw))
    generator = random.Random(0)
    strange: list[Any] = [[-1], [2**62, 2**62], "\x1b[0m", 1.5, -(2**63), 0, [0, 0], [10**6] * 4, [2**40] * 2]
    for _ in range(150):
        graph = onnx.ModelProto()
        graph.CopyFrom(whole)
        node = generator.choice(graph.graph.node)
        if node.attribute and generator.random() < 0.5:
            old = generator.choice(node.attribute).name
            kept = [each for each in node.attribute if each.name != old]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(old, generator.choice(strange))])
        elif generator.random() < 0.5:
            node.op_type = generator.choice(["If", "Loop", "Einsum", "Slice", "Resize", "Conv", "\x1b]0;x\x07"])
        elif graph.graph.initializer:
            weight = generator.choice(graph.graph.initializer)
            weight.dims[:] = [generator.choice([0, 1, 3, 7, 2**40]) for _ in weight.dims]
        data = bytearray(graph.SerializeToString())
        for _ in range(generator.randrange(3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        field = receptive_field(model, bytes(data))
        assert ReceptiveField.from_json(field.to_json(), what="field") == field
