"""gensdk on each backend beside PyTorch and bare ONNX Runtime: the same noise, in turn, each in its own process.

All of it is the comparison's (``sidebyside.py``); what is new are the peers of a GPU and how time is shared out.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from figures import median_interval, ratio
from peers import DRAW_ON, GPU_PEERS, ON, peer_spec
from sidebyside import Comparison, Result
from workloads import DIGITS_DCGAN, WORKLOADS, Case, Workload
from workloads.prepare import Prepared, prepare

from day_one.backends import OWN_GPU, REFERENCE, on_gpu
from day_one.result import Found, Order, Row, State
from gensdk_runtime.bundles.embedded import FOLDER

ON_CPU = ("torch", "torch-compile", "onnxruntime")
COMPILED = ("torch-compile", "torch-cuda-compile")
COMPILING = 25.0
"""Seconds without which no ``torch.compile`` is begun: it is left out, with a word."""
SPARE = 4.0
"""Seconds before the limit in which all is over."""
ORDER = (1, 64, 8)
"""Of batch sizes: what tells most comes first."""
LEAST, MOST = 1.0, 8.0
"""Seconds of timing for a case."""
GREY_LEVEL = 2.0 / 255
"""Pictures lie in [-1, 1]: all peers have to make the same, to a grey level."""
STEPS = 10


def rows(order: Order) -> Found:
    """For each batch size the median of each peer, and the ratio of its time to that of gensdk's fastest
    backend."""
    begun = time.monotonic()
    workload = DIGITS_DCGAN if order.piece == DIGITS_DCGAN.name else WORKLOADS[order.piece]
    ours, others, left_out = contenders(order)
    yield f"making {workload.name}"
    prepared = prepare(workload, order.folder) if others else as_shipped(workload, order.folder)
    yield from (
        order.row(workload.name, "latency", "skipped", where=name, detail=left_out[name]) for name in left_out
    )
    if not ours:
        return
    batches = [size for size in ORDER if size in order.batches]
    batches += [size for size in order.batches if size not in ORDER]
    until, fastest = begun + order.seconds - SPARE, {}
    for place, batch in enumerate(batches):
        names = [*ours, *(name for name in others if name not in COMPILED)]
        share = (until - time.monotonic()) / (len(batches) - place)
        made = Measured(order, workload, prepared, batch)
        yield f"{made.subject}: {', '.join(names)}"
        yield from made.rows(names, seconds=share / 4, patience=until - time.monotonic())
        fastest[batch] = made.fastest or ours[0]
    for batch in batches:  # now, as compiling may take all that is left
        left, known = until - time.monotonic(), (fastest[batch],)
        made = Measured(order, workload, prepared, batch, known=known)
        for name in (name for name in others if name in COMPILED):
            if left < COMPILING:
                words = f"{max(0.0, left):.0f} s were left, and compiling takes about {COMPILING:.0f}"
                yield order.row(made.subject, "latency", "skipped", where=name, detail=words)
                continue
            yield f"{made.subject}: {name}"
            yield from made.rows([fastest[batch], name], seconds=left / 8, patience=left / 2)


def contenders(order: Order) -> tuple[list[str], list[str], dict[str, str]]:
    """gensdk's peers, those of others, and what is left out, with the reason. Prepared calls, which spare the
    CPU, stand beside plain ones where they are one launch."""
    real = [name for name in order.backends if not (order.double and name.startswith("tensorrt"))]
    on_gpus = any(map(on_gpu, real))
    kept = [name for name in real if not on_gpus or on_gpu(name) or name == REFERENCE]
    left_out = {}
    for name in order.backends:
        if name not in real:
            left_out[f"{name} (double)"] = "its time is that of ONNX Runtime with a detour"
        elif name not in kept:
            left_out[name] = f"beside GPUs {REFERENCE} alone stands for processors"
    others = list(GPU_PEERS) if on_gpus else list(ON_CPU)
    if not on_gpus:
        left_out |= dict.fromkeys(GPU_PEERS, "no backend works on a GPU here")
    if missing := why_no_torch():
        left_out |= dict.fromkeys(others, missing)
        others = []
    prepared = [f"{DRAW_ON}{name}" for name in kept if name.startswith(OWN_GPU)]
    return [*(f"{ON}{name}" for name in kept), *prepared], others, left_out


def why_no_torch() -> str | None:
    """What is missing to compare with PyTorch, and what mends it; None where nothing is."""
    absent = [name for name in ("torch", "onnx", "onnxscript", "safetensors") if find_spec(name) is None]
    return f'{", ".join(absent)} missing; pip install "gensdk[training]" beside what is here' if absent else None


def as_shipped(workload: Workload, folder: Path) -> Prepared:
    """The embedded bundle as it is, for gensdk alone: nothing can be exported without PyTorch."""
    made = folder / f"{workload.name}-shipped"
    made.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(FOLDER / f"{workload.name}.gsdk", made / "model.gsdk")
    return Prepared(workload.name, workload.source, str(made))


@dataclass
class Measured:
    """One batch size; `fastest`: of gensdk's peers, when it was measured."""

    order: Order
    workload: Workload
    prepared: Prepared
    batch: int
    fastest: str | None = None
    known: tuple[str, ...] = ()
    """Peers whose rows are there already."""

    @property
    def case(self) -> Case:
        """As the comparison has it."""
        return Case(self.batch, STEPS if self.workload.cases[0].steps else None)

    @property
    def subject(self) -> str:
        """As rows name it."""
        return f"{self.workload.name}, batch {self.batch}" + (f", {STEPS} steps" if self.case.steps else "")

    def rows(self, names: Sequence[str], *, seconds: float, patience: float) -> Iterator[Row]:
        """Of the peers `names`, in turn for so many `seconds`; the first stands for the right pictures."""
        comparison = Comparison(
            self.workload,
            self.prepared,
            names,
            root=self.order.folder,
            say=_say,
            base=names[0],
            every_round=True,
            patience=max(LEAST, patience),
        )
        result = comparison.measure(self.case, seconds=max(LEAST, min(MOST, seconds)))
        mine = [name for name in result.timings if peer_spec(name).ours]
        self.fastest = min(mine, key=lambda name: result.timings[name].median, default=None)
        told = [name for name in names if name not in self.known]
        yield from self._latencies(result, told)
        yield from self._pictures(result, told)
        for name in (name for name in told if name in result.failures):
            state: State = (
                "failed" if peer_spec(name).ours else "skipped"
            )  # what a peer can't do is no fault of ours
            yield self.order.row(self.subject, "latency", state, where=name, detail=result.failures[name])

    def _latencies(self, result: Result, names: Sequence[str]) -> Iterator[Row]:
        """Medians, and ratios to the fastest of ours."""
        for name in (name for name in names if name in result.timings):
            timing = result.timings[name]
            low, high = median_interval(timing.calls.tolist())
            ready = (timing.open_ms + timing.first_ms) / 1e3
            words = f"{len(timing.calls)} calls in {len(timing.rounds)} rounds; ready after {ready:.1f} s"
            how = {"where": name, "unit": "ms", "low": low, "high": high, "detail": words}
            yield self.order.row(self.subject, "latency", "measured", timing.median, **how)
            if self.fastest is not None and name != self.fastest:
                found = ratio(result.rounds(name), result.rounds(self.fastest))
                words = f"over {self.fastest}, the fastest of gensdk's here"
                how = {"where": name, "low": found.low, "high": found.high, "detail": words}
                yield self.order.row(self.subject, "time over gensdk's", "measured", found.ratio, **how)

    def _pictures(self, result: Result, names: Sequence[str]) -> Iterator[Row]:
        for name in (name for name in names if name in result.differences):
            difference = result.differences[name]
            words = f"from {result.base}, a grey level ({GREY_LEVEL:.4f}) allowed"
            how = {"where": name, "detail": words}
            yield self.order.bounded(
                self.subject, "the same pictures", difference <= GREY_LEVEL, difference, **how
            )


def _say(text: str) -> None:
    print(text, file=sys.stderr)
