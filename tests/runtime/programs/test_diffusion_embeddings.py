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
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.run import Run
from gensdk_runtime.programs.time_embeddings import TimeEmbeddings
from gensdk_runtime.spec.manifest import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import diffusion_model, generator, sharing_model, tensor

CLASSES = 3
contracts = pytest.mark.parametrize("lockstep", [False, True], ids=["each", "lockstep"])


class Embedder:
    """An embedding graph that tells rows by what they are of: (t, label), five times; and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[float, int], ...]] = []

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        labels = feeds.get("label", np.zeros(len(feeds["timestep"]), np.int64))
        times = np.broadcast_to(feeds["timestep"], len(labels))
        self.calls.append(tuple(zip(times.tolist(), labels.tolist(), strict=True)))
        rows = np.stack([np.full(5, 1000 * t + label, np.float32) for t, label in self.calls[-1]])
        return {"embedding": rows}

    @property
    def rows(self) -> set[tuple[float, int]]:
        """All that was computed."""
        return {row for call in self.calls for row in call}


def embeddings(
    embedder: Embedder, classes: int | None = CLASSES, *, lockstep: bool = False, **options: Any
) -> TimeEmbeddings:
    graph = sharing_model(classes, lockstep=lockstep).graph("embedding")
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
    eps = (weights.reshape(len(weights), -1) * (np.sin(timestep) + label)).sum(0).reshape(-1, 1, 1, 1)
    scale = feeds["coefficients"].reshape(-1, 8, 1, 1, 1)[:, 7]
    sample = np.tanh(feeds["sample"] + eps + feeds["noise"] * scale).astype(np.float32)
    return {"next_sample": sample, "next_previous_x0": sample * 0.5}


def pair(classes: int | None, *, lockstep: bool = False) -> tuple[Generator, Generator, Embedder]:
    """The same model with time steps and with embeddings."""
    embedder = Embedder()
    with_features: Mapping[str, Any] = {"step": lambda feeds: _shaped(step(feeds), feeds), "embedding": embedder}
    return (
        generator(diffusion_model(classes, lockstep=lockstep), {"step": step}),
        generator(sharing_model(classes, lockstep=lockstep), with_features),
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
    lockstep=st.booleans(),
)
def test_samples_are_those_of_time_steps_and_labels(
    labels: list[int], scale: float, steps: int, solver: Any, lockstep: bool
) -> None:
    plain, embedded, _ = pair(CLASSES, lockstep=lockstep)
    call: dict[str, Any] = {
        "n": len(labels), "label": labels, "guidance_scale": scale, "num_inference_steps": steps, "solver": solver,
    }  # fmt: skip
    expected = plain.sample(seed=1, **call).array
    np.testing.assert_array_equal(embedded.sample(seed=1, **call).array, expected)


@contracts
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_each_embedding_is_computed_once(classes: int | None, lockstep: bool) -> None:
    plain, embedded, embedder = pair(classes, lockstep=lockstep)
    for batch in (1, 4, None):
        for steps in (5, 10):
            call: dict[str, Any] = {"seed": 2, "num_inference_steps": steps, "batch_size": batch}
            np.testing.assert_array_equal(embedded.sample(4, **call).array, plain.sample(4, **call).array)
    assert max(Counter(embedder.calls).values()) == 1
    none = 0 if classes is None else classes
    assert embedder.rows == {(t, none) for t in range(9, 100, 10)}
    assert len(embedder.calls) == (len(embedder.rows) if lockstep else 2)  # all steps of a solver at once


@contracts
def test_threads_get_the_same(lockstep: bool) -> None:
    _, embedded, embedder = pair(CLASSES, lockstep=lockstep)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(embedded.sample, 2, seed=0, num_inference_steps=20) for _ in range(24)]
        samples = [call.result().array for call in calls]
    assert all((array == samples[0]).all() for array in samples)
    assert max(Counter(embedder.calls).values()) <= 8
    count = len(embedder.calls)
    embedded.sample(2, seed=1, num_inference_steps=20)
    assert len(embedder.calls) == count


@settings(max_examples=30)
@given(
    asked=st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.sampled_from([(0,), (1, 2), (0, 1, 3)])),
        max_size=40,
    ),
    lockstep=st.booleans(),
)
def test_what_is_kept_is_bounded(asked: list[tuple[list[int], tuple[int, ...]]], lockstep: bool) -> None:
    row_bytes = 5 * 4
    found = embeddings(Embedder(), lockstep=lockstep, max_bytes=6 * row_bytes)
    assert found._bytes == 0
    for times, labels in asked:
        for timestep, rows in zip(times, found.sequence(tuple(times), labels), strict=True):
            assert rows[:, 0].tolist() == [1000 * timestep + label for label in labels]
            assert not rows.flags.writeable
        assert found._bytes == sum(kept.nbytes for kept in found._kept.values()) <= 6 * row_bytes


@contracts
def test_an_embedding_larger_than_the_bound_is_computed_each_time(lockstep: bool) -> None:
    embedder = Embedder()
    found = embeddings(embedder, lockstep=lockstep, max_bytes=10)
    for _ in range(2):
        for timestep in (4, 5):
            assert found.sequence((timestep,), (1, 2))[0][:, 0].tolist() == [
                1000 * timestep + 1,
                1000 * timestep + 2,
            ]
    assert len(embedder.calls) == 4


@pytest.mark.parametrize(("labels", "padded"), [((2,), 1), ((0, 1), 2), ((0, 1, 2), 4), (tuple(range(9)), 16)])
def test_labels_are_padded_to_a_power_of_two(labels: tuple[int, ...], padded: int) -> None:
    embedder = Embedder()
    assert embeddings(embedder, lockstep=True).sequence((1,), labels)[0].shape == (len(labels), 5)
    assert len(embedder.calls[0]) == padded


@pytest.mark.parametrize(
    ("steps", "labels", "sizes"),
    [(1, (2,), [2]), (3, (0, 1), [8]), (3, (), [4]), (600, (0, 1), [1024, 256]), (1024, (), [1024])],
)
def test_rows_of_many_steps_are_padded_and_come_in_bounded_calls(
    steps: int, labels: tuple[int, ...], sizes: list[int]
) -> None:
    embedder = Embedder()
    found = embeddings(embedder, CLASSES if labels else None).sequence(tuple(range(steps)), labels)
    expected = [[1000 * timestep + label for label in labels or (0,)] for timestep in range(steps)]
    assert [rows[:, 0].tolist() for rows in found] == expected
    assert [len(call) for call in embedder.calls] == sizes


def test_labels_that_are_known_are_not_computed_again() -> None:
    embedder = Embedder()
    found = embeddings(embedder)
    found.sequence((7, 3), (0, 2))
    found.sequence((7, 3), (0, 1, 2))
    assert [label for call in embedder.calls[1:] for _, label in call] == [1, 1]


@contracts
def test_guidance_runs_what_counts(lockstep: bool) -> None:
    """One pass where the scale is 1 or no sample has a label; two for a batch where some have."""
    seen: list[int] = []

    def listening(feeds: Feeds) -> dict[str, Array]:
        seen.append(len(feeds["guidance_weights"]))
        return step(feeds)

    model = generator(diffusion_model(CLASSES, lockstep=lockstep), {"step": listening})

    def passes(label: Any, scale: float) -> set[int]:
        seen.clear()
        model.sample(3, seed=0, label=label, guidance_scale=scale, num_inference_steps=2)
        return set(seen)

    assert passes([0, 1, 2], 1.0) == {1}
    assert passes([0, 1, 2], 2.0) == {2}
    assert passes(None, 1.0) == passes(None, 7.0) == {1}


@contracts
def test_a_batch_with_and_without_labels_is_each_by_itself(lockstep: bool) -> None:
    """Where a sample has no label, guidance between its two halves changes nothing."""
    _, embedded, _ = pair(CLASSES, lockstep=lockstep)
    program = embedded._sampling.program
    assert isinstance(program, DiffusionProgram)
    found = program.resolve({"guidance_scale": 3.0, "num_inference_steps": 4})
    keys, labels = sample_keys(3, 0), np.array([1, CLASSES, 2])

    def run(places: list[int]) -> Array:
        images = np.empty((len(places), *program.latent_shape), np.float32)
        program.run(Run(tuple(keys[place] for place in places), images, {"label": labels[places]}), found)
        return images

    together = run([0, 1, 2])
    for place in range(3):
        np.testing.assert_array_equal(run([place])[0], together[place])


@pytest.mark.parametrize("shape", [("rows", "size"), ("rows", 4), ("labels", 5), (1, 5)])
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
