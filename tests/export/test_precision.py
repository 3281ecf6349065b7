"""FP16 by measurement: what stays float32, and how that is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.half.halving import halve
from gensdk_export.half.islands import Subject
from gensdk_export.half.precision import SAFE_VALUE, HalfGraph, make_half
from gensdk_runtime.errors import ExportError
from gensdk_runtime.proof.golden import Call, GoldenBounds
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.plan import ExportPlan
from support.plans import Images, module_plan, random_call


class Loud(nn.Module):
    """A layer whose values exceed the range of half, a norm that brings them back, and a quiet layer."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.quiet, self.loud = nn.Linear(4, 32), nn.Linear(32, 64)
        self.norm, self.last, self.images = nn.LayerNorm(64), nn.Linear(64, 64), Images()
        self.loud.weight.data *= gain

    def forward(self, z: Tensor) -> Tensor:
        return self.images(self.last(self.norm(self.loud(self.quiet(z)))))


class Cancelling(nn.Module):
    """Two nearly equal large numbers, subtracted: in half hardly anything is left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.last = nn.Linear(4, 64), nn.Linear(64, 64), nn.Linear(64, 64)
        self.images = Images()
        nn.init.eye_(self.up.weight)
        nn.init.constant_(self.up.bias, 512.0)

    def forward(self, z: Tensor) -> Tensor:
        return self.images(self.last(self.up(self.first(z)) - 512.0))


class Multiplying(nn.Module):
    """Becomes NaN in half between the layers, not in one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.images = nn.Linear(4, 4), Squared(), Images()

    def forward(self, z: Tensor) -> Tensor:
        return self.images(self.block(self.first(z)))


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 64)
        self.layer.weight.data *= 1000

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.layer(z)
        return (hidden * hidden - 0.5 * hidden * hidden).sqrt() / 1000


class Marked(nn.Linear):
    fp32_island = True


def seeded(network: type[nn.Module], *arguments: float) -> ExportPlan:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module_plan(network(*arguments))


def halved(plan: ExportPlan, atol: float = 0.02, calls: Sequence[Call] | None = None) -> HalfGraph:
    graph = plan.model.graphs[0]
    bounds = GoldenBounds(graph=atol, flipped=0.02)
    subject = Subject(plan.model, graph, plan.modules[graph.name], plan.half[graph.name], bounds)
    return make_half(subject, calls or [random_call(plan, 4)])


def test_a_layer_out_of_range_becomes_an_island() -> None:
    plan = seeded(Loud, 1e6)
    call = random_call(plan, 4)
    naive = halve(plan.modules["generator"], plan.half["generator"])
    assert not torch.isfinite(naive(torch.from_numpy(call.feeds["z"]))).all()
    found = halved(plan)
    assert found.islands == ("network.loud",)
    assert found.drift.scaled < 0.02
    assert found.max_abs_activation < SAFE_VALUE
    loud = plan.modules["generator"].get_submodule("network.loud")
    kept = found.module.get_submodule("network.loud")
    assert torch.equal(kept.weight, loud.weight)


def test_nothing_is_an_island_without_need() -> None:
    found = halved(seeded(Loud, 1.0))
    assert found.islands == ()
    assert not found.warning
    types = {name: parameter.dtype for name, parameter in found.module.named_parameters()}
    assert types["network.quiet.weight"] == torch.float16
    assert types["network.norm.weight"] == torch.float32


def test_values_near_the_end_of_the_range_are_warned_of() -> None:
    found = halved(seeded(Loud, 1e4))
    assert found.islands == ()
    assert "network" in found.warning
    assert "65504" in found.warning


def test_the_layer_that_costs_most_accuracy_is_promoted() -> None:
    plan = seeded(Cancelling)
    calls = [random_call(plan, 4)]
    assert halved(plan, atol=1.0, calls=calls).drift.scaled > 0.02
    found = halved(plan, calls=calls)
    assert "network.up" in found.islands
    assert found.drift.scaled < 0.02


def test_an_overflow_between_layers_promotes_the_block_around_it() -> None:
    found = halved(seeded(Multiplying))
    assert found.islands == ("network.block",)
    assert found.drift.scaled < 0.02


def test_more_islands_are_found_for_a_tighter_bound() -> None:
    plan = seeded(Loud, 1.0)
    loose = halved(plan)
    tight = halved(plan, atol=0.7 * loose.drift.scaled)
    assert len(tight.islands) > len(loose.islands)
    assert tight.drift.scaled <= 0.7 * loose.drift.scaled


def test_a_bound_that_no_island_keeps_is_an_error() -> None:
    with pytest.raises(ExportError, match="fp16_atol"):
        halved(seeded(Loud, 1.0), atol=1e-9)


def test_marked_modules_and_recurrent_cells_stay_float32() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.marked, self.cell, self.last = Marked(4, 8), nn.LSTMCell(8, 8), nn.Linear(8, 64)
            self.images = Images()

        def forward(self, z: Tensor) -> Tensor:
            return self.images(self.last(self.cell(self.marked(z))[0]))

    found = halved(seeded(Recurrent))
    types = {name: parameter.dtype for name, parameter in found.module.named_parameters()}
    assert {name for name, dtype in types.items() if dtype == torch.float16} == {
        "network.last.weight",
        "network.last.bias",
    }


def test_islands_reach_the_bundle_and_its_report(tmp_path: Path) -> None:
    report = export_plan(seeded(Loud, 1e6), Provenance(), tmp_path / "loud.gsdk", ExportOptions(fp16=True))
    assert report.fp16 is not None
    assert report.fp16.islands == {"generator": ("network.loud",)}
    assert "network.loud" in report.text()
    assert verify_bundle(report.bundle).ok
