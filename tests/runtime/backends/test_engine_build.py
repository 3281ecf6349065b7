"""Engines of real graphs, built with no GPU, and where the tensorrt backend takes them from."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from gensdk_runtime.backends import get_backend
from gensdk_runtime.backends.cuda.device import Gpu
from gensdk_runtime.backends.tensorrt.build import GraphFile, Target, build
from gensdk_runtime.backends.tensorrt.cache import EngineCache, EngineCacheWarning, key_of
from gensdk_runtime.backends.tensorrt.engine import LoadedEngine
from gensdk_runtime.backends.tensorrt.package import EngineRuntime, Toolkit, load_package
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe
from gensdk_runtime.backends.tensorrt.source import EngineSource
from gensdk_runtime.backends.tensorrt.supply import Supplier, UntrustedEngineWarning, check_supported
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import BackendError, GensdkWarning, UnavailableError
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.embedded import precisions_of

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
GRAPHS = [
    (name, graph.name, precision)
    for name in embedded_names()
    for graph in Bundle.open(name).manifest.model.graphs
    for precision in precisions_of(name)
]
BATCH = {"batch": AxisRange(1, 8, 64)}
GPU = Gpu("Some GPU", (8, 9), 13000)


def graph_and_file(name: str, graph: str = "", precision: Precision = "fp32") -> tuple[GraphSpec, GraphFile]:
    with Bundle.open(name) as bundle:
        spec = bundle.manifest.model.graph(graph) if graph else bundle.manifest.model.graphs[0]
        return spec, GraphFile.of(bundle.graph_source(spec.name, precision))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "graph", "precision"), GRAPHS, ids=["-".join(each) for each in GRAPHS])
def test_all_embedded_graphs_build(name: str, graph: str, precision: Precision) -> None:
    """Through the cache of this run, where other tests find them."""
    spec, file = graph_and_file(name, graph, precision)
    named = {axis for each in spec.inputs for axis in each.shape}
    axes = BATCH if "elements" not in named else {**BATCH, "elements": AxisRange(1, 64, 640)}
    supplier = Supplier(load_package("tensorrt-rtx"), None, EngineCache())
    assert len(supplier.fetched(Recipe(spec, precision, axes), file).data) > 10_000
    assert not supplier.fetched(Recipe(spec, precision, axes), file).fresh


def test_progress_grows_to_the_end() -> None:
    spec, file = graph_and_file("digits-vae")
    heard: list[float] = []
    build(load_package("tensorrt-rtx"), Recipe(spec, "fp32", BATCH), file, on_progress=heard.append)
    assert heard == sorted(heard)
    assert len(heard) > 10
    assert 0 < heard[0] < 0.2
    assert 0.8 < heard[-1] <= 1


def test_an_interrupt_ends_the_build() -> None:
    spec, file = graph_and_file("digits-vae")

    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(load_package("tensorrt-rtx"), Recipe(spec, "fp32", BATCH), file, on_progress=interrupt)


def test_the_digest_covers_tensors_in_other_files(tmp_path: Path) -> None:
    _, file = graph_and_file("digits-vae")
    model = onnx.load_from_string(file.data)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=1024)
    onnx.save(model, tmp_path / "graph.onnx")
    outside = GraphFile((tmp_path / "graph.onnx").read_bytes(), tmp_path / "graph.onnx")
    before = outside.digest()
    assert before != GraphFile(outside.data).digest()
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert outside.digest() != before


def test_tensors_in_other_files_are_built_in(tmp_path: Path) -> None:
    spec, file = graph_and_file("digits-vae")
    model = onnx.load_from_string(file.data)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=1024)
    onnx.save(model, tmp_path / "graph.onnx")
    outside = GraphFile((tmp_path / "graph.onnx").read_bytes(), tmp_path / "graph.onnx")
    toolkit, recipe = load_package("tensorrt-rtx"), Recipe(spec, "fp32", BATCH)
    size = len(build(toolkit, recipe, outside))
    assert abs(size - len(build(toolkit, recipe, file))) < 0.01 * size


def test_the_identity_tells_engines_apart() -> None:
    spec, file = graph_and_file("digits-vae")
    toolkit = load_package("tensorrt-rtx")

    def key(
        *, precision: Precision = "fp32", largest: int = 64, gpu: Gpu | None = None, data: bytes = file.data
    ) -> str:
        recipe = Recipe(spec, precision, {"batch": AxisRange(1, 8, largest)})
        return key_of(Supplier(toolkit, gpu, EngineCache()).identity(recipe, GraphFile(data)))

    assert key() == key(gpu=GPU)  # TensorRT-RTX builds for all GPUs
    assert len({key(), key(precision="fp16"), key(largest=32), key(data=file.data + b" ")}) == 4


def test_classic_engines_belong_to_a_gpu_and_a_driver() -> None:
    spec, file = graph_and_file("digits-vae")
    rtx = load_package("tensorrt-rtx")
    classic = type(rtx)("tensorrt", rtx.trt, rtx.log)
    gpus = [GPU, Gpu("Another GPU", (8, 9), 13000), Gpu("Some GPU", (9, 0), 13000), Gpu("Some GPU", (8, 9), 13010)]
    recipe = Recipe(spec, "fp32", BATCH)
    keys = {
        key_of(Supplier(each, gpu, EngineCache()).identity(recipe, file)) for gpu in gpus for each in (classic,)
    }
    assert len(keys) == 4


def test_without_a_gpu_the_reason_is_said() -> None:
    found = get_backend("tensorrt").availability()
    assert found.available or (found.reason and found.remedy)


@pytest.mark.skipif(get_backend("tensorrt").availability().available, reason="there is a GPU")
def test_loading_without_a_gpu_is_one_line() -> None:
    spec, file = graph_and_file("digits-vae")
    toolkit = load_package("tensorrt-rtx")
    engine = Supplier(toolkit, None, EngineCache()).fetched(Recipe(spec, "fp32", BATCH), file).data
    with pytest.raises(
        BackendError, match=r"can't be loaded here: .*CUDA driver version is insufficient"
    ) as failure:
        LoadedEngine(toolkit, spec, engine)
    assert "\n" not in str(failure.value)
    with pytest.raises(BackendError, match="can't be loaded here"):
        LoadedEngine(toolkit, spec, engine[:1000])


class Source:
    """The file of a graph, and engines that are only names."""

    def __init__(self, name: str, *engines: EngineSpec, trusted: bool = True) -> None:
        self.trusted = trusted
        _, self.file = graph_and_file(name)
        self.engines = engines
        self.path = None

    def read(self) -> bytes:
        return self.file.data

    def largest_batch(self) -> int:
        return 64

    def translated(self) -> None:
        return None

    def elements(self) -> None:
        return None

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        return tuple(spec for spec in self.engines if spec.precision == precision)

    def trusts(self, spec: EngineSpec) -> bool:
        return self.trusted

    def read_engine(self, spec: EngineSpec) -> bytes:
        return spec.file.encode()


def engine_spec(**changes: Any) -> EngineSpec:
    toolkit = load_package("tensorrt-rtx")
    data: dict[str, Any] = {
        "graph": "decoder",
        "precision": "fp32",
        "file": "engines/mine",
        "runtime": "tensorrt-rtx",
        "version": toolkit.version,
        "min_batch": 1,
        "opt_batch": 8,
        "max_batch": 64,
    }
    return EngineSpec.from_dict({**data, **changes}, what="engine")


@pytest.fixture
def supplier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supplier]:
    """Builds in no time."""
    monkeypatch.setattr("gensdk_runtime.backends.tensorrt.supply.build", lambda *args, **options: b"built")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield Supplier(load_package("tensorrt-rtx"), GPU, EngineCache(tmp_path))


def refusing(*refused: bytes) -> Callable[[bytes], bytes]:
    def load(data: bytes) -> bytes:
        if data in refused:
            raise BackendError("it is not for here")
        return data

    return load


def decoder() -> Recipe:
    return Recipe(graph_and_file("digits-vae")[0], "fp32", BATCH)


def test_the_bundles_engine_comes_first(supplier: Supplier) -> None:
    source = Source("digits-vae", engine_spec())
    assert isinstance(source, EngineSource)
    assert supplier.loaded(decoder(), source, refusing()) == b"engines/mine"
    alone = Supplier(supplier.toolkit, GPU, supplier.cache, bundle_engines=False)
    assert alone.loaded(decoder(), source, refusing()) == b"built"


def test_an_engine_that_nobody_trusts_is_built_anew_with_a_word(supplier: Supplier) -> None:
    source = Source("digits-vae", engine_spec(), trusted=False)
    with pytest.warns(
        UntrustedEngineWarning, match=r"engines/mine .* was not made on this machine.*--trust-engines"
    ):
        assert supplier.loaded(decoder(), source, refusing(b"engines/mine")) == b"built"
    said = Supplier(supplier.toolkit, GPU, supplier.cache, bundle_engines=True)
    assert said.loaded(decoder(), source, refusing()) == b"engines/mine"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "1.6.0"}, "was built by tensorrt-rtx 1.6.0, and tensorrt-rtx .* is installed"),
        ({"runtime": "tensorrt"}, "was built by tensorrt 1.*, and tensorrt-rtx .* is installed"),
        ({"min_batch": 2}, "takes batches of 2 to 64, and 1 to 64 are wanted"),
        ({"max_batch": 32}, "takes batches of 1 to 32, and 1 to 64 are wanted"),
    ],
)
def test_an_engine_that_does_not_fit_is_left_with_a_word(
    supplier: Supplier, change: dict[str, Any], why: str
) -> None:
    source = Source("digits-vae", engine_spec(**change))
    with pytest.warns(GensdkWarning, match=f"engines/mine {why}: an engine is built from the graph"):
        assert supplier.loaded(decoder(), source, refusing()) == b"built"
    both = Source("digits-vae", engine_spec(**change), engine_spec(file="engines/other"))
    assert supplier.loaded(decoder(), both, refusing()) == b"engines/other"


def test_an_engine_of_the_other_precision_is_nothing_to_speak_of(supplier: Supplier) -> None:
    assert supplier.loaded(decoder(), Source("digits-vae", engine_spec(precision="fp16")), refusing()) == b"built"


@pytest.mark.parametrize(
    ("runtime", "gpu", "made_for", "why"),
    [
        ("tensorrt-rtx", Gpu("Old GPU", (7, 5), 13000), "", r"for compute capability 8.0 and above.* 7\.5"),
        ("tensorrt", GPU, "Other GPU (compute capability 8.6)", r"for the Other GPU .*8\.6.*Some GPU .*8\.9"),
    ],
)
def test_an_engine_for_another_gpu_is_left_with_a_word(
    supplier: Supplier, runtime: EngineRuntime, gpu: Gpu, made_for: str, why: str
) -> None:
    toolkit = Toolkit(runtime, supplier.toolkit.trt, supplier.toolkit.log)
    here = Supplier(toolkit, gpu, supplier.cache)
    source = Source("digits-vae", engine_spec(runtime=runtime, gpu=made_for))
    with pytest.warns(GensdkWarning, match=why):
        assert here.loaded(decoder(), source, refusing()) == b"built"


def test_engines_for_turing_are_its_own() -> None:
    """The builder is asked for this compute capability alone, and says what it lacks for it."""
    spec, file = graph_and_file("digits-dcgan", precision="fp16")
    old = Supplier(load_package("tensorrt-rtx"), Gpu("Old GPU", (7, 5), 13000), EngineCache())
    new = Supplier(load_package("tensorrt-rtx"), GPU, EngineCache())
    recipe = Recipe(spec, "fp16", BATCH)
    assert key_of(old.identity(recipe, file)) != key_of(new.identity(recipe, file))
    assert build(old.toolkit, recipe, file, target=old.target)
    with pytest.raises(BackendError, match=r"does not build for compute capability 9\.0"):
        build(old.toolkit, recipe, file, target=Target(capability=(9, 0)))


@pytest.mark.parametrize(
    ("capability", "runs"), [((7, 0), False), ((7, 5), True), ((8, 9), True), ((9, 0), False)]
)
def test_what_tensorrt_rtx_has_no_kernels_for_is_one_line(capability: tuple[int, int], runs: bool) -> None:
    gpu = Gpu("GPU", capability, 13000)
    check_supported("tensorrt", gpu)
    refused = pytest.raises(UnavailableError, match=r"no kernels for the GPU .*pip install .*tensorrt:classic")
    with nullcontext() if runs else refused:
        check_supported("tensorrt-rtx", gpu)


def test_a_refused_engine_of_the_bundle_is_said(supplier: Supplier) -> None:
    source = Source("digits-vae", engine_spec())
    with pytest.warns(UserWarning, match="engines/mine of the bundle is not used: it is not for here"):
        assert supplier.loaded(decoder(), source, refusing(b"engines/mine")) == b"built"


def test_a_refused_engine_of_the_cache_is_built_again(supplier: Supplier) -> None:
    source = Source("digits-vae")
    supplier.cache.put(supplier.identity(decoder(), source.file), b"old")
    with pytest.warns(EngineCacheWarning, match="is not used .it is not for here."):
        assert supplier.loaded(decoder(), source, refusing(b"old")) == b"built"
    assert supplier.loaded(decoder(), source, refusing()) == b"built"


def test_a_fresh_engine_that_is_refused_is_an_error(supplier: Supplier) -> None:
    with pytest.raises(BackendError, match="it is not for here"):
        supplier.loaded(decoder(), Source("digits-vae"), refusing(b"built"))


def test_a_real_bundle_offers_its_engines(tmp_path: Path) -> None:
    """A flipped byte in one is the bundle's own error, not a reason to build in silence."""
    from gensdk_runtime.bundles.writer import write_bundle
    from gensdk_runtime.errors import IntegrityError

    spec = engine_spec(file="engines/decoder.engine")
    with Bundle.open("digits-vae") as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files} | {spec.file: b"engine" * 1000}
        draft = bundle.manifest.model_copy(update={"engines": (spec,), "files": {}})
    with write_bundle(tmp_path / "vae", draft, files):
        pass
    with Bundle.open(tmp_path / "vae") as bundle:
        source = bundle.graph_source("decoder", "fp32")
        assert isinstance(source, EngineSource)
        assert source.largest_batch() == 64
        assert source.engine_specs("fp32") == (spec,)
        assert source.engine_specs("fp16") == ()
        assert source.read_engine(spec) == b"engine" * 1000
        file = tmp_path / "vae" / spec.file
        file.write_bytes(b"x" + file.read_bytes()[1:])
        with pytest.raises(IntegrityError, match="altered"):
            source.read_engine(spec)
    shutil.rmtree(tmp_path / "vae")
