"""Time embeddings: each computed once, whoever asks and however often, and the samples are those without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.programs.base import Run
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.time_embeddings import TimeEmbeddings
from gensdk_runtime.spec.manifest import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import diffusion_model, generator, sharing_model, tensor

CLASSES = 3


class Embedder:
    """An embedding graph that tells rows by what they are of: (t, label), five times; and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        timestep, labels = int(feeds["timestep"][0]), feeds.get("label", np.zeros(1, np.int64))
        self.calls.append((timestep, *labels.tolist()))
        rows = np.stack([np.full(5, 1000 * timestep + label, np.float32) for label in labels])
        return {"embedding": rows}


def embeddings(embedder: Embedder, classes: int | None = CLASSES, **options: Any) -> TimeEmbeddings:
    graph = sharing_model(classes).graph("embedding")
    return TimeEmbeddings(FakeSession(graph, embedder, backend="fake", precision="fp32"), **options)


def told(feeds: Feeds) -> tuple[Array, Array]:
    """Time step and label [G, B] as a step learns of them, by whichever way."""
    if "embedding" in feeds:
        value = feeds["embedding"][..., 0].astype(np.float64)
        return value // 1000, value % 1000
    return feeds["timestep"].astype(np.float64), feeds.get("label", np.zeros((1, 1)))


def step(feeds: Feeds) -> dict[str, Array]:
    """Every input counts, and guidance does what it should."""
    timestep, label = told(feeds)
    weights = feeds.get("guidance_weights", np.ones(1)).astype(np.float64)
    eps = (weights[:, None] * (np.sin(timestep) + label)).sum(0).reshape(-1, 1, 1, 1)
    sample = np.tanh(feeds["sample"] + eps + feeds["noise"] * feeds["coefficients"][7]).astype(np.float32)
    return {"next_sample": sample, "next_previous_x0": sample * 0.5}


def pair(classes: int | None) -> tuple[Generator, Generator, Embedder]:
    """The same model with time steps and with embeddings."""
    embedder = Embedder()
    with_features: Mapping[str, Any] = {"step": lambda feeds: _shaped(step(feeds), feeds), "embedding": embedder}
    return (
        generator(diffusion_model(classes), {"step": step}),
        generator(sharing_model(classes), with_features),
        embedder,
    )


def _shaped(outputs: dict[str, Array], feeds: Feeds) -> dict[str, Array]:
    passes = feeds["embedding"].shape[:-1] if "guidance_weights" in feeds else (len(feeds["sample"]),)
    return {**outputs, "deep_features": np.zeros((*passes, 2, 3), np.float32)}


@settings(max_examples=25)
@given(
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=9),
    scale=st.sampled_from([1.0, 2.5]),
    steps=st.integers(1, 6),
    solver=st.sampled_from(["ddim", "ddpm"]),
)
def test_samples_are_those_of_time_steps_and_labels(
    labels: list[int], scale: float, steps: int, solver: Any
) -> None:
    plain, embedded, _ = pair(CLASSES)
    call: dict[str, Any] = {
        "n": len(labels), "label": labels, "guidance_scale": scale, "num_inference_steps": steps, "solver": solver,
    }  # fmt: skip
    expected = plain.sample(seed=1, **call).array
    np.testing.assert_array_equal(embedded.sample(seed=1, **call).array, expected)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_each_embedding_is_computed_once(classes: int | None) -> None:
    plain, embedded, embedder = pair(classes)
    for batch in (1, 4, None):
        for steps in (5, 10):
            call: dict[str, Any] = {"seed": 2, "num_inference_steps": steps, "batch_size": batch}
            np.testing.assert_array_equal(embedded.sample(4, **call).array, plain.sample(4, **call).array)
    assert max(Counter(embedder.calls).values()) == 1
    assert len(embedder.calls) == len({99, 79, 59, 39, 19} | {9, 29, 49, 69, 89})


def test_threads_get_the_same() -> None:
    _, embedded, embedder = pair(CLASSES)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(embedded.sample, 2, seed=0, num_inference_steps=20) for _ in range(24)]
        samples = [call.result().array for call in calls]
    assert all((array == samples[0]).all() for array in samples)
    assert max(Counter(embedder.calls).values()) <= 8
    count = len(embedder.calls)
    embedded.sample(2, seed=1, num_inference_steps=20)
    assert len(embedder.calls) == count


