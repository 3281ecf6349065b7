"""Models of one run that are made from a sound: the context graph runs once for each that differs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.bench.latency_report import BenchSettings
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.runner import runner_of
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.proof.golden import Golden, Recorder, Trajectory, TrajectorySettings
from gensdk_runtime.proof.verify import check_golden
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.tuning.stopwatch import time_batches
from support.heard import PIXELS, SAMPLES, Heard
from support.models import IMAGE, feedforward_model, generator, tensor

ONE, OTHER = (np.full(SAMPLES, level, np.float32) for level in (0.5, -0.5))
SOUNDS = [ONE, OTHER, ONE, ONE[:7], OTHER]


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_images_are_of_their_sounds(batch_size: int | None) -> None:
    with Heard().generator() as model:
        made = model.sample(5, seed=3, audio=SOUNDS, batch_size=batch_size).array
        without = model.sample(5, seed=3, audio=ONE, batch_size=batch_size).array
    for image, same, sound in zip(made, without, SOUNDS, strict=True):
        padded = np.zeros(SAMPLES, np.float32)
        padded[: len(sound)] = sound
        expected = np.resize(padded, PIXELS).reshape(IMAGE.shape) / 2
        np.testing.assert_allclose(image - expected, same - 0.25, atol=1e-6)


def test_the_context_runs_once_for_each_sound() -> None:
    heard = Heard()
    with heard.generator() as model:
        model.sample(5, seed=3, audio=SOUNDS)
        model.sample(8, seed=3, audio=ONE)
        model.sample(5, seed=3, audio=SOUNDS, batch_size=2)
    assert heard.rows == [3, 1, 2, 2, 1]


def test_neighbours_do_not_matter() -> None:
    with Heard().generator() as model:
        whole = model.sample(5, seed=3, audio=SOUNDS)
        for at in range(5):
            alone = model.sample(seed=[whole.seeds[at]], audio=SOUNDS[at])
            np.testing.assert_array_equal(alone.data[0], whole.data[at])
        assert len(model.sample(seed=0, audio=SOUNDS)) == 5
        assert len(model.sample(seed=0, audio=ONE)) == 1


def test_padded_batches_pad_the_context_too(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    with heard.generator() as model:
        expected = model.sample(5, seed=3, audio=SOUNDS).data
    monkeypatch.setattr(FakeSession, "padded_batch", lambda self, count: 1 << (count - 1).bit_length())
    with heard.generator() as model:
        np.testing.assert_array_equal(model.sample(5, seed=3, audio=SOUNDS).data, expected)
    assert heard.rows == [3, 4]


def test_a_callback_prepared_calls_and_walks_take_sounds() -> None:
    seen: list[StepEnd] = []
    with Heard().generator() as model:
        expected = model.sample(5, seed=3, audio=SOUNDS)
        listened = model.sample(5, seed=3, audio=SOUNDS, callback_on_step_end=seen.append)
        np.testing.assert_array_equal(listened.data, expected.data)
        assert len(seen) == 1
        prepared = model.prepare(5)
        np.testing.assert_array_equal(prepared.draw(3, audio=SOUNDS).data, expected.data)
        with pytest.raises(InputError, match="pass audio"):
            prepared.draw(3)
        with pytest.raises(InputError, match=r"prepare\(\) takes no audio; pass it to draw\(\)"):
            model.prepare(5, audio=ONE)  # type: ignore[call-arg]
        walk = model.interpolate(0, 1, 3, audio=ONE)
        np.testing.assert_array_equal(walk.data[0], model.sample(seed=[0], audio=ONE).data[0])


def test_golden_trajectories_tuning_and_latencies() -> None:
    heard, recorder = Heard(), Recorder()
    model = heard.model()
    asked = {"audio": np.stack([ONE, OTHER])}
    settings = TrajectorySettings(seeds=(0, 1))
    begun = Trajectory(settings, np.empty(0), (), asked)
    with Generator.from_sessions(model, recorder.wrap(heard.sessions(model))) as recorded:
        drawn = recorded.sample(**begun.sample_arguments())
    golden = Golden((Trajectory(settings, drawn.array, recorder.take(), asked),))
    check_golden(model, Golden.from_bytes(golden.to_bytes()))
    (run,) = Golden.from_bytes(golden.to_bytes()).trajectories
    assert [call.graph for call in run.calls] == ["listener", "generator"]
    with heard.generator() as again:
        np.testing.assert_array_equal(again.sample(**run.sample_arguments()).array, run.samples)
    runner = runner_of(model, heard.sessions(model))
    with ThreadPoolExecutor(1) as pool:
        assert time_batches(model, runner, pool, batch=3, workers=1, seconds=0.01).seconds > 0
    (case,) = measure(
        [Target("images", heard.generator, batch=2)], BenchSettings(warmup_ms=0, duration_s=0, iterations=2)
    )
    assert case.subject.image == IMAGE.shape


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (tensor("loudness", "state", "batch", PIXELS), r"as a context \[batch, \.\.\.\] of one size, got a state"),
        (tensor("loudness", "context", "batch", "time"), "of one size"),
        (
            tensor("z", "context", "batch", 5),
            "makes a context 'z', which graph 'generator' has for something else",
        ),
        (tensor("audio", "context", "batch", SAMPLES), "makes a context 'audio'"),
        (tensor("other", "context", "batch", PIXELS), "has no input 'other'"),
        (tensor("loudness", "context", "batch", 3), r"expected input 'loudness' as float32 \['batch', 3\]"),
    ],
)
def test_graphs_that_do_not_fit_together(context: Any, message: str) -> None:
    model = Heard().model()
    paint, listen = model.graphs
    changed = model.model_copy(update={"graphs": (paint, listen.model_copy(update={"outputs": (context,)}))})
    with pytest.raises(ManifestError, match=message) as failure:
        generator(changed)
    assert str(failure.value).isprintable()


def test_a_model_without_contexts_says_nothing_of_them() -> None:
    spec = feedforward_model().program
    assert isinstance(spec, FeedforwardSpec)
    assert spec.context_graph is None
    assert "context_graph" not in spec.model_dump()
    assert "context_graph" not in feedforward_model().to_json()
    program = Heard().model().program
    assert program.graphs == ("generator", "listener")
    assert FeedforwardSpec.from_dict(program.model_dump(), what="program") == program
    data = Heard().model().model_dump(mode="json")
    assert data["program"]["context_graph"] == "listener"
    data["program"]["context_graph"] = "nowhere"
    with pytest.raises(ManifestError, match="needs a graph 'nowhere', which is missing"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)
