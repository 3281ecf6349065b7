"""gensdk against every peer, side by side in one run: one table, one picture, and a verdict on each figure.

Models are made from fixed seeds and exported once; gensdk is tuned for them as ``gensdk tune`` does; then for each
workload and batch size all peers get the same noise, each in a process of its own, asked in turn. Ends with 1
where a figure is surely missed, that is, its whole interval lies beyond its bound.

    python benchmarks/compare.py                                                    # all; about 15 minutes
    python benchmarks/compare.py --quick                                            # a few minutes, wide intervals
    python benchmarks/compare.py --only digits-ddpm --peers gensdk,torch --batch 1 --rounds 5
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import memory
import multiply_adds
import startup
from claims import figures_of, title
from compare_report import Outcome, print_outcome, write_outcome
from figures import Figure
from overhead import Overhead
from peers import PEERS
from peers.child import BENCHMARKS, child_environment
from sidebyside import Comparison, Result
from workloads import WORKLOADS, Case
from workloads.prepare import Prepared

from gensdk_runtime.bench.machine import Machine, this_machine
from gensdk_runtime.host.child_process import run_module

PACKAGES = ("gensdk", "numpy", "onnxruntime", "openvino", "torch", "diffusers")
PARTS = ("sidebyside", "overhead", "startup", "memory")
COMPILED = ("torch-compile", "diffusers-compile")
OVERHEAD_BATCHES = {"digits-ddpm": "1,8,64", "dcgan-64": "1,64", "pixelcnn-28": "1,64"}
PREPARE_SECONDS, TUNE_SECONDS, OVERHEAD_SECONDS = 900.0, 300.0, 600.0


@dataclass(frozen=True)
class Plan:
    """What to measure, and for how long. `seconds`: of timing for each case."""

    root: Path
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    batches: tuple[int, ...]
    parts: tuple[str, ...]
    seconds: float
    rounds: int | None
    tune_budget: float
    overhead_seconds: float
    startup_rounds: int

    def cases(self, name: str) -> list[Case]:
        """The cases of a workload that were asked for."""
        return [case for case in WORKLOADS[name].cases if not self.batches or case.batch in self.batches]


def say(text: str) -> None:
    click.echo(text, err=True)


def run_child(module: str, arguments: Sequence[str], root: Path, seconds: float) -> str:
    """The output of a module of ours, run as a program. Raises ClickException where it fails."""
    try:
        done = run_module(
            module, *arguments, timeout=seconds, paths=[BENCHMARKS], environment=child_environment(root)
        )
    except TimeoutError:
        raise click.ClickException(f"{' '.join([module, *arguments])}: took over {seconds:.0f} s") from None
    if done.code:
        raise click.ClickException(f"{' '.join([module, *arguments])}: {done.errors.strip()[-800:]}")
    return done.output


def prepare_all(plan: Plan) -> dict[str, Prepared]:
    """The workloads on disk, made in processes of their own."""
    found = {}
    for name in plan.workloads:
        say(f"== {name}: preparing")
        answer = run_child("workloads.prepare", [name, str(plan.root)], plan.root, PREPARE_SECONDS)
        found[name] = Prepared(**json.loads(answer.splitlines()[-1]))
    return found


def tune(plan: Plan, prepared: Prepared) -> None:
    """What a user does once for a bundle: ``gensdk tune``, at the batch sizes that matter."""
    batches = ",".join(str(case.batch) for case in WORKLOADS[prepared.name].cases)
    command = ["tune", str(prepared.bundle), "--precision", "fp32", "--batch", batches]
    say(f"== {prepared.name}: gensdk tune --batch {batches} --budget {plan.tune_budget:g}")
    report = run_child("gensdk", [*command, "--budget", f"{plan.tune_budget:g}"], plan.root, TUNE_SECONDS)
    say("\n".join(line for line in report.splitlines() if " samples: " in line))


def compare(plan: Plan, prepared: Prepared) -> Iterator[Result]:
    """All peers in all cases of one workload."""
    comparison = Comparison(WORKLOADS[prepared.name], prepared, plan.peers, root=plan.root, say=say)
    for case in plan.cases(prepared.name):
        say(f"== {prepared.name}, batch {case.batch}")
        yield comparison.measure(case, seconds=plan.seconds, rounds=plan.rounds)


def overheads(plan: Plan, prepared: Prepared) -> list[Figure]:
    """The runtime against the bare calls of the backends that it chose."""
    batches = OVERHEAD_BATCHES.get(prepared.name)
    if batches is None:
        return []
    say(f"== {prepared.name}: overhead over bare backend calls")
    command = [str(prepared.bundle), "--name", prepared.name, "--batch", batches]
    command += ["--seconds", f"{plan.overhead_seconds:g}", "--json"]
    steps = WORKLOADS[prepared.name].cases[0].steps
    command += [] if steps is None else ["--num-inference-steps", str(steps)]
    found = json.loads(run_child("overhead", command, plan.root, OVERHEAD_SECONDS))
    return [Overhead(**each).figure for each in found]


def measure(plan: Plan) -> Outcome:
    """All parts of the plan, one after another: nothing else runs beside what is timed.

    What is there is written after each case, so that a run that is stopped has not been in vain.
    """
    run = Progress(time.monotonic(), this_machine())
    load = run.machine.load_average
    if load and load[0] > 0.5 * run.machine.cores:
        run.notes.append(f"the machine was busy before the measurement began (load {load[0]:g})")
    prepared = prepare_all(plan)
    if "sidebyside" in plan.parts:
        run.measure_peak(plan.root)
    for each in prepared.values():
        attempt(run.notes, partial(tune, plan, each))
        if "sidebyside" in plan.parts:
            for result in compare(plan, each):
                run.add(result, each)
                write_outcome(run.outcome(), plan.root)
        if "overhead" in plan.parts:
            run.figures += attempt(run.notes, partial(overheads, plan, each)) or []
    if "startup" in plan.parts:
        say("== start-up")
        run.figures += startup.measure(plan.root, rounds=plan.startup_rounds)
    if "memory" in plan.parts and "cifar10-unet" in prepared:
        say("== memory")
        run.figures += memory.measure(prepared["cifar10-unet"], plan.root)
    if "sidebyside" in plan.parts:
        run.measure_peak(plan.root)  # the machine may have been slower in the beginning
    return run.outcome()


@dataclass
class Progress:
    """What one run has found so far."""

    start: float
    machine: Machine
    peak: dict[str, float] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def measure_peak(self, root: Path) -> None:
        """The best of this and what was measured before."""
        found = multiply_adds.machine_peak(child_environment(root))
        self.peak = {name: max(speed, self.peak.get(name, 0.0)) for name, speed in found.items()}

    def add(self, result: Result, prepared: Prepared) -> None:
        """Keeps a case, and says in one line how it went."""
        self.results.append(result)
        self.work[title(result)] = multiply_adds.of_sampling(prepared, result.case)
        times = sorted((timing.median, name) for name, timing in result.timings.items())
        line = ", ".join(f"{name} {ms:.4g}" for ms, name in times)
        say(f"  {time.monotonic() - self.start:.0f} s: {title(result)}, ms: {line}")

    def outcome(self) -> Outcome:
        """All that there is."""
        return Outcome(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.start,
            machine=self.machine,
            versions={name: metadata.version(name) for name in PACKAGES},
            peak=self.peak,
            work=self.work,
            results=self.results,
            figures=[*figures_of(self.results), *self.figures],
            notes=self.notes,
        )


def attempt(notes: list[str], work: Callable[[], Any]) -> Any:
    """Does `work`; where it fails, a note says so and the rest goes on."""
    try:
        return work()
    except click.ClickException as failure:
        notes.append(failure.message)
        say(f"  {failure.message}")
        return None


def names(known: Sequence[str]) -> Callable[[Any, Any, str | None], tuple[str, ...]]:
    """Reads names with commas between."""

    def read(context: Any, parameter: Any, text: str | None) -> tuple[str, ...]:
        chosen = tuple(text.split(",")) if text else tuple(known)
        for name in chosen:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return read


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
@click.option("--only", callback=names(list(WORKLOADS)), help="Workloads, with commas between. [default: all]")
@click.option("--peers", callback=names(list(PEERS)), help="Peers, with commas between. [default: all]")
@click.option("--batch", help="Batch sizes, with commas between. [default: all of each workload]")
@click.option("--parts", callback=names(PARTS), help=f"[default: {','.join(PARTS)}]")
@click.option("--seconds", type=float, default=15.0, show_default=True, help="Of timing for each case.")
@click.option("--rounds", type=int, help="Just so many rounds for each case.")
@click.option("--quick", is_flag=True, help="Short and without torch.compile; for a look, not for a verdict.")
def main(
    *,
    root: Path,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    batch: str | None,
    parts: tuple[str, ...],
    seconds: float,
    rounds: int | None,
    quick: bool,
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        root=root.absolute(),
        workloads=only,
        peers=tuple(name for name in peers if not (quick and name in COMPILED)),
        batches=tuple(int(size) for size in batch.split(",")) if batch else (),
        parts=parts,
        seconds=5.0 if quick else seconds,
        rounds=rounds,
        tune_budget=5.0 if quick else 12.0,
        overhead_seconds=4.0 if quick else 12.0,
        startup_rounds=3 if quick else startup.ROUNDS,
    )
    outcome = measure(plan)
    print_outcome(outcome)
    written = write_outcome(outcome, plan.root)
    click.echo(f"written to {' and '.join(str(path) for path in written if path)}")
    missed = [figure for figure in outcome.figures if figure.verdict == "MISSES"]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
