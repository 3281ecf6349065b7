"""gensdk as its users have it: ``Generator.load(bundle, backend="auto")``, then ``sample()``."""

from __future__ import annotations

from typing import Any

from workloads import Case
from workloads.prepare import Prepared

from gensdk import Generator
from gensdk_runtime.spec.model import AutoregressiveSpec
from peers import SEED, Float32, Peer


def open_peer(prepared: Prepared, case: Case, *, backend: str = "auto", **settings: Any) -> Peer:
    """The bundle; `settings` go to every ``sample()``."""
    if case.steps is not None:
        settings["num_inference_steps"] = case.steps
    return Gensdk(Generator.load(prepared.bundle, backend=backend), settings)


class Gensdk(Peer):
    """``sample()`` with the noise as latents; an autoregressive model draws the same uniforms from the seed."""

    def __init__(self, generator: Generator, settings: dict[str, Any]) -> None:
        self.generator = generator
        self.settings = settings
        self._seeded = isinstance(generator.model.program, AutoregressiveSpec)
        self._detail = ""

    def run(self, noise: Float32) -> Float32:
        """The samples' array."""
        given: dict[str, Any] = {"seed": SEED} if self._seeded else {"latents": noise}
        samples = self.generator.sample(len(noise), progress=False, **given, **self.settings)
        self._detail = str(samples.settings["backend"])
        return samples.array

    def detail(self) -> str:
        """The backends of the last call."""
        return self._detail
