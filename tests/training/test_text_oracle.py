"""SeqGAN's oracle: the same from its seed, a proper distribution, and what it draws it finds likely."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data, text_oracle
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_oracle import LENGTH, VOCABULARY, TextOracle
from gensdk_training.data.text_set import TextDataset

SMALL = TextOracle(3, vocabulary=40, hidden=8)


def test_an_oracle_comes_from_its_seed() -> None:
    again, other = TextOracle(3, vocabulary=40, hidden=8), TextOracle(4, vocabulary=40, hidden=8)
    assert all(np.array_equal(SMALL.weights[name], again.weights[name]) for name in SMALL.weights)
    assert not np.array_equal(SMALL.weights["output"], other.weights["output"])
    assert sum(weight.size for weight in SMALL.weights.values()) > 900
    everything = np.concatenate([weight.ravel() for weight in TextOracle().weights.values()])
    assert everything.mean() == pytest.approx(0, abs=0.01)
    assert everything.std() == pytest.approx(1, abs=0.01)


def test_a_sentence_depends_on_its_position_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SMALL.draw(230, length=6)
    np.testing.assert_array_equal(SMALL.draw(30, length=6, first=200), whole[200:])
    np.testing.assert_array_equal(SMALL.draw(230, length=3), whole[:, :3])
    monkeypatch.setattr(text_oracle, "BLOCK", 7)
    np.testing.assert_array_equal(SMALL.draw(230, length=6), whole)
    assert not np.array_equal(SMALL.draw(230, length=6, seed=1), whole)


def test_it_is_the_lstm_of_pytorch() -> None:
    """The gates come as input, forget, output, candidate; PyTorch has the last two the other way around."""
    size, w = SMALL.hidden, SMALL.weights
    order = np.concatenate([np.arange(2 * size), np.arange(3 * size, 4 * size), np.arange(2 * size, 3 * size)])
    lstm = torch.nn.LSTM(size, size, batch_first=True).double()
    given = {"weight_ih_l0": w["input"], "weight_hh_l0": w["state"], "bias_ih_l0": w["bias"][None]}
    state = {name: torch.from_numpy(np.ascontiguousarray(value[:, order].T)) for name, value in given.items()}
    state["bias_ih_l0"] = state["bias_ih_l0"][:, 0]
    lstm.load_state_dict({**state, "bias_hh_l0": torch.zeros(4 * size, dtype=torch.float64)})
    tokens = SMALL.draw(20, length=5)
    inputs = np.column_stack([np.zeros(20, np.int64), tokens[:, :-1]])
    with torch.no_grad():
        states, _ = lstm(torch.from_numpy(w["embedding"][inputs]))
        logits = states @ torch.from_numpy(w["output"]) + torch.from_numpy(w["output_bias"])
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(tokens).flatten())
    assert SMALL.nll(tokens) == pytest.approx(nll.item())


def test_it_is_a_distribution() -> None:
    """All sentences of two tokens together have probability 1, and are drawn as often as it says."""
    pairs = np.array([(one, two) for one in range(40) for two in range(40)])
    odds = np.exp([-2 * SMALL.nll(pair[None]) for pair in pairs])
    assert odds.sum() == pytest.approx(1)
    drawn = SMALL.draw(20_000, length=2)
    shares = np.bincount(drawn[:, 0] * 40 + drawn[:, 1], minlength=1600) / len(drawn)
    assert np.abs(shares - odds).sum() < 0.2
    assert SMALL.nll(drawn) == pytest.approx(-float((odds * np.log(odds)).sum()) / 2, abs=0.02)


def test_what_it_draws_it_finds_likely() -> None:
    oracle = TextOracle()
    drawn = oracle.draw(100)
    random = np.random.default_rng(0).integers(0, VOCABULARY, (100, LENGTH))
    assert oracle.nll(drawn) == pytest.approx(5.66, abs=0.15)
    assert oracle.nll(random) == pytest.approx(11.38, abs=0.15)


@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 3), int), np.zeros(3, int), np.full((1, 2), 40), np.full((1, 2), -1)]
)
def test_what_are_no_sentences_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="tokens from 0 to 39"):
        SMALL.nll(wrong)
    with pytest.raises(InputError, match="2 tokens"):
        TextOracle(vocabulary=1)


def test_its_sentences_are_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(first: int) -> np.ndarray:
        return TextOracle().draw(5, first=first)

    monkeypatch.setattr(text_oracle, "drawn_sentences", few)
    train, test = load_data("oracle"), load_data("oracle", split="test")
    assert isinstance(train, TextDataset)
    assert isinstance(test, TextDataset)
    batch = train.batch(np.arange(5))
    assert batch.images.shape == (5, LENGTH + 1)
    assert (batch.images[:, 0] == VOCABULARY).all()
    assert batch.lengths is not None
    assert set(batch.lengths.tolist()) == {LENGTH + 1}
    np.testing.assert_array_equal(batch.images[:, 1:], few(0))
    np.testing.assert_array_equal(test.tokens[:, 1:], few(10_000))
    vocabulary = train.info.require_text().vocabulary
    assert vocabulary.encode(train.texts[2]).tokens == tuple(few(0)[2].tolist())
    with pytest.raises(InputError, match="tokens, and its test part is its own"):
        load_data("oracle", text=TextOptions())
