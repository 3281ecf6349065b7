"""gensdk as its users have it: ``Generator.load(bundle, backend="auto")``, then ``sample()``."""

from __future__ import annotations

from typing import Any

from workloads import Case
from workloads.prepare import Prepared

from gensdk import Generator
from gensdk_runtime.methods.prepared import Prepared as PreparedCall
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import AutoregressiveSpec
from peers import SEED, Float32, Peer


def open_peer(
    prepared: Prepared, case: Case, *, backend: str = "auto", draws: bool = False, **settings: Any
) -> Peer:
    """The bundle; `settings` go to every ``sample()``, or with `draws` to the ``prepare()`` of its stand-in."""
    if case.steps is not None:
        settings["num_inference_steps"] = case.steps
    kind = Drawing if draws else Gensdk
    return kind(Generator.load(prepared.bundle, backend=backend), settings)


class Gensdk(Peer):
    """``sample()`` with the noise as latents; an autoregressive model draws the same uniforms from the seed."""

    def __init__(self, generator: Generator, settings: dict[str, Any]) -> None:
        self.generator = generator
        self.settings = settings
        self._seeded = isinstance(generator.model.program, AutoregressiveSpec)
        self._detail = ""

    def run(self, noise: Float32) -> Float32:
        """The samples' array."""
        samples = self.drawn(len(noise), {"seed": SEED} if self._seeded else {"latents": noise})
        self._detail = str(samples.settings["backend"])
        return samples.array

    def drawn(self, n: int, given: dict[str, Any]) -> Samples:
        """`n` samples of what is given in the place of a seed."""
        return self.generator.sample(n, progress=False, **given, **self.settings)

    def detail(self) -> str:
        """The backends of the last call."""
        return self._detail


class Drawing(Gensdk):
    """The same by a call that was prepared once."""

    _call: PreparedCall | None = None

    def drawn(self, n: int, given: dict[str, Any]) -> Samples:
        """By ``draw()``; a peer is opened for one batch size."""
        if self._call is None:
            self._call = self.generator.prepare(n, **self.settings)
        return self._call.draw(**given)
