"""Where samples end is told of each, however they were drawn, cut and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.samples import Samples
from gensdk_runtime.text.vocabulary import SpecialTokens, vocabulary_bytes
from gensdk_runtime.text.words import Words
from support.chains import Chain
from support.models import MODELS, generator

N = 13
FORMS = {"text": {}, "sound": {"each": 2}}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def lengths_of(samples: Samples) -> list[int]:
    assert samples.lengths is not None
    assert samples.lengths.dtype == np.int64
    assert len(samples.lengths) == len(samples)
    return samples.lengths.tolist()


def expected(chain: Chain, seed: int = 7) -> list[int]:
    found = [len(tokens) * (chain.each or 1) for tokens in chain.naive(N, seed)]
    assert len(set(found)) > 3
    return found


@forms
def test_each_part_of_samples_has_its_own(form: dict[str, Any]) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        samples = model.sample(N, seed=7)
    known = expected(chain)
    assert lengths_of(samples) == known
    assert lengths_of(samples[2:9]) == known[2:9]
    assert lengths_of(samples[::-2]) == known[::-2]
    assert lengths_of(samples[-1]) == known[-1:]
    assert [lengths_of(each)[0] for each in samples] == known
    assert lengths_of(samples[4:4]) == []


@forms
@pytest.mark.parametrize("batch_size", [None, 1, 2, 5, 8])
def test_neighbours_and_batches_do_not_matter(form: dict[str, Any], batch_size: int | None) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        assert lengths_of(model.sample(N, seed=7, batch_size=batch_size)) == expected(chain)
        whole = model.sample(N, seed=7)
        order = np.random.default_rng(0).permutation(N)
        mixed = model.sample(N, seed=[whole.seeds[at] for at in order], batch_size=batch_size)
    assert lengths_of(mixed) == [expected(chain)[at] for at in order]
    np.testing.assert_array_equal(mixed.data, whole.data[order])


def test_padded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, sizes = Chain(each=1), set[int]()
    step = chain._step

    def noted(feeds: Feeds) -> dict[str, Any]:
        sizes.add(len(feeds["token"]))
        return step(feeds)

    monkeypatch.setattr(chain, "_step", noted)
    monkeypatch.setattr(FakeSession, "padded_batch", lambda self, count: 1 << (count - 1).bit_length())
    with chain.generator() as model:
        assert lengths_of(model.sample(N, seed=7)) == expected(chain)
    assert sizes == {8}


def test_halves_of_a_batch_that_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(each=1)
    step = chain._step

    def small(feeds: Feeds) -> dict[str, Any]:
        if len(feeds["token"]) > 3:
            raise MemoryError
        return step(feeds)

    monkeypatch.setattr(chain, "_step", small)
    with chain.generator() as model, pytest.warns(GensdkWarning, match="did not fit into memory"):
        assert lengths_of(model.sample(N, seed=7)) == expected(chain)


@forms
def test_a_stopped_run_has_those_of_what_had_begun(form: dict[str, Any]) -> None:
    chain = Chain(**form)
    each = chain.each or 1
    with chain.generator() as model:
        samples = model.sample(
            N, seed=7, batch_size=5, callback_on_step_end=lambda step: (step.first, step.step) == (5, 2)
        )
    assert samples.stopped
    assert lengths_of(samples) == [
        *expected(chain)[:5],
        *(min(length, 3 * each) for length in expected(chain)[5:10]),
    ]


@forms
def test_they_are_kept_in_files(form: dict[str, Any], tmp_path: Path) -> None:
    chain = Chain(**form)
    words = Words(tokens=("a", "b", "c", "d", "<end>"), special=SpecialTokens(end=4), joining="spaces")
    files = {"vocabulary.json": vocabulary_bytes(words)} if chain.each is None else None
    with chain.generator(files=files) as model:
        samples = model.sample(N, seed=7)
    with np.load(samples.save(tmp_path / "some.npz")) as kept:
        assert kept["lengths"].tolist() == expected(chain)
        assert kept["lengths"].dtype == np.int64
    if chain.each is None:
        assert [len(text.split()) for text in samples.texts] == expected(chain)


@forms
def test_settings_draw_them_again(form: dict[str, Any]) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        samples = model.sample(N, seed=7, temperature=0.7, max_length=9)
        again = model.sample(settings=samples.settings)
        part = model.sample(settings=samples[3:6].settings)
    assert lengths_of(again) == lengths_of(samples)
    assert lengths_of(part) == lengths_of(samples)[3:6]
    np.testing.assert_array_equal(part.data, samples.data[3:6])
    assert samples.settings["max_length"] == 9


@forms
def test_prepared_calls_have_them(form: dict[str, Any]) -> None:
    chain = Chain(**form)
    with chain.generator() as model:
        prepared = model.prepare(N)
        assert lengths_of(prepared.draw(7)) == expected(chain)
        first = prepared.draw(7)
        other = prepared.draw(8)
        assert lengths_of(first) == expected(chain), "a later call left the earlier one as it was"
        assert lengths_of(other) == expected(chain, 8)
        with ThreadPoolExecutor(4) as pool:
            assert (
                list(pool.map(lambda seed: lengths_of(prepared.draw(seed)), (7, 8, 7, 8)))
                == [
                    lengths_of(first),
                    lengths_of(other),
                ]
                * 2
            )


def test_models_without_an_end_have_none() -> None:
    for name in ("feedforward", "autoregressive"):
        with generator(MODELS[name]()) as model:
            samples = model.sample(3, seed=0)
            assert samples.lengths is None
            assert samples[1:].lengths is None


def test_what_a_sequence_can_do() -> None:
    with Chain(each=1).generator() as model:
        assert model.can("log_likelihood")
        for ability in ("latents", "interpolate", "encode", "reconstruct"):
            assert not model.can(ability)
        with pytest.raises(InputError, match="takes no latents"):
            model.sample(2, latents=np.zeros((2, 3), np.float32))
