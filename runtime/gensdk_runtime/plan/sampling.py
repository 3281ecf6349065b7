"""``sample()`` of one model: a request is made, planned and executed, and its samples are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_callback, check_count, check_flag
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.conditions.base import Size, check_known, checked, conditions_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.memory import check_room
from gensdk_runtime.noise import Seeds, sample_keys
from gensdk_runtime.outputs.base import OutputType, check_output_type, output_of
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.executor import Done, Executor, Work
from gensdk_runtime.plan.given_settings import GivenSettings, given_settings
from gensdk_runtime.plan.lease import Lease
from gensdk_runtime.plan.request import Asked, Request, Requests, check_latents
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.plan.starts import encoded
from gensdk_runtime.programs.base import Program
from gensdk_runtime.programs.run import Run, StepCallback
from gensdk_runtime.samples import Samples, Timings
from gensdk_runtime.spec.options import check_names
from gensdk_runtime.spec.settings import ProgramSettings, SampleOptions

STARTS = ("image", "mask_image")
"""What samples of a model start from that can."""
FEW = 64
"""Samples that fit into memory wherever the model does."""


class SampleArguments(SampleOptions, total=False):
    """The arguments of :meth:`Generator.sample` that a walk through latents leaves to its caller."""

    negative_prompt: Any
    audio: Any
    settings: ProgramSettings | Mapping[str, Any] | None
    callback_on_step_end: StepCallback | None
    progress: bool | None
    batch_size: int | None
    output_type: OutputType


class _Call(NamedTuple):
    """What a call is given beside its request; `fresh`: the conditions that no request keeps; `start`: when it
    began."""

    start: float
    seed: Seeds | None
    latents: NDArray[np.float32] | None
    fresh: Mapping[str, NDArray[Any]]
    callback_on_step_end: StepCallback | None
    progress: bool | None
    output_type: OutputType
    lease: Lease | None = None


class Sampling:
    """What :meth:`Generator.sample` does, for it and for the methods that are built on sampling.

    `program`: that of the runner that was opened first, for what does not depend on how graphs are run. `output`:
    what works with the samples, and `conditions`: with what they are asked to be, with what they need of `files`.
    `fresh`: the conditions that are checked in each call.
    """

    def __init__(self, executor: Executor, files: ModelFiles | None = None) -> None:
        self.executor = executor
        self.model = executor.model
        self.program: Program[Any] = executor.runners.first.program
        output = output_of(self.model.output)
        self.output = output if files is None else output.with_files(files)
        self.conditions = conditions_of(self.model, files)
        self.requests = Requests(self.program, executor, self.conditions)
        self._working = self.model.program.working
        self._recorded = {condition.kind: f"{condition.kind}s" for condition in self.conditions}
        self.fresh = tuple(condition for condition in self.conditions if not condition.kept)
        self.starts = self.program.starts and "image" not in self._recorded

    def sample(
        self,
        n: int | None = None,
        *,
        seed: Seeds | None = None,
        conditions: Mapping[str, Any] | None = None,
        latents: NDArray[np.float32] | None = None,
        prefix: Any = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
        settings: ProgramSettings | Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """See :meth:`gensdk_runtime.generator.Generator.sample`: `conditions` by kind, of which None is left open;
        `options` of the program, and of conditions that :meth:`Generator.sample` does not name."""
        start = perf_counter()
        asked_for, options = self.asked_for(conditions or {}, options or {})
        if settings is not None:
            given = self._given(settings)
            options = given.under(options)
            given.check_arrays(latents=latents, prefix=prefix, **{name: asked_for.get(name) for name in STARTS})
            if n is not None:
                given.tell_left_out(check_count(n), seed, asked_for)
            else:
                n = given.n
                seed = given.seed if seed is None else seed
                asked_for = {**given.conditions, **asked_for}
        if callback_on_step_end is not None:
            check_callback(callback_on_step_end, "callback_on_step_end")
        if progress is not None:
            check_flag(progress, "progress")
        fresh, size = self._checked(asked_for, n)
        if prefix is not None:
            fresh["prefix"] = self._beginnings(prefix, n)
        if n is None:
            n = next((len(values) for values in fresh.values()), 1)
        started = self.starts and "image" in fresh
        asked = Asked(n, batch_size, callback_on_step_end is not None, size, prefix is not None, started)
        request = self.requests.get(asked, asked_for, options)
        call = _Call(start, seed, latents, fresh, callback_on_step_end, progress, output_type)
        return self._carry_out(request, call)

    def asked_for(
        self, conditions: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The conditions that were given, by kind, some of them among the options; and the other options."""
        asked_for = {kind: value for kind, value in conditions.items() if value is not None}
        if options:
            named = [name for name in options if name in self._recorded]
            if named:
                asked_for |= {kind: options[kind] for kind in named if options[kind] is not None}
                options = {name: value for name, value in options.items() if name not in named}
            asked = (name for name, value in options.items() if value is not None)
            check_names(asked, self.program.Settings, self.requests.arguments)
        if asked_for:
            check_known([kind for kind in asked_for if not (self.starts and kind in STARTS)], self.model)
        return asked_for, options

    def checked(self, given: Mapping[str, Any], n: int) -> dict[str, NDArray[Any]]:
        """See :func:`gensdk_runtime.conditions.base.checked`."""
        return checked(given, self.model, n, self.conditions)

    def _checked(self, given: dict[str, Any], n: int | None) -> tuple[dict[str, NDArray[Any]], Size | None]:
        """Takes those conditions out of `given` that no request keeps: their values, and their size."""
        fresh: dict[str, NDArray[Any]] = {}
        size: Size | None = None
        begun = self._begun(given) if given and self.starts else {}
        if n is None:
            n = next((len(rows) for rows in begun.values() if len(rows) > 1), None)
        for condition in self.fresh:
            values = fresh[condition.kind] = condition.check(given.pop(condition.kind, None), n)
            size = size or condition.size(values)
        counts = {len(values) for values in fresh.values()}
        if len(counts) > 1:  # n was left open: one of a kind is for all samples
            fresh = {kind: _for_each(values, max(counts), kind) for kind, values in fresh.items()}
        if begun:
            count = check_count(next((len(values) for values in fresh.values()), 1) if n is None else n)
            fresh |= {name: _for_each(rows, count, name) for name, rows in begun.items()}
        return fresh, size

    def _begun(self, given: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Takes out of `given` what samples start from: one for all of them, or one for each."""
        image, mask = (given.pop(name, None) for name in STARTS)
        if image is not None:
            found = self.output.starts(image, mask)
            return encoded(self.executor, found) if self.program.starts_encoded else found
        if mask is not None:
            raise InputError("mask_image needs an image, which is kept where it is 0; pass image too")
        return {}

    def _beginnings(self, given: Any, n: int | None) -> NDArray[Any]:
        """The beginning of each sample; one may be given for all."""
        found = self.executor.runners.steps.program.prefix(given, self.output)
        return _for_each(found, len(found) if n is None else check_count(n), "prefix")

    def options(
        self, settings: ProgramSettings | Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """`options`, and those in `settings` that are not among them."""
        return options if settings is None else self._given(settings).under(options)

    def _given(self, settings: ProgramSettings | Mapping[str, Any]) -> GivenSettings:
        return given_settings(settings, self.program.Settings, self._recorded, self.requests.arguments)

    def draw(
        self,
        request: Request,
        *,
        seed: Seeds | None = None,
        latents: NDArray[np.float32] | None = None,
        conditions: Mapping[str, Any] | None = None,
        output_type: OutputType = "float32",
        lease: Lease | None = None,
    ) -> Samples:
        """What :meth:`sample` gives for a request that was made before, with no progress bar and no callback;
        `lease`: that of this request, which keeps its buffers."""
        start = perf_counter()
        asked_for, _ = self.asked_for(conditions or {}, {})
        fresh, size = self._checked(asked_for, request.n)
        if size != request.size:
            wanted, got = list(request.size or ()), list(size or ())
            raise InputError(f"expected {' and '.join(fresh)} of size {wanted}, as was prepared, got {got}")
        return self._carry_out(request, _Call(start, seed, latents, fresh, None, False, output_type, lease))

    def warm(self, request: Request, output_type: OutputType, lease: Lease) -> None:
        """Runs a request once, so that graphs are bound and memory is there."""
        size = request.size or ()
        conditions = {each.kind: each.sized(request.n, size) for each in self.fresh}
        if request.started:
            conditions["image"] = np.full((1, *request.shape), self.model.output.value_range[0], np.float32)
        self.draw(request, seed=0, conditions=conditions, output_type=output_type, lease=lease)

    def _carry_out(self, request: Request, call: _Call) -> Samples:
        if beside := self._working:
            beside *= max(found.samples for found, _ in request.rounds)
        if request.n > FEW or request.size is not None or beside:
            check_room(request.n, prod(request.shape), beside)
        check_output_type(call.output_type)
        makes_bytes = call.output_type == "uint8" and self.program.makes_uint8
        data = self.output.empty(request.n, call.output_type, request.shape, makes_bytes=makes_bytes)
        keys, latents, rows = sample_keys(request.n, call.seed), call.latents, request.conditions
        if request.drawn:
            rows = {**rows, **{condition.kind: condition.drawn(keys) for condition in request.drawn}}
        if latents is not None:
            latents = check_latents(latents, request.n, self.program.latent_shape)
        # Asked before it runs: a batch ends on the backend that it began on.
        record = {**request.record, **self.executor.runners.record(request.rounds)}
        conditions = {**rows, **call.fresh} if call.fresh else rows
        lengths = np.zeros(request.n, np.int64) if self.program.ends else None
        batches = Batches(keys, conditions, latents, data, call.callback_on_step_end, lengths)
        done = self._execute(request, batches, call)
        count, stopped, graphs = 0, False, 0.0
        for run, _ in done:
            count += len(run.data)
            stopped = stopped or run.stopped
            graphs += run.graph_seconds
        if count < len(data):
            data, keys = data[:count], keys[:count]
        kept: dict[str, NDArray[Any]] = {}
        told: dict[str, Any] = {"labels": None}  # which every record has
        for condition in self.conditions:
            kind = condition.kind
            if condition.in_results and kind in conditions:
                values = conditions[kind][:count]
                kept[kind] = values.copy() if condition.kept else values  # a request keeps its own
                told[self._recorded[kind]] = None if kind in request.unasked else condition.told(kept[kind])
        return Samples(
            data=self.output.of_type(data, call.output_type),
            seeds=keys,
            output=self.output,
            conditions=kept,
            settings={
                "model": self.model.name,
                "n": count,
                "seeds": [list(key) for key in keys],
                **told,
                **record,
                **({} if latents is None else {"latents": "given"}),
                **{name: "given" for name in call.fresh if name == "prefix" or (self.starts and name in STARTS)},
                **({"stopped": True} if stopped else {}),
            },
            timings=Timings(
                perf_counter() - call.start,
                graphs,
                tuple([run.seconds for run, _ in done]),
            ),
            stopped=stopped,
            lengths=None if lengths is None else lengths[:count],
        )

    def _execute(self, request: Request, batches: Batches, call: _Call) -> list[Done[None]]:
        settings, lease = request.settings, call.lease

        def task(runner: Runner, run: Run) -> None:
            if lease is None:
                runner.program.run_timed(run, settings)
            else:
                lease.run(runner, run, settings)

        return self.executor.run(
            Work(task, request.rounds, batches, halves=request.splits, progress=call.progress)
        )


def _for_each(rows: NDArray[Any], count: int, what: str) -> NDArray[Any]:
    """`rows` [m, ...] for `count` samples: one is for all of them."""
    if len(rows) not in (1, count):
        raise InputError(f"expected one {what}, or one for each of the {count} samples, got {len(rows)}")
    return np.broadcast_to(rows, (count, *rows.shape[1:]))
