"""This version of gensdk against another one of its own, side by side in one run: what became slower?

AGAINST is the folder of another checkout, or a commit of this one. Each version runs in a process of its own, with
its own embedded bundles and by its public face alone; both are asked in turn, a few calls at a time, and the
processes are started anew several times, as a process may be slow by chance from its start to its end. The image
translator is made with the other version, since a newer one reads older bundles. Everything runs on one backend
and one thread unless told otherwise: what is compared is gensdk, and not what was measured for "auto".

A figure is the median of the ratios within rounds, new over old, with its 95 % interval. It holds where all of the
interval lies under the bound; where that can't be told, the case is measured again, up to --patience times. Ends
with 1 where a figure is surely missed.

    python benchmarks/against.py HEAD~1
    python benchmarks/against.py ../released --only sample,prepare --seconds 60 --json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from figures import Figure, at_most, ratio_figure
from numpy.typing import NDArray
from overhead import PREPARED, Overhead
from peers.child import BENCHMARKS, Child
from peers.serving import CLOCKS
from startup import first_sample
from versions import Version, locate, make_translator

EMBEDDED = ("digits-dcgan", "digits-ddpm", "digits-pixelcnn", "digits-vae")
BATCHES = (1, 8, 64)
PARTS = ("sample", "translate", "startup", "prepare")

SLOWER = at_most(1.03)
ADDED_MS = 0.1
"""What ``prepare()`` may add to the bare calls of a model of one call, for one sample."""
ADDED_BY = {"digits-dcgan": None, "digits-ddpm": 10}
"""What ``prepare()`` is measured with, and its steps."""

STARTS = 3
"""How often both processes are started for one measurement of a case."""
BURST = 0.1
"""Seconds that the faster one's calls take in one round."""
MOST_CALLS = 40
LEAST_ROUNDS = 4
FRESH_ROUNDS = 12
OPEN_SECONDS, RUN_SECONDS = 300.0, 300.0

_FRESH = {
    "import gensdk": "import gensdk\n",
    "from gensdk import Generator": "from gensdk import Generator\n",
    **{
        f"first sample of {name}": (
            "from gensdk import Generator\n"
            f"with Generator.load({name!r}, backend={{backend!r}}, threads={{threads!r}}) as generator:\n"
            "    generator.sample(1, seed=0)\n"
        )
        for name in ("digits-dcgan", "digits-ddpm")
    },
}
_DONE = "print('done', flush=True)\n"


@dataclass
class Case:
    """Calls that both versions make, and their times in ms by round: `new` and `old`."""

    what: str
    bundle: str
    method: str = "sample"
    batch: int = 1
    new: list[NDArray[np.float64]] = field(default_factory=list)
    old: list[NDArray[np.float64]] = field(default_factory=list)
    same: bool = True

    @property
    def figure(self) -> Figure:
        """The ratio against its bound."""
        medians = (np.median(np.concatenate(side)) for side in (self.new, self.old))
        detail = "{:.3f} ms and {:.3f} ms".format(*medians)
        detail += f", {len(self.new)} rounds" + ("" if self.same else "; their bits differ")
        return ratio_figure(self.method, self.what, self.new, self.old, SLOWER, detail=detail)


