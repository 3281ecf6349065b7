"""What passes between the host and a GPU in one call, counted on a GPU that the CPU plays, for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import diffusion_latents
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.registry import families
from support.embedded import IMAGES
from support.inverting_bundle import write_inverting_bundle
from support.latent_plan import latent_plan
from support.plans import family_plan

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from support.gpu_counts import DOWN, SOLVERS, UP, WAITS, counted
from support.onnxruntime_here import onnxruntime_here

BACKENDS = ("rtx", "classic", "onnxruntime:cuda", "onnxruntime:tensorrt")
SEQUENCES = tuple(
    name for name in families() if family_plan(name).model.program.kind == "sequence"
)  # of each kind of output


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    if ":" in request.param:
        return onnxruntime_here(request.param, monkeypatch, tmp_path)
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    from support.engines_here import engines_here  # here: it needs the extra

    return engines_here(request.param, monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def reference() -> Iterator[Callable[..., Samples]]:
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        yield model.sample


@pytest.fixture(scope="module", params=SEQUENCES)
def sequence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sequences") / f"{request.param}.gsdk"
    export_plan(family_plan(request.param), Provenance(data="short", steps=0), path, ExportOptions())
    return path


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "latent.gsdk"
    export_plan(latent_plan(), Provenance(), path, ExportOptions(golden_steps=2))
    return path


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (10, 1), (9, 2), (50, 3)])
@pytest.mark.parametrize("guidance", [{}, {"guidance_scale": 3.0, "label": [1, 2, 3]}], ids=["free", "guided"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_diffusion_of_any_length_passes_twice_to_the_gpu_and_once_back(
    host: Any, reference: Any, steps: int, interval: int, guidance: dict[str, Any], solver: dict[str, Any]
) -> None:
    options = {"num_inference_steps": steps, "cache_interval": interval, **solver, **guidance}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(3, seed=1, **options))
        prepared = model.prepare(3, **options)
        seeds = iter((2, 1))
        again, repeated = counted(host.cuda, lambda: prepared.draw(next(seeds)))
    assert calls["enqueue"] or calls["launch"], "nothing ran there"
    assert calls[UP] <= 2, "tables and keys"
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    assert (repeated[UP], repeated[DOWN], repeated[WAITS]) == (1, 1, 1), "the keys alone"
    expected = reference(3, seed=1, **options).array
    np.testing.assert_array_equal(samples.array, expected)
    np.testing.assert_array_equal(again.array, expected)


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_what_starts_from_images_is_the_same_on_a_gpu(
    host: Any, reference: Any, masked: bool, interval: int, solver: dict[str, Any]
) -> None:
    """Without a mask as little passes as ever; plain calls before and after are what they were."""
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    mask = np.arange(64).reshape(8, 8) % 3 > 0 if masked else None
    given = {"image": image, "mask_image": mask, "strength": 0.7}
    options: dict[str, Any] = {"num_inference_steps": 9, "cache_interval": interval, "label": 2, **solver}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        plain = model.sample(3, seed=1, **options)
        samples, calls = counted(host.cuda, lambda: model.sample(3, seed=1, **given, **options))
        again, repeated = counted(host.cuda, lambda: model.sample(3, seed=1, **options))
    if not masked:
        assert calls[UP] <= 3
        assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    assert repeated[UP] <= 2
    assert (repeated[DOWN], repeated[WAITS]) == (1, 1)
    np.testing.assert_array_equal(samples.array, reference(3, seed=1, **given, **options).array)
    for each in (plain, again):
        np.testing.assert_array_equal(each.array, reference(3, seed=1, **options).array)


@pytest.mark.parametrize("slices", [1, 2])
def test_latents_stay_on_the_gpu_until_they_are_images(
    host: Any, latent: Path, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step graph to decoder nothing passes through the host: what comes back, once a slice, are images."""
    if slices == 2:
        monkeypatch.setattr(diffusion_latents, "SLICE_ELEMENTS", 2 * 3 * 16 * 8)
    options: dict[str, Any] = {"seed": 2, "num_inference_steps": 4, "label": 1, "guidance_scale": 2.0}
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, 16, 8)).astype(np.float32)
    given: list[dict[str, Any]] = [{}, {"image": image}, {"image": image, "mask_image": np.eye(16, 8)}]
    with Generator.load(latent, backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = [model.sample(4, **start, **options).array for start in given]
    seeds = iter((3, 2))
    with Generator.load(latent, backend=host.backend) as model:
        model.sample(4, **options)
        samples, calls = counted(host.cuda, lambda: model.sample(4, **options))
        found = [model.sample(4, **start, **options).array for start in given]
        prepared = model.prepare(4, **{name: value for name, value in options.items() if name != "seed"})
        again, repeated = counted(host.cuda, lambda: prepared.draw(next(seeds)))
    assert calls[UP] <= 2
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (slices, slices, 0)
    assert (repeated[UP], repeated[DOWN], repeated[WAITS]) == (1, slices, slices)
    for each, wanted in zip((*found, samples.array, again.array), (*expected, *expected[:1] * 2), strict=True):
        np.testing.assert_array_equal(each, wanted)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("prefix", [None, np.full((1, 3, 8), 128, np.uint8)], ids=["whole", "continued"])
def test_an_image_of_pixels_passes_once_back(host: Any, n: int, prefix: Any) -> None:
    with Generator.load("digits-pixelcnn", backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = model.sample(n, seed=2, prefix=prefix)
    with Generator.load("digits-pixelcnn", backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(n, seed=2, prefix=prefix))
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    np.testing.assert_array_equal(samples.array, expected.array)


@pytest.mark.parametrize("n", [1, 4])
def test_a_sequence_passes_once_back(host: Any, sequence: Path, n: int) -> None:
    with Generator.load(sequence, backend=OnnxRuntimeBackend(threads=1)) as model:
        asked = required_examples(model.model, n)
        expected = model.sample(n, seed=2, **asked)
    seeds = iter((3, 2))
    with Generator.load(sequence, backend=host.backend) as model:
        model.sample(n, seed=1, **asked)
        samples, calls = counted(host.cuda, lambda: model.sample(n, seed=next(seeds), **asked))
    assert calls["enqueue"] or calls["launch"], "nothing ran there"
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    np.testing.assert_array_equal(samples.array, expected.array)
    np.testing.assert_array_equal(samples.lengths, expected.lengths)


def test_a_frame_passes_once_each_way(host: Any, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    bundle = write_inverting_bundle(tmp_path / "negative.gsdk")
    with Generator.load(bundle, backend=host.backend) as model:
        prepared = model.prepare(size=(16, 24))
        result, calls = counted(host.cuda, lambda: prepared.translate(frame))
    assert (calls[UP], calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 1, 0)
    np.testing.assert_array_equal(result, 255 - frame)


@pytest.mark.parametrize("bundle", IMAGES)
def test_listening_changes_no_sample(host: Any, bundle: str) -> None:
    def seen(backend: Any) -> tuple[Any, list[Any]]:
        heard: list[Any] = []
        with Generator.load(bundle, backend=backend) as model:
            samples = model.sample(3, seed=4, callback_on_step_end=lambda step: heard.append(step.x0))
        return samples.array, heard

    expected, given = seen(OnnxRuntimeBackend(threads=1)), seen(host.backend)
    np.testing.assert_array_equal(given[0], expected[0])
    np.testing.assert_array_equal(given[1], expected[1])


def test_listening_changes_no_sequence(host: Any, sequence: Path) -> None:
    def seen(backend: Any) -> list[Any]:
        heard: list[Any] = []
        with Generator.load(sequence, backend=backend) as model:
            asked = required_examples(model.model, 2)
            made = model.sample(2, seed=4, callback_on_step_end=lambda step: heard.append(step.x0), **asked)
        return [*heard, made.array]

    given, expected = seen(host.backend), seen(OnnxRuntimeBackend(threads=1))
    assert len(given) == len(expected)
    assert all(np.array_equal(*pair) for pair in zip(given, expected, strict=True))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if ":" in name])
def test_sizes_in_turn_allocate_in_the_first_round_alone(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = onnxruntime_here(backend, monkeypatch, tmp_path)

    def round_of_sizes() -> None:
        for n in range(1, 65):
            model.sample(n, seed=0, num_inference_steps=2)

    with Generator.load("digits-ddpm", backend=host.backend) as model:
        _, calls = counted(host.cuda, round_of_sizes)
    assert calls["enqueue"] >= 128
    assert calls["allocated"] == 0
