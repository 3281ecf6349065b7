"""gensdk on each backend beside PyTorch and bare ONNX Runtime: the same noise, in turn, each in its own process.

All of it is the comparison's (``sidebyside.py``); what is new are the peers of a GPU and how time is shared out.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from figures import median_interval, ratio
from peers import GPU_PEERS, ON, peer_spec
from sidebyside import Comparison, Result
from workloads import DIGITS_DCGAN, WORKLOADS, Case, Workload
from workloads.prepare import Prepared, prepare

from day_one.backends import REFERENCE, on_gpu
from day_one.result import Found, Order, Row, State
from gensdk_runtime.bundles.embedded import FOLDER

ON_CPU = ("torch", "torch-compile", "onnxruntime")
COMPILED = ("torch-compile", "torch-cuda-compile")
COMPILING, EACH = 30.0, 20.0
"""Seconds that ``torch.compile`` may take for a case, and that a case takes without. Where fewer are left for
what is to come, it is left out, with a word."""
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
    for place, batch in enumerate(batches):
        case = Case(batch, STEPS if workload.cases[0].steps else None)
        subject, left = _subject(workload, case), begun + order.seconds - time.monotonic()
        late = left < COMPILING + EACH * (len(batches) - place)
        names = [*ours, *(name for name in others if not (late and name in COMPILED))]
        yield f"{subject}: {', '.join(names)}"
        comparison = Comparison(
            workload, prepared, names, root=order.folder, say=_say, base=ours[0], every_round=True
        )
        seconds = max(LEAST, min(MOST, left / (len(batches) - place) / 4))
        yield from _told(order, workload, comparison.measure(case, seconds=seconds))
        for name in (name for name in others if late and name in COMPILED):
            words = f"{left:.0f} s were left for all sizes, and compiling takes about {COMPILING:.0f}"
            yield order.row(subject, "latency", "skipped", where=name, detail=words)


def contenders(order: Order) -> tuple[list[str], list[str], dict[str, str]]:
    """gensdk's peers, those of others, and what is left out, with the reason."""
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
    return [f"{ON}{name}" for name in kept], others, left_out


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


def _subject(workload: Workload, case: Case) -> str:
    return f"{workload.name}, batch {case.batch}" + (f", {case.steps} steps" if case.steps else "")


def _told(order: Order, workload: Workload, result: Result) -> Iterator[Row]:
    """Medians, ratios to the fastest of ours, differences of pictures; and who failed, with the reason."""
    subject = _subject(workload, result.case)
    mine = [name for name in result.timings if peer_spec(name).ours]
    fastest = min(mine, key=lambda name: result.timings[name].median, default=None)
    for name, timing in result.timings.items():
        low, high = median_interval(timing.calls.tolist())
        words = (
            f"{len(timing.calls)} calls in {len(timing.rounds)} rounds; ready after {_ready(result, name):.1f} s"
        )
        yield order.row(
            subject, "latency", "measured", timing.median, where=name, unit="ms", low=low, high=high, detail=words
        )
    for name in result.timings:
        if fastest is not None and name != fastest:
            found = ratio(result.rounds(name), result.rounds(fastest))
            yield order.row(
                subject,
                "time over gensdk's",
                "measured",
                found.ratio,
                where=name,
                low=found.low,
                high=found.high,
                detail=f"over {fastest}, the fastest of gensdk's here",
            )
    for name, difference in result.differences.items():
        words = f"from {result.base}, a grey level ({GREY_LEVEL:.4f}) allowed"
        ok = difference <= GREY_LEVEL
        yield order.check(subject, "the same pictures", ok, difference, where=name, detail=words)
    for name, failure in result.failures.items():
        state: State = (
            "failed" if peer_spec(name).ours else "skipped"
        )  # what a peer can't do here is no failure of ours
        yield order.row(subject, "latency", state, where=name, detail=failure)


def _ready(result: Result, name: str) -> float:
    timing = result.timings[name]
    return (timing.open_ms + timing.first_ms) / 1e3


def _say(text: str) -> None:
    print(text, file=sys.stderr)
