"""Golden files, the recording of calls, and the measure of drift."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import BackendError, IntegrityError
from gensdk_runtime.proof import golden as golden_module
from gensdk_runtime.proof.drift import MAX_PSNR, allowed_flips, degenerate, measure_drift, sample_drift
from gensdk_runtime.proof.golden import (
    Call,
    Golden,
    GoldenBounds,
    Recorder,
    Trajectory,
    TrajectorySettings,
    thin_out,
)
from support.models import autoregressive_model, diffusion_model, feedforward_model
from support.refusals import refusal_of

BOUNDS = GoldenBounds(graph=1e-4, flipped=0.01)
DTYPES = st.sampled_from(["float32", "float16", "int64", "uint8", "bool"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
NAMED = st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), ARRAYS, max_size=3)


@st.composite
def goldens(draw: st.DrawFn) -> Golden:
    runs = []
    for _ in range(draw(st.integers(1, 2))):
        calls = [Call("g", step, draw(NAMED), draw(NAMED)) for step in range(draw(st.integers(0, 3)))]
        seeds = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
        runs.append(Trajectory(TrajectorySettings(seeds=tuple(seeds)), draw(ARRAYS), tuple(calls)))
    return Golden(tuple(runs), {"fp32": BOUNDS})


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@settings(max_examples=40, deadline=None)
@given(goldens())
def test_a_golden_file_gives_back_what_went_in(golden: Golden) -> None:
    read = Golden.from_bytes(golden.to_bytes())
    assert read.bounds == golden.bounds
    for run, other in zip(golden.trajectories, read.trajectories, strict=True):
        assert run.settings == other.settings
        assert same(run.samples, other.samples)
        for call, again in zip(run.calls, other.calls, strict=True):
            assert (call.graph, call.step) == (again.graph, again.step)
            for mine, theirs in ((call.feeds, again.feeds), (call.outputs, again.outputs)):
                assert list(mine) == list(theirs)
                assert all(same(mine[name], theirs[name]) for name in mine)


def one_golden() -> Golden:
    noise = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    calls = tuple(Call("g", step, {"x": noise}, {"y": noise}) for step in range(50))
    return Golden((Trajectory(TrajectorySettings(seeds=(0, 1)), noise, calls),), {"fp32": BOUNDS})


def test_equal_arrays_are_stored_once() -> None:
    golden = one_golden()
    assert len(golden.to_bytes()) < 10_000 < sum(call.nbytes for call in golden.calls("g"))


def changed(data: bytes, change: Any) -> bytes:
    """The golden file with its index changed."""
    with np.load(io.BytesIO(data)) as file:
        entries = dict(file)
    index = json.loads(entries["index"].tobytes())
    change(index, entries)
    entries["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **entries)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index, entries: entries.pop("a0"), "missing"),
        (lambda index, entries: index.update(trajectories=[]), "trajectories"),
        (lambda index, entries: index.update(extra=1), "unknown key"),
        (lambda index, entries: index.update(format_version=2), "format_version"),
        (lambda index, entries: index["trajectories"][0].update(samples="../x"), "samples"),
        (lambda index, entries: index["trajectories"][0]["settings"].update(seeds=[]), "seeds"),
    ],
)
def test_a_damaged_index_is_refused(change: Any, message: str) -> None:
    with pytest.raises(IntegrityError, match=message) as failure:
        Golden.from_bytes(changed(one_golden().to_bytes(), change), what="here.npz")
    assert "here.npz" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_pickles_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, index=np.zeros(1, np.uint8), a0=np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(IntegrityError, match="Python objects"):
        Golden.from_bytes(buffer.getvalue())


def test_what_is_no_golden_file_is_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, other=np.zeros(1))
    for data in (b"", b"PK\x03\x04", one_golden().to_bytes()[:-40], buffer.getvalue()):
        with pytest.raises(IntegrityError):
            Golden.from_bytes(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_flipped_bytes_raise_nothing_else(position: int, value: int) -> None:
    data = bytearray(one_golden().to_bytes())
    data[position % len(data)] = value
    refusal_of(lambda: Golden.from_bytes(bytes(data)), IntegrityError)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_module, "MAX_BYTES", 10_000)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a0=np.zeros(20_000, np.uint8))
    with pytest.raises(IntegrityError, match="at most"):
        Golden.from_bytes(buffer.getvalue())


def with_header(text: str) -> bytes:
    """A golden file of which one array says this of itself."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(one_golden().to_bytes())) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name == "a0.npy":
                header = text.encode("latin-1") + b"\n"
                data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
                new.writestr(name, data + bytes(64))
            else:
                new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': True, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': 3, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'descr': '<f4'}",
        "{'descr': '<f4' * 2**40, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "(" * 3000,
        "'''",
        "\x00\xff\\N{",
        "",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
    ],
)
def test_headers_that_break_other_readers_are_refused(header: str) -> None:
    with pytest.raises(IntegrityError) as failure:
        Golden.from_bytes(with_header(header), what="g.npz")
    assert str(failure.value).startswith("g.npz: ")
    assert str(failure.value).isprintable()


