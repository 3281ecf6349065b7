"""Frames of a video, one after another, through translation models of any size: how fast, and whether right.

The models are those of ``translation_recipes.py``, never trained: their pictures mean nothing, their time does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from figures import median_interval
from numpy.typing import NDArray

from day_one.backends import REFERENCE, backend_of
from day_one.parts import PREPARE
from day_one.result import Found, Order, Row, attempted
from gensdk_runtime.generator import Generator

Frame = NDArray[np.uint8]

SIDE = 64
"""Of the images that the models are made for."""
MODELS = {"U-Net": "pix2pix", "x2": "srresnet-x2"}
"""Recipes by what they are called here."""
ALLOWED = 2
"""Grey levels between a backend and the processor: bytes are rounded, and sums end in another order."""
LEAST_CALLS, MOST_CALLS, BURST = 3, 60, 1.5
"""Timed calls of one size; BURST seconds at most where there are LEAST_CALLS."""
SPARE = 2.0 * (LEAST_CALLS + 1)
"""So many frames of a size are allowed for before it is begun, at the pace of the size before it."""


def rows(order: Order) -> Found:
    """For each model and size: milliseconds of a frame. The smallest size is compared with the processor's."""
    if find_spec("torch") is None or find_spec("onnx") is None:
        words = 'the models are exported from PyTorch; pip install "gensdk[training]" beside what is here'
        yield order.row("", "all", "skipped", detail=words)
        return
    if order.piece == PREPARE:
        for name in MODELS:
            yield f"exporting an untrained {name}"
            make(name, order.folder)
        return
    begun, sizes = time.monotonic(), sorted(order.frames)
    yield f"opening {order.piece}"
    backend = backend_of(order)
    for place, name in enumerate(MODELS):
        deadline = begun + order.seconds * (place + 1) / len(MODELS)
        bundle, per_pixel = bundle_of(name, order.folder), 0.0
        if not bundle.exists():
            words = (
                f"the model is not there: {PREPARE} says why; another run on the same --output goes on from here"
            )
            yield order.row(f"untrained {name}", "latency", "skipped", detail=words)
            continue
        with Generator.load(bundle, backend=backend, precision="fp32") as generator:
            for height, width in sizes:
                subject = f"untrained {name}, {height}x{width}"
                yield f"frames of {subject}"
                left, needed = deadline - time.monotonic(), per_pixel * height * width * SPARE
                if needed > left:
                    words = f"it would take about {needed:.0f} s, and {max(0.0, left):.0f} s are left"
                    yield order.row(subject, "latency", "skipped", detail=words)
                    continue
                call = partial(generator.translate, picture(height, width))
                row = attempted(order, subject, "latency", partial(_timed, order, subject, call))
                yield row
                if row.value is None:
                    continue
                per_pixel = row.value / 1e3 / (height * width)
                if (height, width) == sizes[0] and order.piece != REFERENCE:
                    yield attempted(
                        order, subject, "against the processor", partial(_right, order, subject, bundle, call)
                    )


def _timed(order: Order, subject: str, call: Callable[[], Any]) -> Row:
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < LEAST_CALLS or (time.perf_counter() - begun < BURST and len(times) < MOST_CALLS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    median, (low, high) = float(np.median(times)), median_interval(times)
    detail = f"{1e3 / median:.3g} frames a second, median of {len(times)}; the first took {first:.2f} s"
    return order.row(subject, "latency", "measured", median, unit="ms", low=low, high=high, detail=detail)


def _right(order: Order, subject: str, bundle: Path, call: Callable[[], Any]) -> Row:
    height, width = (int(side) for side in subject.rpartition(" ")[2].split("x"))
    with Generator.load(bundle, backend=REFERENCE, precision="fp32") as reference:
        expected = np.asarray(reference.translate(picture(height, width)))
    most = int(np.abs(np.asarray(call()).astype(int) - expected).max())
    words = f"grey levels of 255 from {REFERENCE}, {ALLOWED} allowed"
    return order.bounded(subject, "against the processor", most <= ALLOWED, float(most), detail=words)


def picture(height: int, width: int) -> Frame:
    """Noise of 8 x 8 pixels a piece, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def bundle_of(name: str, folder: Path) -> Path:
    """Where a model lies, or will."""
    return folder / f"untrained-{MODELS[name]}.gsdk"


def make(name: str, folder: Path) -> None:
    """The bundle of a model with fresh weights, from a fixed seed, where it is not there yet."""
    out = bundle_of(name, folder)
    if out.exists():
        return
    import torch
    from translation_recipes import RECIPES

    from gensdk_export.export import ExportOptions, export_plan
    from gensdk_runtime.spec.provenance import Provenance
    from gensdk_training.family import DataInfo, SourceInfo
    from gensdk_training.registry import get_family

    recipe = RECIPES[MODELS[name]]
    family_type = get_family(recipe.family)
    config = family_type.Config(**recipe.config)
    side = SIDE * int(getattr(config, "scale", 1))
    source = SourceInfo(channels=3, height=SIDE, width=SIDE, count=1, paired=True)
    needs = source if family_type.starts_from == "pairs" else None
    data = DataInfo(name="untrained", channels=3, height=side, width=side, count=1, source=needs)
    family = family_type(config, data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plan = family.export_plan(family.build_networks())
        export_plan(plan, Provenance(data="none"), out, ExportOptions(golden_samples=1))
