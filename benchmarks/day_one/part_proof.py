"""Every embedded bundle in each precision: golden trajectories, the same seed twice, a batch at once and in
parts, prepared calls against plain ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from day_one.backends import backend_of
from day_one.equality import Equality, bounds_of, equality
from day_one.result import Found, Order, Row, attempted, rounds
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import GoldenBounds
from gensdk_runtime.proof.verify import Check, VerifyReport, verify_bundle
from gensdk_runtime.spec.fields import Precision

SEEDS = (11, 12, 13, 14, 15, 16, 17)
SPLIT = (1, 2, 4)
"""How many of SEEDS are drawn at once, against all of them."""
DRAWS = 5
"""Of SEEDS, each a prepared call: the first ones set up and are recorded, the others launch what was recorded."""


def rows(order: Order) -> Found:
    """Five facts for each bundle and precision."""
    yield f"opening {order.piece}"
    backend = backend_of(order)
    for bundle in order.bundles:
        with Bundle.open(bundle) as opened:
            precisions = opened.manifest.precisions
        for precision in precisions:
            subject = f"{bundle} {precision}"
            yield f"verify of {subject}"
            yield from _verified(order, backend, bundle, precision)
            yield f"replay of {subject}"
            for what, work in FACTS.items():
                yield attempted(order, subject, what, partial(work, order, backend, bundle, precision, subject))


def _verified(order: Order, backend: Backend, bundle: str, precision: Precision) -> Iterator[Row]:
    subject, found = f"{bundle} {precision}", []

    def verify() -> Row:
        report = verify_bundle(bundle, backend=backend, precision=precision)
        found.append(report)
        worst = max(report.checks, key=_excess)
        words = "; ".join(report.problems) or f"worst {_told(worst)}; {_flips(report)}"
        return order.bounded(subject, "drift from PyTorch", report.ok, worst.drift.scaled, detail=words)

    yield attempted(order, subject, "drift from PyTorch", verify)
    if precision != "fp32" or not found:
        return
    rounded = found[0].rounded
    if rounded:
        worst = max(rounded, key=_excess)
        kept = "within the bounds" if all(each.ok for each in rounded) else "beyond the bounds"
        yield order.row(
            subject, "drift with TF32", "measured", worst.drift.scaled, detail=f"{_told(worst)}: {kept}"
        )
    else:
        words = "all of it is with TF32" if rounds(order.piece) else "this backend has no TF32 here"
        yield order.row(subject, "drift with TF32", "skipped", detail=words)


def _excess(check: Check) -> float:
    """How far a check is from what it allows; those without a bound come last."""
    return check.drift.scaled / check.allowed if check.allowed else -1.0 / (1.0 + check.drift.scaled)


def _told(check: Check) -> str:
    allowed = "no bound" if check.allowed is None else f"{check.allowed:.0e} allowed"
    return f"{check.what}, {allowed}, PSNR {check.drift.psnr:.1f} dB"


def _flips(report: VerifyReport) -> str:
    flipped, pixels = (sum(getattr(c.drift, name) for c in report.checks) for name in ("flipped", "discrete"))
    return f"{flipped} of {pixels} pixels flipped" if pixels else f"{len(report.checks)} checks"


def _replay(order: Order, backend: Backend, bundle: str, precision: Precision, subject: str) -> Row:
    """First runs set up, later ones replay what was captured."""
    with Generator.load(bundle, backend=backend, precision=precision) as generator:
        worst = _worst(generator, bounds_of(bundle, precision), [_four(generator) for _ in range(3)])
    detail = f"4 samples, 3 times in one session: {worst.words}"
    return order.check(subject, "replay", worst.bits, **_figure(worst), detail=detail)


def _anew(order: Order, backend: Backend, bundle: str, precision: Precision, subject: str) -> Row:
    """A session of another day may have chosen other kernels, so that a bound will do."""
    found = []
    for _ in range(2):
        with Generator.load(bundle, backend=backend, precision=precision) as generator:
            found.append(_four(generator))
            worst = _worst(generator, bounds_of(bundle, precision), found)
    detail = f"4 samples in two sessions: {worst.words}"
    return order.bounded(subject, "replay anew", worst.ok, **_figure(worst), detail=detail)


def _four(generator: Generator) -> Array:
    return generator.sample(4, seed=1, progress=False).array.copy()


def _worst(generator: Generator, bounds: GoldenBounds, found: Sequence[Array]) -> Equality:
    pairs = [equality(generator.model, bounds, found[0], each) for each in found]
    return max(pairs, key=lambda each: (not each.bits, each.difference))


def _split(order: Order, backend: Backend, bundle: str, precision: Precision, subject: str) -> Row:
    with Generator.load(bundle, backend=backend, precision=precision) as generator:
        whole = generator.sample(len(SEEDS), seed=list(SEEDS), progress=False).array.copy()
        parts, first = [], 0
        for count in SPLIT:
            seeds = SEEDS[first : first + count]
            parts.append(generator.sample(count, seed=list(seeds), progress=False).array.copy())
            first += count
        found = equality(generator.model, bounds_of(bundle, precision), whole, np.concatenate(parts))
    detail = f"{len(SEEDS)} at once against {'+'.join(map(str, SPLIT))}: {found.words}"
    return order.bounded(subject, "batch split", found.ok, **_figure(found), detail=detail)


def _prepared(order: Order, backend: Backend, bundle: str, precision: Precision, subject: str) -> Row:
    """All draws come first, so that no plain call is between them; the first seed is drawn again at the end."""
    seeds = SEEDS[:DRAWS]
    with Generator.load(bundle, backend=backend, precision=precision) as generator:
        prepared = generator.prepare(4)
        drawn = [prepared.draw(seed).array.copy() for seed in seeds]
        plain = [generator.sample(4, seed=seed, progress=False).array.copy() for seed in seeds]
        pairs = [*zip(plain, drawn, strict=True), (plain[0], prepared.draw(seeds[0]).array.copy())]
        bounds = bounds_of(bundle, precision)
        found = [equality(generator.model, bounds, expected, got) for expected, got in pairs]
    worst = max(found, key=lambda each: (not each.bits, each.difference))
    detail = f"prepare().draw() of {DRAWS} seeds and the first again, against sample(): {worst.words}"
    return order.check(subject, PREPARED, worst.bits, **_figure(worst), detail=detail)


PREPARED = "prepared draws"
FACTS = {"replay": _replay, "replay anew": _anew, "batch split": _split, PREPARED: _prepared}


def _figure(found: Equality) -> dict[str, Any]:
    value = found.difference if math.isfinite(found.difference) else None
    return {"value": value, "shown": "bit for bit" if found.bits else ""}
