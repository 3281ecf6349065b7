"""``sample()`` of one model: a request is made, planned and executed, and its samples are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_callback
from gensdk_runtime.conditions.base import check_known
from gensdk_runtime.host.memory import check_room
from gensdk_runtime.noise import Seeds, sample_keys
from gensdk_runtime.outputs.base import OutputType, output_of
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.executor import Done, Executor, Work
from gensdk_runtime.plan.request import Asked, Request, Requests, check_latents
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.base import Program, Run, StepCallback
from gensdk_runtime.samples import Samples, Timings

FEW = 64
"""Samples that fit into memory wherever the model does."""


class Sampling:
    """What :meth:`Generator.sample` does, for it and for the methods that are built on sampling.

    `program`: that of the runner that was opened first, for what does not depend on how graphs are run. `output`:
    what works with the samples.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.model = executor.model
        self.program: Program[Any] = executor.runners.first.program
        self.output = output_of(self.model.output)
        self.requests = Requests(self.program, executor)
        self._fresh = tuple(condition for condition in self.program.conditions if not condition.kept)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: Seeds | None = None,
        conditions: Mapping[str, Any] | None = None,
        latents: NDArray[np.float32] | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """See :meth:`gensdk_runtime.generator.Generator.sample`; `conditions` by kind, of which None is left open;
        `options` are those of the program."""
        start = perf_counter()
        if callback_on_step_end is not None:
            check_callback(callback_on_step_end, "callback_on_step_end")
        given = {kind: value for kind, value in (conditions or {}).items() if value is not None}
        if given:
            check_known(given, self.model)
        growth, shape, fresh = None, self.model.output.shape, {}
        for condition in self._fresh:
            values = fresh[condition.kind] = condition.check(given.pop(condition.kind, None), n)
            growth, shape = condition.growth(values), condition.sample_shape(values)
            n = len(values)
        asked = Asked(1 if n is None else n, batch_size, callback_on_step_end is not None, growth)
        request = self.requests.get(asked, given, options or {})
        if request.n > FEW or growth is not None:
            check_room(request.n, prod(shape))
        data = self.output.empty(request.n, output_type, shape, makes_bytes=self.program.makes_uint8)
        keys = sample_keys(request.n, seed)
        if latents is not None:
            latents = check_latents(latents, request.n, self.program.latent_shape)
        rows = {**request.conditions, **{each.kind: each.drawn(keys) for each in request.drawn}}
        # Asked before it runs: a batch ends on the backend that it began on.
        record = {**request.record, **self.executor.runners.record(request.rounds)}
        batches = Batches(keys, {**rows, **fresh}, latents, data, callback_on_step_end)
        done = self._execute(request, batches, progress)
        count, stopped = sum(len(each.run.data) for each in done), any(each.run.stopped for each in done)
        if count < len(data):
            data, keys = data[:count], keys[:count]
        kept = {kind: values[:count].copy() for kind, values in rows.items()}  # a request keeps its own
        return Samples(
            data=self.output.of_type(data, output_type),
            seeds=keys,
            output=self.output,
            conditions=kept,
            settings={
                "model": self.model.name,
                "n": count,
                "seeds": [list(key) for key in keys],
                **self._told(request, kept),
                **record,
                **({} if latents is None else {"latents": "given"}),
                **({"stopped": True} if stopped else {}),
            },
            timings=Timings(
                perf_counter() - start,
                sum(each.run.graph_seconds for each in done),
                tuple(each.run.seconds for each in done),
            ),
            stopped=stopped,
        )

    def _told(self, request: Request, kept: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """What the samples were asked to be, as settings say it: None for what was not."""
        told: dict[str, Any] = {"labels": None}  # which every record has
        for condition in self.program.conditions:
            kind = condition.kind
            if kind in kept:
                told[f"{kind}s"] = None if kind in request.unasked else condition.record(kept[kind])
        return told

    def _execute(self, request: Request, batches: Batches, progress: bool | None) -> list[Done[None]]:
        settings = request.settings

        def task(runner: Runner, run: Run) -> None:
            runner.program.run_timed(run, settings)

        return self.executor.run(Work(task, request.rounds, batches, halves=request.splits, progress=progress))
