"""Holds the latency gate to its promise, on this machine, with the real thing in the loop.

A bundle is compared with itself, and with itself plus 20 % of delay (a busy wait after each call), 50 times
each, as ``gensdk bench --against`` does it. Passes when the first is called slower at most once, and the second
slower in all comparisons but for at most two "can't tell".

    python benchmarks/gate.py                     # the embedded digits-ddpm; about 18 minutes
    python benchmarks/gate.py --num-inference-steps 5 --trials 20      # about six
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from gensdk_runtime.backends.base import Session
from gensdk_runtime.bench.gate import DEFAULT_LIMIT, Limit
from gensdk_runtime.bench.latency_report import BenchSettings, SamplingOptions
from gensdk_runtime.bench.measure import Target
from gensdk_runtime.bench.suite import measure_in_turn
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec


@dataclass(frozen=True)
class Delayed:
    """A generator each of whose calls takes `delay` times longer."""

    generator: Generator
    delay: float

    @property
    def model(self) -> ModelSpec:
        """The generator's."""
        return self.generator.model

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The generator's."""
        return self.generator.sessions

    def sample(self, *args: Any, **keywords: Any) -> Samples:
        """The generator's samples, late."""
        start = time.perf_counter_ns()
        samples = self.generator.sample(*args, **keywords)
        end = start + round((time.perf_counter_ns() - start) * (1 + self.delay))
        while time.perf_counter_ns() < end:
            pass
        return samples

    def close(self) -> None:
        """Closes the generator."""
        self.generator.close()


@dataclass(frozen=True)
class Trials:
    """Counts verdicts of repeated comparisons."""

    old: Target
    new: Target
    settings: BenchSettings
    limits: tuple[Limit, ...]
    verdicts: Mapping[str, Counter[str]]

    def once(self, seed: int) -> None:
        """Compares once more."""
        _, _, comparisons = measure_in_turn(self.new, self.old, self.settings, self.limits, seed=seed)
        for comparison in comparisons:
            self.verdicts[comparison.limit][comparison.verdict] += 1

    def line(self, limit: Limit) -> str:
        """The counts for one limit."""
        counts = self.verdicts[limit.text]
        return ", ".join(f"{verdict} {counts[verdict]}" for verdict in ("slower", "same", "faster", "can't tell"))


def trials(name: str, old: Callable[[], Any], new: Callable[[], Any], how: dict[str, Any]) -> Trials:
    batch, threads = how["batch"], how["threads"]
    settings = BenchSettings(
        warmup_ms=how["warmup"],
        duration_s=how["duration"],
        iterations=how["iterations"],
        runs=how["runs"],
        options=SamplingOptions(num_inference_steps=how["num_inference_steps"]),
    )
    limits = tuple(Limit.parse(text) for text in how["fail_on"])
    targets = [Target(label, load, batch=batch, threads=threads) for label, load in (("old", old), (name, new))]
    return Trials(*targets, settings, limits, {limit.text: Counter() for limit in limits})


@click.command()
@click.argument("bundle", default="digits-ddpm")
@click.option("--trials", "count", default=50, show_default=True)
@click.option("--delay", default=0.2, show_default=True, help="Added share of each call.")
@click.option("--fail-on", multiple=True, default=(DEFAULT_LIMIT,), show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--num-inference-steps", type=int, help="[default: the bundle's]")
@click.option("--runs", default=10, show_default=True)
@click.option("--warmup", default=10.0, show_default=True, help="ms before each run")
@click.option("--duration", default=0.8, show_default=True, help="s for each side of a comparison")
@click.option("--iterations", default=50, show_default=True, help="least calls for each side of a comparison")
def main(bundle: str, count: int, delay: float, **how: Any) -> None:
    def load() -> Generator:
        return Generator.load(bundle, threads=how["threads"])

    itself = trials("itself", load, load, how)
    delayed = trials("delayed", load, lambda: Delayed(load(), delay), how)
    start, first = time.monotonic(), itself.limits[0]
    for seed in range(count):
        itself.once(seed)
        delayed.once(seed)
        if (seed + 1) % 10 == 0:
            counts = f"itself {itself.line(first)}; delayed {delayed.line(first)}"
            print(f"{seed + 1:>4} of {count}: {counts}", file=sys.stderr, flush=True)
    print(f"{bundle}, {count} comparisons of each kind in {time.monotonic() - start:.0f} s")
    for limit in itself.limits:
        print(f"{limit.text:>16}  against itself:     {itself.line(limit)}")
        print(f"{'':>16}  with {delay:+.0%} of delay: {delayed.line(limit)}")
    false_alarms = itself.verdicts[first.text]["slower"]
    found, untold = (delayed.verdicts[first.text][verdict] for verdict in ("slower", "can't tell"))
    held = false_alarms <= 1 and found + untold == count and untold <= 2
    print(f"the gate {'holds' if held else 'FAILS'} for {first.text}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
