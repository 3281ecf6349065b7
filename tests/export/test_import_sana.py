"""SANA folders: the states and images of diffusers' own pipeline, from the same noise and text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gensdk_export.importers.diffusers import sana as importer
from gensdk_export.importers.diffusers.folder import diffusers_plan
from gensdk_export.importers.diffusers.lora_files import LoraFile
from gensdk_runtime.errors import ExportError, GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support import sana
from support.diffusers_loops import Watched, apart
from support.replaying import replay_exported

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TEXTS = ["  A red Dog \u00e9", "cat, cat! 3 cats"]
LATENTS = np.random.default_rng(0).standard_normal((2, 4, sana.SIDE, sana.SIDE)).astype(np.float32)
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "euler_unshifted": diffusers.FlowMatchEulerDiscreteScheduler,
    "dpmsolver++": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sana") / "tiny"


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return sana.save(folder)


@pytest.fixture
def loaded(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The networks of `pipe` for those of the folder, which are the same."""
    networks = {
        "SanaTransformer2DModel": pipe.transformer,
        "AutoencoderDC": pipe.vae,
        "Gemma2Model": pipe.text_encoder,
    }
    monkeypatch.setattr(importer, "load_network", lambda _folder, _library, kind, **_: networks[kind])
    return


def of_diffusers(pipe: Any, steps: int) -> Any:
    with torch.no_grad():
        return pipe(
            TEXTS,
            negative_prompt="dog",
            latents=torch.from_numpy(LATENTS),
            num_inference_steps=steps,
            height=32,
            width=32,
            use_resolution_binning=False,
            complex_human_instruction=None,
            output_type="np",
        ).images


def sampled(plan: ExportPlan, steps: int) -> Any:
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as model:
        made = model.sample(
            2,
            latents=LATENTS,
            prompt=TEXTS,
            negative_prompt="dog",
            num_inference_steps=steps,
            progress=False,
        )
    return (made.array.transpose(0, 2, 3, 1) + 1) / 2


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_states_and_images_are_those_of_diffusers(
    name: str, steps: int, folder: Path, pipe: Any, tmp_path: Path
) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").unlink()
    pipe.scheduler = SCHEDULERS[name]()
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    plan, _, _ = diffusers_plan(tmp_path)
    theirs, mine = Watched(pipe.transformer), Watched(plan.modules["step"].denoiser.transformer)  # type: ignore[union-attr]
    wanted, found = of_diffusers(pipe, steps), sampled(plan, steps)
    assert np.ptp(wanted) > 0.2
    assert max(apart(a, b) for a, b in zip(mine.inputs, theirs.inputs, strict=True)) < 1e-3
    assert apart(found, wanted) < 1e-2


@pytest.mark.usefixtures("loaded")
def test_what_was_taken_for_granted_is_told(folder: Path) -> None:
    plan, provenance, guesses = diffusers_plan(folder)
    told = {guess.what: guess.value for guess in guesses}
    assert told["complex_human_instruction"] == "none"
    assert provenance.config["pipeline"] == "SanaPipeline"
    program = plan.model.program_of(DiffusionSpec)
    assert (program.defaults.guidance_scale, program.defaults.num_inference_steps) == (4.5, 20)
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as model:
        with pytest.warns(GensdkWarning, match="reads the first 299"):
            drawn = model.sample(1, seed=0, prompt="cat " * 400, num_inference_steps=1, progress=False)
        started = model.sample(1, seed=0, image=drawn.images, strength=0.5, prompt="cat", num_inference_steps=2)
        assert not np.array_equal(started.images, drawn.images)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("graph", ["step", "text_encoder"])
def test_its_graphs_are_exported(folder: Path, graph: str) -> None:
    assert replay_exported(diffusers_plan(folder)[0], graph, prompt=TEXTS) < 1e-4


@pytest.mark.usefixtures("loaded")
def test_a_lora_is_merged_into_the_transformer(folder: Path, pipe: Any, tmp_path: Path) -> None:
    layer = pipe.transformer.transformer_blocks[0].attn2.to_q
    before = layer.weight.detach().clone()
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    head = "transformer.transformer_blocks.0.attn2.to_q"
    save_file({f"{head}.lora_A.weight": down, f"{head}.lora_B.weight": up}, tmp_path / "a.safetensors")
    diffusers_plan(folder, lora=[LoraFile(tmp_path / "a.safetensors", 0.5)])
    torch.testing.assert_close(layer.weight, before + 0.5 * up @ down)
    with torch.no_grad():
        layer.weight.copy_(before)


@pytest.mark.usefixtures("loaded")
def test_the_scheduler_of_sana_takes_eulers_steps_where_that_is_asked(folder: Path, tmp_path: Path) -> None:
    changed = _changed(folder, tmp_path, {"scheduler": {"_class_name": "DPMSolverMultistepScheduler", **FLOW}})
    program = diffusers_plan(changed, solver="euler")[0].model.program_of(DiffusionSpec)
    assert (program.defaults.solver, program.schedule.shift) == ("euler", 3.0)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"transformer": {"guidance_embeds": True}}, "SANA-Sprint"),
        ({"transformer": {"in_channels": 9}}, "the autoencoder's channels"),
        ({"transformer": {"sample_size": None}}, "no sample_size"),
        ({"vae": {"encoder_block_out_channels": 3}}, "1 to 8 blocks"),
        ({"text_encoder": {"vocab_size": 7}}, "the text encoder 7"),
        ({"scheduler": {"_class_name": "DPMSolverMultistepScheduler"}}, "a scheduler of flows"),
        ({"scheduler": {"_class_name": "SCMScheduler"}}, "SCMScheduler"),
        ({"index": {"text_encoder": ["transformers", "T5EncoderModel"]}}, "Gemma2Model"),
        ({"index": {"_class_name": "SanaSprintPipeline"}}, "no SanaSprintPipeline"),
    ],
)
def test_what_would_sample_otherwise_is_refused_by_name(
    folder: Path, tmp_path: Path, change: dict[str, dict[str, Any]], told: str
) -> None:
    with pytest.raises((ExportError, InputError), match=told) as failure:
        diffusers_plan(_changed(folder, tmp_path, change))
    assert "\n" not in str(failure.value)


def _changed(folder: Path, place: Path, change: dict[str, dict[str, Any]]) -> Path:
    """A copy of the folder with other settings in its parts."""
    files = {"index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    shutil.copytree(folder, place, dirs_exist_ok=True)
    for part, settings in change.items():
        file = place / files.get(part, f"{part}/config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return place
