"""A model in NumPy that makes texts from texts, and its laws by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeSession, GraphFunction
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.spec.conditions import PromptSpec, label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.text.vocabulary import Vocabulary
from support.models import generator, label_tensor, tensor
from support.texts import WORDS, files_of

LENGTH, SOURCE = 8, 5
"""Tokens of a text that is made, and of one that it is made from."""
CLASSES = 3
PROMPTS = ["a cat sat.", "a", "don't (", "a", "cat cat cat"]
LABELS = [0, 1, 2, 1, 0]
"""Of five samples, of which the second and the fourth are asked for the same."""

PROMPT = tensor("prompt", "condition", "batch", SOURCE, dtype="int64")


def prompt_spec(words: Vocabulary = WORDS, **changes: Any) -> PromptSpec:
    """Of texts in the vocabulary `words`; `changes`: of its fields."""
    return PromptSpec.model_validate({"length": SOURCE, "size": words.size, "rest": 0, **changes})


class Prompted:
    """Token i is drawn by weights that hang on token i of the prompt, which begins again behind its last, on the
    label and on the token before."""

    def __init__(self, *, ends: float = 0.1) -> None:
        weights = np.random.default_rng(5).gamma(0.5, size=(WORDS.size, CLASSES, WORDS.size, WORDS.size)) + 1e-3
        weights[..., :4] = 0.0
        weights *= (1 - ends) / weights.sum(axis=-1, keepdims=True)
        weights[..., 2] = ends
        self.table = weights.astype(np.float32)
        self.calls: Counter[str] = Counter()
        self.rows: list[int] = []
        """Of each run of the context graph, how many it was given."""

    def model(self) -> ModelSpec:
        size = WORDS.size
        contexts = (
            tensor("weights", "context", "batch", SOURCE, size, size),
            tensor("count", "context", "batch", dtype="int64"),
        )
        asked = (PROMPT, label_tensor("batch"))
        source = GraphSpec(name="source", inputs=asked, outputs=contexts)
        step = GraphSpec(
            name="step",
            inputs=(
                tensor("token", "state", "batch", 1, dtype="int64"),
                tensor("position", "timestep", 1, dtype="int64"),
                tensor("uniform", "noise", "batch", 1, distribution="uniform"),
                tensor("temperature", "coefficient", "batch"),
                tensor("written", "state", "batch", 1),
                *source.outputs,
                label_tensor("batch"),
            ),
            outputs=(
                tensor("next_token", "state", "batch", 1, dtype="int64"),
                tensor("next_written", "state", "batch", 1),
            ),
        )
        text = tensor("text", "output", "batch", LENGTH, dtype="int64")
        likelihood = GraphSpec(
            name="likelihood",
            inputs=(text, tensor("lengths", "condition", "batch", dtype="int64"), *asked),
            outputs=(tensor("log_likelihood", "coefficient", "batch"),),
        )
        program = SequenceSpec(
            step_graph="step",
            likelihood_graph="likelihood",
            context_graph="source",
            length=LENGTH,
            levels=size,
            begin=1,
            stop=2,
        )
        return ModelSpec(
            name="prompted",
            family="test",
            program=program,
            graphs=(step, likelihood, source),
            output=TextSpec.of(LENGTH, size),
            conditions=(prompt_spec(), *label_conditions(CLASSES)),
            max_batch=8,
        )

    @property
    def functions(self) -> dict[str, GraphFunction]:
        return {"step": self._step, "likelihood": self._likelihood, "source": self._source}

    def generator(self, *, files: Mapping[str, bytes] | None = None) -> Generator:
        return generator(self.model(), self.functions, files_of(WORDS) if files is None else files)

    def sessions(self, model: ModelSpec) -> dict[str, FakeSession]:
        return {
            graph.name: FakeSession(graph, self.functions[graph.name], backend="fake", precision="fp32")
            for graph in model.graphs
        }

    def _source(self, feeds: Feeds) -> dict[str, Array]:
        self.calls["source"] += 1
        self.rows.append(len(feeds["prompt"]))
        return {
            "weights": self.table[feeds["prompt"], feeds["label"][:, None]],
            "count": (feeds["prompt"] != 0).sum(axis=1),
        }

    def _step(self, feeds: Feeds) -> dict[str, Array]:
        self.calls["step"] += 1
        each, place = np.arange(len(feeds["token"])), int(feeds["position"][0])
        shares = feeds["weights"][each, place % feeds["count"], feeds["token"][:, 0]]
        powers = shares ** (1 / feeds["temperature"])[:, None]
        upto = np.cumsum(powers, axis=1)
        drawn = (upto[:, :-1] <= feeds["uniform"] * upto[:, -1:]).sum(axis=1)
        written = feeds["written"] + 1
        return {"next_token": drawn[:, None].astype(np.int64), "next_written": written.astype(np.float32)}

    def _likelihood(self, feeds: Feeds) -> dict[str, Array]:
        rows = zip(feeds["text"], feeds["lengths"], feeds["prompt"], feeds["label"], strict=True)
        found = [
            self.log_p(text[:end].tolist(), prompt[prompt != 0].tolist(), label)
            for text, end, prompt, label in rows
        ]
        return {"log_likelihood": np.array(found, np.float32)}

    def log_p(self, tokens: list[int], prompt: Sequence[int], label: int) -> float:
        """Of the tokens of one text, and the end behind them where there is room for one, in nats."""
        total, before = 0.0, 1
        for place, token in enumerate([*tokens, 2] if len(tokens) < LENGTH else tokens):
            total += float(np.log(self.table[prompt[place % len(prompt)], label, before, token]))
            before = token
        return total

    def naive(
        self, seed: int, prompts: Sequence[str] = PROMPTS, labels: Sequence[int] = LABELS
    ) -> list[list[int]]:
        """The tokens of each text before its end, one text at a time from the same noise."""
        uniforms = noise.uniform(sample_keys(len(prompts), seed), noise.LATENT_STREAM, (LENGTH, 1))[:, :, 0]
        found = []
        for row, text, label in zip(uniforms, prompts, labels, strict=True):
            prompt, tokens, before = WORDS.encode(text).tokens, list[int](), 1
            for place, u in enumerate(row):
                upto = np.cumsum(self.table[prompt[place % len(prompt)], label, before])
                before = int((upto[:-1] <= u * upto[-1]).sum())
                if before == 2:
                    break
                tokens.append(before)
            found.append(tokens)
        return found
