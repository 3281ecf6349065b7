"""What the runtime adds to ONNX Runtime: ``Generator.sample()`` against the bare sum of its session.run calls.

The graph inputs of one sample() call are recorded, then replayed on bare InferenceSessions. Both are timed in
turn, in one process. Passes when sample() takes at most 5 % longer.

    python benchmarks/overhead.py                      # the embedded digits-ddpm at batch 64
    python benchmarks/overhead.py BUNDLE --batch 1 --profile
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Mapping
from typing import Any

import click

from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.bench.gate import Limit, compare_paired
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.bench.report import BenchSettings, Case, SamplingOptions
from gensdk_runtime.generator import Generator
from gensdk_runtime.golden import Recorder
from gensdk_runtime.manifest import ModelSpec
from gensdk_runtime.samples import Samples

Call = tuple[Any, list[str], dict[str, Array]]
"""A bare InferenceSession, the outputs to ask for, the inputs to feed."""


class Replay:
    """Answers sample() by running the recorded calls, and nothing else, on the bare sessions."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.calls: list[Call] = []
        self.recorded: Samples | None = None

    @property
    def model(self) -> ModelSpec:
        """The generator's."""
        return self.generator.model

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The generator's."""
        return self.generator.sessions

    def sample(self, **keywords: Any) -> Samples:
        """Records at the first call, then replays."""
        if self.recorded is None:
            recorder = Recorder()
            self.recorded = Generator.from_sessions(self.model, recorder.wrap(self.sessions)).sample(**keywords)
            bare = {name: session._session for name, session in self.sessions.items()}  # type: ignore[attr-defined]
            self.calls = [(bare[call.graph], list(call.outputs), dict(call.feeds)) for call in recorder.take()]
        else:
            for session, outputs, feeds in self.calls:
                session.run(outputs, feeds)
        return self.recorded

    def close(self) -> None:
        """Closes the generator."""
        self.generator.close()


@click.command()
@click.argument("bundle", default="digits-ddpm")
@click.option("--batch", default=64, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--num-inference-steps", type=int, help="[default: the bundle's]")
@click.option("--runs", default=10, show_default=True)
@click.option("--duration", "duration_s", default=30.0, show_default=True, help="s for each side")
@click.option("--iterations", default=50, show_default=True, help="least calls for each side")
@click.option("--fail-on", default="p50:+5%", show_default=True)
@click.option("--profile", is_flag=True, help="Show where the time outside the graphs goes.")
def main(bundle: str, batch: int, threads: int, fail_on: str, profile: bool, **how: Any) -> None:
    steps = how.pop("num_inference_steps")
    settings = BenchSettings(options=SamplingOptions(num_inference_steps=steps), **how)

    def load() -> Generator:
        return Generator.load(bundle, backend="onnxruntime", threads=threads)

    ours = Target("Generator.sample()", load, batch=batch, threads=threads)
    bare = Target("bare session.run calls", lambda: Replay(load()), batch=batch, threads=threads)
    sampled, replayed = measure([ours, bare], settings)
    limit = Limit.parse(fail_on)
    (comparison,) = compare_paired(sampled, replayed, [limit])
    show(sampled, replayed)
    if comparison.ratio is not None:
        print(f"ratio {comparison.ratio:.3f} ({comparison.low:.3f} .. {comparison.high:.3f}), allowed {fail_on}")
    broken = comparison.verdict == "slower"
    holds = comparison.high is not None and comparison.high <= 1 + limit.allowed  # how much faster is no matter
    print("holds" if holds else "FAILS" if broken else f"can't tell: {comparison.reason}")
    if profile or broken:
        show_profile(load, {"n": batch, "seed": 0, "progress": False, **settings.options.keywords()})
    sys.exit(1 if broken else 0)


def show(sampled: Case, replayed: Case) -> None:
    total, bare = (case.summary.percentiles_ms["p50"] for case in (sampled, replayed))
    graphs = sampled.summary.graphs_ms
    subject = sampled.subject
    print(f"{subject}, {sampled.summary.calls} calls; medians in ms for one call:")
    print(f"  Generator.sample()         {total:8.3f}")
    print(f"  bare session.run calls     {bare:8.3f}")
    print(f"  added around the graphs    {total - graphs:8.3f}  noise, solver tables, checks of arguments, result")
    print(f"  added inside Session.run() {graphs - bare:8.3f}  checks of feeds, names of outputs")


def show_profile(load: Any, keywords: dict[str, Any]) -> None:
    with load() as generator:
        generator.sample(**keywords)
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(20):
            generator.sample(**keywords)
        profile.disable()
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