def test_encrypted_and_doubled_members_are_refused() -> None:
    data = one_golden().to_bytes()
    encrypted = bytearray(data)
    for at in [found.start() for found in re.finditer(b"PK\x03\x04", data)]:
        encrypted[at + 6] |= 1
    for at in [found.start() for found in re.finditer(b"PK\x01\x02", data)]:
        encrypted[at + 8] |= 1
    with pytest.raises(IntegrityError, match="encrypted"):
        Golden.from_bytes(bytes(encrypted))
    buffer = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a0.npy", archive.read("a0.npy"))
    with pytest.raises(IntegrityError, match="twice"):
        Golden.from_bytes(buffer.getvalue())


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 20_000))
def test_thinning_keeps_the_ends_and_the_budget(first: int, second: int, budget: int) -> None:
    array = np.zeros(25, np.float32)
    calls = [Call("a", step, {"x": array}, {"y": array}) for step in range(first)]
    calls += [Call("b", step, {"x": array}, {}) for step in range(second)]
    kept = thin_out(calls, budget)
    for graph, length, size in (("a", first, 200), ("b", second, 100)):
        steps = [call.step for call in kept if call.graph == graph]
        assert steps == sorted(set(steps))
        assert steps[0] == 0
        assert len(steps) == 1 or steps[-1] == length - 1
        assert len(steps) == 1 or len(steps) * size <= budget / 2
        gaps = np.diff(steps)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_the_recorder_copies() -> None:
    model = feedforward_model()
    graph = model.graphs[0]
    image = np.zeros((2, *model.output.shape), np.float32)
    recorder = Recorder()
    fake = FakeSession(graph, lambda feeds: {"image": image}, backend="fake", precision="fp32")
    session = recorder.wrap({graph.name: fake})[graph.name]
    z = np.ones((2, 5), np.float32)
    session.run({"z": z})
    z[:], image[:] = 7, 7
    (call,) = recorder.take()
    assert call.feeds["z"].max() == 1
    assert call.outputs["image"].max() == 0


def image_call(value: float = 0.0, *, graph: str = "generator") -> tuple[Call, dict[str, Any]]:
    shape = (2, *feedforward_model().output.shape)
    reference = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    return Call(graph, 0, {}, {"image": reference}), {"image": reference + np.float32(value)}


def test_images_are_compared_as_they_are() -> None:
    model = feedforward_model()
    equal, near, far = (measure_drift(model, [image_call(value)]) for value in (0.0, 5e-5, 2e-3))
    assert equal.psnr == MAX_PSNR
    assert not near.problem(BOUNDS)
    assert near.scaled == pytest.approx(5e-5, rel=0.01)
    assert "2.00e-03" in far.problem(BOUNDS)
    assert far.psnr == pytest.approx(20 * math.log10(2 / 2e-3), abs=0.1)


def test_where_single_values_may_differ_the_psnr_may_not() -> None:
    """A quantized graph may be far off in a few values; a graph that is far off everywhere is another graph."""
    model = feedforward_model()
    bounds = GoldenBounds(graph=1.0, flipped=0.01, psnr=25.0)
    call, outputs = image_call()
    few = outputs["image"].copy()
    few.reshape(-1)[:1] += 0.7
    assert not measure_drift(model, [(call, {"image": few})]).problem(bounds)
    assert "expected at least 25.0" in measure_drift(model, [image_call(0.2)]).problem(bounds)
    assert not measure_drift(model, [image_call(0.2)]).problem(bounds.model_copy(update={"psnr": None}))


