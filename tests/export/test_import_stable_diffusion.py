"""Stable Diffusion folders: the images that diffusers' own pipeline makes, from the same noise and text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from gensdk_export.export import ExportOptions
from gensdk_export.importers.diffusers.folder import diffusers_plan, import_diffusers
from gensdk_runtime.errors import ExportError, GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import Recorder
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.torch_backend import torch_sessions
from support import stable_diffusion

TEXTS = ("a red dog", "cat, cat! 3 cats", "")
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": stable_diffusion.default_scheduler,
    "euler": lambda: diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1),
    "dpmsolver++": lambda: diffusers.DPMSolverMultistepScheduler(**BETAS, steps_offset=1),
    "euler_linspace": lambda: diffusers.EulerDiscreteScheduler(
        **BETAS, steps_offset=1, timestep_spacing="linspace"
    ),
    "euler_trailing": lambda: diffusers.EulerDiscreteScheduler(
        **BETAS, steps_offset=1, timestep_spacing="trailing"
    ),
    "v_prediction": lambda: diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
    ),
}


def test_what_the_pipeline_sets_in_a_scheduler_is_set_and_told(tmp_path: Path) -> None:
    stable_diffusion.save(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**BETAS, "_class_name": "PNDMScheduler", "steps_offset": 0}))
    with pytest.raises(ExportError, match=r"PNDMScheduler.*--solver"):
        diffusers_plan(tmp_path)
    for solver in ("ddim", "dpmsolver++", "euler"):
        plan, _, guesses = diffusers_plan(tmp_path, solver=solver)
        program = plan.model.program_of(DiffusionSpec)
        assert not program.defaults.clip_sample
        assert program.schedule.steps_offset == 1
        assert any("steps_offset=1" in guess.value for guess in guesses)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sd") / "tiny"
    stable_diffusion.save(place)
    return place


def generator(folder: Path, recorder: Recorder | None = None) -> Generator:
    plan, _, _ = diffusers_plan(folder)
    sessions = torch_sessions(plan)
    return Generator.from_sessions(plan.model, recorder.wrap(sessions) if recorder else sessions, plan.files)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_images_are_those_of_diffusers(name: str, steps: int, tmp_path: Path) -> None:
    pipe = stable_diffusion.save(tmp_path, SCHEDULERS[name]())
    latents = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    with generator(tmp_path) as model:
        made = model.sample(
            3,
            latents=latents,
            prompt=list(TEXTS),
            negative_prompt="dog",
            num_inference_steps=steps,
            progress=False,
        )
    with torch.no_grad():
        wanted = pipe(
            list(TEXTS),
            negative_prompt=["dog"] * 3,
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            guidance_scale=7.5,
            output_type="np",
        ).images
    found = (made.array.transpose(0, 2, 3, 1) + 1) / 2
    assert np.ptp(wanted) > 0.2
    assert np.abs(found - wanted).max() < 1e-2


def test_the_folder_samples_with_what_it_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gensdk_export.onnx_weights.SEPARATE_BYTES", 200_000)  # as if the U-Net were a large one
    report = import_diffusers(folder, tmp_path / "tiny.gsdk", ExportOptions(golden_samples=1, golden_steps=2))
    assert [path.name for path in (tmp_path / "tiny.gsdk/graphs").glob("*.weights")] == ["step.fp32.weights"]
    with Generator.load(tmp_path / "tiny.gsdk") as model:
        with pytest.warns(GensdkWarning, match="reads the first 10"):
            drawn = model.sample(1, seed=0, prompt="a b c d e f g h i j k l", num_inference_steps=2)
        assert drawn.images.shape == (1, 16, 16, 3)
        assert drawn.settings["guidance_scale"] == 7.5
        assert drawn.settings["solver"] == "ddim"
        started = model.sample(1, seed=0, image=drawn.images, strength=0.5, prompt="cat", num_inference_steps=4)
        assert not np.array_equal(started.images, drawn.images)
    told = {guess.what for guess in report.guesses}
    assert {"guidance_scale", "texts", "an image to start from"} <= told


def test_each_text_is_encoded_once_and_images_decoded_once(folder: Path) -> None:
    recorder = Recorder()
    with generator(folder, recorder) as model:
        model.sample(4, seed=1, prompt=["cat", "dog", "cat", "dog"], num_inference_steps=2, progress=False)
        calls = [call.graph for call in recorder.take()]
        assert {name: calls.count(name) for name in set(calls)} == {"text_encoder": 3, "step": 2, "decoder": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"unet": {"time_cond_proj_dim": "8"}}, "time_cond_proj_dim of 4 to"),
        ({"index": {"_class_name": "LatentConsistencyModelPipeline"}}, "an LCMScheduler without clip_sample"),
        ({"unet": {"addition_embed_type": "text_time"}}, "SDXL"),
        ({"unet": {"in_channels": 9}}, "channels for a mask"),
        ({"unet": {"num_class_embeds": 3}}, "classes beside texts"),
        ({"unet": {"sample_size": None}}, "no sample_size"),
        ({"unet": {"sample_size": "8"}}, "sample_size as a whole number"),
        ({"vae": {"latents_mean": [0.0] * 4}}, "scales each channel"),
        ({"text_encoder": {"vocab_size": 7}}, "520 tokens"),
        ({"scheduler": {"_class_name": "PNDMScheduler"}}, "PNDMScheduler"),
        ({"index": {"text_encoder": ["transformers", "T5EncoderModel"]}}, "CLIPTextModel"),
        ({"index": {"_class_name": "StableDiffusionXLPipeline"}}, "no StableDiffusionXLPipeline"),
    ],
)
def test_what_would_sample_otherwise_is_refused_by_name(
    folder: Path, tmp_path: Path, change: dict[str, dict[str, Any]], told: str
) -> None:
    places = {"index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    for path in folder.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for part, settings in change.items():
        file = tmp_path / places.get(part, f"{part}/config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises((ExportError, InputError), match=told) as failure:
        diffusers_plan(tmp_path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("missing", ["tokenizer", "vae/config.json", "text_encoder/model.safetensors"])
def test_what_is_missing_is_named(folder: Path, tmp_path: Path, missing: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(missing):
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=missing.partition("/")[0]):
        diffusers_plan(tmp_path)
