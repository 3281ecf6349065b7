"""Every family makes a step at any batch size and precision, or says in one line why it can't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from gensdk_runtime.errors import InputError
from gensdk_training.run_config import RunConfig
from gensdk_training.trainer import Trainer
from support.tiny import FAMILIES, POINT_FAMILIES, tiny_points, tiny_run

IMAGES, SMALLEST = 8, 4
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"packing": 1} if name == "gan" else {}) for name in FAMILIES},
    "ae-conv": ("ae", {"architecture": "conv"}),
    "bigan-conv": ("bigan", {"architecture": "conv"}),
    "dcgan-spectral": ("dcgan", {"spectral_norm": True}),
    "gmm-low-rank": ("gmm", {"covariance": "low_rank", "rank": 2}),
    "pix2pix-batch": ("pix2pix", {"norm": "batch"}),
    "sgan-conv": ("sgan", {"architecture": "conv", "objective": "non_saturating"}),
    "srgan-gan": ("srgan", {"objective": "gan"}),
    "vae-conv": ("vae", {"architecture": "conv"}),
}
PAIRS = {"sound2image", "talkinghead", "text2image"}
"""Families that tell each image from the others of its batch: their settings refuse one."""
ONE_IS_TOO_FEW = {"musegan", "sgan"}
"""Families of linear layers with batch norms: one sample has nothing to be compared with."""


@pytest.fixture(scope="module", params=[IMAGES, SMALLEST], ids=lambda side: f"{side}x{side}")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty images of four classes."""
    path, side = tmp_path_factory.mktemp("few") / f"{request.param}.npz", request.param
    images = np.random.default_rng(0).integers(0, 255, (40, side, side, 1)).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 4)
    return f"{path}"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_of_any_size(case: str, precision: str, source: str) -> None:
    family, settings = CASES[case]
    small = f"/{SMALLEST}.npz" in source
    for batch_size in (1, 2, 3, 100):
        config = {**({"labels": 8} if family == "sgan" else {}), **settings, "batch_size": batch_size}
        if case in PAIRS and batch_size == 1:
            with pytest.raises(InputError, match=r"batch_size: .*greater than or equal to 2"):
                tiny_run(family, source=source, config=config).resolved()
            continue
        said = refusal(tiny_run(family, source=source, config=config).resolved(), precision)
        if said is None:
            assert batch_size > 1 or case not in ONE_IS_TOO_FEW
        elif "use a batch_size of 2 or more in each process" in said:
            assert batch_size == 1
            assert small or case in ONE_IS_TOO_FEW
        else:
            assert small, f"images of this size are large enough: {said}"


def refusal(run: RunConfig, precision: str) -> str | None:
    """Makes two steps; what was said against them instead."""
    data = run.data.load()
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="no" if precision == "fp32" else precision)
    try:
        trainer = Trainer(run.build_family(data.info), data, seed=0, accelerator=accelerator)
        for _ in range(2):
            trainer.advance()
        assert all(np.isfinite(value) for value in trainer.take_logs().values())
    except InputError as refused:
        return str(refused)
    finally:
        AcceleratorState._reset_state()
    trainer.close()
    return None


@pytest.mark.parametrize("family", POINT_FAMILIES)
def test_points_too(family: str) -> None:
    for batch_size in (1, 3):
        run = tiny_points(family, config={"batch_size": batch_size}).resolved()
        data = run.data.load()
        trainer = Trainer(run.build_family(data.info), data, seed=0, accelerator=Accelerator(cpu=True))
        trainer.advance()
        assert all(np.isfinite(value) for value in trainer.take_logs().values())
        trainer.close()


def test_a_batch_beyond_this_machine_is_refused() -> None:
    run = tiny_run("vae", config={"batch_size": 65536}).resolved()
    data = run.data.load()
    huge = data.info.model_copy(update={"height": 4096, "width": 4096})
    with pytest.raises(InputError, match=r"a step on 65536 x 1 x 4096 x 4096 takes .*lower batch_size"):
        Trainer(run.build_family(huge), data, seed=0, accelerator=Accelerator(cpu=True))
