"""Replays a bundle's golden trajectories on this machine, without PyTorch, and says how far it drifts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Backend, Session, check_feeds, check_outputs
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, BundleError, InputError, IntegrityError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.runner import Runner, open_runner
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.programs.proving import one_same, options_beside
from gensdk_runtime.proof.drift import Drift, degenerate, measure_drift, sample_drift
from gensdk_runtime.proof.golden import Golden, GoldenBounds, Trajectory, TrajectorySettings
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import in_words


@dataclass(frozen=True)
class Check:
    """One replay and its verdict: a graph's recorded calls one by one, or a whole sampling run.

    `what` is the graph's name, or ``samples`` with the settings. `allowed` bounds `drift.scaled`; None
    only reports it. `least_psnr` in dB, where there is such a bound too. `problem` is empty where the bounds hold.
    """

    what: str
    precision: Precision
    backend: str
    drift: Drift
    allowed: float | None
    problem: str
    least_psnr: float | None = None

    @property
    def ok(self) -> bool:
        """True if the replay keeps its bounds."""
        return not self.problem


@dataclass(frozen=True)
class VerifyReport:
    """The checks of all graphs (`graphs`) and of whole sampling runs (`samples`), in each precision."""

    model: str
    graphs: tuple[Check, ...]
    samples: tuple[Check, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks."""
        return (*self.graphs, *self.samples)

    @property
    def ok(self) -> bool:
        """True if every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each check that does not hold."""
        return tuple(
            f"{check.what} ({check.precision}, {check.backend}): {check.problem}"
            for check in self.checks
            if not check.ok
        )

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON: no NaN or infinity in it (null stands for an infinite difference)."""
        return {
            "model": self.model,
            "ok": self.ok,
            "graphs": [_check_dict(check) for check in self.graphs],
            "samples": [_check_dict(check) for check in self.samples],
        }

    def __add__(self, other: VerifyReport) -> VerifyReport:
        return VerifyReport(self.model, self.graphs + other.graphs, self.samples + other.samples)


def verify_bundle(
    bundle: str | Path | Bundle,
    *,
    backend: str | Backend = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    atol: float | None = None,
) -> VerifyReport:
    """Replays the golden trajectories of a bundle (path, embedded name, or open) on this machine.

    `precision` None: every precision that the bundle has. `backend` "auto": all that it would choose among. The
    report says whether the bounds in the bundle hold; `atol` replaces the one for graphs (a bundle from a
    stranger brings its own, and may be generous). Raises BundleError where the bundle can't be read or has no
    golden file, InputError for a bad `atol`, and BackendError.
    """
    with ExitStack() as opened:
        if not isinstance(bundle, Bundle):
            bundle = opened.enter_context(Bundle.open(bundle))
        manifest = bundle.manifest
        golden = load_golden(bundle)
        reports = []
        for each in manifest.precisions if precision is None else (precision,):
            bounds = golden.bounds.get(each)
            if bounds is None:
                raise InputError(f"{bundle.path}: no bounds for {each}, only {', '.join(golden.bounds) or 'none'}")
            if atol is not None:
                bounds = bounds.model_copy(update={"graph": check_atol(atol)})
            with Generator.load(bundle, backend=backend, precision=each, threads=threads) as generator:
                first, *others = (
                    replay(manifest.model, golden, sessions, bounds) for sessions in generator.every_session()
                )
                report = sum(others, start=first)
                if manifest.one_call is not None and each in manifest.one_call.files:
                    engine = backend if isinstance(backend, Backend) else _backend_of(generator, threads)
                    with closing(open_runner(bundle, engine, each, form="one_call")) as runner:
                        check = replay_one_call(generator, manifest.one_call, runner, golden, bounds.samples)
                    report += VerifyReport(report.model, (), (check,))
                reports.append(report)
    first, *others = reports
    return sum(others, start=first)


def check_atol(atol: float) -> float:
    """A bound for scaled differences; :class:`InputError` unless it is a finite number above 0."""
    if not (math.isfinite(atol) and atol > 0):
        raise InputError(f"expected atol as a number above 0, got {atol}")
    return atol


def load_golden(bundle: Bundle) -> Golden:
    """The golden file of `bundle`, checked; :class:`BundleError` where it has none."""
    file = bundle.manifest.golden
    if file is None:
        raise BundleError(f"{bundle.path}: it has no golden trajectories to replay; export the model again")
    return Golden.from_bytes(bundle.read(file), what=f"{bundle.path}: {file!r}")


def replay(
    model: ModelSpec, golden: Golden, sessions: Mapping[str, Session], bounds: GoldenBounds
) -> VerifyReport:
    """Replays `golden` on open `sessions`, all of one precision and backend.

    Graphs are judged call by call, each fed with what PyTorch fed it (teacher-forced), so that errors don't add
    up; whole runs are judged too, in whole samples. Raises :class:`IntegrityError` where the golden file does
    not fit the model, and :class:`BackendError` where a graph can't run.
    """
    check_golden(model, golden)
    graphs = []
    for graph in model.graphs:
        calls, session = golden.calls(graph.name), sessions[graph.name]
        drift = measure_drift(model, ((call, session.run(call.feeds)) for call in calls))
        own = bounds.of(graph.name)
        problem = drift.problem(own)
        graphs.append(Check(graph.name, session.precision, session.backend, drift, own.graph, problem, own.psnr))
    generator = Generator.from_sessions(model, sessions)
    samples = [_replay_run(generator, run, bounds) for run in golden.trajectories]
    return VerifyReport(model.name, tuple(graphs), tuple(samples))


def _replay_run(generator: Generator, run: Trajectory, bounds: GoldenBounds) -> Check:
    try:
        samples = generator.sample(**run.sample_arguments(), progress=False).array
    except InputError as failure:  # the settings come from the bundle, not from the caller
        raise IntegrityError(f"golden file: {failure}; export the bundle again") from None
    except BackendError as failure:  # NaN in the samples, above all
        samples, problem = np.full_like(run.samples, np.nan), str(failure).partition("; run gensdk verify")[0]
    else:
        problem = degenerate(samples)
    drift = sample_drift(generator.model, run.samples, samples)
    if not problem and bounds.samples is not None and drift.scaled > bounds.samples:
        problem = f"differs by {drift.scaled:.2e}, allowed {bounds.samples:.2e}"
    if not problem and bounds.psnr is not None and drift.psnr < bounds.psnr:
        problem = f"PSNR {drift.psnr:.1f} dB, expected at least {bounds.psnr:.1f}"
    session = next(iter(generator.sessions.values()))
    what, of = f"samples{settings_label(run)}", (session.precision, session.backend)
    return Check(what, *of, drift, bounds.samples, problem, bounds.psnr)


def replay_one_call(
    generator: Generator, spec: OneCallSpec, runner: Runner, golden: Golden, atol: float | None
) -> Check:
    """Whole samples of the one-call graph against those that `generator` makes step by step on the same backend.

    Seeds and conditions are those of the first golden trajectory, the settings those that are part of the graph.
    `atol`: largest scaled difference; None only reports it. Of an autoregressive model at least one sample must be
    the same, pixel for pixel: one pixel on the edge of its CDF changes all that come after it.
    """
    model, first = generator.model, golden.trajectories[0]
    given = replace(first, settings=TrajectorySettings(seeds=first.settings.seeds)).sample_arguments()
    given |= options_beside(model, spec.settings)
    whole = Generator(model, Runners({Choice(backend=runner.label, form="one_call"): runner}))
    try:
        expected = generator.sample(**given, progress=False).array
        samples = whole.sample(**given, progress=False).array
    except InputError as failure:
        raise IntegrityError(f"one-call graph: {failure}; export the bundle again") from None
    problem = degenerate(samples)
    drift = sample_drift(model, expected, samples)
    if not problem and atol is not None and drift.scaled > atol:
        problem = f"differs from step by step by {drift.scaled:.2e}, allowed {atol:.2e}"
    same = (samples == expected).reshape(len(samples), -1).all(axis=1)
    if not problem and one_same(model) and not same.any():
        problem = f"none of {len(samples)} samples is the same as step by step"
    return Check("one call", runner.precision, runner.label, drift, atol, problem)


def _backend_of(generator: Generator, threads: int | None) -> Backend:
    """Another of the backend that runs `generator` step by step."""
    return create_backend(next(iter(generator.sessions.values())).backend, threads=threads)


def settings_label(run: Trajectory) -> str:
    """The options of a run, with a space before them; empty where it has none."""
    words = in_words(run.settings.options)
    return f" {words}" if words else ""


def check_golden(model: ModelSpec, golden: Golden) -> None:
    """Raises :class:`IntegrityError` unless all that was recorded fits `model`, and each graph has a call."""
    known = {graph.name: graph for graph in model.graphs}
    kinds, dtype = {condition.kind for condition in model.conditions}, model.output.dtype
    for run in golden.trajectories:
        expected = (len(run.settings.seeds), *model.output.shape)
        if run.samples.shape != expected or run.samples.dtype != dtype:
            got = f"{run.samples.dtype} {list(run.samples.shape)}"
            raise IntegrityError(
                f"golden file: expected samples {dtype} {list(expected)}, got {got}; export the bundle again"
            )
        for kind in run.conditions.keys() - kinds:
            raise IntegrityError(f"golden file: it gives {kind!r}, which the model does not take; export again")
        for call in run.calls:
            graph = known.get(call.graph)
            if graph is None or set(call.outputs) != {spec.name for spec in graph.outputs}:
                raise IntegrityError(f"golden file: a call of {call.graph!r} fits no graph; export again")
            try:
                check_outputs(graph, call.outputs, check_feeds(graph, call.feeds))
            except (InputError, BackendError) as failure:
                raise IntegrityError(f"golden file: {failure}; export the bundle again") from None
    for name in known:
        if not golden.calls(name):
            raise IntegrityError(f"golden file: graph {name!r} has no recorded call; export the bundle again")


def _check_dict(check: Check) -> dict[str, Any]:
    return {**dict(_finite(asdict(check))), "ok": check.ok}


def _finite(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The items, infinite numbers replaced by None."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield key, dict(_finite(value))
        elif isinstance(value, tuple):
            yield key, [None if isinstance(item, float) and not math.isfinite(item) else item for item in value]
        else:
            yield key, None if isinstance(value, float) and not math.isfinite(value) else value
