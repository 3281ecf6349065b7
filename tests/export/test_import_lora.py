"""LoRA files merged into Stable Diffusion: diffusers' images with the same changes beside its layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gensdk.cli.main import run
from gensdk_export.importers.diffusers.folder import diffusers_plan
from gensdk_export.importers.diffusers.lora_files import LoraFile, read_lora
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.torch_backend import torch_sessions
from support import lora, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS: dict[str, Callable[[Path, lora.Changes], Path]] = {
    "peft": lora.as_peft,
    "kohya": lora.as_kohya,
    "old_diffusers": lora.as_old_diffusers,
}
TEXTS = ["a red dog", "cat"]
LATENTS = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora") / "tiny"


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return stable_diffusion.save(folder)


@pytest.fixture(scope="module")
def made(pipe: Any) -> lora.Changes:
    return lora.changes(pipe)


@pytest.fixture(scope="module")
def networks(pipe: Any) -> Iterator[None]:
    """Networks that are loaded are those of `pipe`: it is files that are refused here."""
    from gensdk_export.importers.diffusers import stable_diffusion as importer

    loaded = {"UNet2DConditionModel": pipe.unet, "AutoencoderKL": pipe.vae, "CLIPTextModel": pipe.text_encoder}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importer, "load_network", lambda _folder, _library, kind, **_: loaded[kind])
        yield


def of_diffusers(pipe: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        images = pipe(
            TEXTS, latents=torch.from_numpy(LATENTS), num_inference_steps=4, guidance_scale=7.5, output_type="np"
        ).images
    return np.asarray(images)


def imported(folder: Path, *files: LoraFile) -> np.ndarray[Any, Any]:
    plan, _, _ = diffusers_plan(folder, lora=files)
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as model:
        array = model.sample(2, latents=LATENTS, prompt=TEXTS, num_inference_steps=4, progress=False).array
    return np.asarray((array.transpose(0, 2, 3, 1) + 1) / 2)


@pytest.mark.parametrize("weight", [1.0, -0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_of_diffusers_with_the_changes(
    kind: str, weight: float, folder: Path, pipe: Any, made: lora.Changes, tmp_path: Path
) -> None:
    file = KINDS[kind](tmp_path / "some.safetensors", made)
    plain = of_diffusers(pipe)
    with lora.applied(pipe, made, weight):
        wanted = of_diffusers(pipe)
    assert np.abs(wanted - plain).max() > 0.05
    assert np.abs(imported(folder, LoraFile(file, weight)) - wanted).max() < 1e-2


def test_several_files_add_up(folder: Path, pipe: Any, made: lora.Changes, tmp_path: Path) -> None:
    other = lora.changes(pipe, text=(), seed=1)
    first = LoraFile(lora.as_kohya(tmp_path / "first.safetensors", made), 0.5)
    second = LoraFile(lora.as_kohya(tmp_path / "second.safetensors", other), 0.7)
    with lora.applied(pipe, made, 0.5), lora.applied(pipe, other, 0.7):
        wanted = of_diffusers(pipe)
    assert np.abs(imported(folder, first, second) - wanted).max() < 1e-2


@pytest.mark.parametrize("kind", ["peft", "kohya"])
def test_images_are_those_of_a_fused_pipeline(
    kind: str, folder: Path, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    own = lora.changes(pipe, text=())  # of texts, its names are those of older versions of transformers
    file = KINDS[kind](tmp_path / "some.safetensors", own)
    fused = stable_diffusion.pipeline()
    fused.load_lora_weights(str(tmp_path), weight_name=file.name)
    fused.fuse_lora(lora_scale=0.8)
    assert np.abs(imported(folder, LoraFile(file, 0.8)) - of_diffusers(fused)).max() < 1e-2


@pytest.mark.usefixtures("networks")
def test_the_manifest_tells_what_was_merged(
    folder: Path, made: lora.Changes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gensdk_export.importers.diffusers import folder as importer

    kept: list[Provenance] = []
    file = lora.as_kohya(tmp_path / "knitted.safetensors", made)

    def export(plan: object, provenance: Provenance, *_: object, **__: object) -> None:
        kept.append(provenance)
        raise ExportError("it was told")

    monkeypatch.setattr(importer, "export_plan", export)
    given = ("--lora", f"{file}:0.5", "--lora", f"{file}:-0.5")  # which leaves the networks as they were
    assert run(["import", str(folder), "-o", str(tmp_path / "out.gsdk"), *given]) == 7
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert kept[0].config["lora"] == [
        {"file": "knitted.safetensors", "sha256": sha256, "weight": weight} for weight in (0.5, -0.5)
    ]


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:-.5", "a.safetensors", -0.5),
        ("c:/a.safetensors", "c:/a.safetensors", 1.0),
    ],
)
def test_a_weight_stands_behind_a_colon(text: str, path: str, weight: float) -> None:
    assert LoraFile.parse(text) == LoraFile(Path(path), weight)


@pytest.mark.parametrize(
    "text", ["a.safetensors:strong", "a.safetensors:", "a.safetensors:nan", "a.safetensors:1e9"]
)
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"number|expected a weight") as failure:
        LoraFile.parse(text)
    assert "\n" not in str(failure.value)


QUERY = f"unet.{lora.ATTENTION}.to_q"


def factors(layer: str, down: tuple[int, ...] = (2, 16), up: tuple[int, ...] = (16, 2)) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(down), f"{layer}.lora_B.weight": torch.ones(up)}


REFUSED: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "other_layer": (factors("unet.down_blocks.7.attn.to_q"), r"down_blocks\.7.*fits no layer"),
    "other_part": (factors("text_encoder_2.encoder.layers.0.self_attn.q_proj"), "text_encoder_2.*fits no layer"),
    "sdxl_of_kohya": (
        {
            "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": torch.ones(2, 16),
            "lora_unet_input_blocks_4_1_proj_in.lora_up.weight": torch.ones(16, 2),
        },
        "input_blocks_4_1_proj_in.*fits no layer",
    ),
    "wide": (factors(QUERY, down=(2, 17)), r"weight of the shape \[16, 16\]"),
    "ranks_apart": (factors(QUERY, up=(16, 3)), "factors of the shapes"),
    "nan": ({**factors(QUERY), f"{QUERY}.lora_A.weight": torch.full((2, 16), torch.nan)}, "NaN or infinite"),
    "dora": ({**factors(QUERY), f"{QUERY}.lora_magnitude_vector": torch.ones(16)}, "DoRA"),
    "loha": ({"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
    "bias": ({**factors(QUERY), f"{QUERY}.lora_B.bias": torch.ones(16)}, "biases"),
    "half": ({f"{QUERY}.lora_A.weight": torch.ones(2, 16)}, "no factor up"),
    "weights": ({"unet.conv_in.weight": torch.ones(2, 2)}, "nothing of a LoRA"),
    "alpha": ({**factors(QUERY), f"{QUERY}.alpha": torch.ones(2)}, "alpha of 2 numbers"),
    "whole_numbers": ({**factors(QUERY), f"{QUERY}.lora_A.weight": torch.ones(2, 16).int()}, "expected floats"),
    "under_two_names": (
        {**factors(QUERY), **factors(QUERY.removeprefix("unet."))},
        "are one layer, which would be changed twice",
    ),
    "twice": ({**factors(QUERY), f"{QUERY}.lora_down.weight": torch.ones(2, 16)}, "twice"),
}


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("case", REFUSED)
def test_what_fits_no_layer_is_refused_by_name(case: str, folder: Path, pipe: Any, tmp_path: Path) -> None:
    tensors, told = REFUSED[case]
    before = pipe.unet.state_dict()[f"{lora.ATTENTION}.to_q.weight"].clone()
    save_file(tensors, tmp_path / "some.safetensors")
    good = LoraFile(lora.as_kohya(tmp_path / "good.safetensors", lora.changes(pipe)))
    with pytest.raises((ExportError, InputError), match=told) as failure:
        diffusers_plan(folder, lora=[good, LoraFile(tmp_path / "some.safetensors")])
    assert "\n" not in str(failure.value)
    assert "some.safetensors" in str(failure.value)
    assert torch.equal(pipe.unet.state_dict()[f"{lora.ATTENTION}.to_q.weight"], before)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("{", "as an object"),
        ('{"unet.use_dora": true}', "DoRA"),
        ('{"unet.lora_alpha": "x"}', "a number of .* as alpha"),
        ('{"unet.alpha_pattern": {"nothing": 2}}', "is no layer"),
        ('{"unet.alpha_pattern": [2]}', "as an object"),
        ('{"unet.lora_alpha": 1%s}' % ("0" * 400), "a number of .* as alpha"),
        ('{"unet.lora_alpha": 1e39}', "a number of .* as alpha"),
        ('{"unet.lora_alpha": NaN}', "a number of .* as alpha"),
        ('{"lora_alpha": 8}', "no alpha of 'unet"),
    ],
)
def test_headers_are_refused(header: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_file(factors(QUERY), file, metadata={"lora_adapter_metadata": header})
    with pytest.raises(InputError, match=told):
        read_lora(LoraFile(file))


def test_alphas_of_layers_go_before_that_of_all(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    said = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 6}, "unet.use_rslora": False}
    other = QUERY.replace("to_q", "to_k")
    save_file({**factors(QUERY), **factors(other)}, file, metadata={"lora_adapter_metadata": json.dumps(said)})
    found = read_lora(LoraFile(file)).factors
    assert (found[QUERY].scale, found[other].scale) == (3.0, 4.0)


def test_alpha_of_peft_lies_beside_the_file(tmp_path: Path) -> None:
    file, layer = tmp_path / "adapter_model.safetensors", f"base_model.model.{QUERY.removeprefix('unet.')}"
    save_file(factors(layer), file)
    with pytest.raises(InputError, match=r"adapter_config\.json beside it, which can't be read .*put it there"):
        read_lora(LoraFile(file))
    beside = file.with_name("adapter_config.json")
    beside.write_text(
        json.dumps({"lora_alpha": 16, "r": 2, "alpha_pattern": {}, "use_dora": False, "bias": "none"})
    )
    assert read_lora(LoraFile(file)).factors[layer].scale == 8
    beside.write_text(json.dumps({"lora_alpha": 16, "use_dora": True}))
    with pytest.raises(InputError, match="it is DoRA"):
        read_lora(LoraFile(file))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_offsets": [0, 8]}, "tensors lie over each other"),
        ({"shape": [float("inf")]}, "expected whole numbers"),
        ({"shape": [1] * 70}, "a tensor has 70 dimensions"),
        ({"dtype": "F8_E4M3"}, "of the type F8_E4M3, which is not read"),
    ],
)
def test_hostile_headers_are_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    """Of the second of two tensors."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [8, 16], **change}}).encode()
    file = tmp_path / "some.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InputError, match=told):
        read_lora(LoraFile(file))


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 7)
    for name, told in (("a.safetensors", "something else"), ("b.safetensors", "is none"), ("c.pt", "pickle")):
        with pytest.raises(GensdkError, match=told):
            diffusers_plan(folder, lora=[LoraFile(tmp_path / name)])


def test_a_lora_of_half_precision_is_merged_in_float32(tmp_path: Path, pipe: Any) -> None:
    file = lora.as_kohya(tmp_path / "some.safetensors", lora.changes(pipe))
    save_file({name: each.half() for name, each in load_file(file).items()}, file)
    assert all(each.down.dtype == torch.float16 for each in read_lora(LoraFile(file)).factors.values())
