"""A diffusion model in a latent space as a bundle: proved, sampled, started from images, in both precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.one_call.sampler import OneCall
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support.latent_plan import IMAGE, PREVIEW, SCALE, SHAPE, SHIFT, latent_plan

HOW: dict[str, Any] = {"seed": 2, "label": [0, 1, 2], "guidance_scale": 2.0, "num_inference_steps": 5}


@pytest.fixture(scope="module")
def plan() -> ExportPlan:
    return latent_plan()


@pytest.fixture(scope="module")
def bundle(plan: ExportPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latent") / "latent.gsdk"
    export_plan(plan, Provenance(), out, ExportOptions(fp16=True, golden_steps=2))
    return out


def through(plan: ExportPlan, graph: str, values: Any) -> Any:
    """By the autoencoder's own networks, in its own unit."""
    with torch.no_grad():
        network: Any = plan.modules[graph].network
        return network(torch.from_numpy(np.asarray(values, np.float32))).numpy()


def test_every_graph_is_proved_in_both_precisions(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        report = verify_bundle(opened)
        program = opened.manifest.model.program
        graphs = {name: set(files) for name, files in opened.manifest.graph_files.items()}
    assert report.ok
    assert program.latent.shape == SHAPE  # type: ignore[attr-defined]
    assert {"step", "embedding", "decoder", "encoder"} == graphs.keys()
    assert all("fp16" in graphs[name] for name in ("step", "decoder", "encoder"))
    proved = {(row.what, row.precision) for row in report.graphs}
    assert {(name, how) for name in ("decoder", "encoder") for how in ("fp32", "fp16")} <= proved


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-4), ("fp16", 0.02)])
def test_samples_are_what_pytorch_makes_of_the_last_latents(
    plan: ExportPlan, bundle: Path, precision: Any, near: float
) -> None:
    heard: list[StepEnd] = []
    plain = latent_plan(num_classes=3)
    model = plain.model
    bare = model.program.latent.model_copy(update={"preview": None})  # type: ignore[attr-defined]
    without = model.model_copy(update={"program": model.program.model_copy(update={"latent": bare})})
    with Generator.from_sessions(without, torch_sessions(plain)) as live:
        live.sample(3, callback_on_step_end=heard.append, **HOW)
    latents = heard[-1].x0  # DDIM's last step goes to x_0
    expected = np.clip(through(plan, "decoder", latents / SCALE + SHIFT), *IMAGE.value_range)
    assert 0.02 < (expected == 0).mean() + (expected == 1).mean() < 0.8, "some of it is clipped"
    seen: list[StepEnd] = []
    with Generator.load(bundle, backend="onnxruntime", precision=precision) as found:
        whole = found.sample(3, callback_on_step_end=seen.append, **HOW).array
        for batch_size in (1, 2):
            np.testing.assert_array_equal(found.sample(3, batch_size=batch_size, **HOW).array, whole)
        assert found.sample(3, output_type="uint8", **HOW).data.shape == (3, 16, 8, 3)
    np.testing.assert_allclose(whole, expected, atol=near)
    table = np.array(PREVIEW)
    shown = np.einsum("kc,bchw->bkhw", table[:, :4], latents) + table[:, 4, None, None]
    np.testing.assert_allclose(seen[-1].x0, np.clip(shown, 0, 1), atol=near)


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-4), ("fp16", 0.02)])
def test_images_go_in_and_come_back(plan: ExportPlan, bundle: Path, precision: Any, near: float) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (3, *IMAGE.shape)).astype(np.float32)
    z = through(plan, "encoder", images)
    mask = np.zeros((16, 8))
    mask[8:] = 1
    with Generator.load(bundle, backend="onnxruntime", precision=precision) as model:
        np.testing.assert_allclose(model.encode(images), (z - SHIFT) * SCALE, atol=near)
        kept = model.sample(image=images, mask_image=np.zeros((16, 8)), **HOW).array
        np.testing.assert_allclose(kept, np.clip(through(plan, "decoder", z), 0, 1), atol=near)
        half = model.sample(image=images, mask_image=mask, strength=1.0, **HOW).array
        np.testing.assert_array_equal(
            half, model.sample(image=images, mask_image=mask, strength=1.0, batch_size=1, **HOW).array
        )
        free = model.sample(3, **HOW).array
        assert np.abs(half - free)[:, :, :4].mean() > np.abs(half - kept)[:, :, :4].mean()
        np.testing.assert_array_equal(model.sample(image=images, strength=1.0, **HOW).array, free)


def test_what_is_no_part_of_one_call_is_refused(plan: ExportPlan) -> None:
    with pytest.raises(InputError, match="the decoder of a latent space is no part of a one-call graph"):
        OneCall(plan.model)


def test_a_model_without_an_encoder_has_one_graph_less() -> None:
    plan = latent_plan(encoder=False)
    assert "encoder" not in plan.modules
    assert plan.model.program.graphs == ("step", "embedding", "decoder")
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        assert not model.can("encode")
        assert model.sample(2, seed=0, num_inference_steps=2).array.shape == (2, *IMAGE.shape)
