"""A model in NumPy that makes images from sounds: how loud each part of a sound is, plus noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeSession, GraphFunction
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import IMAGE, generator, image_tensor, tensor

RATE, SAMPLES = 1000, 24
AUDIO = tensor("audio", "condition", "batch", SAMPLES)
PIXELS = int(np.prod(IMAGE.shape))


class Heard:
    """Pixel i is sample i of the sound, halved, plus a little of z."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        """Of each run of the context graph, how many sounds it was given."""

    def model(self) -> ModelSpec:
        """Its context graph makes `loudness` of ``audio``."""
        loudness = tensor("loudness", "context", "batch", PIXELS)
        z = tensor("z", "noise", "batch", 5, distribution="normal")
        return ModelSpec(
            name="heard",
            family="test",
            program=FeedforwardSpec(graph="generator", context_graph="listener"),
            graphs=(
                GraphSpec(name="generator", inputs=(z, loudness), outputs=(image_tensor("image"),)),
                GraphSpec(name="listener", inputs=(AUDIO,), outputs=(loudness,)),
            ),
            output=IMAGE,
            conditions=(AudioConditionSpec(samples=SAMPLES, sample_rate=RATE),),
            max_batch=8,
        )

    @property
    def functions(self) -> dict[str, GraphFunction]:
        """By graph."""
        return {"generator": _paint, "listener": self._listen}

    def generator(self) -> Generator:
        """Over both graphs."""
        return generator(self.model(), self.functions)

    def sessions(self, model: ModelSpec) -> Mapping[str, FakeSession]:
        """Of both graphs, by name."""
        return {
            graph.name: FakeSession(graph, self.functions[graph.name], backend="fake", precision="fp32")
            for graph in model.graphs
        }

    def _listen(self, feeds: Feeds) -> dict[str, Array]:
        self.rows.append(len(feeds["audio"]))
        return {"loudness": np.resize(feeds["audio"].T, (PIXELS, len(feeds["audio"]))).T / 2}


def _paint(feeds: Feeds) -> dict[str, Array]:
    noise = np.tanh(feeds["z"].mean(axis=1)) / 4
    made = feeds["loudness"] + noise[:, None]
    return {"image": made.reshape(-1, *IMAGE.shape).astype(np.float32)}