@settings(max_examples=30)
@given(asked=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([(0,), (1, 2), (0, 1, 3)])), max_size=40))
def test_what_is_kept_is_bounded(asked: list[tuple[int, tuple[int, ...]]]) -> None:
    row_bytes = 5 * 4
    found = embeddings(Embedder(), max_bytes=6 * row_bytes)
    for timestep, labels in asked:
        rows = found.rows(timestep, labels)
        assert rows[:, 0].tolist() == [1000 * timestep + label for label in labels]
        assert not rows.flags.writeable
        assert found._bytes == sum(kept.nbytes for kept in found._kept.values()) <= 6 * row_bytes


def test_an_embedding_larger_than_the_bound_is_computed_each_time() -> None:
    embedder = Embedder()
    found = embeddings(embedder, max_bytes=10)
    assert (found.rows(4, (1, 2)) == found.rows(4, (1, 2))).all()
    assert len(embedder.calls) == 2


@pytest.mark.parametrize(("labels", "padded"), [((2,), 1), ((0, 1), 2), ((0, 1, 2), 4), (tuple(range(9)), 16)])
def test_labels_are_padded_to_a_power_of_two(labels: tuple[int, ...], padded: int) -> None:
    embedder = Embedder()
    assert embeddings(embedder).rows(1, labels).shape == (len(labels), 5)
    assert len(embedder.calls[0]) == 1 + padded


def test_guidance_runs_what_counts() -> None:
    """One pass where the scale is 1 or no sample has a label; two for a batch where some have."""
    seen: list[tuple[int, ...]] = []

    def listening(feeds: Feeds) -> dict[str, Array]:
        seen.append(feeds["guidance_weights"].shape)
        return step(feeds)

    model = generator(diffusion_model(CLASSES), {"step": listening})

    def passes(label: Any, scale: float) -> set[tuple[int, ...]]:
        seen.clear()
        model.sample(3, seed=0, label=label, guidance_scale=scale, num_inference_steps=2)
        return set(seen)

    assert passes([0, 1, 2], 1.0) == {(1,)}
    assert passes([0, 1, 2], 2.0) == {(2,)}
    assert passes(None, 1.0) == passes(None, 7.0) == {(1,)}


def test_a_batch_with_and_without_labels_is_each_by_itself() -> None:
    """Where a sample has no label, guidance between its two halves changes nothing."""
    _, embedded, _ = pair(CLASSES)
    program = embedded._sampling.program
    assert isinstance(program, DiffusionProgram)
    found = program.resolve({"guidance_scale": 3.0, "num_inference_steps": 4})
    keys, labels = sample_keys(3, 0), np.array([1, CLASSES, 2])

    def run(places: list[int]) -> Array:
        images = np.empty((len(places), *program.latent_shape), np.float32)
        program.run(Run(tuple(keys[place] for place in places), images, labels[places]), found)
        return images

    together = run([0, 1, 2])
    for place in range(3):
        np.testing.assert_allclose(run([place])[0], together[place], atol=1e-6)


@pytest.mark.parametrize("shape", [("labels", "size"), ("labels", 4), (1, 5)])
def test_a_graph_with_other_embeddings_is_refused(shape: tuple[int | str, ...]) -> None:
    model = sharing_model(CLASSES)
    graphs = [_with_output(graph, shape) if graph.name == "embedding" else graph for graph in model.graphs]
    with pytest.raises(ManifestError, match="embedding"):
        generator(model.model_copy(update={"graphs": tuple(graphs)}))


def _with_output(graph: GraphSpec, shape: tuple[int | str, ...]) -> GraphSpec:
    return graph.model_copy(update={"outputs": (tensor("embedding", "coefficient", *shape),)})


def test_a_program_names_graphs_that_exist() -> None:
    data = sharing_model().model_dump(mode="json")
    data["graphs"] = [graph for graph in data["graphs"] if graph["name"] != "embedding"]
    with pytest.raises(ManifestError, match="'embedding', which is missing"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)
    assert isinstance(sharing_model().program, DiffusionSpec)
