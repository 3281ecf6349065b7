"""What the runtime adds to its backend: ``Generator.sample()`` against the bare calls that it makes.

One ``sample()`` is recorded: which graph ran on which buffers, in which order, in which thread. Replayed are the
backend's own calls alone, on those same buffers: nothing is checked, drawn, written or read in between. All are
timed in turn, in one process. Where a generator has ``prepare()``, its ``draw()`` is timed beside them, against
the bare calls with the drawing of the noise, which is all that is left to do once a call is prepared.

    python benchmarks/overhead.py                                   # the embedded digits-ddpm as "auto" runs it
    python benchmarks/overhead.py BUNDLE --backend onnxruntime --threads 1 --batch 1,64 --profile
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click
import numpy as np
from figures import Figure, at_most, median_interval, ratio
from numpy.typing import NDArray
from peers.serving import CLOCKS

from gensdk_runtime.backends.bound import Bound, CopyingBound
from gensdk_runtime.generator import Generator

Call = Callable[[], Any]
Calls = list[Call]

SAMPLE, PREPARED = "sample()", "prepare()"
ALLOWED_SMALL, ALLOWED = 1.05, 1.02
"""Largest ratios to the bare calls, below and from LARGE images on."""
LARGE = 8
ROUNDS = 12
"""Of one measurement; each makes some calls of both, in pairs."""


@dataclass(frozen=True)
class Overhead:
    """One measured case, times in ms; `added_ms` is the median of what `call` adds to the bare calls, with its
    interval. `noise_ms`: what drawing the noise takes, which counts as bare for ``prepare()`` alone."""

    bundle: str
    backend: str
    batch: int
    ratio: float
    low: float
    high: float
    bare_ms: float
    added_ms: float
    graph_calls: int
    call: str = SAMPLE
    added_low: float | None = None
    added_high: float | None = None
    noise_ms: float = 0.0

    @property
    def figure(self) -> Figure:
        """The ratio against its bound."""
        bound = at_most(ALLOWED if self.batch >= LARGE else ALLOWED_SMALL)
        return Figure(
            "overhead", f"{self._what} / bare calls", self.ratio, self.low, self.high, bound, self.detail
        )

    def added(self, limit: float | None = None) -> Figure:
        """What is added, in ms, against `limit`."""
        bound = None if limit is None else at_most(limit)
        what = f"{self._what} adds to bare calls, ms"
        return Figure("overhead", what, self.added_ms, self.added_low, self.added_high, bound, self.detail)

    @property
    def detail(self) -> str:
        """What it is made of."""
        parts = f"{self.bare_ms:.3f} ms and {self.added_ms:+.3f} ms; noise alone {self.noise_ms:.3f} ms"
        return f"{self.backend}, {self.graph_calls} calls; {parts}"

    @property
    def _what(self) -> str:
        return f"{self.bundle}, batch {self.batch}: {self.call}"


class Recording:
    """The graph calls of one ``sample()`` by thread, as bare calls of the backend."""

    def __init__(self) -> None:
        self.calls: dict[int, Calls] = {}

    def add(self, bound: Bound) -> None:
        """Notes the run that `bound` is about to make."""
        self.calls.setdefault(threading.get_ident(), []).append(bare_call(bound))

    def __len__(self) -> int:
        return sum(len(calls) for calls in self.calls.values())


def bare_call(bound: Bound) -> Call:
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
    bundle: str,
    *,
    name: str,
    batch: int,
    seconds: float,
    backend: str,
    threads: int | None,
    steps: int | None,
    clock: str = "wall",
) -> list[Overhead]:
    """Times all sides in turn, in an order that alternates, for about `seconds`: ``sample()``, and ``prepare()``
    where the generator has it."""
    with Generator.load(bundle, backend=backend, threads=threads) as generator:
        sample = sampler(generator, batch, steps)
        sample()
        with recorded() as recording:
            backend_used = sample().settings["backend"]
        sides = {SAMPLE: sample, **prepared(generator, batch, steps)}
        bare, noise = replay(recording), drawing(generator, batch)
        turns = [*sides.values(), bare, noise]
        for call in turns:
            call()
        count = max(3, min(200, round(seconds / ROUNDS / (len(turns) * _clock(bare)))))
        rounds = [_in_turn(turns, count, clock) for _ in range(ROUNDS)]
    found = []
    for place, call in enumerate(sides):
        ours = [times[place] for times in rounds]
        theirs = [times[-2] + (times[-1] if call == PREPARED else 0.0) for times in rounds]
        against = ratio(ours, theirs)
        added = [float(np.median(mine - bare)) for mine, bare in zip(ours, theirs, strict=True)]
        low, high = median_interval(added)
        found.append(
            Overhead(
                name,
                backend_used,
                batch,
                against.ratio,
                against.low,
                against.high,
                float(np.median(np.concatenate(theirs))),
                float(np.median(np.concatenate(ours) - np.concatenate(theirs))),
                len(recording),
                call,
                low,
                high,
                float(np.median(np.concatenate([times[-1] for times in rounds]))),
            )
        )
    return found


def sampler(generator: Generator, batch: int, steps: int | None) -> Call:
    """``sample()`` of so many images."""
    return partial(generator.sample, batch, seed=0, progress=False, **_settings(steps))


def prepared(generator: Generator, batch: int, steps: int | None) -> dict[str, Call]:
    """The same from ``prepare()``; empty for a generator that has none."""
    prepare = getattr(generator, "prepare", None)
    return {} if prepare is None else {PREPARED: partial(prepare(n=batch, **_settings(steps)).draw, 0)}


def drawing(generator: Generator, batch: int) -> Call:
    """Draws the noise that samples start from; nothing where they start from none."""
    return (lambda: None) if generator.latent_shape is None else partial(generator.latents, batch, 0)


def _settings(steps: int | None) -> dict[str, Any]:
    return {} if steps is None else {"num_inference_steps": steps}


def _clock(call: Call, clock: str = "wall") -> float:
    """The seconds that `call` takes."""
    now = CLOCKS[clock]
    start = now()
    call()
    return (now() - start) / 1e9


def _in_turn(calls: Calls, count: int, clock: str) -> NDArray[np.float64]:
    """Milliseconds of each of `calls`, [calls, count]; who comes first alternates."""
    times = np.empty((len(calls), count))
    for i in range(count):
        for side in sorted(range(len(calls)), reverse=i % 2 == 0):
            times[side, i] = 1e3 * _clock(calls[side], clock)
    return times


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
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
@click.option("--profile", is_flag=True, help="Show where the time outside the graphs goes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
def main(bundle: str, name: str | None, batches: str, profile: bool, as_json: bool, **how: Any) -> None:
    sizes = [int(batch) for batch in batches.split(",")]
    found = [each for size in sizes for each in measure(bundle, name=name or bundle, batch=size, **how)]
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
