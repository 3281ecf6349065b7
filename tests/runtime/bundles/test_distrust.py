"""What a bundle brings with it is not believed: graph outputs, golden files, absurd sizes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeBackend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_path
from gensdk_runtime.errors import (
    BackendError,
    GensdkError,
    InputError,
    IntegrityError,
    ManifestError,
    did_you_mean,
)
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan import batches
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.proof import golden as golden_module
from gensdk_runtime.proof.drift import measure_drift
from gensdk_runtime.proof.golden import Call, Golden, GoldenBounds, Recorder, Trajectory, TrajectorySettings
from gensdk_runtime.proof.verify import check_golden, replay
from gensdk_runtime.spec.manifest import ModelSpec, ScheduleSpec
from gensdk_runtime.spec.signature import GraphSpec, ImageSpec
from support.models import (
    IMAGE,
    MODELS,
    autoregressive_model,
    diffusion_model,
    feedforward_model,
    generator,
    image_tensor,
    tensor,
)

BOUNDS = GoldenBounds(graph=1e-4, flipped=0.01)


def outputs_of(value: Any) -> Any:
    return lambda feeds: {"image": value(len(feeds["z"]))}


@pytest.mark.parametrize(
    "value",
    [
        lambda n: np.zeros((n, 1, 4, 5), np.float32),
        lambda n: np.zeros((n + 1, *IMAGE.shape), np.float32),
        lambda n: np.zeros((n, *IMAGE.shape), np.float64),
        lambda n: np.full((n, *IMAGE.shape), "x"),
        lambda n: [np.zeros(IMAGE.shape, np.float32)] * n,
    ],
)
def test_a_graph_that_gives_something_else_than_its_manifest_says(value) -> None:
    with (
        generator(feedforward_model(), {"generator": outputs_of(value)}) as model,
        pytest.raises(BackendError, match=r"generator\.image: expected .* got"),
    ):
        model.sample(2, seed=0)


@pytest.mark.parametrize(
    ("program", "graph", "name"),
    [("diffusion", "step", "next_sample"), ("autoregressive", "row", "context")],
)
def test_a_missing_or_short_output_in_the_middle_of_a_run(program, graph, name) -> None:
    full = generator(MODELS[program]()).sessions[graph]

    def short(feeds: Feeds) -> dict[str, Array]:
        return {key: array[:1] if key == name else array for key, array in full.run(feeds).items()}

    for function in (short, lambda feeds: {}):
        with (
            generator(MODELS[program](), {graph: function}) as model,
            pytest.raises(BackendError, match="expected"),
        ):
            model.sample(2, seed=0)


def with_graph(model: ModelSpec, index: int, change: Any) -> ModelSpec:
    graphs = list(model.graphs)
    graphs[index] = change(graphs[index])
    return model.model_copy(update={"graphs": tuple(graphs)})


def test_a_signature_that_does_not_fit_its_program_does_not_blame_the_caller() -> None:
    def wide(graph: GraphSpec) -> GraphSpec:
        inputs = (image_tensor("sample", "state", ImageSpec(channels=2, height=4, width=6)), *graph.inputs[1:])
        return graph.model_copy(update={"inputs": inputs})

    with pytest.raises(ManifestError, match="does not fit its program"):
        generator(with_graph(diffusion_model(), 0, wide))

    def short(graph: GraphSpec) -> GraphSpec:
        return graph.model_copy(update={"inputs": (*graph.inputs[:-1], tensor("coefficients", "coefficient", 1))})

    with pytest.raises(ManifestError, match="coefficients"):
        generator(with_graph(diffusion_model(), 0, short))

    def dynamic(graph: GraphSpec) -> GraphSpec:
        return graph.model_copy(update={"inputs": (tensor("z", "noise", "batch", "width"),)})

    with pytest.raises(ManifestError, match="dynamic axes"):
        generator(with_graph(feedforward_model(), 0, dynamic))


def test_a_diffusion_model_needs_a_symmetric_range() -> None:
    image = IMAGE.model_copy(update={"value_range": (0.0, 1.0)})
    with pytest.raises(ManifestError, match=r"\[-x, x\]"):
        generator(diffusion_model().model_copy(update={"output": image}))


def test_a_program_that_refuses_leaves_no_graph_open() -> None:
    opened: list[Any] = []

    class Watching(FakeBackend):
        def open(self, *args: Any, **kwargs: Any) -> Any:
            opened.append(super().open(*args, **kwargs))
            return opened[-1]

    path = embedded_path("digits-ddpm")
    assert path is not None
    with Bundle.open(path) as bundle:
        image = bundle.manifest.model.output.model_copy(update={"value_range": (0.0, 1.0)})
        model = bundle.manifest.model.model_copy(update={"output": image})
        changed = replace(bundle, manifest=bundle.manifest.model_copy(update={"model": model}))
        with pytest.raises(ManifestError):
            Generator.load(changed, backend=Watching())
    assert opened
    assert all(session._closed for session in opened)


def test_likelihoods_that_are_no_numbers() -> None:
    def lost(feeds: Feeds) -> dict[str, Array]:
        return {"log_likelihood": np.full(len(feeds["image"]), np.nan, np.float32)}

    with (
        generator(autoregressive_model(), {"likelihood": lost}) as model,
        pytest.raises(BackendError, match="NaN"),
    ):
        model.log_likelihood(np.zeros((3, *IMAGE.shape), np.float32))


def test_closing_while_others_sample_gives_samples_or_one_clear_error() -> None:
    for _ in range(5):
        model = Generator.load("digits-dcgan", threads=1)
        expected = model.sample(2, seed=0, label=1).array
        drawn = threading.Event()

        def work(model: Generator = model, drawn: threading.Event = drawn) -> tuple[list[Array], list[str]]:
            samples: list[Array] = []
            refused: list[str] = []
            while len(refused) < 20:
                try:
                    samples.append(model.sample(2, seed=0, label=1).array)
                    drawn.set()
                except BackendError as failure:
                    refused.append(str(failure))
            return samples, refused

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(work) for _ in range(8)]
            came = drawn.wait(60)
            model.close()
            results = [future.result() for future in futures]
        assert came
        assert all("was closed" in text for _, refused in results for text in refused)
        for sample in [sample for samples, _ in results for sample in samples]:
            np.testing.assert_array_equal(sample, expected)


def test_a_session_closed_after_its_check_says_so() -> None:
    with Generator.load("digits-dcgan", threads=1) as model:
        session = next(iter(model.sessions.values()))
        session._close()  # what another thread does between the check and the run
        with pytest.raises(BackendError, match="was closed"):
            model.sample(1)


def recorded(model: ModelSpec) -> Golden:
    recorder = Recorder()
    live = generator(model)
    sessions = recorder.wrap(live.sessions)
    samples = Generator.from_sessions(model, sessions).sample(2, seed=[0, 1]).array
    return Golden((Trajectory(TrajectorySettings(seeds=(0, 1)), samples, recorder.take()),), {"fp32": BOUNDS})


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, samples=run.samples[:1]),
        lambda run: replace(run, samples=np.full(run.samples.shape, "x")),
        lambda run: replace(run, calls=(replace(run.calls[0], outputs={"image": np.array("x")}),)),
        lambda run: replace(run, calls=(replace(run.calls[0], outputs={"image": run.samples[:1]}),)),
        lambda run: replace(run, settings=TrajectorySettings(seeds=(0, 1), solver="ddim")),
        lambda run: replace(run, conditions={"label": np.array([0, 99])}),
    ],
)
def test_golden_files_that_do_not_fit_are_refused(change) -> None:
    model = feedforward_model()
    golden = recorded(model)
    check_golden(model, golden)
    with generator(model) as live:
        assert replay(model, golden, live.sessions, BOUNDS).ok
        with pytest.raises(IntegrityError, match="golden file"):
            replay(model, Golden((change(golden.trajectories[0]),), {}), live.sessions, BOUNDS)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_reference_that_is_no_number_proves_nothing(lost) -> None:
    model = feedforward_model()
    call = recorded(model).trajectories[0].calls[0]
    image = np.array(call.outputs["image"])
    image[0, 0, 0, 0] = lost
    spoiled = Call(call.graph, call.step, call.feeds, {"image": image})
    for output in (image, image * -1.0, call.outputs["image"]):
        assert measure_drift(model, [(spoiled, {"image": output})]).problem(BOUNDS)


def test_a_huge_index_is_not_parsed(monkeypatch) -> None:
    data = recorded(feedforward_model()).to_bytes()
    monkeypatch.setattr(golden_module, "MAX_INDEX_BYTES", 100)
    with pytest.raises(IntegrityError, match="index of"):
        Golden.from_bytes(data)


def test_sizes_that_no_machine_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="elements"):
        ImageSpec(channels=64, height=16384, width=16384)
    state = tensor("cache", "state", "batch", 2**31 - 1, 2**31 - 1)
    with pytest.raises(ValueError, match="elements for one sample"):
        GraphSpec(name="g", inputs=(state,), outputs=(image_tensor("image"),))
    ImageSpec(channels=4, height=8192, width=8192)


@pytest.mark.parametrize("program", MODELS)
def test_a_batch_left_open_is_split_to_fit_memory(program, monkeypatch) -> None:
    model = MODELS[program](max_batch=65536)
    found = []
    for n, elements in ((10, batches.MAX_BATCH_ELEMENTS), (10, 3 * model.largest_tensor + 1), (2, 1)):
        monkeypatch.setattr(batches, "MAX_BATCH_ELEMENTS", elements)
        with generator(model) as live:
            found.append(live.sample(n, seed=0))
            assert len(live.sample(10, seed=0, batch_size=10).timings.batches) == 1
    whole, split, single = found
    assert [len(samples.timings.batches) for samples in (whole, split, single)] == [1, 4, 2]
    np.testing.assert_array_equal(split.array, whole.array)


@pytest.mark.parametrize(
    "spec",
    [
        ScheduleSpec(num_train_timesteps=100_000),
        ScheduleSpec(beta_start=0.9, beta_end=0.99),
        ScheduleSpec(beta_start=1e-20),
    ],
)
def test_schedules_without_signal_or_noise_are_refused(spec) -> None:
    with pytest.raises(InputError, match="noise schedule"):
        make_schedule(spec)


def test_class_names_stay_printable_and_messages_short() -> None:
    label = {"kind": "label", "num_classes": 2, "class_names": ["a", "\x1b[2Jb"]}
    with pytest.raises(GensdkError, match="printed"):
        ModelSpec.from_dict({**feedforward_model().model_dump(mode="json"), "conditions": [label]}, what="model")
    assert len(did_you_mean("zzz", [f"class {i}" for i in range(1000)])) < 500


@pytest.mark.parametrize("value_range", [(-1e308, 1e308), (0.0, 1e-40)])
def test_ranges_that_float32_cannot_scale_are_refused(value_range) -> None:
    with pytest.raises(ValueError, match="float32"):
        ImageSpec(channels=1, height=4, width=6, value_range=value_range)
