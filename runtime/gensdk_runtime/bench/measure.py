"""Measures the latency of a model's calls, for one model or for several in turn.

Cold: loading, and the first ``Generator.sample()``. Warm: the same call as ``Generator.prepare()`` makes it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any, Protocol, TypeVar

import numpy as np

from gensdk_runtime.backends.base import Session
from gensdk_runtime.bench.latency_report import (
    MAX_CALLS_PER_RUN,
    BenchSettings,
    Case,
    Run,
    SamplingOptions,
    Subject,
)
from gensdk_runtime.bench.machine import speed_probe_ns
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.garbage import no_garbage_collection
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import all_options

T = TypeVar("T")


class Sampler(Protocol):
    """What is measured: a :class:`gensdk_runtime.generator.Generator`, or a wrapper of one."""

    @property
    def model(self) -> ModelSpec:
        """The model's description."""

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The open graphs."""

    @property
    def sample(self) -> Callable[..., Samples]:
        """Draws samples, as :meth:`Generator.sample` does: the first call."""

    def close(self) -> None:
        """Frees the sessions."""


@dataclass(frozen=True)
class Target:
    """`open` loads the model anew at each call. `name` is what reports call it."""

    name: str
    open: Callable[[], Sampler]
    batch: int = 1
    threads: int | None = None


def measure(targets: Sequence[Target], settings: BenchSettings, *, seed: int = 0) -> list[Case]:
    """Measures `targets`, several of them in turn: each round calls every one, in an order drawn from `seed`.

    So call i of one case was made right beside call i of the others, on a machine in the same state, and the
    cases may be compared in pairs. Raises :class:`InputError` for a batch that the model does not take whole,
    and whatever opening and sampling raise.
    """
    rng = np.random.default_rng(seed)
    runs: list[list[Run]] = [[] for _ in targets]
    subjects: list[Subject] = []
    for _ in range(settings.runs):
        with ExitStack() as stack:
            opened = {i: _open(targets[i], settings.options, stack) for i in _shuffled(range(len(targets)), rng)}
            calls = [opened[i] for i in range(len(targets))]
            subjects = [call.subject for call in calls]
            for found, run in zip(runs, _measure_run(calls, settings, rng), strict=True):
                found.append(run)
    return [
        Case.of(subject, tuple(found), settings.percentiles) for subject, found in zip(subjects, runs, strict=True)
    ]


@dataclass
class _Calls:
    """An open target and the clock readings of its calls."""

    draw: Callable[..., Samples]
    subject: Subject
    keywords: dict[str, Any]
    load_ns: int
    first_call_ns: int
    latencies_ns: list[int]
    graphs_ns: list[int]

    def call(self) -> int:
        """One call within the report's boundary, in ns. Nothing else may stand between the two readings."""
        draw, keywords = self.draw, self.keywords
        start = perf_counter_ns()
        samples = draw(**keywords)
        latency = perf_counter_ns() - start
        self.latencies_ns.append(max(latency, 1))
        self.graphs_ns.append(round(samples.timings.graphs * 1e9))
        return latency

    def forget(self) -> None:
        """Drops what the warm-up measured."""
        self.latencies_ns.clear()
        self.graphs_ns.clear()


def _open(target: Target, options: SamplingOptions, stack: ExitStack) -> _Calls:
    start = perf_counter_ns()
    sampler = target.open()
    load_ns = perf_counter_ns() - start
    stack.callback(sampler.close)
    model = sampler.model
    if not 1 <= target.batch <= model.max_batch:
        raise InputError(f"batch {target.batch}: {target.name} takes 1 to {model.max_batch} samples at once")
    keywords: dict[str, Any] = {"seed": 0, **required_examples(model, target.batch)}
    start = perf_counter_ns()
    samples = sampler.sample(target.batch, progress=False, **keywords, **options.keywords())
    first_call_ns = perf_counter_ns() - start
    subject = _subject(target, sampler, samples, options)
    if isinstance(sampler, Generator):
        settings = options.keywords()
        label = settings.pop("label", None)
        draw = sampler.prepare(target.batch, label=label, settings=settings, warm=False).draw
    else:
        draw = partial(sampler.sample, target.batch, progress=False, **options.keywords())
    return _Calls(draw, subject, keywords, max(load_ns, 1), max(first_call_ns, 1), [], [])


def _subject(target: Target, sampler: Sampler, samples: Samples, options: SamplingOptions) -> Subject:
    """What is measured, with the settings that really held, so that no changed default passes unseen."""
    used = {name: samples.settings[name] for name in all_options() if name in samples.settings}
    return Subject(
        bundle=target.name,
        model=sampler.model.name,
        image=sampler.model.output.shape,
        backend=samples.settings["backend"],
        precision=samples.settings["precision"],
        batch=target.batch,
        threads=target.threads,
        options=SamplingOptions.from_dict(options.keywords() | used, what="settings of the samples"),
    )


def _measure_run(calls: Sequence[_Calls], settings: BenchSettings, rng: np.random.Generator) -> list[Run]:
    """Warms up, then calls in rounds until time and iterations are both reached, or the cap on calls."""
    rounds = -(-settings.iterations // settings.runs)
    duration_ns = settings.duration_s * 1e9 / settings.runs * len(calls)
    probe = speed_probe_ns()
    for each in calls:
        spent = 0
        while spent < settings.warmup_ms * 1e6:
            spent += each.call()
        each.forget()
    gc.collect()
    with no_garbage_collection():
        start = perf_counter_ns()
        for done in range(MAX_CALLS_PER_RUN):
            if done >= rounds and perf_counter_ns() - start >= duration_ns:
                break
            for each in _shuffled(calls, rng):
                each.call()
    probe = (probe + speed_probe_ns()) // 2
    return [
        Run(
            load_ns=each.load_ns,
            first_call_ns=each.first_call_ns,
            probe_ns=probe,
            graphs_ns=int(np.median(each.graphs_ns)),
            latencies_ns=tuple(each.latencies_ns),
        )
        for each in calls
    ]


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items))] if len(items) > 1 else list(items)
