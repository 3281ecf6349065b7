"""An export that does not hold raises, writes nothing, and leaves the old bundle as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_export.engines import AxisRange
from gensdk_export.export import ExportOptions, export_plan, export_run
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.plan import ExportPlan
from gensdk_training.run import train
from support.plans import Images, linear_plan, module_plan
from support.tiny import tiny_run


class Linear(nn.Module):
    """A good network, and the base of bad ones."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 64)
        self.images = Images()

    def forward(self, z: Tensor) -> Tensor:
        return self.images(self.layer(z))


class Poisoned(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.layer.weight.data[0, 0] = torch.nan


class NanInside(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward((z - 100).sqrt())


class OneColour(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) * 0 + 0.5


class DeafToNoise(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z * 0 + 1)


class OtherWhenExported(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) * (1.01 if torch.compiler.is_exporting() else 1.0)


class OtherWhenLarge(Linear):
    """Right at the golden batch of 2, wrong at 3."""

    def forward(self, z: Tensor) -> Tensor:
        image = super().forward(z)
        return image if torch.compiler.is_exporting() or z.shape[0] < 3 else image * 0.9


class Branching(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) if float(z.sum()) > 0 else super().forward(-z)


class Random(Linear):
    def forward(self, z: Tensor) -> Tensor:
        image = super().forward(z)
        return image + 1e-9 * torch.rand_like(image)


class FixedBatch(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[: 2 if torch.compiler.is_exporting() else None])


BAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "NaN weight": (Poisoned, "layer.weight.*NaN"),
    "NaN in the samples": (NanInside, "NaN"),
    "one colour": (OneColour, "constant"),
    "noise is not used": (DeafToNoise, "constant"),
    "drift": (OtherWhenExported, "does not equal PyTorch.*differs by"),
    "drift at another batch size": (OtherWhenLarge, r"at \{'batch': 3\}"),
    "branches on data": (Branching, "can't export"),
    "random operator": (Random, "random"),
    "batch was fixed": (FixedBatch, "should have shape|can't export"),
}


@pytest.fixture(scope="module")
def old_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "model.gsdk"
    export_plan(linear_plan(), Provenance(), out)
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_and_nothing_is_touched(case: str, old_bundle: Path) -> None:
    network, message = BAD[case]
    before = snapshot(old_bundle.parent)
    with pytest.raises(ExportError, match=message) as failure:
        export_plan(module_plan(network()), Provenance(), old_bundle)
    assert "\n" not in str(failure.value)
    assert snapshot(old_bundle.parent) == before


def test_the_bound_is_the_callers(tmp_path: Path) -> None:
    plan = module_plan(OtherWhenExported())
    report = export_plan(plan, Provenance(), tmp_path / "loose.gsdk", ExportOptions(atol=0.05))
    assert verify_bundle(report.bundle).ok


def test_a_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(GensdkError, match="won't replace"):
        export_plan(linear_plan(), Provenance(), tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_run_is_exported_with_its_moving_average(tmp_path: Path) -> None:
    train(tiny_run("vae"), tmp_path / "run", progress=False, tensorboard=False, device="cpu")
    stages: list[str] = []
    ema = export_run(tmp_path / "run", tmp_path / "ema.gsdk", ExportOptions(as_zip=True), on_stage=stages.append)
    raw = export_run(tmp_path / "run", tmp_path / "raw.gsdk", ema=False)
    assert ema.bundle.is_file()
    assert stages[-1] == "writing the bundle"
    assert verify_bundle(ema.bundle).ok
    assert verify_bundle(raw.bundle).ok
    samples = []
    for path in (ema.bundle, raw.bundle):
        with Generator.load(path) as generator:
            samples.append(generator.sample(2, seed=0).array)
    assert np.abs(samples[0] - samples[1]).max() > 1e-3


def test_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export_run(tmp_path / "nothing", tmp_path / "out.gsdk")


def test_plans_are_not_changed_by_their_export(tmp_path: Path) -> None:
    plan: ExportPlan = linear_plan()
    module = plan.modules["generator"]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_plan(plan, Provenance(), tmp_path / "model.gsdk", ExportOptions(fp16=True))
    after = module.state_dict()
    assert all(
        torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
    )
    assert not module._forward_hooks


def test_a_batch_that_no_bundle_may_have_is_refused_before_the_work(tmp_path: Path) -> None:
    stages: list[str] = []
    options = ExportOptions(batch=AxisRange(1, 8, 100_000))
    with pytest.raises(ExportError, match="max_batch"):
        export_plan(linear_plan(), Provenance(), tmp_path / "x.gsdk", options, on_stage=stages.append)
    assert stages == []
