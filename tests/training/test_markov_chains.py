"""Markov chains as a baseline: probabilities that are some, and the entropy of what they learnt."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.markov_chains import STRENGTHS, MarkovChain, fit_markov_chain

LEVELS = 4
TRANSITIONS = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.25] * 4, [0.0, 0.0, 0.5, 0.5]])


def walk(length: int, seed: int) -> np.ndarray:
    """A chain of the first order."""
    draws, codes = np.random.default_rng(seed).random(length), [0]
    for draw in draws:
        codes.append(int((TRANSITIONS[codes[-1]].cumsum() < draw).sum()))
    return np.array(codes[1:], np.int64)


def fitted(order: int, *, length: int = 20_000) -> MarkovChain:
    return fit_markov_chain([walk(length, 0)], [walk(5000, 1)], order=order, levels=LEVELS, start=0)


def entropy() -> float:
    """Bits a code that no model can fall below, by the chain's stationary distribution."""
    values, vectors = np.linalg.eig(TRANSITIONS.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    logs = np.log2(np.where(TRANSITIONS > 0, TRANSITIONS, 1))
    return float(-(share / share.sum() * (TRANSITIONS * logs).sum(axis=1)).sum())


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("length", [3, 4])
def test_the_probabilities_of_all_sequences_are_one(order: int, length: int) -> None:
    chain = fitted(order, length=60)
    every = [np.array(codes) for codes in product(range(LEVELS), repeat=length)]
    assert sum(2.0 ** (-length * chain.bits([codes])) for codes in every) == pytest.approx(1)
    assert chain.order == order
    assert set(chain.strengths) <= set(STRENGTHS)


def test_a_chain_of_its_order_reaches_the_entropy_and_no_other_falls_below() -> None:
    test = [walk(50_000, 2)]
    bits = [fitted(order).bits(test) for order in (0, 1, 2)]
    assert bits[1] == pytest.approx(entropy(), abs=0.01)
    assert bits[0] > bits[1] + 0.2
    assert bits[1] - 0.002 <= bits[2] < bits[1] + 0.02


def test_noise_costs_all_its_bits_whatever_the_order() -> None:
    noise = [np.random.default_rng(seed).integers(0, 256, 4000) for seed in range(3)]
    bits = [
        fit_markov_chain(noise[:1], noise[1:2], order=order, levels=256, start=128).bits(noise[2:])
        for order in (0, 1, 2)
    ]
    assert bits == pytest.approx([8, 8, 8], abs=0.05)


def test_rare_contexts_are_drawn_towards_the_order_below() -> None:
    """Four codes were seen: with no strength the second order would give infinite bits."""
    chain = fit_markov_chain([np.array([0, 1, 2, 3])], [walk(50, 3)], order=2, levels=LEVELS, start=0)
    assert np.isfinite(chain.bits([walk(1000, 4)]))
    parts = [walk(30, 5), walk(70, 6)]
    whole = 0.3 * chain.bits(parts[:1]) + 0.7 * chain.bits(parts[1:])
    assert chain.bits(parts) == pytest.approx(whole), "each sequence begins anew"


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        ([np.array([4])], {}, "expected codes from 0 to 3"),
        ([np.array([-1])], {}, "expected codes from 0 to 3"),
        ([np.array([0.5])], {}, "whole numbers"),
        ([np.zeros((2, 2), int)], {}, "whole numbers"),
        ([], {}, "got none"),
        ([np.zeros(0, int)], {}, "got none"),
        ([np.zeros(3, int)], {"order": -1}, "expected an order from 0"),
        ([np.zeros(3, int)], {"order": 3, "levels": 256}, "expected an order"),
        ([np.zeros(3, int)], {"start": 4}, "expected an order"),
    ],
)
def test_what_is_no_sequence_of_codes_is_refused(codes: list[np.ndarray], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_markov_chain(codes, codes, **{"order": 1, "levels": LEVELS, "start": 0, **options})
