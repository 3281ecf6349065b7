"""Modules of users whose weights hang on hooks, or whose norms look at the batch: folded, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from gensdk_export.export import export_plan
from gensdk_export.rewrites.batch_norm import plain_copy, refuse_batch_statistics
from gensdk_runtime.errors import ExportError
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from support.plans import linear_plan

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {"weight": weight_norm, "spectral": spectral_norm}


class Hooked(nn.Module):
    """The one layer of a linear plan, twice as long a way."""

    def __init__(self, module: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.inner = module
        for part in list(module.modules()):
            if isinstance(part, nn.Linear):
                wrap(part)

    def forward(self, *given: Tensor) -> Tensor:
        result: Tensor = self.inner(*given)
        return result


@pytest.mark.parametrize("name", NORMS)
def test_hooks_that_compute_weights_are_exported(name: str, tmp_path: Path) -> None:
    plan = linear_plan()
    graph = plan.model.graphs[0].name
    module = Hooked(plan.modules[graph], NORMS[name])
    assert any(part._forward_pre_hooks for part in module.modules())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    plan = replace(plan, modules={**plan.modules, graph: module.eval()})
    export_plan(plan, Provenance(), tmp_path / "out.gsdk")
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", NORMS)
def test_a_copy_gives_the_same_without_hooks(name: str) -> None:
    torch.manual_seed(0)
    layers = [NORMS[name](nn.Conv2d(3, 4, 3)), nn.ReLU(), NORMS[name](nn.ConvTranspose2d(4, 3, 3))]
    module = nn.Sequential(*layers)
    module(torch.rand(2, 3, 8, 8))  # with gradients: what it computed can't be copied
    module.eval()
    copied = plain_copy(module).eval()
    assert not any(part._forward_pre_hooks for part in copied.modules())
    given = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(copied(given), module(given))


def test_a_batch_norm_without_statistics_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ExportError, match=r"layer '1' is a batch norm without stored statistics .*instance norm"):
        refuse_batch_statistics(module, "graph 'g'")
    refuse_batch_statistics(nn.Sequential(nn.BatchNorm2d(4), nn.InstanceNorm2d(4)), "graph 'g'")