@dataclass(frozen=True)
class Comparison:
    """Both versions, and how long and on what they are measured. `seconds`: of calls, for each case."""

    new: Version
    old: Version
    backend: str
    threads: int | None
    clock: str
    seconds: float
    patience: int
    fresh_rounds: int = FRESH_ROUNDS

    def calls(self, cases: Sequence[Case], say: Callable[[str], None]) -> Iterator[Figure]:
        """The figures of `cases`."""
        undecided = list(cases)
        for _ in range(self.patience):
            for _ in range(STARTS):
                self._measure(undecided)
            undecided = [case for case in undecided if case.figure.verdict == "can't tell"]
            say(f"{len(undecided)} of {len(cases)} cases can't be told yet")
            if not undecided:
                break
        yield from (case.figure for case in cases)

    def _measure(self, cases: Sequence[Case]) -> None:
        """A share of the rounds of each case, in two new processes."""
        with ExitStack() as stack:
            children = [stack.enter_context(version.start()) for version in (self.new, self.old)]
            for case in cases:
                digests = [self._open(child, case) for child in children]
                case.same = case.same and digests[0] == digests[1]
                self._time(children, case)

    def _open(self, child: Child, case: Case) -> str:
        answer = child.ask(
            "open",
            timeout=OPEN_SECONDS,
            bundle=case.bundle,
            method=case.method,
            batch=case.batch,
            options={},
            backend=self.backend,
            threads=self.threads,
        )
        version = self.new if child.name == self.new.name else self.old
        if not Path(answer["from"]).is_relative_to(version.folder):
            raise click.ClickException(f"{version.name} was imported from {answer['from']}, not {version.folder}")
        return str(answer["digest"])

    def _time(self, children: Sequence[Child], case: Case) -> None:
        """Rounds until the time is over; who comes first alternates."""
        once = [np.median(self._burst(child, calls=3)) for child in children]
        calls = max(1, min(MOST_CALLS, round(1e3 * BURST / float(min(once)))))
        rounds = max(LEAST_ROUNDS, round(self.seconds / STARTS * 1e3 / (calls * float(sum(once)))))
        for number in range(rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                (case.new, case.old)[side].append(self._burst(children[side], calls=calls))

    def _burst(self, child: Child, *, calls: int) -> NDArray[np.float64]:
        """Milliseconds of some calls one after another, after one more that fills the caches."""
        answer = child.ask("run", timeout=RUN_SECONDS, calls=calls, discard=1, clock=self.clock)
        return np.array(answer["ns"], np.float64) / 1e6

    def fresh(self) -> Iterator[Figure]:
        """What a new process takes to its end, in turn."""
        for what, code in _FRESH.items():
            program = code.format(backend=self.backend, threads=self.threads) + _DONE
            self._processes(program, 1)  # writes bytecode and fills caches
            seconds: tuple[list[NDArray[np.float64]], ...] = ([], [])
            for _ in range(self.patience):
                for side, more in zip(seconds, self._processes(program, self.fresh_rounds), strict=True):
                    side.extend(more)
                medians = (np.median(np.concatenate(side)) for side in seconds)
                detail = "{:.3f} s and {:.3f} s".format(*medians) + f", {len(seconds[0])} processes each"
                figure = ratio_figure("startup", what, *seconds, SLOWER, detail=detail)
                if figure.verdict != "can't tell":
                    break
            yield figure

    def _processes(self, program: str, rounds: int) -> tuple[list[NDArray[np.float64]], ...]:
        """Seconds of so many processes of the new and of the old version; who comes first alternates."""
        seconds: tuple[list[NDArray[np.float64]], ...] = ([], [])
        for number in range(rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                version = (self.new, self.old)[side]
                found = first_sample(version.environment, program, version.paths)
                seconds[side].append(np.array([found.seconds(self.clock)]))
        return seconds

    def prepared(self) -> Iterator[Figure]:
        """What ``sample()`` and, where there is one, ``prepare()`` of the new version add to bare calls."""
        for bundle, steps in ADDED_BY.items():
            given = ["--batch", "1", "--backend", self.backend, "--clock", self.clock]
            given += ["--seconds", f"{self.seconds:g}", "--json"]
            given += [] if self.threads is None else ["--threads", str(self.threads)]
            given += [] if steps is None else ["--num-inference-steps", str(steps)]
            for row in json.loads(self.new.run("overhead", bundle, *given)):
                found = Overhead(**row)
                prepared = found.call == PREPARED
                yield found.added(ADDED_MS if prepared and steps is None else None)
                if steps is not None:
                    yield found.figure if prepared else _unbound(found.figure)


def _unbound(figure: Figure) -> Figure:
    """The figure as it is reported, and held to nothing."""
    return Figure(figure.group, figure.what, figure.value, figure.low, figure.high, None, figure.detail)


def measure(comparison: Comparison, parts: Sequence[str], say: Callable[[str], None]) -> Iterator[Figure]:
    """The figures of the parts that are asked for."""
    with tempfile.TemporaryDirectory() as scratch:
        cases = []
        if "sample" in parts:
            cases += [Case(f"{name}, batch {n}", name, batch=n) for name in EMBEDDED for n in BATCHES]
        if "translate" in parts:
            say("making a translator with the other version")
            bundle = make_translator(comparison.old, Path(scratch))
            cases.append(Case("a frame of 256x256", str(bundle), "translate"))
        if cases:
            yield from comparison.calls(cases, say)
    if "startup" in parts:
        yield from comparison.fresh()
    if "prepare" in parts:
        yield from comparison.prepared()


@click.command(help=__doc__)
@click.argument("against")
@click.option("--only", default=",".join(PARTS), show_default=True, help="The parts to measure.")
@click.option("--seconds", default=15.0, show_default=True, help="Of calls, for each case.")
@click.option("--patience", default=3, show_default=True, help="How often to measure what can't be told.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--threads", default=1, show_default=True, help="0: the backend's own number.")
@click.option(
    "--clock",
    type=click.Choice(list(CLOCKS)),
    default="wall",
    show_default=True,
    help="Processor time is disturbed less on a busy machine.",
)
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/against"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
def main(against: str, only: str, root: Path, threads: int, as_json: bool, **how: Any) -> None:
    parts = tuple(filter(None, only.split(",")))
    if wrong := set(parts) - set(PARTS):
        raise click.UsageError(f"no part {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    root = root.absolute()
    new = Version("new", BENCHMARKS.parent, root / "new")
    old = Version("old", locate(against, root), root / "old")
    comparison = Comparison(new, old, threads=threads or None, **how)
    found = []
    for figure in measure(comparison, parts, lambda text: click.echo(text, err=True)):
        found.append(figure)
        if not as_json:
            print(figure.line(), flush=True)
    if as_json:
        print(json.dumps([{**asdict(figure), "verdict": figure.verdict} for figure in found]))
    missed = sum(figure.verdict == "MISSES" for figure in found)
    untold = sum(figure.verdict == "can't tell" for figure in found)
    click.echo(f"{len(found)} figures: {missed} missed, {untold} can't be told", err=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
