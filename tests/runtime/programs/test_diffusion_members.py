"""Members of one batch that differ in everything: each comes out exactly as it does alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.backends.base import Feeds, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.base import Program
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.run import Run, StepEnd
from gensdk_runtime.spec.model import ModelSpec
from support.members import a_run, assert_each_is_alone, assert_halves_are_each_as_alone, member_options
from support.models import IMAGE, MODELS

CLASSES = 3
DIFFUSION = [name for name in MODELS if MODELS[name]().program.kind == "diffusion"]
models = pytest.mark.parametrize("model", DIFFUSION)
conditional = pytest.mark.parametrize("classes", [None, CLASSES], ids=["plain", "labels"])


def denoised(feeds: Feeds) -> tuple[Array, Array]:
    """What each pass [G, B, C, H, W] predicts of its own sample, time and label; and the deep features of it."""
    sample = feeds["sample"][None].astype(np.float64)
    if "embedding" in feeds:
        time = feeds["embedding"].astype(np.float64) @ np.arange(1.0, 6.0)
    else:
        time = np.sin(feeds["timestep"].astype(np.float64))[None] + feeds.get("label", np.zeros((1, 1)))
    time = np.broadcast_to(time, (len(feeds.get("guidance_weights", [1])), sample.shape[1]))
    deep = np.repeat(np.tanh(time[..., None, None] + sample[:, :, 0, :2, :3]), 1, axis=0)
    if "deep_features" in feeds:
        deep = feeds["deep_features"].reshape(deep.shape).astype(np.float64)
    return np.sin(sample + time[..., None, None, None]) + deep.mean(axis=(-2, -1))[..., None, None, None], deep


def step(feeds: Feeds) -> dict[str, Array]:
    """DiffusionStep over that denoiser, in NumPy: nothing depends on the batch that a sample is in."""
    passes, deep = denoised(feeds)
    weights = feeds.get("guidance_weights", np.ones((1, 1), np.float32)).astype(np.float64)
    eps = (weights.reshape(len(weights), -1)[..., None, None, None] * passes).sum(axis=0)
    x, e, clip, a, b, c, d, s = np.moveaxis(feeds["coefficients"].reshape(-1, 8, 1, 1, 1).astype(np.float64), 1, 0)
    x0 = np.clip(x * feeds["sample"] + e * eps, -clip, clip)
    known = a * feeds["sample"] + d * feeds["previous_x0"] + s * feeds["noise"]
    sample = np.tanh(known + b * x0 + c * eps)  # an untrained denoiser's samples would grow beyond float32
    outputs = {"next_sample": sample, "next_previous_x0": x0, "deep_features": deep}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in outputs.items()}


def decode(feeds: Feeds) -> dict[str, Array]:
    """Images of twice the size."""
    wide = np.tanh(feeds["latent"].mean(axis=1, keepdims=True)).repeat(2, axis=2).repeat(2, axis=3)
    return {"image": np.ascontiguousarray(wide)}


def encode(feeds: Feeds) -> dict[str, Array]:
    """Two latents of each four pixels."""
    corners = feeds["image"][:, :, ::2, ::2], feeds["image"][:, :, 1::2, 1::2]
    return {"latent": np.ascontiguousarray(np.concatenate(corners, axis=1))}


AROUND = {"decoder": decode, "encoder": encode}


def program(name: str, classes: int | None) -> DiffusionProgram:
    model = MODELS[name](classes)

    def function(feeds: Feeds, graph: str) -> dict[str, Array]:
        if graph in AROUND:
            return AROUND[graph](feeds)
        outputs = step(feeds)
        wanted = {spec.name: spec.shape for spec in model.graph(graph).outputs}
        features = outputs["deep_features"]
        outputs["deep_features"] = features if classes else features[0]
        return {output: outputs[output] for output in wanted}

    def session(graph: Any) -> Session:
        run = None if graph.name == "embedding" else lambda feeds: function(feeds, graph.name)
        return FakeSession(graph, run, backend="fake", precision="fp32")

    made = make_program(model, {graph.name: session(graph) for graph in model.graphs})
    assert isinstance(made, DiffusionProgram)
    return made


@models
@conditional
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_halves_at_different_steps_are_each_as_alone(model: str, classes: int | None, data: st.DataObject) -> None:
    assert_halves_are_each_as_alone(program(model, classes), data)


@models
@conditional
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_members_of_one_run_have_settings_of_their_own(
    model: str, classes: int | None, data: st.DataObject
) -> None:
    made = program(model, classes)
    n, padded = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    drawn = data.draw(st.lists(member_options(made), min_size=1, max_size=3))
    each = [made.resolve(drawn[data.draw(st.integers(0, len(drawn) - 1))]) for _ in range(n)]
    run = a_run(made, 5, n, padded)
    made.run(run, [*each, *each[-1:] * padded])
    assert_each_is_alone(made, run, each)


@models
@conditional
@pytest.mark.parametrize("interval", [1, 2])
def test_who_leaves_has_its_estimate_and_the_others_go_on(model: str, classes: int | None, interval: int) -> None:
    made = program(model, classes)
    plan = {"num_inference_steps": 5, **({"cache_interval": interval} if "sharing" in model else {})}
    long, short = made.resolve(plan), made.resolve({**plan, "num_inference_steps": 2, "solver": "ddpm"})
    stays, goes, ends = (a_run(made, seed, 2) for seed in range(3))
    with made.begin(stays, long) as state:
        assert state.join(made.begin(goes, long))
        assert state.join(made.begin(ends, short))
        assert state.runs == (stays, goes, ends)
        state.step()
        state.step()
        assert state.runs == (stays, goes)
        assert_each_is_alone(made, ends, [short] * 2)
        state.leave(ends)
        state.leave(goes)
        assert state.runs == (stays,)
        while state.step():
            pass
    assert_each_is_alone(made, stays, [long] * 2)
    stopped = a_run(made, 1, 2)
    stopped.on_step_end = lambda info: info.step == 1
    made.run(stopped, long)
    np.testing.assert_array_equal(goes.data, stopped.data)


@models
def test_passes_end_with_who_needs_them(model: str) -> None:
    """Guidance of one costs the others a second pass while it is there, and no longer."""
    made = program(model, CLASSES)
    sizes: list[int] = []
    graph = made.sessions[made.spec.graph]
    lend = graph.lend
    graph.lend = lambda *of: sizes.append(of[0]["guidance"]) or lend(*of)  # type: ignore[method-assign,func-returns-value]
    plain, guided = made.resolve({"num_inference_steps": 4}), made.resolve({"guidance_scale": 2.0})
    stays, goes = a_run(made, 0, 1), a_run(made, 1, 1)
    with made.begin(stays, plain) as state:
        state.step()
        state.join(made.begin(goes, guided))
        state.step()
        state.leave(goes)
        while state.step():
            pass
    assert sizes == ([1, 2] if "lockstep" in model else [1, 2, 1])
    assert_each_is_alone(made, stays, [plain])


@models
def test_joining_and_leaving_gives_every_buffer_back(model: str) -> None:
    made = program(model, CLASSES)
    lent: dict[int, int] = {}
    for session in made.sessions.values():
        count_loans(session, lent)
    plan = made.resolve({"num_inference_steps": 4})
    with made.begin(a_run(made, 0, 2), plan) as state:
        state.step()
        other = a_run(made, 1, 1)
        joining = made.begin(other, plan)
        joining.step()
        state.join(joining)
        state.step()
        state.leave(other)
        state.step()
        assert sum(lent.values()) == 1
    assert sum(lent.values()) == 0
    state = made.begin(a_run(made, 0, 2), plan)
    state.step()
    state.close(broken=True)
    state.close()
    assert sum(lent.values()) == 0


def count_loans(session: Session, lent: dict[int, int]) -> None:
    lend, give_back = session.lend, session.give_back

    def lending(*arguments: Any) -> Any:
        bound = lend(*arguments)
        lent[id(bound)] = lent.get(id(bound), 0) + 1
        return bound

    def returned(bound: Any, *, broken: bool = False) -> None:
        lent[id(bound)] -= 1
        give_back(bound, broken=broken)

    session.lend, session.give_back = lending, returned  # type: ignore[method-assign]


@models
def test_each_run_hears_of_its_own_steps_and_may_end_alone(model: str) -> None:
    made = program(model, None)
    heard: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    runs = [a_run(made, seed, 2) for seed in range(2)]

    def listener(which: int, last: int) -> Any:
        def hear(info: StepEnd) -> bool:
            heard[which].append((info.step, info.num_steps))
            assert info.x0.shape == (2, *made.latent_shape)
            return info.step == last

        return hear

    runs[0].on_step_end, runs[1].on_step_end = listener(0, 9), listener(1, 1)
    plans = [made.resolve({"num_inference_steps": count}) for count in (3, 6)]
    with made.begin(runs[0], plans[0]) as state:
        state.step()
        state.join(made.begin(runs[1], plans[1]))
        while state.step():
            pass
    assert heard == {0: [(0, 3), (1, 3), (2, 3)], 1: [(0, 6), (1, 6)]}
    assert [run.stopped for run in runs] == [False, True]
    assert all(np.isfinite(run.data).all() for run in runs)
    assert all(run.graph_seconds > 0 for run in runs)


def test_settings_for_others_than_the_members_are_refused() -> None:
    made = program("diffusion", None)
    with pytest.raises(InputError, match="settings for each of 3 samples, got 2"):
        made.begin(a_run(made, 0, 3), [made.resolve({})] * 2)


def test_a_state_does_not_join_itself() -> None:
    made = program("diffusion", None)
    run, alone = a_run(made, 0, 2), a_run(made, 0, 2)
    with made.begin(run, made.resolve({})) as state:
        state.step()
        assert not state.join(state)
        while state.step():
            pass
    made.run(alone, made.resolve({}))
    np.testing.assert_array_equal(run.data, alone.data)


@models
def test_a_state_that_never_ran_ends_at_zero(model: str) -> None:
    made = program(model, None)
    run = a_run(made, 0, 2)
    with made.begin(run, made.resolve({})) as state:
        state.finish()
    assert (run.data == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_begin_step_and_finish(name: str) -> None:
    """Each program by hand gives what its run gives; what is closed half-way gives its buffers back."""
    model: ModelSpec = MODELS[name](CLASSES)
    sessions: dict[str, Session] = {
        graph.name: FakeSession(graph, backend="fake", precision="fp32") for graph in model.graphs
    }
    made: Program[Any] = make_program(model, sessions)
    plan, whole, by_hand = made.resolve({}), two_labelled(), two_labelled()
    heard: list[int] = []
    whole.on_step_end = lambda info: bool(heard.append(info.step))
    made.run(whole, plan)
    with made.begin(by_hand, plan) as state:
        count = 1
        while state.step():
            count += 1
        state.finish()
    np.testing.assert_array_equal(by_hand.data, whole.data)
    assert count == len(heard)
    lent: dict[int, int] = {}
    for session in sessions.values():
        count_loans(session, lent)
    with made.begin(two_labelled(), plan) as state, made.begin(two_labelled(), plan) as other:
        state.step()
        assert state.join(other) == (model.program.kind == "diffusion")
    assert set(lent.values()) <= {0}


def two_labelled() -> Run:
    images = np.empty((2, *IMAGE.shape), np.float32)
    return Run((SampleKey(0, 0), SampleKey(0, 1)), images, {"label": np.array([2, 1])})


def test_a_run_that_fails_gives_no_broken_buffers_back() -> None:
    def fail(feeds: Feeds) -> dict[str, Array]:
        raise BackendError("no more")

    model = MODELS["diffusion"]()
    session = FakeSession(model.graphs[0], fail, backend="fake", precision="fp32")
    made = make_program(model, {"step": session})
    assert isinstance(made, DiffusionProgram)
    with pytest.raises(BackendError, match="no more"):
        made.run(a_run(made, 0, 1), made.resolve({}))
    assert not session._idle
