"""A model of sequences whose graphs are NumPy: a chain of tokens with a memory, and its laws by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.outputs.base import Array as Samples
from gensdk_runtime.spec.audio import AudioSpec
from gensdk_runtime.spec.kinds import OutputSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import generator, tensor

RATE = 1000


class Chain:
    """Tokens 0 to `levels` - 1, drawn by ``table[memory, token before]``; `stop` ends a sample. `each`: samples of
    sound that a token stands for, or None for tokens as they are."""

    def __init__(
        self,
        *,
        length: int = 12,
        levels: int = 5,
        stop: int | None = 4,
        each: int | None = None,
        ends: float = 0.15,
    ) -> None:
        weights = np.random.default_rng(levels).gamma(0.7, size=(3, levels + 1, levels)) + 1e-3
        if stop is not None:
            weights[..., stop] = 0.0
            weights /= weights.sum(axis=-1, keepdims=True)
            weights *= 1 - ends
            weights[..., stop] = ends
        self.table = (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)
        self.length, self.levels, self.stop, self.each = length, levels, stop, each
        self.calls: Counter[str] = Counter()

    @property
    def output(self) -> OutputSpec:
        if self.each is None:
            return TextSpec.of(self.length, self.levels)
        return AudioSpec(samples=self.length * self.each, sample_rate=RATE)

    @property
    def spec(self) -> SequenceSpec:
        decode = {} if self.each is None else {"decode_graph": "decode"}
        return SequenceSpec(
            step_graph="step",
            likelihood_graph="likelihood",
            length=self.length,
            levels=self.levels,
            begin=self.levels,
            stop=self.stop,
            rest=1,
            **decode,
        )

    def model(self, *, max_batch: int = 8, **changes: Any) -> ModelSpec:
        """`changes`: of the program."""
        output = self.output
        step = GraphSpec(
            name="step",
            inputs=(
                tensor("token", "state", "batch", 1, dtype="int64"),
                tensor("position", "timestep", 1, dtype="int64"),
                tensor("uniform", "noise", "batch", 1, distribution="uniform"),
                tensor("temperature", "coefficient", "batch"),
                tensor("memory", "state", "batch"),
            ),
            outputs=(
                tensor("next_token", "state", "batch", 1, dtype="int64"),
                tensor("next_memory", "state", "batch"),
            ),
        )
        whole = tensor(output.tensor, output.role, "batch", *output.shape, dtype=output.dtype)
        likelihood = GraphSpec(
            name="likelihood",
            inputs=(whole, tensor("lengths", "condition", "batch", dtype="int64")),
            outputs=(tensor("log_likelihood", "coefficient", "batch"),),
        )
        graphs = [step, likelihood]
        if self.each is not None:
            made = tensor("audio", output.role, "batch", "samples", 1)
            tokens = tensor("tokens", "state", "batch", "elements", 1, dtype="int64")
            graphs.append(GraphSpec(name="decode", inputs=(tokens,), outputs=(made,)))
        return ModelSpec(
            name="chain",
            family="test",
            program=SequenceSpec.model_validate({**self.spec.model_dump(), **changes}),
            graphs=tuple(graphs),
            output=output,
            max_batch=max_batch,
        )

    def generator(self, *, max_batch: int = 8, files: Mapping[str, bytes] | None = None) -> Generator:
        functions = {"step": self._step, "likelihood": self._likelihood, "decode": self._decode}
        known = {name: each for name, each in functions.items() if name != "decode" or self.each is not None}
        return generator(self.model(max_batch=max_batch), known, files)

    def shares(self, memory: Array, token: Array, temperature: Array) -> Array:
        powers = self.table[memory.astype(np.int64), token] ** (1 / temperature)[:, None]
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def _step(self, feeds: Feeds) -> dict[str, Array]:
        self.calls["step"] += 1
        token = feeds["token"][:, 0]
        upto = np.cumsum(self.shares(feeds["memory"], token, feeds["temperature"]), axis=1)
        drawn = (upto[:, :-1] <= feeds["uniform"]).sum(axis=1)
        place = int(feeds["position"][0])
        return {
            "next_token": drawn[:, None].astype(np.int64),
            "next_memory": ((feeds["memory"] + drawn + place) % 3).astype(np.float32),
        }

    def _decode(self, feeds: Feeds) -> dict[str, Array]:
        self.calls["decode"] += 1
        assert self.each is not None
        level = feeds["tokens"] / np.float32(self.levels) - np.float32(0.5)
        return {"audio": np.repeat(level, self.each, axis=1).astype(np.float32)}

    def tokens_of(self, whole: Samples) -> Array:
        """The tokens [n, length] that samples stand for."""
        if self.each is None:
            return whole
        return np.rint((whole[:, :: self.each, 0] + 0.5) * self.levels).astype(np.int64)

    def _likelihood(self, feeds: Feeds) -> dict[str, Array]:
        self.calls["likelihood"] += 1
        tokens = self.tokens_of(feeds[self.output.tensor])
        nats = [self.log_p(row[:count].tolist()) for row, count in zip(tokens, feeds["lengths"], strict=True)]
        return {"log_likelihood": np.array(nats, np.float32)}

    def log_p(self, tokens: list[int]) -> float:
        """Of the tokens of one sample, and the end behind them where there is room for one, in nats."""
        total, memory, before = 0.0, 0, self.levels
        ends = self.stop is not None and len(tokens) < self.length
        for place, token in enumerate([*tokens, self.stop] if ends else tokens):
            total += float(np.log(self.table[memory, before, token]))
            memory, before = (memory + token + place) % 3, token
        return total

    def naive(self, n: int, seed: int, temperature: float = 1.0) -> list[list[int]]:
        """The tokens of each sample before its end, drawn one sample at a time from the same noise."""
        found = []
        uniforms = noise.uniform(sample_keys(n, seed), noise.LATENT_STREAM, (self.length, 1))
        for row in uniforms[:, :, 0]:
            tokens: list[int] = []
            memory, before = 0, self.levels
            for place, u in enumerate(row):
                shares = self.shares(np.array([memory]), np.array([before]), np.array([temperature], np.float32))[
                    0
                ]
                token = int((np.cumsum(shares)[:-1] <= u).sum())
                if token == self.stop:
                    break
                tokens.append(token)
                memory, before = (memory + token + place) % 3, token
            found.append(tokens)
        return found
