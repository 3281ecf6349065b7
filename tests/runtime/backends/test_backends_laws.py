"""What holds for every backend and device that runs here, on the embedded bundles."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gensdk_runtime.backends import availabilities, create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import BackendError, InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from support.embedded import FEW_STEPS, STEPWISE

BACKENDS = [
    f"{name}:{device}"
    for name, found in availabilities().items()
    if found.available and name != "fake"
    for device in found.devices
]


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in embedded_names()])
def generator(request: pytest.FixtureRequest) -> Iterator[Generator]:
    backend, name = request.param
    with Generator.load(name, backend=backend, threads=None if backend.startswith("tensorrt") else 1) as opened:
        yield opened


def draw(generator: Generator, n: int, first: int = 0) -> Samples:
    steps = FEW_STEPS.get(generator.model.program.kind, {})
    return generator.sample(n, seed=list(range(first, first + n)), progress=False, **steps)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Four samples of each bundle by ONNX Runtime on the CPU."""
    samples = {}
    for name in embedded_names():
        with Generator.load(name, backend="onnxruntime", threads=1) as opened:
            samples[opened.model.name] = draw(opened, 4).array
    return samples


def test_it_agrees_with_onnxruntime(generator: Generator, expected: dict[str, np.ndarray]) -> None:
    found, wanted = draw(generator, 4).array, expected[generator.model.name]
    if generator.model.program.kind in STEPWISE:  # a pixel on the edge between two levels may flip
        assert (found != wanted).mean() <= 0.01
    else:
        assert np.abs(found - wanted).max() <= 1e-4


def test_the_head_of_a_batch_is_a_small_batch(generator: Generator) -> None:
    whole, head = draw(generator, 4).array, draw(generator, 1).array
    if generator.model.program.kind in STEPWISE:
        assert (whole[:1] != head).mean() <= 0.01
    else:
        assert np.abs(whole[:1] - head).max() <= 1e-4


def test_threads_share_a_generator(generator: Generator) -> None:
    alone = [draw(generator, 2, first).array for first in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda first: draw(generator, 2, first).array, list(range(4)) * 3))
    assert len(together) == 12
    for first, array in enumerate(together):
        assert np.abs(array - alone[first % 4]).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_is_closed(backend: str) -> None:
    with Bundle.open("digits-vae") as bundle:
        graph = bundle.manifest.model.graphs[0]
        session = create_backend(backend).open(graph, bundle.graph_source(graph.name, "fp32"), precision="fp32")
    with session.bound({"batch": 2}) as bound:
        bound.run()
        session.close()
        with pytest.raises(BackendError, match="closed"):
            bound.run()
    with pytest.raises(BackendError, match="closed"), session.bound({"batch": 2}):
        pass
    session.close()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not found.available, reason=found.reason))
        for name, found in availabilities().items()
        if name in ("onnxruntime", "openvino")
    ],
)
def test_a_missing_provider_is_named_with_its_remedy(name: str) -> None:
    found = availabilities()[name]
    assert not set(found.devices) & set(found.missing)
    for provider, reason in found.missing.items():
        assert ";" in reason
        if "has no" in reason or name == "openvino":  # a GPU provider that is built in fails when it loads
            with pytest.raises(UnavailableError, match=r"pip install|driver"):
                create_backend(f"{name}:{provider}")
    with pytest.raises(InputError, match="did you mean 'cpu'"):
        create_backend(f"{name}:cpi")
