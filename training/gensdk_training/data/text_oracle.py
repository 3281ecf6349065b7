"""SeqGAN's synthetic benchmark: a random LSTM that writes sentences, and knows how likely each sentence is.

Yu et al. (2017), "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient", section 5.1: an LSTM all of
whose weights are drawn from N(0, 1), with V = 5000 tokens, embedding and state of 32, draws 10,000 sentences of
T = 20 tokens to train on. ``NLL_oracle`` (eq. 11) is ``-E[log p_oracle(y)]`` per token in nats, over sentences
that the trained generator draws. The floor is the oracle's own entropy.

The weights come from the library's noise, and so do the draws: the same oracle on each machine, and but for a
uniform number that falls on an edge within float64's rounding, the same sentences. The paper's oracle came from
TensorFlow's generator and is another one: compare values with its published ones by their distance from the floor
and from random sentences.

No token is an end: sentences have all one length, and the first token follows a begin token (token 0 in the
paper's code; its embedding is that of token 0 here too).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import SampleKey, sample_keys
from gensdk_runtime.text.vocabulary import SpecialTokens
from gensdk_runtime.text.words import Words
from gensdk_training.data.dataset import LoadOptions
from gensdk_training.data.text_set import TextDataset, check_options
from gensdk_training.family import DataInfo, TextInfo

VOCABULARY, LENGTH, HIDDEN = 5000, 20, 32
SENTENCES = 10_000
ORACLE_SEED = 2017
BLOCK = 100
"""Sentences at once: 4 MB of probabilities."""

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def load_oracle(options: LoadOptions) -> TextDataset:
    """The oracle's first 10,000 sentences to train on, as the data set ``oracle``; the test part are the next
    ones.

    The tokens are called w0 to w4999; token 5000 is the begin, which the oracle never draws. There is no end.
    """
    check_options(options)
    if options.text is not None or options.holdout or options.split == "valid":
        raise InputError("the oracle's sentences are tokens, and its test part is its own; leave text options out")
    first = SENTENCES if options.split == "test" else 0
    drawn = drawn_sentences(first)
    tokens = np.column_stack([np.full(len(drawn), VOCABULARY), drawn]).astype(np.int32)
    names = (*(f"w{number}" for number in range(VOCABULARY)), "<begin>")
    vocabulary = Words(tokens=names, special=SpecialTokens(begin=VOCABULARY), joining="spaces")
    info = DataInfo(
        name="oracle",
        channels=1,
        height=1,
        width=LENGTH,
        count=len(drawn),
        text=TextInfo(length=LENGTH, vocabulary=vocabulary),
    )
    texts = tuple(vocabulary.decode(row) for row in drawn.tolist())
    dataset = TextDataset(info, tokens, np.full(len(drawn), LENGTH + 1, np.int64), texts, None)
    dataset.findings.values = f"tokens of a random LSTM of seed {ORACLE_SEED}; there is no end"
    dataset.findings.extent = f"{LENGTH} tokens each, of a vocabulary of {VOCABULARY}"
    dataset.findings.split = f"{options.split}: positions {first} to {first + len(drawn) - 1} of seed 0"
    return dataset


@lru_cache(maxsize=2)
def drawn_sentences(first: int) -> Int64:
    """The 10,000 sentences from a position on, drawn once in a process: half a minute on one core."""
    drawn = TextOracle().draw(SENTENCES, first=first)
    drawn.setflags(write=False)
    return drawn


class TextOracle:
    """The oracle of a `seed`; `vocabulary` tokens, `hidden` numbers of state."""

    def __init__(self, seed: int = ORACLE_SEED, *, vocabulary: int = VOCABULARY, hidden: int = HIDDEN) -> None:
        if vocabulary < 2 or hidden < 1:
            raise InputError(f"expected 2 tokens and 1 number of state or more, got {vocabulary} and {hidden}")
        self.vocabulary, self.hidden = vocabulary, hidden
        shapes = {
            "embedding": (vocabulary, hidden),
            "input": (hidden, 4 * hidden),
            "state": (hidden, 4 * hidden),
            "bias": (4 * hidden,),
            "output": (hidden, vocabulary),
            "output_bias": (vocabulary,),
        }
        key = [SampleKey(seed, 0)]
        self.weights: dict[str, Float64] = {
            name: noise.normal(key, stream, shape)[0].astype(np.float64)
            for stream, (name, shape) in enumerate(shapes.items())
        }

    def draw(self, count: int, *, length: int = LENGTH, seed: int = 0, first: int = 0) -> Int64:
        """`count` sentences, int64 [count, length]: those of `seed` from position `first` on."""
        keys = sample_keys(first + count, seed)[first:]
        tokens = np.empty((count, length), np.int64)
        for start in range(0, count, BLOCK):
            part = slice(start, min(start + BLOCK, count))
            self._draw(keys[part], tokens[part])
        return tokens

    def _draw(self, keys: tuple[SampleKey, ...], tokens: Int64) -> None:
        state = _zeros(len(keys), self.hidden)
        previous = np.zeros(len(keys), np.int64)
        for step in range(tokens.shape[1]):
            state, logits = self._step(previous, state)
            logits -= logits.max(axis=1, keepdims=True)
            edges = np.cumsum(np.exp(logits, out=logits), axis=1, out=logits)
            uniform = noise.uniform(keys, step + 1, (1,))[:, 0].astype(np.float64) * edges[:, -1]
            found = [int(np.searchsorted(row, u, side="right")) for row, u in zip(edges, uniform, strict=True)]
            previous = np.minimum(np.array(found, np.int64), self.vocabulary - 1)
            tokens[:, step] = previous

    def nll(self, sentences: Int64) -> float:
        """NLL_oracle of `sentences` int64 [n, T], in nats per token. :class:`InputError` for other arrays."""
        wrong = sentences.ndim != 2 or not sentences.size or sentences.dtype.kind not in "iu"
        if wrong or sentences.min() < 0 or sentences.max() >= self.vocabulary:
            raise InputError(f"expected sentences int64 [n, T] of tokens from 0 to {self.vocabulary - 1}")
        total = 0.0
        for start in range(0, len(sentences), BLOCK):
            total += self._nats(sentences[start : start + BLOCK])
        return total / sentences.size

    def _nats(self, sentences: Int64) -> float:
        state = _zeros(len(sentences), self.hidden)
        previous, nats = np.zeros(len(sentences), np.int64), 0.0
        for token in sentences.T:
            state, logits = self._step(previous, state)
            highest = logits.max(axis=1)
            chosen = logits[np.arange(len(token)), token]
            logits -= highest[:, None]
            total = np.log(np.exp(logits, out=logits).sum(axis=1)) + highest
            nats += float((total - chosen).sum())
            previous = token
        return nats

    def _step(self, previous: Int64, state: tuple[Float64, Float64]) -> tuple[tuple[Float64, Float64], Float64]:
        """One step of the LSTM (gates: input, forget, output, candidate), and the logits [n, V] after it."""
        w, (h, c) = self.weights, state
        gates = w["embedding"][previous] @ w["input"] + h @ w["state"] + w["bias"]
        i, f, o = (_sigmoid(gates[:, k * self.hidden : (k + 1) * self.hidden]) for k in range(3))
        c = f * c + i * np.tanh(gates[:, 3 * self.hidden :])
        h = o * np.tanh(c)
        return (h, c), h @ w["output"] + w["output_bias"]


def _zeros(count: int, hidden: int) -> tuple[Float64, Float64]:
    return np.zeros((count, hidden)), np.zeros((count, hidden))


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
