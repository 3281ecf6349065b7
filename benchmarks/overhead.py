"""What the runtime adds to its backend: ``Generator.sample()`` against the bare calls that it makes.

One ``sample()`` is recorded: which graph ran on which buffers, in which order, in which thread. Replayed are the
backend's own calls alone, on those same buffers: nothing is checked, drawn, written or read in between. Both are
timed in turn, in one process.

    python benchmarks/overhead.py                                   # the embedded digits-ddpm as "auto" runs it
    python benchmarks/overhead.py BUNDLE --backend onnxruntime --threads 1 --batch 1,64 --profile
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click
import numpy as np
from figures import Figure, at_most, ratio

from gensdk_runtime.backends.bound import Bound, CopyingBound
from gensdk_runtime.generator import Generator

Calls = list[Callable[[], Any]]

ALLOWED_SMALL, ALLOWED = 1.05, 1.02
"""Largest ratios to the bare calls, below and from LARGE images on."""
LARGE = 8
ROUNDS = 12
"""Of one measurement; each makes some calls of both, in pairs."""


@dataclass(frozen=True)
class Overhead:
    """One measured case, times in ms; `added_ms` is the median of what the runtime adds to the bare calls."""

    bundle: str
    backend: str
    batch: int
    ratio: float
    low: float
    high: float
    bare_ms: float
    added_ms: float
    graph_calls: int

    @property
    def figure(self) -> Figure:
        """The ratio against its bound."""
        bound = at_most(ALLOWED if self.batch >= LARGE else ALLOWED_SMALL)
        what = f"{self.bundle}, batch {self.batch}: sample() / bare calls"
        detail = f"{self.backend}, {self.graph_calls} calls; {self.bare_ms:.3f} ms and {self.added_ms:+.3f} ms"
        return Figure("overhead", what, self.ratio, self.low, self.high, bound, detail)


class Recording:
    """The graph calls of one ``sample()`` by thread, as bare calls of the backend."""

    def __init__(self) -> None:
        self.calls: dict[int, Calls] = {}

    def add(self, bound: Bound) -> None:
        """Notes the run that `bound` is about to make."""
        self.calls.setdefault(threading.get_ident(), []).append(bare_call(bound))

    def __len__(self) -> int:
        return sum(len(calls) for calls in self.calls.values())


def bare_call(bound: Bound) -> Callable[[], Any]:
    """The backend's own call on the buffers that `bound` would use next, with as little of ours as can be."""
    turn = getattr(bound, "_next", 0)
    bindings, session = getattr(bound, "_bindings", None), bound.session
    if bindings and hasattr(session, "native"):  # ONNX Runtime
        return partial(session.native().run_with_iobinding, bindings[turn])
    if hasattr(bound, "_launch"):
        return partial(bound._launch, turn)
    if isinstance(bound, CopyingBound):
        return partial(session._run, bound._inputs)
    return bound._run


@contextmanager
def recorded() -> Iterator[Recording]:
    """Records every run of a bound graph inside."""
    recording, original = Recording(), Bound.run

    def run(self: Bound) -> None:
        recording.add(self)
        original(self)

    Bound.run = run  # type: ignore[method-assign]
    try:
        yield recording
    finally:
        Bound.run = original  # type: ignore[method-assign]


def replay(recording: Recording) -> Callable[[], None]:
    """A function that makes the recorded calls: each thread's in order, several threads side by side."""
    sequences = list(recording.calls.values())
    if len(sequences) == 1:
        return partial(_make, sequences[0])
    pool = ThreadPoolExecutor(len(sequences))
    return lambda: _wait(pool, sequences)


def _make(calls: Calls) -> None:
    for call in calls:
        call()


def _wait(pool: ThreadPoolExecutor, sequences: Sequence[Calls]) -> None:
    for _ in pool.map(_make, sequences):
        pass


def measure(
    bundle: str, *, name: str, batch: int, seconds: float, backend: str, threads: int | None, steps: int | None
) -> Overhead:
    """Times both sides in pairs, in an order that alternates, for about `seconds`."""
    with Generator.load(bundle, backend=backend, threads=threads) as generator:
        sample = sampler(generator, batch, steps)
        sample()
        with recorded() as recording:
            backend_used = sample().settings["backend"]
        bare = replay(recording)
        bare()
        once = _clock(bare)
        pairs = max(3, min(200, round(seconds / ROUNDS / (2 * once))))
        rounds = [_pairs(sample, bare, pairs) for _ in range(ROUNDS)]
    found = ratio([r[0] for r in rounds], [r[1] for r in rounds])
    ours, theirs = (np.concatenate([r[i] for r in rounds]) for i in (0, 1))
    added = float(np.median(ours - theirs))
    return Overhead(
        name,
        backend_used,
        batch,
        found.ratio,
        found.low,
        found.high,
        float(np.median(theirs)),
        added,
        len(recording),
    )


def sampler(generator: Generator, batch: int, steps: int | None) -> Callable[[], Any]:
    """``sample()`` of so many images."""
    given: dict[str, Any] = {} if steps is None else {"num_inference_steps": steps}
    return partial(generator.sample, batch, seed=0, progress=False, **given)


def _clock(call: Callable[[], Any]) -> float:
    """The seconds that `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _pairs(ours: Callable[[], Any], bare: Callable[[], Any], count: int) -> tuple[Any, Any]:
    """Milliseconds of both, [count] each; who comes first alternates."""
    times = np.empty((2, count))
    for i in range(count):
        for side in (0, 1) if i % 2 else (1, 0):
            times[side, i] = 1e3 * _clock((ours, bare)[side])
    return times[0], times[1]


def show_profile(generator: Generator, batch: int, steps: int | None) -> None:
    """Where the time outside the graphs goes."""
    sample = sampler(generator, batch, steps)
    sample()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(20):
        sample()
    profile.disable()
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(15)


@click.command(help=__doc__)
@click.argument("bundle", default="digits-ddpm")
@click.option("--name", help="What to call the bundle. [default: BUNDLE]")
@click.option("--batch", "batches", default="1,8,64", show_default=True)
@click.option("--backend", default="auto", show_default=True)
@click.option("--threads", type=int, help="[default: the backend's]")
@click.option("--num-inference-steps", "steps", type=int, help="[default: the bundle's]")
@click.option("--seconds", default=20.0, show_default=True, help="For each batch size.")
@click.option("--profile", is_flag=True, help="Show where the time outside the graphs goes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
def main(bundle: str, name: str | None, batches: str, profile: bool, as_json: bool, **how: Any) -> None:
    found = [measure(bundle, name=name or bundle, batch=int(batch), **how) for batch in batches.split(",")]
    if as_json:
        print(json.dumps([asdict(each) for each in found]))
        return
    for each in found:
        print(each.figure.line())
    if profile:
        with Generator.load(bundle, backend=how["backend"], threads=how["threads"]) as generator:
            show_profile(generator, found[-1].batch, how["steps"])
    sys.exit(1 if any(each.figure.verdict == "MISSES" for each in found) else 0)


if __name__ == "__main__":
    main()
