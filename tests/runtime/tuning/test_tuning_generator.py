"""Laws of sampling by a cost table: padding, workers and several backends change the speed, never the samples."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.backends.fake import FakeSession, GraphFunction
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.opening import open_choice
from gensdk_runtime.plan.runner import Runner, runner_of
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.spec.manifest import ModelSpec
from support.models import MODELS, feedforward_model, generator, nan_images
from support.step_bundle import write_step_bundle

ONE = Choice(threads=1)
TWO = Choice(threads=1, workers=2)
THREE = Choice(threads=1, workers=3)
PADDED = Choice(backend="openvino", threads=1)
PADDED_TWO = Choice(backend="openvino", threads=1, workers=2)

programs = pytest.mark.parametrize("program", MODELS)


def table_of(*costs: tuple[Choice, int, float]) -> CostTable:
    rows = tuple(Cost(choice=choice, batch=batch, seconds=seconds) for choice, batch, seconds in costs)
    return CostTable(costs=rows, padded=("openvino",))


TABLES = {
    "padded": table_of((PADDED, 1, 1.0), (PADDED, 4, 1.5), (PADDED, 8, 2.0)),
    "workers": table_of((ONE, 1, 1.0), (ONE, 8, 8.0), (TWO, 1, 1.1), (TWO, 4, 4.1)),
    "padded workers": table_of((PADDED, 1, 1.0), (PADDED_TWO, 3, 1.1), (PADDED_TWO, 8, 2.0)),
    "mixed": table_of((ONE, 1, 1.0), (THREE, 2, 3.0), (PADDED, 8, 4.0)),
}
tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def fake_runner(model: ModelSpec, functions: dict[str, GraphFunction] | None = None) -> Runner:
    return runner_of(
        model,
        {
            graph.name: FakeSession(graph, (functions or {}).get(graph.name), backend="fake", precision="fp32")
            for graph in model.graphs
        },
    )


def tuned_generator(
    model: ModelSpec, table: CostTable, functions: dict[str, GraphFunction] | None = None
) -> Generator:
    """A generator over fakes that plans by `table`."""
    return Generator(model, Runners({}, costs=table, opener=lambda choice: fake_runner(model, functions)))


@programs
@tables
@given(n=st.integers(1, 30), extra=st.integers(0, 12), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=8, deadline=None)
def test_samples_do_not_depend_on_the_plan(program, table, n, extra, seed) -> None:
    model = MODELS[program](3)
    with tuned_generator(model, table) as planned, generator(model) as plain:
        few, many = planned.sample(n, seed=seed), planned.sample(n + extra, seed=seed)
        expected = plain.sample(n + extra, seed=seed)
    np.testing.assert_array_equal(few.array, many.array[:n])
    np.testing.assert_array_equal(many.array, expected.array)
    assert many.seeds == expected.seeds
    assert many.labels.tolist() == expected.labels.tolist()


@programs
@tables
def test_any_order_of_seeds_and_latents_of_ones_own(program, table) -> None:
    model = MODELS[program](3)
    with tuned_generator(model, table) as planned, generator(model) as plain:
        samples = planned.sample(11, seed=0)
        order = [4, 0, 10, 5]
        again = planned.sample(4, seed=[samples.seeds[i] for i in order])
        np.testing.assert_array_equal(again.array, samples.array[order])
        shape = planned._sampling.program.latent_shape
        if shape is not None:
            latents = np.random.default_rng(0).normal(size=(11, *shape)).astype(np.float32)
            expected = plain.sample(11, seed=1, latents=latents)
            np.testing.assert_array_equal(planned.sample(11, seed=1, latents=latents).array, expected.array)


@programs
@tables
def test_callbacks_see_real_samples_only(program, table) -> None:
    seen: list[Any] = []
    model = MODELS[program]()
    with tuned_generator(model, table) as planned, generator(model) as plain:
        whole = planned.sample(13, seed=0, callback_on_step_end=lambda step: bool(seen.append(step)))
        np.testing.assert_array_equal(whole.array, plain.sample(13, seed=0).array)
        assert all(step.x0.shape[0] == step.count for step in seen)
        batches = {step.first: step.count for step in seen}
        assert list(batches) == sorted(batches), "one batch after another, in order"
        ends = [first + count for first, count in batches.items()]
        assert [0, *ends] == [*batches, 13]
        stopped = planned.sample(13, seed=0, callback_on_step_end=lambda step: True)
    assert stopped.stopped
    assert len(stopped) == len(stopped.seeds) == batches[0]


@tables
@given(n=st.integers(1, 30), batch=st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_batch_size_is_honoured(table, n, batch) -> None:
    sizes: list[int] = []

    def image(feeds: Any) -> Any:
        sizes.append(len(feeds["z"]))
        return {"image": np.broadcast_to(feeds["z"][:, :1, None, None], (len(feeds["z"]), 1, 4, 6)).copy()}

    model = feedforward_model()
    with tuned_generator(model, table, {"generator": image}) as planned:
        samples = planned.sample(n, seed=3, batch_size=batch)
    assert max(sizes) <= batch
    assert len(sizes) == -(-n // batch)
    assert len(samples) == n


def test_workers_really_run_side_by_side() -> None:
    meeting = Barrier(2, timeout=20)

    def image(feeds: Any) -> Any:
        meeting.wait()
        return {"image": np.zeros((len(feeds["z"]), 1, 4, 6), np.float32)}

    with tuned_generator(feedforward_model(), table_of((TWO, 1, 1.0)), {"generator": image}) as planned:
        samples = planned.sample(2, seed=0)
    assert len(samples.timings.batches) == 2
    assert samples.timings.graphs <= samples.timings.total


def test_one_failing_worker_fails_the_call_after_all_have_ended() -> None:
    ended: list[int] = []

    def image(feeds: Any) -> Any:
        ended.append(len(feeds["z"]))
        if len(ended) == 1:
            raise BackendError("no")
        return {"image": np.zeros((len(feeds["z"]), 1, 4, 6), np.float32)}

    with tuned_generator(feedforward_model(), table_of((THREE, 1, 1.0)), {"generator": image}) as planned:
        with pytest.raises(BackendError, match="no"):
            planned.sample(3, seed=0)
        assert len(ended) == 3
        assert len(planned.sample(3, seed=0)) == 3


def test_nan_from_a_worker_is_an_error() -> None:
    table = table_of((TWO, 2, 1.0))
    with (
        tuned_generator(feedforward_model(), table, {"generator": nan_images}) as planned,
        pytest.raises(BackendError, match="NaN"),
    ):
        planned.sample(4, seed=0)


@programs
def test_threads_may_share_it(program) -> None:
    with tuned_generator(MODELS[program](3), TABLES["padded workers"]) as model, ThreadPoolExecutor(6) as pool:
        alone = [model.sample(5, seed=seed).array for seed in range(12)]
        together = list(pool.map(lambda seed: model.sample(5, seed=seed).array, range(12)))
    np.testing.assert_array_equal(alone, together)


def opener(model: ModelSpec, broken: Sequence[Choice], opened: list[Choice]) -> Any:
    def open_fake(choice: Choice) -> Runner:
        opened.append(choice)
        if choice in broken:
            raise UnavailableError(f"{choice.backend} is missing; pip install it")
        return fake_runner(model)

    return open_fake


def test_a_choice_that_is_gone_is_left_out_and_said_so() -> None:
    model, opened = feedforward_model(), []
    table = table_of((ONE, 1, 1.0), (PADDED, 8, 2.0))
    lineup = Runners({}, costs=table, opener=opener(model, [PADDED], opened))
    with Generator(model, lineup) as planned:
        assert "fallback" not in planned.sample(1, seed=0).settings
        assert opened == [ONE], "what is not needed is not opened"
        samples = planned.sample(8, seed=0)
        assert samples.settings["fallback"] == "openvino, 1 thread failed: openvino is missing; pip install it"
        planned.sample(8, seed=0)
        assert opened == [ONE, PADDED], "it is not tried again"


def test_every_choice_can_be_asked_for_its_graphs_once() -> None:
    """Workers share what they run on, and what can't be opened is left out."""
    model, opened = feedforward_model(), []
    table = table_of((ONE, 1, 1.0), (TWO, 2, 1.0), (PADDED, 4, 2.0))
    with Generator(model, Runners({}, costs=table, opener=opener(model, [PADDED], opened))) as planned:
        assert len(planned.every_session()) == 1
        assert opened == [ONE, PADDED]
    with tuned_generator(model, table) as planned:
        assert len(planned.every_session()) == 2


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="openvino is missing"):
        Runners({}, costs=table_of((PADDED, 8, 2.0)), opener=opener(feedforward_model(), [PADDED], []))


def test_real_graphs_side_by_side(tmp_path) -> None:
    table = table_of((ONE, 1, 1.0), (ONE, 4, 4.0), (TWO, 1, 1.1), (TWO, 4, 4.2))
    with Bundle.open(write_step_bundle(tmp_path / "tiny.gsdk")) as bundle:
        model = bundle.manifest.model
        lineup = Runners({}, costs=table, opener=lambda choice: open_choice(bundle, choice, "fp32"))
        with Generator(model, lineup) as planned, Generator.load(bundle, backend="onnxruntime") as plain:
            samples = planned.sample(19, seed=5, num_inference_steps=4)
            assert len(samples.timings.batches) > 4
            expected = plain.sample(19, seed=5, num_inference_steps=4)
            np.testing.assert_allclose(samples.array, expected.array, atol=1e-5)