def test_non_finite_and_constant_outputs_are_problems() -> None:
    model = feedforward_model()
    call, outputs = image_call()
    broken = outputs["image"].copy()
    broken[0, 0, 0, 0] = np.nan
    drift = measure_drift(model, [image_call(), (call, {"image": broken})])
    assert drift.non_finite
    assert drift.per_step == (0.0, math.inf)
    assert "NaN" in drift.problem(GoldenBounds(graph=1e9, flipped=1))
    flat = measure_drift(model, [(call, {"image": np.zeros_like(broken)})])
    assert "constant" in flat.problem(GoldenBounds(graph=1e9, flipped=1))
    with pytest.raises(BackendError, match="expected shape"):
        measure_drift(model, [(call, {"image": broken[:1]})])


@pytest.mark.parametrize("lockstep", [False, True])
def test_an_early_estimate_of_x0_is_judged_by_the_noise_it_came_from(lockstep: bool) -> None:
    model = diffusion_model(lockstep=lockstep)
    shape = (2, *model.output.shape)
    coefficients = np.array([158, -158, 1, 1, 0, 0, 0, 0], np.float32)
    coefficients = coefficients if lockstep else np.stack([coefficients] * 2)
    zeros = np.zeros(shape, np.float32)
    call = Call("step", 0, {"coefficients": coefficients}, {"next_sample": zeros, "next_previous_x0": zeros})
    x0_off = measure_drift(model, [(call, {"next_sample": zeros, "next_previous_x0": zeros + 0.0158})])
    sample_off = measure_drift(model, [(call, {"next_sample": zeros + 0.0158, "next_previous_x0": zeros})])
    assert x0_off.scaled == pytest.approx(1e-4, rel=0.01)
    assert x0_off.max_abs == pytest.approx(0.0158, rel=0.01)
    assert sample_off.scaled == pytest.approx(0.0158, rel=0.01)


def test_each_estimate_of_x0_is_judged_by_its_own_noise() -> None:
    model = diffusion_model()
    zeros = np.zeros((2, *model.output.shape), np.float32)
    coefficients = np.zeros((2, 8), np.float32)
    coefficients[:, 1] = -158, 0.5
    call = Call("step", 0, {"coefficients": coefficients}, {"next_sample": zeros, "next_previous_x0": zeros})
    for place, scaled in ((0, 1e-4), (1, 0.0158)):
        off = zeros.copy()
        off[place] = 0.0158
        drift = measure_drift(model, [(call, {"next_sample": zeros, "next_previous_x0": off})])
        assert drift.scaled == pytest.approx(scaled, rel=0.01)


def test_discrete_pixels_flip_and_are_counted() -> None:
    model = autoregressive_model()
    graph = model.graph(model.program.pixel_graph)
    outputs = {spec.name: np.zeros((100, *(2 if isinstance(a, str) else a for a in spec.shape[1:])), np.float32)
               for spec in graph.outputs}  # fmt: skip
    call = Call(graph.name, 0, {}, outputs)
    off = {name: array.copy() for name, array in outputs.items()}
    off["next_pixel"][:3] = 1.0
    drift = measure_drift(model, [(call, off)])
    assert drift.flipped == 3 * off["next_pixel"][0].size
    assert drift.discrete == off["next_pixel"].size
    assert "flipped" in drift.problem(GoldenBounds(graph=0, flipped=0.02))
    assert not drift.problem(GoldenBounds(graph=0, flipped=0.03))


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_one_pixel_may_always_flip(share: float, pixels: int) -> None:
    allowed = allowed_flips(share, pixels)
    assert allowed <= max(pixels, 0)
    assert allowed >= min(1, pixels)
    assert allowed >= share * pixels or pixels == 0


def test_degenerate_samples_are_told_apart() -> None:
    fine = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    assert degenerate(fine) == ""
    assert "constant" in degenerate(np.zeros_like(fine))
    assert "all the same" in degenerate(np.stack([fine[0], fine[0]]))
    assert "NaN" in degenerate(fine * np.inf)
    assert (
        sample_drift(feedforward_model(), image_call()[0].outputs["image"], image_call(0.1)[1]["image"]).scaled
        > 0.09
    )
