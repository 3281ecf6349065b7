"""Sequences that are made from a prompt: the context graph runs once, and no sample depends on its neighbours."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.bench.latency_report import BenchSettings
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.runner import runner_of
from gensdk_runtime.programs.contexts import _distinct, _pieces
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.proof.golden import Golden, Recorder, Trajectory, TrajectorySettings
from gensdk_runtime.proof.verify import check_golden
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.tuning.stopwatch import time_batches
from support.models import MODELS, feedforward_model, generator, tensor
from support.prompted import LABELS, LENGTH, PROMPTS, Prompted
from support.texts import WORDS, files_of

ASKED: dict[str, Any] = {"prompt": PROMPTS, "label": LABELS}


def tokens_of(samples: Samples) -> list[list[int]]:
    assert samples.lengths is not None
    return [row[:length].tolist() for row, length in zip(samples.data, samples.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
def test_texts_from_texts_equal_a_naive_loop(batch_size: int | None) -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        samples = model.sample(5, seed=3, batch_size=batch_size, **ASKED)
    expected = prompted.naive(3)
    assert tokens_of(samples) == expected
    assert len({tuple(tokens) for tokens in expected}) > 3
    assert samples.texts == [WORDS.decode(tokens) for tokens in expected]


def test_the_context_runs_once_for_what_is_asked_for_once() -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        model.sample(5, seed=3, **ASKED)
        assert prompted.rows == [4]
        assert prompted.calls["step"] > 1
        model.sample(5, seed=3, prompt="a cat", label=1)
        assert prompted.rows == [4, 1]
        model.sample(5, seed=3, prompt="a cat", label=LABELS)
        assert prompted.rows == [4, 1, 3]
        model.sample(5, seed=3, batch_size=2, **ASKED)
        assert prompted.rows == [4, 1, 3, 2, 2, 1]


def test_neighbours_and_their_order_do_not_matter() -> None:
    prompted = Prompted()
    order = [3, 1, 4, 0, 2]
    with prompted.generator() as model:
        whole = model.sample(5, seed=3, **ASKED)
        mixed = model.sample(
            5,
            seed=[whole.seeds[at] for at in order],
            prompt=[PROMPTS[at] for at in order],
            label=[LABELS[at] for at in order],
        )
        np.testing.assert_array_equal(mixed.data, whole.data[order])
        for at in range(5):
            alone = model.sample(seed=[whole.seeds[at]], prompt=PROMPTS[at], label=LABELS[at])
            np.testing.assert_array_equal(alone.data[0], whole.data[at])
        twice = model.sample(4, seed=[7, 7, 8, 8], prompt=["a", "a", "a", "cat"], label=[1, 1, 1, 1]).data
    np.testing.assert_array_equal(twice[0], twice[1])
    assert (twice[2] != twice[3]).any()


def test_a_prompt_decides_what_is_made() -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        one, other = (model.sample(20, seed=0, prompt=text, label=1).data for text in ("a cat", "sat . ("))
    assert (one != other).any(axis=1).mean() > 0.5


def test_as_many_samples_as_prompts() -> None:
    with Prompted().generator() as model:
        assert len(model.sample(seed=0, prompt=PROMPTS)) == 5
        assert len(model.sample(seed=0, prompt="a")) == 1
        assert len(model.sample(3, seed=0, prompt="a")) == 3
        drawn = model.sample(9, seed=0, prompt="a").labels
        assert drawn is not None
        assert len(set(drawn.tolist())) == 3


def test_results_tell_their_prompts_and_draw_again(tmp_path: Path) -> None:
    with Prompted().generator() as model:
        samples = model.sample(5, seed=3, **ASKED)
        assert samples.prompts == ["a cat sat.", "a", "don't (", "a", "cat cat cat"]
        assert samples[1:3].prompts == ["a", "don't ("]
        assert [each.prompts for each in samples] == [[text] for text in PROMPTS]
        assert samples.conditions["prompt"].shape == (5, 5)
        settings = json.loads(json.dumps(dict(samples.settings)))
        np.testing.assert_array_equal(model.sample(settings=settings).data, samples.data)
        np.testing.assert_array_equal(model.sample(settings=samples[2:4].settings).data, samples.data[2:4])
        changed = model.sample(settings=settings, prompt="a")
        assert changed.prompts == ["a"] * 5
        with pytest.warns(GensdkWarning, match="1 of 2 tokens are unknown"):
            strange = model.sample(2, seed=0, prompt="a dog")
        assert strange.prompts == [[4, 3]] * 2
        np.testing.assert_array_equal(model.sample(settings=strange.settings).data, strange.data)
    rows = [json.loads(line) for line in samples.save(tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == samples.prompts
    with np.load(samples.save(tmp_path / "x.npz")) as file:
        np.testing.assert_array_equal(file["prompts"], samples.conditions["prompt"])
    with generator(feedforward_model()) as images:
        assert images.sample(1, seed=0).prompts is None


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_prefix_and_continuation_equal_the_whole(count: int, batch_size: int | None) -> None:
    prompted = Prompted(ends=0.0)
    with prompted.generator() as model:
        whole = model.sample(5, seed=3, **ASKED)
        prompted.rows.clear()
        again = model.sample(5, seed=3, prefix=whole.data[:, :count], batch_size=batch_size, **ASKED)
        np.testing.assert_array_equal(again.data, whole.data)
        assert sum(prompted.rows) <= 5
        other = model.sample(5, seed=4, prefix=whole.data[:, :count], **ASKED)
    np.testing.assert_array_equal(other.data[:, :count], whole.data[:, :count])


def test_a_callback_sees_each_element_and_may_stop() -> None:
    prompted, seen = Prompted(ends=0.0), list[StepEnd]()

    def listen(step: StepEnd) -> bool:
        seen.append(step)
        return step.step == 3

    with prompted.generator() as model:
        whole = model.sample(5, seed=2, **ASKED)
        prompted.rows.clear()
        stopped = model.sample(5, seed=2, callback_on_step_end=listen, **ASKED)
    assert [step.step for step in seen] == [0, 1, 2, 3]
    assert stopped.stopped
    assert prompted.rows == [4]
    np.testing.assert_array_equal(stopped.data[:, :4], whole.data[:, :4])


def test_the_likelihood_is_that_of_the_steps() -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        samples = model.sample(5, seed=3, **ASKED)
        bits = model.log_likelihood(samples.data, LABELS, prompt=PROMPTS, lengths=samples.lengths)
        one = model.log_likelihood(samples.data[:2], [0, 1], prompt="a cat", batch_size=1)
        for given, missing in (({"label": LABELS}, "prompt"), ({"prompt": PROMPTS}, "label")):
            with pytest.raises(InputError, match=f"pass {missing}, one for each of the 5 texts"):
                model.log_likelihood(samples.data, **given)
        np.testing.assert_array_equal(model.log_likelihood(samples), bits)
        others = model.log_likelihood(samples, [2 - label for label in LABELS])
        np.testing.assert_array_equal(
            others, model.log_likelihood(samples.data, [2 - label for label in LABELS], prompt=PROMPTS)
        )
    for at, tokens in enumerate(tokens_of(samples)):
        nats = prompted.log_p(tokens, WORDS.encode(PROMPTS[at]).tokens, LABELS[at])
        assert bits[at] == pytest.approx(-nats / np.log(2) / (len(tokens) + (len(tokens) < LENGTH)), rel=1e-5)
    assert one.shape == (2,)


@pytest.mark.parametrize("kind", ["prompt", "label"])
def test_the_argument_of_a_condition_that_was_meant_is_named(kind: str) -> None:
    with Prompted().generator() as model:
        for call in (model.sample, model.prepare):
            with pytest.raises(InputError, match=f"no option '{kind}s'; did you mean '{kind}'"):
                call(2, **{f"{kind}s": ["a", "a"]})  # type: ignore[operator]
        with pytest.raises(InputError, match="no option 'images'; did you mean 'image'"):
            model.sample(2, prompt="a", settings={"images": [3, 3]})
        with pytest.raises(InputError, match="temperatur'; did you mean 'temperature'"):
            model.sample(2, temperatur=0.5)  # type: ignore[call-arg]
        recorded = {"prompts": ["a"], "labels": [1], "n": 1, "seeds": [[0, 0]]}
        assert model.sample(settings=recorded).settings.items() >= recorded.items()


def test_a_prepared_call_takes_another_prompt_each_time() -> None:
    prompted = Prompted()
    with prompted.generator() as model, ThreadPoolExecutor(4) as pool:
        prepared = model.prepare(5, label=LABELS)
        expected = model.sample(5, seed=3, **ASKED)
        found = prepared.draw(3, prompt=PROMPTS)
        np.testing.assert_array_equal(found.data, expected.data)
        assert found.settings == expected.settings
        np.testing.assert_array_equal(
            prepared.draw(3, prompt="cat").data, model.sample(5, seed=3, prompt="cat", label=LABELS).data
        )
        alone = [prepared.draw(seed, prompt=PROMPTS).data for seed in range(16)]
        together = list(pool.map(lambda seed: prepared.draw(seed, prompt=PROMPTS).data, range(16)))
        np.testing.assert_array_equal(alone, together)
        with pytest.raises(InputError, match="is made from a text: pass prompt"):
            prepared.draw(3)
        with pytest.raises(InputError, match="one prompt for each of the 5 samples, got 2"):
            prepared.draw(3, prompt=["a", "a"])
        with pytest.raises(InputError, match=r"prepare\(\) takes no prompt; pass it to draw\(\)"):
            model.prepare(5, prompt="a")  # type: ignore[call-arg]


def test_nothing_runs_for_a_prompt_that_is_none() -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        for given in (None, "", ["a"], b"a", "a" * 10**7):
            with pytest.raises(InputError) as failure:
                model.sample(2, seed=0, prompt=given)  # type: ignore[arg-type]
            assert str(failure.value).isprintable()
    assert not prompted.calls
    with (
        generator(MODELS["sequence"]()) as images,
        pytest.raises(InputError, match=r"leave prompt out|takes no prompt"),
    ):
        images.sample(2, prompt="a")


def test_padded_batches_pad_the_context_too(monkeypatch: pytest.MonkeyPatch) -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        expected = model.sample(5, seed=3, **ASKED).data
    monkeypatch.setattr(FakeSession, "padded_batch", lambda self, count: 1 << (count - 1).bit_length())
    prompted.rows.clear()
    with prompted.generator() as model:
        np.testing.assert_array_equal(model.sample(5, seed=3, **ASKED).data, expected)
        assert prompted.rows == [4]
        one = model.sample(3, seed=3, prompt="a", label=0).data
        three = model.sample(3, seed=3, prompt=["a", "cat", "sat"], label=0).data
    assert prompted.rows == [4, 1, 4]
    np.testing.assert_array_equal(one[0], three[0])


def test_what_does_not_fit_into_memory_is_run_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    prompted = Prompted()
    with prompted.generator() as model:
        expected = model.sample(5, seed=3, **ASKED).data
    step = prompted._step

    def short(feeds: Any) -> Any:
        if len(feeds["token"]) > 3:
            raise MemoryError
        return step(feeds)

    monkeypatch.setattr(prompted, "_step", short)
    with prompted.generator() as model, pytest.warns(GensdkWarning, match="was run in halves"):
        np.testing.assert_array_equal(model.sample(5, seed=3, **ASKED).data, expected)


def test_golden_trajectories_tuning_and_latencies() -> None:
    prompted, recorder = Prompted(), Recorder()
    model = prompted.model()
    with prompted.generator() as texts:
        asked = {"prompt": np.array([[4, 5, 0, 0, 0], [6, 0, 0, 0, 0]]), "label": np.array([0, 2])}
        recorded = Generator.from_sessions(model, recorder.wrap(prompted.sessions(model)))
        settings = TrajectorySettings(seeds=(0, 1))
        begun = Trajectory(settings, np.empty(0), (), asked)
        drawn = recorded.sample(**begun.sample_arguments())
        recorded.log_likelihood(drawn.data, asked["label"], prompt=asked["prompt"])
        golden = Golden((Trajectory(settings, drawn.array, recorder.take(), asked),))
        read = Golden.from_bytes(golden.to_bytes())
        check_golden(model, read)
        (run,) = read.trajectories
        np.testing.assert_array_equal(texts.sample(**run.sample_arguments()).array, run.samples)
        assert [call.graph for call in run.calls].count("source") == 1
        assert drawn.prompts == [[4, 5], [6]]
    runner = runner_of(model, prompted.sessions(model))
    with ThreadPoolExecutor(1) as pool:
        assert time_batches(model, runner, pool, batch=3, workers=1, seconds=0.01).seconds > 0
    (case,) = measure(
        [Target("texts", prompted.generator, batch=2)], BenchSettings(warmup_ms=0, duration_s=0, iterations=2)
    )
    assert case.subject.image == (LENGTH,)


@pytest.mark.parametrize(
    ("rows", "first", "numbers"),
    [
        ([[1], [2], [1], [3]], [0, 1, 3], [0, 1, 0, 2]),
        ([[5]] * 4, [0], [0] * 4),
        ([[3], [2], [1]], [0, 1, 2], [0, 1, 2]),
    ],
)
def test_rows_that_are_one(rows: list[list[int]], first: list[int], numbers: list[int]) -> None:
    values = np.array(rows)
    assert _distinct([values]) == (first, numbers)
    assert _distinct([np.broadcast_to(values, (2, *values.shape))[0], np.zeros(len(rows))]) == (first, numbers)
    there = np.arange(10) * 10
    here = np.full(len(numbers), -1)
    for start, end, source in _pieces(numbers):
        here[start:end] = there[source : source + end - start]
    assert here.tolist() == [number * 10 for number in numbers]


def with_graph(model: ModelSpec, graph: GraphSpec) -> ModelSpec:
    graphs = tuple(graph if each.name == graph.name else each for each in model.graphs)
    return model.model_copy(update={"graphs": graphs})


def made(name: str, *shape: int | str, role: Any = "context") -> Any:
    return tensor(name, role, *shape)


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        ([made("weights", "batch", 3, role="state")], r"a context \[batch, \.\.\.\] of one size, got a state"),
        ([made("weights", 3, "batch")], r"got a context \[3, 'batch'\]"),
        ([made("weights")], r"got a context \[\]"),
        ([made("weights", "batch", "tokens")], r"got a context \['batch', 'tokens'\]"),
        ([made("token", "batch", 1)], "makes a context 'token', which graph 'step' has for something else"),
        ([made("uniform", "batch", 1)], "makes a context 'uniform'"),
        ([made("top_k", "batch")], "makes a context 'top_k'"),
        ([made("label", "batch")], "makes a context 'label'"),
        ([made("prompt", "batch")], "makes a context 'prompt'"),
        ([made("written", "batch", 1)], "makes a context 'written'"),
    ],
)
def test_contexts_that_are_none(contexts: list[Any], message: str) -> None:
    model = Prompted().model()
    source = model.graph("source").model_copy(update={"outputs": tuple(contexts)})
    with pytest.raises(ManifestError, match=message) as failure:
        generator(with_graph(model, source))
    assert str(failure.value).isprintable()


def test_graphs_that_do_not_fit_together() -> None:
    model = Prompted().model()
    source, step, likelihood = (model.graph(name) for name in ("source", "step", "likelihood"))
    noisy = source.model_copy(update={"inputs": (*source.inputs, tensor("z", "noise", "batch", 3))})
    fewer = step.model_copy(update={"inputs": tuple(each for each in step.inputs if each.name != "count")})
    other = step.model_copy(
        update={"inputs": (*fewer.inputs, tensor("count", "context", "batch", 1, dtype="int64"))}
    )
    more = step.model_copy(update={"inputs": (*step.inputs, tensor("extra", "context", "batch", 1))})
    looking = likelihood.model_copy(update={"inputs": (*likelihood.inputs, *source.outputs)})
    wide = source.model_copy(
        update={"inputs": (tensor("prompt", "condition", "batch", 9, dtype="int64"), *source.inputs[1:])}
    )
    for graph, message in (
        (noisy, "'source' has an input 'z' of role 'noise', which this gensdk does not feed"),
        (fewer, "'step' has no input 'count'"),
        (other, r"expected input 'count' as int64 \['batch'\]"),
        (more, "'step' has an input 'extra' of role 'context'"),
        (looking, "'likelihood' has an input 'weights' of role 'context'"),
        (wide, r"expected input 'prompt' as int64 \['batch', 5\]"),
    ):
        with pytest.raises(ManifestError, match=message) as failure:
            generator(with_graph(model, graph))
        assert str(failure.value).isprintable()
    data = model.model_dump(mode="json")
    data["program"]["context_graph"] = "nowhere"
    with pytest.raises(ManifestError, match="the program needs a graph 'nowhere', which is missing"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)


def test_a_model_without_contexts_says_nothing_of_them() -> None:
    spec = MODELS["sequence"]().program
    assert isinstance(spec, SequenceSpec)
    assert spec.context_graph is None
    assert spec.graphs == ("step", "likelihood", "decode")
    old = {name: value for name, value in spec.model_dump().items() if name != "context_graph"}
    assert SequenceSpec.from_dict(old, what="program") == spec
    assert Prompted().model().program.graphs == ("step", "likelihood", "source")


def test_files_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"expected 'vocabulary\.json'"):
        Prompted().generator(files={"other.json": files_of(WORDS)["vocabulary.json"]})
