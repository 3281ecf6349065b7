"""Deep features shared between steps: which graph runs when, and what goes from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.manifest import DiffusionSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec
from support.models import SCHEDULE, diffusion_model, generator, sharing_model, tensor

CLASSES = 3


class Steps:
    """A full and a shallow step that do the same with all but the features, and log what they are given."""

    def __init__(self) -> None:
        self.log: list[tuple[str, float]] = []

    def full(self, feeds: Feeds) -> dict[str, Array]:
        passes = feeds["embedding"].shape[:-1] if "guidance_weights" in feeds else (len(feeds["sample"]),)
        number = float(len(self.log))
        self.log.append(("full", number))
        return {**self.update(feeds), "deep_features": np.full((*passes, 2, 3), number, np.float32)}

    def shallow(self, feeds: Feeds) -> dict[str, Array]:
        features = feeds["deep_features"]
        assert features.min() == features.max()
        self.log.append(("shallow", float(features.flat[0])))
        return self.update(feeds)

    @staticmethod
    def update(feeds: Feeds) -> dict[str, Array]:
        """All that is carried, drawn or given counts."""
        rows = feeds["coefficients"].reshape(-1, 8, 1, 1, 1)
        mixed = feeds["sample"] + 0.5 * feeds["previous_x0"] + rows[:, 7] * feeds["noise"] + rows[:, 0]
        embedding = feeds["embedding"].mean(axis=-1)
        if "guidance_weights" in feeds:
            embedding = (embedding * feeds["guidance_weights"].reshape(len(embedding), -1)).sum(axis=0)
        mixed = mixed + embedding.reshape(-1, 1, 1, 1)
        sample = np.sin(mixed).astype(np.float32)
        return {"next_sample": sample, "next_previous_x0": np.cos(mixed).astype(np.float32)}


def model(classes: int | None, *, lockstep: bool = False) -> tuple[Generator, Steps]:
    steps = Steps()
    functions = {"step": steps.full, "shallow_step": steps.shallow}
    return generator(sharing_model(classes, lockstep=lockstep), functions), steps


@settings(max_examples=25)
@given(
    classes=st.sampled_from([None, CLASSES]),
    lockstep=st.booleans(),
    interval=st.integers(1, 6),
    count=st.integers(1, 11),
    solver=st.sampled_from(["ddim", "ddpm", "dpmsolver++"]),
    n=st.integers(1, 5),
)
def test_states_noise_and_time_reach_both_kinds_of_step(
    classes: int | None, lockstep: bool, interval: int, count: int, solver: Any, n: int
) -> None:
    """Where the features make no difference, the interval makes none."""
    shared, steps = model(classes, lockstep=lockstep)
    call: dict[str, Any] = {"n": n, "seed": 5, "num_inference_steps": count, "solver": solver, "batch_size": 8}
    call |= {"label": [i % CLASSES for i in range(n)], "guidance_scale": 2.0} if classes else {}
    expected = shared.sample(**call).array
    steps.log.clear()
    np.testing.assert_array_equal(shared.sample(**call, cache_interval=interval).array, expected)
    last_full = [step - step % interval for step in range(count)]
    kinds = ["full" if step == last else "shallow" for step, last in enumerate(last_full)]
    assert steps.log == [(kind, float(last)) for kind, last in zip(kinds, last_full, strict=True)]


@pytest.mark.parametrize("step", [1, 2])
def test_a_shared_run_can_be_stopped_and_listened_to(step: int) -> None:
    shared, steps = model(None)
    estimates = []

    def stop(info: Any) -> bool:
        estimates.append(info.x0)
        return info.step == step

    samples = shared.sample(2, seed=0, num_inference_steps=6, cache_interval=2, callback_on_step_end=stop)
    assert samples.stopped
    assert len(steps.log) == len(estimates) == step + 1
    np.testing.assert_array_equal(samples.array, estimates[-1])


def test_the_interval_is_recorded() -> None:
    shared, _ = model(None)
    assert shared.sample(1, seed=0, cache_interval=3).settings["cache_interval"] == 3
    assert shared.sample(1, seed=0).settings["cache_interval"] == 1


def test_a_bundle_without_shared_features_refuses_intervals() -> None:
    plain = generator(diffusion_model())
    assert plain.sample(1, seed=0, cache_interval=1).settings["cache_interval"] == 1
    with pytest.raises(InputError, match=r"expected cache_interval=1, got 2: .* export it with --share-features"):
        plain.sample(1, cache_interval=2)
    with pytest.raises(InputError, match="cache_interval"):
        plain.sample(1, cache_interval=0)


def test_a_default_interval_needs_the_graph() -> None:
    data = DiffusionSpec(graph="step", schedule=SCHEDULE).model_dump(mode="json")
    data["defaults"] = DiffusionSettings(cache_interval=2).model_dump(mode="json")
    with pytest.raises(ManifestError, match="cache_interval over 1 needs a shallow_graph"):
        DiffusionSpec.from_dict(data, what="spec", error=ManifestError)


@pytest.mark.parametrize(
    ("name", "gives"),
    [("step", None), ("step", ("batch", "size", 3)), ("shallow_step", None), ("shallow_step", ("batch", 2, 2))],
)
def test_features_that_do_not_fit_are_refused(name: str, gives: tuple[int | str, ...] | None) -> None:
    whole = sharing_model()
    graphs = [_with_features(graph, gives) if graph.name == name else graph for graph in whole.graphs]
    with pytest.raises(ManifestError, match="deep_features"):
        generator(whole.model_copy(update={"graphs": tuple(graphs)}))


def _with_features(graph: GraphSpec, shape: tuple[int | str, ...] | None) -> GraphSpec:
    """The graph with other features, or None: without, on the side where it has them."""
    side = "outputs" if graph.name == "step" else "inputs"
    kept = [spec for spec in getattr(graph, side) if spec.name != "deep_features"]
    new = [] if shape is None else [tensor("deep_features", "state", *shape)]
    return graph.model_copy(update={side: (*kept, *new)})
