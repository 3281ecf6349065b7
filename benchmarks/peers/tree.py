"""One version of gensdk in a process of its own, by its public face alone: see :mod:`peers.serving`.

open {bundle, method, batch, options, backend, threads}   loads a bundle and makes the first call
run {calls, discard}                                      times `calls` calls, after `discard` others
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gensdk
from gensdk import Generator
from peers.serving import Command, serve, timed

FRAME = 256
"""Height and width of the frame that is translated."""


class Server:
    """Answers the commands with one open generator at a time."""

    def __init__(self) -> None:
        self._generator: Generator | None = None
        self._call: Callable[[], NDArray[Any]] = lambda: np.zeros(0)

    def open(
        self,
        *,
        bundle: str,
        method: str,
        batch: int,
        options: Mapping[str, Any],
        backend: str,
        threads: int | None,
    ) -> dict[str, Any]:
        """Opens a bundle in place of the one before. `from`: where gensdk was imported from; `digest`: of what the
        first call gave."""
        if self._generator is not None:
            self._generator.close()
        gc.collect()
        self._generator = generator = Generator.load(bundle, backend=backend, threads=threads)
        if method == "translate":
            self._call = partial(generator.translate, frame(), **options)
        else:
            sample = partial(generator.sample, batch, seed=0, progress=False, **options)
            self._call = lambda: sample().array
        digest = hashlib.sha256(np.ascontiguousarray(self._call())).hexdigest()
        return {"from": gensdk.__file__, "digest": digest}

    def run(self, **how: Any) -> dict[str, Any]:
        """Times whole calls, in ns."""
        return {"ns": timed(self._call, **how)[0]}


def frame() -> NDArray[np.uint8]:
    """Colours that run into each other, uint8 [FRAME, FRAME, 3]."""
    rows, columns = np.mgrid[:FRAME, :FRAME]
    return np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)


def start(_: dict[str, Any]) -> Mapping[str, Command]:
    """The commands."""
    server = Server()
    return {"open": server.open, "run": server.run}


if __name__ == "__main__":
    serve(start)
