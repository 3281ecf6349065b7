"""``sample()`` of one model: a request is made, planned and executed, and its samples are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from time import perf_counter
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import check_callback, check_word
from gensdk_runtime.conditions.inputs import check_latents, check_sources
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.memory import check_room
from gensdk_runtime.media.value_range import to_uint8
from gensdk_runtime.noise import SampleKey, Seeds, sample_keys
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.executor import Done, Executor, Work
from gensdk_runtime.plan.given_settings import given_settings
from gensdk_runtime.plan.request import Asked, Label, Request, Requests
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.base import Program, Run, StepCallback
from gensdk_runtime.programs.translation import source_size
from gensdk_runtime.samples import Samples, Timings
from gensdk_runtime.spec.settings import ProgramSettings, SampleOptions

OutputType = Literal["float32", "uint8"]
OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)
FEW = 64
"""Samples that fit into memory wherever the model does."""


class SampleArguments(SampleOptions, total=False):
    """The arguments of :meth:`Generator.sample` that a walk through latents leaves to its caller."""

    settings: ProgramSettings | Mapping[str, Any] | None
    callback_on_step_end: StepCallback | None
    progress: bool | None
    batch_size: int | None
    output_type: OutputType


class _Call(NamedTuple):
    """What a call is given beside its request; `start`: when it began."""

    start: float
    seed: Seeds | None
    latents: NDArray[np.float32] | None
    sources: NDArray[Any] | None
    callback_on_step_end: StepCallback | None
    progress: bool | None
    output_type: OutputType


class Sampling:
    """What :meth:`Generator.sample` does, for it and for the methods that are built on sampling.

    `program`: that of the runner that was opened first, for what does not depend on how graphs are run.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.model = executor.model
        self.program: Program[Any] = executor.runners.first.program
        self.requests = Requests(self.program, executor)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: Seeds | None = None,
        label: Label | None = None,
        latents: NDArray[np.float32] | None = None,
        image: NDArray[Any] | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
        batch_size: int | None = None,
        output_type: OutputType = "float32",
        settings: ProgramSettings | Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """See :meth:`gensdk_runtime.generator.Generator.sample`; `options` are those of the program."""
        start = perf_counter()
        if settings is not None:
            given = given_settings(settings, self.program.Settings)
            options = given.under(options)
            given.check_latents(latents)
            if n is None:
                n = given.n
                seed = given.seed if seed is None else seed
                label = given.label if label is None else label
        if callback_on_step_end is not None:
            check_callback(callback_on_step_end, "callback_on_step_end")
        sources = self._sources(image, n)
        size = None if sources is None else source_size(sources)
        if n is None:
            n = 1 if sources is None else len(sources)
        asked = Asked(n, label, batch_size, callback_on_step_end is not None, size)
        request = self.requests.get(asked, options or {})
        call = _Call(start, seed, latents, sources, callback_on_step_end, progress, output_type)
        return self._carry_out(request, call)

    def options(
        self, settings: ProgramSettings | Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """`options`, and those in `settings` that are not among them."""
        return options if settings is None else given_settings(settings, self.program.Settings).under(options)

    def draw(
        self,
        request: Request,
        *,
        seed: Seeds | None = None,
        latents: NDArray[np.float32] | None = None,
        image: NDArray[Any] | None = None,
        output_type: OutputType = "float32",
    ) -> Samples:
        """What :meth:`sample` gives for a request that was made before, with no progress bar and no callback."""
        start = perf_counter()
        sources = self._sources(image, request.n)
        if sources is not None and source_size(sources) != request.size:
            wanted, got = list(request.size or ()), list(source_size(sources))
            raise InputError(f"expected images of {wanted} (height, width), as was prepared, got {got}")
        return self._carry_out(request, _Call(start, seed, latents, sources, None, False, output_type))

    def warm(self, request: Request, output_type: OutputType) -> None:
        """Runs a request once, so that graphs are bound and memory is there."""
        image, source = None, self.model.source
        if source is not None and request.size is not None:
            image = np.zeros((request.n, *request.size, source.channels), np.uint8)
        self.draw(request, seed=0, image=image, output_type=output_type)

    def _carry_out(self, request: Request, call: _Call) -> Samples:
        data = self._empty(request.n, call.output_type, request.size)
        keys = sample_keys(request.n, call.seed)
        labels = self._drawn_labels(keys) if request.draws_labels else request.labels
        latents = call.latents
        if latents is not None:
            latents = check_latents(latents, request.n, self.program.latent_shape)
        # Asked before it runs: a batch ends on the backend that it began on.
        record = {**request.record, **self.executor.runners.record(request.rounds)}
        batches = Batches(keys, labels, latents, data, call.sources, call.callback_on_step_end)
        done = self._execute(request, batches, call.progress)
        count, stopped = sum(len(each.run.images) for each in done), any(each.run.stopped for each in done)
        if count < len(data):
            data, keys = data[:count], keys[:count]
        if data.dtype != call.output_type:
            data = to_uint8(data, self.model.require_image().value_range)
        return Samples(
            data=data,
            seeds=keys,
            labels=None if labels is None else labels[:count].copy(),  # a request keeps its own
            value_range=self.model.output.value_range,
            settings={
                "model": self.model.name,
                "n": count,
                "seeds": [list(key) for key in keys],
                "labels": None if labels is None or request.unlabelled else labels[:count].tolist(),
                **record,
                **({} if latents is None else {"latents": "given"}),
                **({"stopped": True} if stopped else {}),
            },
            timings=Timings(
                perf_counter() - call.start,
                sum(each.run.graph_seconds for each in done),
                tuple(each.run.seconds for each in done),
            ),
            stopped=stopped,
        )

    def _execute(self, request: Request, batches: Batches, progress: bool | None) -> list[Done[None]]:
        settings = request.settings

        def task(runner: Runner, run: Run) -> None:
            runner.program.run_timed(run, settings)

        return self.executor.run(Work(task, request.rounds, batches, halves=request.splits, progress=progress))

    def _drawn_labels(self, keys: tuple[SampleKey, ...]) -> NDArray[np.int64]:
        """A class for each sample, from its seed."""
        classes = self.model.num_classes or 1
        drawn = noise.uniform(keys, noise.LABEL_STREAM, (1,))[:, 0]
        return np.minimum(drawn * classes, classes - 1).astype(np.int64)

    def _sources(self, image: Any, n: int | None) -> NDArray[Any] | None:
        """The checked images of a translation model; None for a model that takes none."""
        if self.model.source is None:
            if image is not None:
                raise InputError(f"model {self.model.name!r} takes no image; leave image out")
            return None
        if image is None:
            raise InputError(f"model {self.model.name!r} translates images: pass image, one for each sample")
        return check_sources(image, self.model, n)

    def _empty(self, n: int, output_type: str, size: tuple[int, int] | None) -> NDArray[Any]:
        """What the samples are drawn into: bytes only where the graph makes them."""
        if type(output_type) is not str or output_type not in OUTPUT_TYPES:
            check_word(output_type, "output_type", OUTPUT_TYPES)
        if n > FEW and size is None:
            check_room(n, prod(self.model.output.shape))
        if self.model.points is not None:
            if output_type == "uint8":
                raise InputError(
                    f"model {self.model.name!r} makes points, which have no bytes; leave output_type out"
                )
            return np.empty((n, *self.model.points.shape), np.float32)
        channels, height, width = self.model.require_image().shape
        if size is not None and self.model.source is not None:
            height, width = (side * self.model.source.scale for side in size)
            check_room(n, channels * height * width)
        if output_type == "uint8" and self.program.makes_uint8:
            return np.empty((n, height, width, channels), np.uint8)
        return np.empty((n, channels, height, width), np.float32)
