"""Latent consistency models, whose U-Net takes the guidance scale: the images of diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_export.importers.diffusers.folder import diffusers_plan
from gensdk_export.importers.diffusers.stable_diffusion import waves_of
from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import Recorder
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support import stable_diffusion
from support.diffusers_loops import Watched, apart, our_noise
from support.replaying import replay_exported

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SEED = 5
TEXTS = ["a red dog", "cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lcm") / "tiny"


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return stable_diffusion.consistent(folder)


@pytest.fixture(scope="module")
def plan(folder: Path, pipe: Any) -> ExportPlan:
    return diffusers_plan(folder)[0]


@pytest.mark.parametrize("scale", [8.5, 1.0, 3.3])
@pytest.mark.parametrize("steps", [4, 20])
def test_states_and_images_are_those_of_diffusers(plan: ExportPlan, pipe: Any, steps: int, scale: float) -> None:
    keys = noise.sample_keys(2, SEED)
    latents = noise.normal(keys, noise.LATENT_STREAM, (4, 8, 8))
    theirs, mine = Watched(pipe.unet), Watched(plan.modules["step"].denoiser.unet)  # type: ignore[union-attr]
    with our_noise(keys, steps), torch.no_grad():
        wanted = pipe(
            TEXTS,
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="np",
        ).images
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as model:
        made = model.sample(
            2, seed=SEED, prompt=TEXTS, num_inference_steps=steps, guidance_scale=scale, progress=False
        )
    assert max(apart(a, b) for a, b in zip(mine.inputs, theirs.inputs, strict=True)) < 1e-3
    assert apart((made.array.transpose(0, 2, 3, 1) + 1) / 2, wanted) < 1e-2


def test_the_scale_counts_and_one_pass_is_run(plan: ExportPlan) -> None:
    assert plan.model.program_of(DiffusionSpec).defaults.guidance_scale == 8.5
    recorder = Recorder()
    with Generator.from_sessions(plan.model, recorder.wrap(torch_sessions(plan)), plan.files) as model:
        one, other = (
            model.sample(2, seed=0, prompt="cat", guidance_scale=scale, num_inference_steps=2).array
            for scale in (2.0, 9.0)
        )
        with pytest.raises(InputError, match="leads away"):
            model.sample(1, prompt="cat", negative_prompt="dog")
    assert np.abs(one - other).max() > 1e-3
    steps = [call.feeds for call in recorder.take() if call.graph == "step"]
    assert {len(feeds["guidance_weights"]) for feeds in steps} == {1}
    assert {float(feeds["guidance_scale"][0, 0]) for feeds in steps} == {2.0, 9.0}


@pytest.mark.parametrize("width", [4, 11, 256])
def test_the_scale_becomes_the_waves_of_diffusers(pipe: Any, width: int) -> None:
    w = torch.tensor([0.0, 1.5, 7.5])
    torch.testing.assert_close(waves_of(w, width), pipe.get_guidance_scale_embedding(w, embedding_dim=width))


def test_its_step_is_exported(plan: ExportPlan) -> None:
    assert replay_exported(plan, "step", prompt=TEXTS) < 1e-4
