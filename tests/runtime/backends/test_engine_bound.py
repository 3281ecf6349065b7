"""The logic of the tensorrt backend (buffers, copies, turns, captured graphs) on a GPU that the CPU plays."""

from __future__ import annotations

import gc
import hashlib
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gensdk_runtime.backends.background import BackgroundBackend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import tensor_shape
from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.tensorrt import backend as tensorrt
from gensdk_runtime.backends.tensorrt.supply import UntrustedEngineWarning
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BackendError, GensdkWarning
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.known_files import is_known, remember
from gensdk_runtime.spec.manifest import EngineSpec

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")

from support.another_os import WINDOWS  # noqa: E402
from support.embedded import IMAGES  # noqa: E402
from support.engines_here import Host, engines_here  # noqa: E402
from support.host_gpu import HostBuilder, HostCuda  # noqa: E402

CARRY = {"next_sample": "sample", "next_previous_x0": "previous_x0"}
UP, DOWN = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"


@pytest.fixture(params=["rtx", "classic"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return engines_here(request.param, monkeypatch, tmp_path)


@pytest.mark.parametrize("name", IMAGES)
def test_samples_are_those_of_onnx_runtime(host: Host, name: str) -> None:
    with Generator.load(name, backend=OnnxRuntimeBackend(threads=1)) as reference:
        expected = [reference.sample(n, seed=1, batch_size=3).array for n in (3, 5)]
    with Generator.load(name, backend=host.backend) as generator:
        for n, array in zip((3, 5), expected, strict=True):
            for _ in range(2):  # the second time on buffers that were used before
                samples = generator.sample(n, seed=1, batch_size=3)
                np.testing.assert_array_equal(samples.array, array)
        assert samples.settings["backend"] == host.backend.label


def test_threads_do_not_disturb_each_other(host: Host) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        alone = [generator.sample(2, seed=seed, num_inference_steps=5).array for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            together = list(
                pool.map(lambda seed: generator.sample(2, seed=seed, num_inference_steps=5).array, range(4))
            )
    np.testing.assert_array_equal(alone, together)


def test_nothing_is_left_on_the_gpu(host: Host) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        generator.sample(2, seed=0, num_inference_steps=5)
        generator.sample(3, seed=0, num_inference_steps=5)
        assert host.cuda.objects
    gc.collect()
    assert not host.cuda.memory
    assert not host.cuda.objects


def test_a_forgotten_generator_frees_the_gpu(host: Host) -> None:
    generator = Generator.load("digits-vae", backend=host.backend)
    generator.sample(2, seed=0)
    del generator
    gc.collect()
    assert not host.cuda.memory
    assert not host.cuda.objects


def test_an_image_that_is_kept_outlives_the_generator(host: Host) -> None:
    with _session(host, "digits-vae") as session, session.bound({"batch": 2}) as bound:
        for spec in session.graph.inputs:
            bound.input(spec.name)[...] = 0
        bound.run()
        image = bound.output("image")
        expected = image.copy()
    gc.collect()
    np.testing.assert_array_equal(image, expected)


def test_only_what_changed_is_copied(host: Host) -> None:
    sizes = {"batch": 2, "guidance": 1}
    with _session(host, "digits-ddpm") as session, session.bound(sizes, CARRY) as bound:
        for spec in session.graph.inputs:
            bound.input(spec.name)[...] = 1
        bound.run()
        host.cuda.calls.clear()
        for step in range(5):
            bound.input("embedding")[...] = step
            bound.run()
        assert host.cuda.calls[UP] == 5
        assert host.cuda.calls[DOWN] == 0
        bound.output("next_sample")
        bound.output("next_sample")
        assert host.cuda.calls[DOWN] == 1


def test_carried_states_are_what_copies_would_be(host: Host) -> None:
    """Also where a state is read, or changed in part, between two runs."""
    sizes = {"batch": 2, "guidance": 1}
    with Bundle.open("digits-ddpm") as bundle:
        graph, source = _graph(bundle)
        reference = OnnxRuntimeBackend(threads=1).open(graph, source, precision="fp32")
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.uniform(0, 5, tensor_shape(graph, spec, sizes)).astype(spec.dtype) for spec in graph.inputs
    }
    with reference, _session(host, "digits-ddpm") as session, session.bound(sizes, CARRY) as bound:
        for name, value in feeds.items():
            bound.input(name)[...] = value
        for step in range(6):
            if step == 3:
                np.testing.assert_array_equal(bound.input("sample"), feeds["sample"])
                bound.input("sample")[0] = feeds["sample"][0] = 0.5
            bound.run()
            outputs = reference.run(feeds)
            if step % 2:
                np.testing.assert_array_equal(bound.output("next_sample"), outputs["next_sample"])
            feeds.update({name: outputs[output] for output, name in CARRY.items()})
        np.testing.assert_array_equal(bound.output("next_previous_x0"), outputs["next_previous_x0"])


def test_run_takes_plain_arrays(host: Host) -> None:
    with _session(host, "digits-vae") as session:
        feeds = {"z": np.ones((2, 16), np.float32), "label": np.zeros(2, np.int64)}
        first = session.run(feeds)["image"]
        again = session.run({**feeds, "z": np.zeros((2, 16), np.float32)})["image"]
        assert np.abs(first - again).max() > 0.01  # the first result did not change under the second run


def test_sizes_that_the_engine_lacks_are_one_line(host: Host) -> None:
    message = "takes batch from 1 to 64, got 65"
    with _session(host, "digits-vae") as session, pytest.raises(BackendError, match=message):
        session.bound({"batch": 65}).__enter__()


def test_classic_work_is_captured_once_for_each_turn(host: Host) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        generator.sample(1, seed=0, num_inference_steps=10)
        generator.sample(1, seed=1, num_inference_steps=10)
    if host.backend.label == "tensorrt:rtx":  # it captures by itself
        assert host.cuda.calls["enqueue"] == 21  # 20 steps, and the embeddings of all of them at once
        assert host.cuda.calls["launch"] == 0
    else:
        assert host.cuda.calls["enqueue"] == 5  # both turns of the steps, for real and captured; the embeddings
        assert host.cuda.calls["launch"] == 18


def test_what_can_not_be_captured_runs_all_the_same(host: Host) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        expected = generator.sample(2, seed=0, num_inference_steps=5).array
    host.trt.capturable = False
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        np.testing.assert_array_equal(generator.sample(2, seed=0, num_inference_steps=5).array, expected)
    gc.collect()
    assert not host.cuda.objects


def test_kernels_are_kept_for_the_next_process(host: Host) -> None:
    """From the first run on, whatever becomes of this process."""
    for _ in range(2):
        generator = Generator.load("digits-vae", backend=host.backend)
        generator.sample(2, seed=0)  # and never closed
    assert host.trt.kernels == ([b"kernels of 1 contexts"] if host.backend.label == "tensorrt:rtx" else [])


def test_kernels_of_a_new_size_are_kept_too(host: Host) -> None:
    with Generator.load("digits-vae", backend=host.backend) as generator:
        for n in (1, 2, 2, 1, 4):
            generator.sample(n, seed=0)
            kept = list(host.folder.glob("*.engine"))
            texts = [path.read_bytes().rpartition(b"\n")[2] for path in kept]
            wanted = f"kernels of {host.trt.contexts} contexts".encode()
            assert (wanted in texts) is (host.backend.label == "tensorrt:rtx")


@pytest.mark.parametrize("name", ["digits-vae", "digits-ddpm"])
def test_batch_sizes_in_turn_allocate_once(host: Host, name: str) -> None:
    """Sizes are padded to a few, and what those took is kept."""
    options = {"num_inference_steps": 1} if name == "digits-ddpm" else {}
    counted = ("allocated", "captured")
    with (
        Generator.load(name, backend=host.backend) as generator,
        Generator.load(name, backend=OnnxRuntimeBackend(threads=1)) as reference,
    ):
        for n in (*3 * [*range(1, 9)], *range(1, 65)):  # classic work is captured when a size comes back
            generator.sample(n, seed=0, **options)
        before, contexts = {each: host.cuda.calls[each] for each in counted}, host.trt.contexts
        for n in (*range(64, 0, -9), *range(1, 65, 5)):
            found = generator.sample(n, seed=0, **options).array
            if n < 16:
                np.testing.assert_allclose(found, reference.sample(n, seed=0, **options).array, atol=1e-5)
        assert {each: host.cuda.calls[each] for each in counted} == before
        assert host.trt.contexts == contexts


@pytest.mark.parametrize("count", range(1, 65))
def test_batches_are_padded_to_few_sizes(host: Host, count: int) -> None:
    with Bundle.open("digits-vae") as bundle:
        session = host.backend.open(*_graph(bundle), precision="fp32")
    assert count <= session.padded_batch(count) <= min(64, max(2, 3 * count // 2))
    assert session.padded_batch(count) in {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}


@pytest.mark.parametrize("name", ["digits-vae", "digits-ddpm"])
def test_the_time_of_graphs_is_that_of_the_gpu(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only what it took to begin the work."""
    options = {"num_inference_steps": 3} if name == "digits-ddpm" else {}
    work = 0.02

    def slow(stream: int) -> Any:
        time.sleep(work)
        return HostCuda.cudaStreamSynchronize(host.cuda, stream)

    with Generator.load(name, backend=host.backend) as generator:
        prepared = generator.prepare(1, **options)
        monkeypatch.setattr(host.cuda, "cudaStreamSynchronize", slow)
        for samples in (generator.sample(1, seed=0, **options), prepared.draw(0)):
            assert work <= samples.timings.graphs <= samples.timings.total


def test_what_waits_is_bounded_by_its_bytes(host: Host) -> None:
    with _session(host, "digits-vae") as session:
        for batch in range(1, 33):
            with session.bound({"batch": batch}):
                pass
        assert len(session._idle) == 32
        one = max(bound.nbytes for _, bound in session._idle.values())
        assert one > 0
        session.idle_bytes = 4 * one
        with session.bound({"batch": 1}):
            pass
        assert 4 <= len(session._idle) < 32
        session.idle_bytes = 0
        with session.bound({"batch": 1}):
            pass
        assert len(session._idle) == 2  # two threads that take turns


def test_idle_buffers_make_room(host: Host) -> None:
    """Also those of another model; what they were kept for still runs, in new ones."""
    options = {"seed": 0, "num_inference_steps": 3}
    with (
        Generator.load("digits-ddpm", backend=host.backend) as other,
        Generator.load("digits-ddpm", backend=host.backend) as generator,
    ):
        expected = other.sample(16, **options).array
        host.cuda.room = host.cuda.taken  # not a byte more
        np.testing.assert_allclose(generator.sample(8, **options).array, expected[:8], atol=1e-6)
        assert host.cuda.calls["refused"] == 1
        np.testing.assert_array_equal(other.sample(16, **options).array, expected)
        assert host.cuda.calls["refused"] == 2


def test_where_freeing_does_not_suffice_batches_are_halved(host: Host) -> None:
    with Generator.load("digits-vae", backend=host.backend) as generator:
        generator.sample(8, seed=0)
        host.cuda.room = host.cuda.taken
        with pytest.warns(GensdkWarning, match="did not fit into memory and was run in halves"):
            samples = generator.sample(16, seed=0)
    with Generator.load("digits-vae", backend=OnnxRuntimeBackend(threads=1)) as reference:
        np.testing.assert_allclose(samples.array, reference.sample(16, seed=0).array, atol=1e-6)


def test_engines_are_built_when_a_graph_is_used(host: Host) -> None:
    """The shallow step of a diffusion model, and the likelihood of a PixelCNN, are nobody's business at first."""
    with Generator.load("digits-ddpm", backend=host.backend) as generator:
        assert len(host.trt.built) == 0
        generator.sample(1, seed=0, num_inference_steps=2)
        assert len(host.trt.built) == 2
        generator.sample(1, seed=0, num_inference_steps=4, cache_interval=2)
        assert len(host.trt.built) == 3
        generator.sample(1, seed=0, num_inference_steps=4, cache_interval=2)
        assert len(host.trt.built) == 3


def test_a_graph_that_can_not_be_built_fails_once_and_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostBuilder, "build_serialized_network", lambda *_: host.trt.built.append(None))
    with Generator.load("digits-vae", backend=host.backend) as generator:
        for _ in range(2):
            with pytest.raises(BackendError, match="can't build it: no reason given"):
                generator.sample(1, seed=0)
    assert len(host.trt.built) == 1  # not minutes each time


def test_a_bundle_that_was_closed_is_still_built(host: Host) -> None:
    with Bundle.open("digits-vae") as bundle:
        generator = Generator.load(bundle, backend=host.backend)
    with generator:
        assert generator.sample(1, seed=0).array.shape == (1, 1, 8, 8)


def test_closing_while_it_is_built_is_an_error_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(host, "digits-vae")
    original = HostBuilder.build_serialized_network
    monkeypatch.setattr(
        HostBuilder, "build_serialized_network", lambda *given: (session.close(), original(*given))[1]
    )
    with pytest.raises(BackendError, match="was closed"):
        session.load()


def test_classic_builds_share_timings_and_keep_to_a_workspace(host: Host) -> None:
    for name in ("digits-vae", "digits-dcgan"):
        with Generator.load(name, backend=host.backend) as generator:
            generator.sample(1, seed=0)
    first, second = host.trt.built
    if host.backend.label == "tensorrt:rtx":
        assert first.timings is second.timings is None
        assert not first.limits
        assert first.real.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    else:
        assert [each.timings.known for each in (first, second)] == [{b"layer0"}, {b"layer0", b"layer1"}]
        assert first.limits == {trt.MemoryPoolType.WORKSPACE: 4 * 2**30}  # half of what the GPU has
        assert not first.real.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert not first.real.get_flag(trt.BuilderFlag.TF32)


def test_a_classic_engine_has_a_profile_for_one_and_one_for_many(host: Host) -> None:
    with Generator.load("digits-vae", backend=host.backend) as generator:
        generator.sample(1, seed=0)
        generator.sample(5, seed=0)
    shapes = [[shape[0] for shape in profile.shapes["z"]] for profile in host.trt.built[0].profiles]
    assert shapes == ([[1, 8, 64]] if host.backend.label == "tensorrt:rtx" else [[1, 1, 1], [1, 64, 64]])


def _session(host: Host, name: str) -> Session:
    with Bundle.open(name) as bundle:
        return host.backend.open(*_graph(bundle), precision="fp32")


def _graph(bundle: Bundle) -> Any:
    graph = bundle.manifest.model.graphs[0]
    return graph, bundle.graph_source(graph.name, "fp32")


# ---- engines that a bundle brings along


@pytest.fixture
def sent(host: Host, tmp_path: Path) -> tuple[Path, bytes]:
    """A stranger's bundle with an engine, which is another graph than the bundle's, and the engine."""
    evil = onnx.load_from_string(source_of("digits-vae"))
    evil.doc_string = "somebody's code"
    engine = evil.SerializeToString()
    runtime = tensorrt.KINDS["rtx" if host.backend.label.endswith("rtx") else "classic"]
    spec = EngineSpec(
        graph="decoder", precision="fp32", file="engines/d.engine", runtime=runtime, version=host.trt.__version__,
        gpu="" if runtime == "tensorrt-rtx" else device.find_gpu().model, min_batch=1, opt_batch=8, max_batch=64,
    )  # fmt: skip
    with Bundle.open("digits-vae") as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files} | {spec.file: engine}
        draft = bundle.manifest.model_copy(update={"engines": (spec,), "files": {}})
    write_bundle(tmp_path / "sent.gsdk", draft, files).close()
    return tmp_path / "sent.gsdk", engine


def source_of(name: str) -> bytes:
    with Bundle.open(name) as bundle:
        return bundle.graph_source("decoder", "fp32").read()


@pytest.fixture
def deserialized(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that reached the GPU's library as an engine."""
    seen: list[bytes] = []
    original = host.trt._deserialize
    monkeypatch.setattr(host.trt, "_deserialize", lambda data: (seen.append(bytes(data)), original(data))[1])
    return seen


def test_a_strangers_engine_never_reaches_the_gpu(host, sent, deserialized) -> None:
    path, engine = sent
    with pytest.warns(UntrustedEngineWarning, match="was not made on this machine"):
        generator = Generator.load(path, backend=host.backend)
    with generator:
        samples = generator.sample(3, seed=1)
    assert engine not in deserialized
    assert deserialized
    with Generator.load("digits-vae", backend=OnnxRuntimeBackend(threads=1)) as reference:
        np.testing.assert_array_equal(samples.array, reference.sample(3, seed=1).array)


def test_nor_in_the_background(host, sent, deserialized) -> None:
    path, engine = sent
    backend = BackgroundBackend(OnnxRuntimeBackend(threads=1), lambda: host.backend)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Generator.load(path, backend=backend) as generator:
            assert generator.sessions["decoder"].wait(60)
            generator.sample(2, seed=0)
    assert UntrustedEngineWarning in [each.category for each in said]
    assert engine not in deserialized
    assert deserialized


@pytest.mark.parametrize("how", ["load", "open", "environment", "made here"])
def test_the_user_can_say_that_the_engine_is_trusted(host, sent, deserialized, monkeypatch, tmp_path, how) -> None:
    path, engine = sent
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    if how == "environment":
        monkeypatch.setenv("GENSDK_TRUST_ENGINES", "1")
    elif how == "made here":
        remember(engine, "made")
    with (
        Bundle.open(path, trust_engines=how == "open") as bundle,
        Generator.load(bundle, backend=host.backend, trust_engines=how == "load") as generator,
    ):
        generator.sample(1, seed=0)
    assert deserialized == [engine]


@pytest.mark.skipif(WINDOWS, reason="POSIX permissions")
def test_another_users_note_says_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    remember(b"one", "made")
    assert is_known(b"one", "made")
    assert not is_known(b"one", "ran")
    assert not is_known(b"two", "made")
    note = next((tmp_path / "cache" / "known" / "made").iterdir())
    twin = note.with_name(hashlib.sha256(b"two").hexdigest())
    twin.symlink_to(note)
    assert not is_known(b"two", "made")
    if os.geteuid() == 0:
        os.chown(note, 12345, 12345)
        assert not is_known(b"one", "made")
    (tmp_path / "cache").chmod(0o777)
    assert not is_known(b"one", "made")
