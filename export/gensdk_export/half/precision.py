"""FP16 by measurement: halve a graph, replay the real sampling path, add float32 islands until the bound holds.

The judge is PyTorch in half on the CPU: ONNX Runtime's CPU provider runs half graphs in float32 between casts
and proves nothing. Each recorded call is replayed on its own feeds (teacher-forced), so errors don't add up;
outputs are compared as :mod:`gensdk_runtime.proof.drift` defines it (discrete pixels by the share that flips).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gensdk_export.half.halving import half_parts, halve, is_sealed, own_tensors
from gensdk_export.half.islands import Subject, best_island, first_overflow, largest_values
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.proof.drift import Drift
from gensdk_runtime.proof.golden import Call

HALF_MAX = 65504.0
SAFE_VALUE = HALF_MAX / 2
"""A layer whose values come nearer to the largest half than this becomes an island, whatever its error."""
WARN_VALUE = HALF_MAX / 8

MAX_ISLANDS = 64


@dataclass(frozen=True)
class HalfGraph:
    """A graph in half precision and what was measured on it.

    `islands`: submodules that measurement turned back to float32. `drift`: of all calls, in half, against
    float32. `max_abs_activation`: the largest value in the float32 run that passes through half now, and
    `hottest`, the submodule that has it.
    """

    module: nn.Module
    islands: tuple[str, ...]
    drift: Drift
    max_abs_activation: float
    hottest: str

    @property
    def warning(self) -> str:
        """What to know about this graph's range; empty where there is nothing to know."""
        if self.max_abs_activation <= WARN_VALUE:
            return ""
        return f"values up to {self.max_abs_activation:.0f} in {self.hottest!r}; half ends at {HALF_MAX:.0f}"


def make_half(subject: Subject, calls: Sequence[Call]) -> HalfGraph:
    """The subject's module in half, kept within the subject's bounds on all `calls`.

    Raises :class:`ExportError` where no set of float32 islands keeps the bounds, or a region can't run in half.
    """
    values = largest_values(subject, calls)
    islands = _out_of_range(subject, values)
    while True:
        half = halve(subject.module, subject.regions, islands)
        try:
            drift = subject.drift(half, calls)
        except BackendError as failure:
            raise ExportError(
                f"{failure} (in half); give the module that needs float32 the class attribute fp32_island = True, "
                "or leave it out of the plan's half"
            ) from failure
        problem = drift.problem(subject.bounds)
        if not problem:
            break
        found = first_overflow(subject, half, calls) if drift.non_finite else best_island(subject, islands, calls)
        more = [name for name in islands if not name.startswith(f"{found}.")] + [found or ""]
        if found in (None, *subject.regions) or len(more) > MAX_ISLANDS or not _half_weights(subject, more):
            raise ExportError(
                f"graph {subject.graph.name!r} in half: {problem}, even with {len(islands)} float32 islands; "
                "export without fp16, or allow more (fp16_atol)"
            )
        islands = more
    hottest = max(_in_half(subject, islands), key=lambda name: values.get(name, 0.0), default="")
    return HalfGraph(half, tuple(islands), drift, values.get(hottest, 0.0), hottest)


def _out_of_range(subject: Subject, values: Mapping[str, float]) -> list[str]:
    """Layers whose values or weights half can't hold safely."""
    found = []
    for name in _in_half(subject, ()):
        tensors = own_tensors(subject.module.get_submodule(name))
        weights = max((float(t.abs().max()) for t in tensors if t.numel()), default=0.0)
        if tensors and name not in subject.regions and max(values.get(name, 0.0), weights) > SAFE_VALUE:
            found.append(name)
    return found


def _half_weights(subject: Subject, islands: Collection[str]) -> int:
    """How many weights are left in half."""
    parts = (subject.module.get_submodule(name) for name in _in_half(subject, islands))
    return sum(tensor.numel() for part in parts for tensor in own_tensors(part))


def _in_half(subject: Subject, islands: Collection[str]) -> list[str]:
    """The submodules that run in half."""
    return [
        name
        for region in subject.regions
        for name, part in half_parts(subject.module, region, islands)
        if name not in islands and not is_sealed(part)
    ]
