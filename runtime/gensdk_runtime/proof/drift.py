"""How far the outputs of a graph are from those of PyTorch, in units that make one bound fit every output.

A *scaled* difference is ``|output - reference| / scale``. The scale is half the width of the output's value range
(so images in [-1, 1] are compared as they are), or without a range the largest reference value, at least 1.

Three kinds of output need more care:

- A diffusion step's estimate of x_0 is ``x * sample + e * eps`` (:mod:`gensdk_runtime.programs.solvers`): early
  steps multiply the denoiser's rounding by e (158 at t = 999 of the linear schedule). Its scale is multiplied by
  max(1, |e|), so that eps is judged. What matters for the image is ``next_sample``, judged as it is.
- A discrete pixel is right or flipped. A flip is no small error, but it happens whenever the uniform number
  falls between two nearly equal edges of the CDF; so flips are counted, and their share is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError
from gensdk_runtime.programs.proving import discrete_step, magnified
from gensdk_runtime.proof.golden import Call, GoldenBounds
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

MAX_PSNR = 200.0
"""Reported for outputs that are equal bit for bit, whose PSNR would be infinite."""
FAINT = 1e-5
"""A reference that varies by less may well come out constant after rounding."""


@dataclass(frozen=True)
class Drift:
    """The difference of one or many graph calls from their references.

    `max_abs`: largest difference of a continuous output in its own unit; `scaled`: the same as defined above;
    `psnr`: in dB, of all scaled values, peak 2; `flipped` of `discrete` pixels differ; `non_finite`: NaN or
    infinity came, or stands in the reference; `constant`: an output that varies in the reference does not;
    `per_step`: the scaled difference of each call, in order (infinite where it is not finite).
    """

    calls: int
    max_abs: float
    scaled: float
    psnr: float
    flipped: int
    discrete: int
    non_finite: bool
    constant: bool
    per_step: tuple[float, ...]

    def problem(self, bounds: GoldenBounds) -> str:
        """Why this drift breaks `bounds`, in a few words; empty where it keeps them."""
        if self.non_finite:
            return "NaN or infinity in the output"
        if self.constant:
            return "the output is constant"
        if self.scaled > bounds.graph:
            return f"differs by {self.scaled:.2e}, allowed {bounds.graph:.2e}"
        if bounds.psnr is not None and self.psnr < bounds.psnr:
            return f"PSNR {self.psnr:.1f} dB, expected at least {bounds.psnr:.1f}"
        if self.flipped > allowed_flips(bounds.flipped, self.discrete):
            return f"{self.flipped} of {self.discrete} pixels flipped, allowed {bounds.flipped:.2%}"
        return ""


def allowed_flips(share: float, pixels: int) -> int:
    """How many of `pixels` may flip: their `share`, and one in any case (one may always lie on an edge)."""
    return max(1, math.ceil(share * pixels)) if pixels else 0


def measure_drift(model: ModelSpec, calls: Iterable[tuple[Call, Feeds]]) -> Drift:
    """Compares pairs of a recorded call and the outputs that were computed again from its feeds."""
    tally = _Tally(model)
    for call, outputs in calls:
        tally.add(call, outputs)
    return tally.drift()


def sample_drift(model: ModelSpec, reference: Array, samples: Array) -> Drift:
    """Compares whole samples, float32 [n, C, H, W] or points [n, D], in the unit of the model's value range."""
    spec = TensorSpec(
        name="samples",
        dtype=model.output.dtype,
        shape=("batch", *model.output.shape),
        role=model.output.role,
        value_range=model.output.value_range,
    )
    graph = GraphSpec(name="samples", inputs=(spec,), outputs=(spec,))
    whole = model.model_copy(update={"graphs": (graph,)})
    return measure_drift(whole, [(Call("samples", 0, {}, {"samples": reference}), {"samples": samples})])


def degenerate(samples: Array) -> str:
    """The defect that makes `samples` (float [n, ...]) useless, in a few words; empty where they are fine."""
    if not np.isfinite(samples).all():
        return "NaN or infinity in the samples"
    if samples.size > 1 and float(np.ptp(samples)) == 0.0:
        return "the samples are constant: every value is the same"
    if len(samples) > 1 and float(np.ptp(samples, axis=0).max()) == 0.0:
        return "the samples are constant: their noise differs, they are all the same"
    return ""


class _Tally:
    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._max_abs = 0.0
        self._squares = 0.0
        self._values = 0
        self._flipped = 0
        self._discrete = 0
        self._non_finite = False
        self._per_step: list[float] = []
        self._ranges: dict[str, list[float]] = {}

    def add(self, call: Call, outputs: Feeds) -> None:
        worst = 0.0
        for spec in self._model.graph(call.graph).outputs:
            reference, output = call.outputs[spec.name], outputs[spec.name]
            if output.shape != reference.shape:
                expected, got = list(reference.shape), list(output.shape)
                raise BackendError(f"{call.graph}.{spec.name}: expected shape {expected}, the backend gave {got}")
            self._note_range(spec.name, reference, output)
            step = discrete_step(self._model, call.graph, spec)
            if not (np.isfinite(output).all() and np.isfinite(reference).all()):  # NaN compares as no difference
                self._non_finite, worst = True, math.inf
            elif step is not None:
                self._discrete += reference.size
                self._flipped += int((np.abs(output - reference) > step / 2).sum())
            else:
                worst = max(worst, self._add_continuous(call, spec, reference, output))
        self._per_step.append(worst)

    def _add_continuous(self, call: Call, spec: TensorSpec, reference: Array, output: Array) -> float:
        difference: NDArray[np.float64] = np.abs(np.subtract(output, reference, dtype=np.float64))
        if spec.dtype == "uint8":
            difference = np.maximum(difference - 1.0, 0.0)
        if not difference.size:
            return 0.0
        scaled = difference / _scale(self._model, call, spec, reference)
        self._max_abs = max(self._max_abs, float(difference.max()))
        self._squares += float(np.square(scaled).sum())
        self._values += scaled.size
        return float(scaled.max())

    def _note_range(self, name: str, reference: Array, output: Array) -> None:
        """Widens (reference low, high, output low, high) of this output over all calls."""
        if not reference.size:
            return
        seen = self._ranges.setdefault(name, [math.inf, -math.inf, math.inf, -math.inf])
        for offset, array in ((0, reference), (2, output)):
            seen[offset] = min(seen[offset], float(array.min()))
            seen[offset + 1] = max(seen[offset + 1], float(array.max()))

    def drift(self) -> Drift:
        mean = self._squares / self._values if self._values else 0.0
        return Drift(
            calls=len(self._per_step),
            max_abs=math.inf if self._non_finite else self._max_abs,
            scaled=max(self._per_step, default=0.0),
            psnr=min(MAX_PSNR, 10 * math.log10(4 / mean)) if mean > 0 else MAX_PSNR,
            flipped=self._flipped,
            discrete=self._discrete,
            non_finite=self._non_finite,
            constant=any(high - low > FAINT and first == last for low, high, first, last in self._ranges.values()),
            per_step=tuple(self._per_step),
        )


def _scale(model: ModelSpec, call: Call, spec: TensorSpec, reference: Array) -> float | Array:
    """One for all values, or one for each sample [B, 1, ...]."""
    if spec.value_range is not None:
        scale = (spec.value_range[1] - spec.value_range[0]) / 2
    else:
        scale = max(1.0, float(np.abs(reference).max()))
    return scale * magnified(model, spec.name, call.feeds)
