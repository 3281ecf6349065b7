"""The program of sequences over graphs in NumPy: draws, ends, likelihoods. (test_generator.py has the laws.)"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import BackendError, GensdkWarning, InputError, ManifestError
from gensdk_runtime.programs import sequence
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import SequenceSettings
from gensdk_runtime.text.vocabulary import SpecialTokens, vocabulary_bytes
from gensdk_runtime.text.words import Words
from support.chains import Chain
from support.models import MODELS, generator

FORMS: dict[str, dict[str, Any]] = {
    "text": {},
    "text without an end": {"stop": None},
    "sound": {"each": 1},
    "sound, three samples a token": {"each": 3},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def tokens_of(chain: Chain, samples: Any) -> list[list[int]]:
    each = chain.each or 1
    lengths = [length // each for length in samples.lengths]
    return [row[:length].tolist() for row, length in zip(chain.tokens_of(samples.data), lengths, strict=True)]


@forms
@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_element_after_element_equals_a_naive_loop(form: Any, batch_size: int | None, temperature: float) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        samples = model.sample(20, seed=3, batch_size=batch_size, temperature=temperature)
    assert tokens_of(chain, samples) == chain.naive(20, 3, temperature)


@forms
def test_behind_the_end_lies_rest(form: Any) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        samples = model.sample(20, seed=3, max_length=9)
    assert samples.lengths is not None
    assert chain.stop is None or len(set(samples.lengths.tolist())) > 3
    for row, length in zip(samples.data, samples.lengths.tolist(), strict=True):
        if chain.each is not None:
            assert not row[length:].any()
            assert row[:length].any() or not length
        else:  # a text keeps the token that ends it
            stays = int(chain.stop is not None and length < 9)
            assert (row[length : length + stays] == chain.stop).all()
            assert (row[length + stays :] == 1).all()


@forms
@given(most=st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_a_shorter_sample_is_the_beginning_of_the_longer_one(form: Any, most: int) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        longer, shorter = (model.sample(9, seed=1, max_length=length) for length in (None, most))
    assert tokens_of(chain, shorter) == [row[:most] for row in tokens_of(chain, longer)]


def test_samples_that_all_end_end_the_loop() -> None:
    chain = Chain(length=400, ends=0.5)
    with chain.generator() as model:
        samples = model.sample(6, seed=0)
    assert tokens_of(chain, samples) == chain.naive(6, 0)
    assert chain.calls["step"] == sequence.LOOK_EVERY
    at_once = Chain(length=100, ends=1.0)
    with at_once.generator() as model:
        samples = model.sample(6, seed=0)
    assert samples.lengths is not None
    assert samples.lengths.tolist() == [0] * 6
    assert at_once.calls["step"] == sequence.LOOK_EVERY


def test_one_that_goes_on_keeps_its_neighbours_ends() -> None:
    chain = Chain(length=100, ends=0.04)
    with chain.generator() as model:
        samples = model.sample(8, seed=5)
    expected = chain.naive(8, 5)
    assert min(map(len, expected)) < sequence.LOOK_EVERY < max(map(len, expected))
    assert tokens_of(chain, samples) == expected


def test_without_an_end_all_are_as_long_as_they_may_be() -> None:
    chain = Chain(stop=None)
    with chain.generator() as model:
        assert model.sample(5, seed=0).lengths.tolist() == [12] * 5  # type: ignore[union-attr]
        assert model.sample(5, seed=0, max_length=4).lengths.tolist() == [4] * 5  # type: ignore[union-attr]
    assert chain.calls["step"] == 12 + 4


@forms
def test_a_callback_sees_each_element_and_may_stop(form: Any) -> None:
    chain, seen = Chain(**form), list[StepEnd]()

    def listen(step: StepEnd) -> bool:
        seen.append(step)
        return step.step == 5

    with chain.generator() as model:
        whole = model.sample(6, seed=2)
        stopped = model.sample(6, seed=2, callback_on_step_end=listen)
    assert stopped.stopped
    assert [step.step for step in seen] == list(range(6))
    assert {step.num_steps for step in seen} == {12}
    assert tokens_of(chain, stopped) == [row[:6] for row in tokens_of(chain, whole)]
    for step in seen:
        drawn = chain.tokens_of(step.x0)[:, : step.step + 1].tolist()
        for made, expected in zip(drawn, tokens_of(chain, whole), strict=True):
            assert made[: len(expected)] == expected[: step.step + 1]


def test_the_dimensions_of_a_sample_are_its_tokens_and_its_end() -> None:
    chain = Chain(each=2)
    with chain.generator() as model:
        samples = model.sample(8, seed=4)
        bits = model.log_likelihood(samples.data, lengths=samples.lengths)
        with pytest.warns(GensdkWarning, match=f"{(samples.lengths < 24).sum()} of 8 sounds end in zeros"):  # type: ignore[operator]
            whole = model.log_likelihood(samples.data)
        np.testing.assert_array_equal(model.log_likelihood(samples), bits)
        np.testing.assert_array_equal(model.log_likelihood(samples[2:5]), bits[2:5])
    assert len(bits) == len(whole) == 8
    for got, tokens in zip(bits, chain.naive(8, 4), strict=True):
        dimensions = len(tokens) + (len(tokens) < chain.length)
        assert got == pytest.approx(-chain.log_p(tokens) / np.log(2) / dimensions, rel=1e-5)
    for got, row in zip(whole, chain.tokens_of(samples.data).tolist(), strict=True):
        assert got == pytest.approx(-chain.log_p(row) / np.log(2) / chain.length, rel=1e-5)


def test_texts_say_by_themselves_how_long_they_are() -> None:
    chain = Chain()
    with chain.generator() as model:
        samples = model.sample(8, seed=4)
        own = model.log_likelihood(samples.data)
        np.testing.assert_array_equal(own, model.log_likelihood(samples.data, lengths=samples.lengths))
        np.testing.assert_array_equal(own, [model.log_likelihood(each.data)[0] for each in samples])
        np.testing.assert_array_equal(own, model.log_likelihood(samples))
        assert samples.lengths is not None
        shorter = samples.lengths - (samples.lengths > 0)
        for got, count, tokens in zip(
            model.log_likelihood(samples, lengths=shorter), shorter.tolist(), chain.naive(8, 4), strict=True
        ):
            assert got == pytest.approx(-chain.log_p(tokens[:count]) / np.log(2) / (count + 1), rel=1e-5)
        place = int((samples.lengths < chain.length).argmax())
        longer = samples.lengths + (np.arange(8) == place)
        with pytest.raises(InputError, match=f"up to the end of each sample, got .* for sample {place}, whose"):
            model.log_likelihood(samples.data, lengths=longer)


def test_samples_of_another_model_are_not_judged() -> None:
    with Chain().generator() as texts, Chain(each=2).generator() as sounds, Chain(length=5).generator() as short:
        for model, samples in ((texts, sounds.sample(2)), (sounds, texts.sample(2)), (texts, short.sample(2))):
            with pytest.raises(InputError, match=f"expected {model.sample(1).output.plural} .*, got samples of"):
                model.log_likelihood(samples)


def test_zeros_at_the_end_of_what_never_ends_are_a_part_of_it() -> None:
    chain = Chain(each=1, stop=None)
    with chain.generator() as model:
        assert np.isfinite(model.log_likelihood(np.zeros((1, 12, 1), np.float32))).all()


@pytest.mark.parametrize("length", [1, 3])
def test_all_sequences_together_have_probability_one(length: int) -> None:
    """With an end, those of every length up to the largest."""
    for stop, alphabet in ((2, (0, 1)), (None, (0, 1, 2))):
        chain = Chain(length=length, levels=3, stop=stop, each=1, ends=0.3)
        counts = range(length + 1) if stop is not None else [length]
        every = [tokens for count in counts for tokens in itertools.product(alphabet, repeat=count)]
        known = np.array([len(tokens) for tokens in every])
        codes = np.array([[*tokens, *[0] * (length - len(tokens))] for tokens in every])
        sounds = (codes[:, :, None] / 3 - 0.5).astype(np.float32)
        with chain.generator() as model:
            bits = model.log_likelihood(sounds, lengths=known)
        ends = (known < length) if stop is not None else 0
        assert np.exp2(-bits * (known + ends)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("form", "lengths"),
    [
        ({"each": 1}, [1.5, 2.0]),
        ({"each": 1}, [np.nan, 2.0]),
        ({"each": 1}, [-1, 2]),
        ({"each": 1}, [13, 2]),
        ({"each": 1}, [1, 2, 3]),
        ({"each": 1}, 2),
        ({"each": 1}, [[1], [2]]),
        ({"each": 1}, [True, False]),
        ({"each": 1}, np.array([1, 2], np.float32)),
        ({"each": 1}, np.array([2**63 + 1, 1], np.uint64)),
        ({"each": 3}, [3, 4]),
        ({"each": 3}, [3, 39]),
        ({"each": 1, "stop": None}, [0, 3]),
    ],
)
def test_lengths_that_are_none(form: Any, lengths: Any) -> None:
    chain = Chain(**form)
    with (
        chain.generator() as model,
        pytest.raises(InputError, match="expected lengths as 2 whole numbers") as failure,
    ):
        model.log_likelihood(np.zeros((2, *chain.output.shape), np.float32), lengths=lengths)
    assert "\n" not in str(failure.value)
    assert not chain.calls


def test_a_graph_of_large_tensors_judges_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(each=1)
    monkeypatch.setattr("gensdk_runtime.plan.batches.MAX_BATCH_ELEMENTS", 2 * chain.length * chain.levels * 2)
    with chain.generator() as model:
        model.log_likelihood(np.zeros((6, *chain.output.shape), np.float32), lengths=[12] * 6)
    assert chain.calls["likelihood"] >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": 3}, "draws without top_k; leave it out"),
        ({"top_p": 2.0}, "top_p"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 0.5}, "draws without top_p; leave it out"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 13}, "expected max_length up to 12, as model 'chain' was exported, got 13"),
        ({"max_length": 2.5}, "max_length"),
        ({"num_inference_steps": 3}, "num_inference_steps"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    chain = Chain()
    with chain.generator() as model, pytest.raises(InputError, match=message) as failure:
        model.sample(2, seed=0, **options)
    assert "\n" not in str(failure.value)
    assert not chain.calls


def test_more_tokens_than_there_are_can_not_be_drawn_among() -> None:
    with generator(MODELS["sequence"]()) as model:
        assert len(model.sample(2, seed=0, top_k=17)) == 2
        with pytest.raises(InputError, match="expected top_k up to 17, the tokens there are, got 18"):
            model.sample(2, seed=0, top_k=18)


def test_the_bundle_may_say_what_holds_by_default() -> None:
    chain = Chain()
    hot = chain.model(defaults=SequenceSettings(temperature=2.0, max_length=5))
    with generator(hot, {"step": chain._step, "likelihood": chain._likelihood}) as model:
        samples = model.sample(6, seed=1)
        assert samples.settings["temperature"] == 2.0
        assert tokens_of(chain, samples) == [row[:5] for row in chain.naive(6, 1, 2.0)]


def test_a_token_that_nothing_could_be_drawn_from_is_an_error() -> None:
    chain = Chain(each=1)

    def broken(feeds: Any) -> dict[str, Any]:
        made = {name: array.copy() for name, array in chain._step({**feeds, "token": abs(feeds["token"])}).items()}
        if feeds["position"][0] >= 4:
            made["next_token"][1:3] = -1
        return made

    functions = {"step": broken, "likelihood": chain._likelihood, "decode": chain._decode}
    with generator(chain.model(), functions) as model:
        assert len(model.sample(4, seed=0, max_length=4)) == 4
        with pytest.raises(BackendError, match=r"2 of 4 samples came out NaN or infinite \(fake, fp32\)"):
            model.sample(4, seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": 5},
        {"rest": 5},
        {"begin": 6},
        {"begin": -1},
        {"length": 0},
        {"length": 2**24 + 1},
        {"levels": 1},
        {"levels": 2**20 + 1},
        {"channels": 0},
        {"axis": 8},
        {"unknown": 1},
    ],
)
def test_manifests_that_no_model_can_have(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as failure:
        SequenceSpec.from_dict({**Chain().spec.model_dump(), **changes}, what="program", error=ManifestError)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [
        ({"each": 1}, {"axis": 2}, "multiple of 12 elements along axis 2"),
        ({"each": 1}, {"axis": 7}, "multiple of 12 elements along axis 7"),
        ({"each": 1}, {"length": 5}, "multiple of 5 elements along axis 0"),
        ({"each": 1}, {"length": 24}, "multiple of 24 elements along axis 0"),
        ({"each": 1}, {"channels": 2}, "expected input 'token'"),
        ({"each": 1}, {"decode_graph": None}, "without a decode graph expected samples of 12 tokens"),
        ({"each": 1}, {"decode_graph": "likelihood"}, "has no input 'tokens'"),
        ({}, {"length": 6}, "without a decode graph expected samples of 6 tokens"),
        ({}, {"length": 2**24}, "along axis 0"),
    ],
)
def test_manifests_that_do_not_fit_the_graphs(form: Any, changes: dict[str, Any], message: str) -> None:
    chain = Chain(**form)
    with pytest.raises(ManifestError, match=message) as failure:
        generator(chain.model(**changes))
    assert "\n" not in str(failure.value)


def test_a_decode_graph_of_another_shape_is_refused() -> None:
    chain = Chain(each=2)
    model = chain.model()
    *others, decode = model.graphs
    for shape, wanted in (
        (("batch", "samples", 2), "expected output 'audio'"),
        (("batch", "samples"), "expected"),
    ):
        made = decode.outputs[0].model_copy(update={"shape": shape})
        wrong = model.model_copy(update={"graphs": (*others, decode.model_copy(update={"outputs": (made,)}))})
        with pytest.raises(ManifestError, match=wanted):
            generator(wrong)
    functions = {"step": chain._step, "decode": lambda feeds: {"audio": np.zeros((2, 12, 1), np.float32)}}
    with (
        generator(model, functions) as fewer,
        pytest.raises(BackendError, match=r"makes .* of 12 elements, expected"),
    ):
        fewer.sample(2, seed=0)


def test_more_than_memory_holds_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(length=2**19, each=1, stop=None)
    monkeypatch.setattr("gensdk_runtime.host.memory.available_memory", lambda: 2**28)
    with (
        chain.generator(max_batch=64) as model,
        pytest.raises(InputError, match=r"64 samples take about .* are free"),
    ):
        model.sample(64, seed=0)
    assert not chain.calls
    wide = MODELS["sequence"]().program.model_copy(update={"length": 2**24, "channels": 64})
    assert wide.working * 4 > 2**33


def test_what_a_sequence_is_drawn_with_limits_the_batch() -> None:
    chain = Chain(length=2**19, each=1, stop=None)
    model = chain.model(max_batch=2**14)
    assert model.largest_tensor >= 7 * 2**19


def test_a_sound_whose_tokens_are_no_single_numbers_has_no_beginning() -> None:
    chain = Chain(each=3)
    with (
        chain.generator() as model,
        pytest.raises(InputError, match=r"neither single numbers nor .*; leave prefix out"),
    ):
        model.sample(2, prefix=np.zeros((2, 3, 1), np.float32))


@pytest.mark.parametrize("each", [None, 1])
@pytest.mark.parametrize("count", [1, 5, 11])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_prefix_and_continuation_equal_the_whole(each: int | None, count: int, batch_size: int | None) -> None:
    chain = Chain(each=each, stop=None)
    with chain.generator() as model:
        whole = model.sample(6, seed=3)
        given = whole.data[:, :count]
        again = model.sample(6, seed=3, prefix=given, batch_size=batch_size)
        np.testing.assert_array_equal(again.data, whole.data)
        other = model.sample(6, seed=4, prefix=given)
        np.testing.assert_array_equal(other.data[:, :count], given)
        one = model.sample(3, seed=3, prefix=given[:1])
        np.testing.assert_array_equal(one.data[:, :count], given[[0, 0, 0]])
        assert len(model.sample(seed=4, prefix=given)) == 6


def test_steps_are_those_that_are_drawn() -> None:
    chain, seen = Chain(stop=None), list[StepEnd]()
    given = np.array([[0, 1, 2]] * 2)
    with chain.generator() as model:
        model.sample(2, seed=0, prefix=given, callback_on_step_end=lambda step: bool(seen.append(step)))
    assert [(step.step, step.num_steps) for step in seen] == [(at, 9) for at in range(9)]
    assert all((step.x0[:, :3] == given).all() for step in seen)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (np.full((2, 12), 0), {}, "text 0 has 12 tokens, which leaves a model of 12 nothing to add; shorten it"),
        ([[1], [0] * 12], {}, "text 1 has 12 tokens, which leaves a model of 12 nothing to add"),
        (np.full((2, 13), 0), {}, r"expected a text as str, .* got int64 \[2, 13\]"),
        ([[1], [0] * 13], {}, r"expected text 1 as str, or its tokens int64 \[up to 11\], got int64 \[13\]"),
        (np.full((3, 2), 0), {}, "one prefix, or one for each of the 2 samples, got 3"),
        (np.full((2, 2), 5), {}, "expected tokens from 0 to 4"),
        (np.full((2, 2), -1), {}, "expected tokens from 0 to 4"),
        (np.full((2, 2), 4), {}, "holds token 4, which ends a sample"),
        (np.full((2, 2), 0.5), {}, r"expected a text as str, .* got float64 \[2, 2\]"),
        (np.full((2, 5), 0), {"max_length": 5}, "expected max_length above the 5 elements of the prefix, got 5"),
    ],
)
def test_beginnings_that_are_none(given: Any, options: dict[str, Any], message: str) -> None:
    with Chain().generator() as model, pytest.raises(InputError, match=message) as failure:
        model.sample(2, seed=0, prefix=given, **options)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "given", [np.zeros(12), np.full(3, np.nan), np.full(3, 2.0), np.zeros((2, 3, 2)), np.zeros(3, int)]
)
def test_beginnings_of_sounds_that_are_none(given: Any) -> None:
    with Chain(each=1).generator() as model, pytest.raises(InputError) as failure:
        model.sample(2, seed=0, prefix=given)
    assert "\n" not in str(failure.value)


def test_texts_of_different_lengths_begin_their_samples() -> None:
    words = Words(tokens=("a", "b", "c", "d", "<end>"), special=SpecialTokens(end=4), joining="spaces")
    with Chain(ends=0.05).generator(files={"vocabulary.json": vocabulary_bytes(words)}) as model:
        begun = ["a b c d", "d", "", "b b"]
        texts = model.sample(4, seed=2, prefix=begun).texts
        assert all(text.startswith(start) for text, start in zip(texts, begun, strict=True))
        free = model.sample(4, seed=2)
        assert texts[2] == free.texts[2], "a text that nothing is given of is drawn as ever"
        starts = [" ".join(text.split()[:2]) for text in free.texts]
        assert model.sample(4, seed=2, prefix=starts).texts == free.texts
        assert len(model.sample(seed=1, prefix="a b")) == 1
