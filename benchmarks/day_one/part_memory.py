"""Memory under states that stay on the device, captured graphs and eight threads at once; and after
``close()``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from day_one.backends import backend_of, on_gpu
from day_one.device_memory import MIB, Meter, meter_for
from day_one.equality import Equality, bounds_of, equality
from day_one.result import Found, Order, Row, told
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import DiffusionSpec

CARRIED = "digits-ddpm"
"""Its states go from step to step."""
THREADS = 8
SIZES = (1, 3, 8, 24)
"""Batch sizes of the threads, each beginning with another one."""
CAPTURED = (1, 2, 4, 8, 16, 32)
REPEATS = 4
"""Calls of one size: the first sets up, the second or third is captured, the rest replay."""
STEPS = 3


def rows(order: Order) -> Found:
    """What each stage takes beyond what was taken before the bundle was opened, twice over: the first time
    libraries load what they keep for good, the second must leave nothing behind."""
    yield f"opening {order.piece}"
    backend = backend_of(order)
    try:
        meter = meter_for(order.piece)
    except UnavailableError as failure:
        yield order.row("", "all", "skipped", detail=told(failure))
        return
    bundles = [CARRIED] if CARRIED in order.bundles else list(order.bundles[:1])
    for bundle in bundles:
        left = []
        for time in ("first", "second"):
            before = meter.settled()
            yield from _stages(order, backend, meter, bundle, time)
            left.append(meter.settled() - before)
        kept = f"{meter.name}; after the first time {left[0] / MIB:.1f} MiB stayed"
        subject = f"{bundle}, second time"
        if meter.exact and on_gpu(order.piece):
            ok = left[1] <= meter.tolerance
            detail = f"{kept}; {meter.tolerance // MIB} MiB allowed, others may use the device too"
            yield order.check(subject, "left after close()", ok, left[1] / MIB, unit="MiB", detail=detail)
        else:
            detail = f"{kept}; allocators give memory back as they like"
            yield order.row(subject, "left after close()", "measured", left[1] / MIB, unit="MiB", detail=detail)


def _stages(order: Order, backend: Backend, meter: Meter, bundle: str, time: str) -> Found:
    subject, before = f"{bundle}, {time} time", meter.settled()

    def taken(what: str) -> Row:
        used = (meter.settled() - before) / MIB
        return order.row(subject, what, "measured", used, unit="MiB", detail=meter.name)

    with Generator.load(bundle, backend=backend, precision="fp32") as generator:
        steps: Any = {"num_inference_steps": STEPS} if isinstance(generator.model.program, DiffusionSpec) else {}
        sample: Callable[..., Samples] = partial(generator.sample, progress=False, **steps)
        sample(8, seed=0)
        yield taken("after one call, states carried")
        yield "repeated calls of each size"
        for size in CAPTURED:
            for _ in range(REPEATS):
                sample(size, seed=0)
        yield taken("after calls of six sizes, captured")
        yield f"{THREADS} threads"
        alone = {size: sample(size, seed=size).array.copy() for size in SIZES}
        compare = partial(equality, generator.model, bounds_of(bundle, "fp32"))
        worst = _at_once(lambda size: sample(size, seed=size).array.copy(), alone, compare)
        yield order.bounded(
            subject,
            f"{THREADS} threads against one",
            worst.ok,
            worst.difference,
            detail=worst.words,
            shown="bit for bit" if worst.bits else "",
        )
        first = meter.settled()
        yield taken(f"after {THREADS} threads of mixed sizes")
        _at_once(lambda size: sample(size, seed=size).array.copy(), alone, compare)
        grown = (meter.settled() - first) / MIB
        yield order.row(
            subject, "more after another round of threads", "measured", grown, unit="MiB", detail=meter.name
        )


def _at_once(
    draw: Callable[[int], Array], alone: dict[int, Array], compare: Callable[[Array, Array], Equality]
) -> Equality:
    """The worst of what threads got, each of which draws all sizes."""

    def work(thread: int) -> Iterator[Equality]:
        sizes = SIZES[thread % len(SIZES) :] + SIZES[: thread % len(SIZES)]
        return iter([compare(alone[size], draw(size)) for size in sizes])

    with ThreadPoolExecutor(THREADS) as pool:
        found = [each for of_thread in pool.map(work, range(THREADS)) for each in of_thread]
    return max(found, key=lambda each: (not each.ok, not each.bits, each.difference))
