"""The search for float32 islands: which submodule of a halved graph costs the most accuracy, by measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gensdk_export.half.halving import entry, half_parts, halve
from gensdk_runtime.errors import BackendError
from gensdk_runtime.proof.drift import Drift, allowed_flips, measure_drift
from gensdk_runtime.proof.golden import Call, GoldenBounds
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.torch_backend import TorchSession

HARDEST_CALLS = 4
"""How many of the worst calls the search looks at."""
WORTH_IT = 0.9
"""An island counts where it brings the error to this share; otherwise larger parts are tried."""


@dataclass(frozen=True)
class Subject:
    """A graph to halve: the float32 `module` of `graph`, its `regions`, and the bounds to keep."""

    model: ModelSpec
    graph: GraphSpec
    module: nn.Module
    regions: tuple[str, ...]
    bounds: GoldenBounds

    def drift(self, module: nn.Module, calls: Iterable[Call]) -> Drift:
        """How far `module` is from the recorded outputs, each call on its own feeds."""
        session = TorchSession(self.graph, module)
        return measure_drift(self.model, ((call, session.run(call.feeds)) for call in calls))

    def score(self, islands: Sequence[str], calls: Iterable[Call]) -> float:
        """How many times over its bounds the module in half with `islands` is."""
        drift = self.drift(halve(self.module, self.regions, islands), calls)
        flips = drift.flipped / max(1, allowed_flips(self.bounds.flipped, drift.discrete))
        return math.inf if drift.non_finite else max(drift.scaled / max(self.bounds.graph, 1e-12), flips)


def largest_values(subject: Subject, calls: Iterable[Call]) -> dict[str, float]:
    """The largest absolute value that each submodule of the regions takes or gives in float32."""
    largest: dict[str, float] = {}

    def note(name: str, inputs: Any, output: Any) -> None:
        top = max((float(t.abs().max()) for t in _floats((inputs, output))), default=0.0)
        largest[name] = max(largest.get(name, 0.0), top)

    _watch(subject, subject.module, calls, note)
    return largest


def first_overflow(subject: Subject, half: nn.Module, calls: Iterable[Call]) -> str | None:
    """The innermost submodule of the halved module that turns finite inputs into infinity or NaN first."""
    found: list[str] = []

    def note(name: str, inputs: Any, output: Any) -> None:
        if not found and _finite(inputs) and not _finite(output):
            found.append(name)

    _watch(subject, half, calls, note)
    return found[0] if found else None


def best_island(subject: Subject, islands: Sequence[str], calls: Sequence[Call]) -> str | None:
    """The submodule whose promotion to float32 lowers the worst error most; None where none lowers it.

    Layers are tried first; where none is worth it, the blocks that hold them, and so on up.
    """
    now = subject.drift(halve(subject.module, subject.regions, islands), calls)
    order = sorted(range(len(calls)), key=lambda index: now.per_step[index], reverse=True)
    hardest = [calls[index] for index in sorted(order[:HARDEST_CALLS])]
    if now.discrete:  # flips are rare: a few calls would not show them
        hardest = list(calls)
    current = subject.score(islands, hardest)
    best_name, best_score = None, current
    for names in _by_height(subject, islands):
        for name in names:
            try:
                score = subject.score([*islands, name], hardest)
            except BackendError:  # this part alone can't be float32: its neighbours mix it with half
                continue
            if score < best_score:
                best_name, best_score = name, score
        if best_score <= WORTH_IT * current:
            break
    return best_name


def _by_height(subject: Subject, islands: Collection[str]) -> list[list[str]]:
    """Candidates for islands: submodules with weights, layers first, then the blocks above them.

    Sealed islands are among them: an open one doesn't round what it gives.
    """
    heights = {0: [entry(region) for region in subject.regions if entry(region) not in islands]}
    for region in subject.regions:
        for name, part in half_parts(subject.module, region, islands):
            taken = name in subject.regions or name in islands
            if not taken and any(True for _ in part.parameters()):
                heights.setdefault(_height(part), []).append(name)
    return [heights[height] for height in sorted(heights)]


def _height(part: nn.Module) -> int:
    return 1 + max((_height(child) for child in part.children()), default=-1)


def _finite(value: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _floats(value))


def _floats(value: Any) -> list[Tensor]:
    """All non-empty float tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value.detach()] if value.is_floating_point() and value.numel() else []
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _floats(item)] if isinstance(value, tuple | list) else []


def _watch(
    subject: Subject, module: nn.Module, calls: Iterable[Call], note: Callable[[str, Any, Any], None]
) -> None:
    """Runs `calls` and tells `note` the inputs and output of each submodule, in the order they finish."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, inputs, output: note(name, inputs, output)

    names = [name for region in subject.regions for name, _ in half_parts(subject.module, region, ())]
    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    session = TorchSession(subject.graph, module)
    try:
        for call in calls:
            session.run(call.feeds)
    finally:
        for handle in handles:
            handle.remove()
