"""A diffusers folder of Stable Diffusion as a bundle: diffusion in a latent space, told by texts.

Rombach et al. (2022), "High-Resolution Image Synthesis with Latent Diffusion Models": CLIP reads the text, a U-Net
attends to what it makes of it, and a KL autoencoder stands between latents and pixels. Four graphs:
``text_encoder``, once for each distinct text; ``step``, with guidance and the solver's update; ``decoder``, and
``encoder`` for images to start from. Tokens are made by the folder's own tokenizer, which goes into the bundle.

A U-Net that takes the guidance scale as an input (``time_cond_proj_dim``), as latent consistency models do, is run
once for each step, and leads away from no text.

It does not: run a safety checker, take networks with channels for a mask or with classes beside texts, or weights
in pickle files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_export.importers.diffusers.folder_files import (
    image_sides,
    load_network,
    plain_config,
    read_json,
    refuse_other_parts,
)
from gensdk_export.importers.diffusers.lora import LoraFiles
from gensdk_export.importers.diffusers.lora_files import LoraFile
from gensdk_export.importers.diffusers.scheduler import read_sampling
from gensdk_export.importers.diffusers.texts import MAX_TOKENS, files_of, read_words
from gensdk_export.importers.import_report import Guess, bundle_name
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import SolverName
from gensdk_training.graphs.autoencoder import Autoencoder
from gensdk_training.graphs.diffusion_plan import TextConditioning, diffusion_plan
from gensdk_training.plan import ExportPlan

LATENT_CONSISTENCY = ("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline")
PIPELINES = (
    *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    *LATENT_CONSISTENCY,
)
PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
CONTEXT = "encoder_hidden_states"
GUIDANCE = 7.5
CONSISTENT_GUIDANCE = 8.5
"""What the pipelines take by default; the second is that of latent consistency models."""
MAX_WIDTH = 2**14
"""Of what tells a U-Net its guidance."""
CLIPPING: Mapping[str, str] = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "lcm": "LCMScheduler"}
"""Solvers whose schedulers could clip estimates of x_0."""
PLAIN_UNET: Mapping[str, tuple[Any, str]] = {
    "class_embed_type": (None, "it has classes beside texts"),
    "num_class_embeds": (None, "it has classes beside texts"),
    "addition_embed_type": (None, "it takes more than one text encoder gives (SDXL)"),
    "encoder_hid_dim_type": (None, "it takes images or a second encoder"),
    "center_input_sample": (False, "it shifts its input"),
}
"""Settings of a U-Net that must be as they stand here, and why."""


class Denoiser(nn.Module):
    """(x [N, C, H, W], timestep [N], context [N, T, D]) to what the scheduler expects, of x's shape."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """The prediction as a plain tensor."""
        return cast(Tensor, self.unet(x, timestep, encoder_hidden_states=context, return_dict=False)[0])


class GuidedDenoiser(nn.Module):
    """(x, timestep, context, scale [N]) as :class:`Denoiser` has them, with a U-Net that is guided inside.

    Luo et al. (2023), "Latent Consistency Models": it is told w = scale - 1, as waves like those of its time.
    """

    def __init__(self, unet: nn.Module, width: int) -> None:
        super().__init__()
        self.unet, self.width = unet, width

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, scale: Tensor) -> Tensor:
        """The prediction as a plain tensor."""
        told = self.unet(
            x,
            timestep,
            timestep_cond=waves_of(scale - 1.0, self.width),
            encoder_hidden_states=context,
            return_dict=False,
        )
        return cast(Tensor, told[0])


def waves_of(w: Tensor, width: int) -> Tensor:
    """sin and cos of 1000 w at frequencies from 1 down to 1/10000: [N] to [N, `width`], odd ones with a zero."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=w.dtype) * (-math.log(10000.0) / (half - 1)))
    angles = (1000.0 * w).unsqueeze(1) * frequencies
    return functional.pad(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1), (0, width % 2))


class TextEncoder(nn.Module):
    """Tokens int64 [N, T] to CLIP's last hidden states [N, T, D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.network = encoder

    def forward(self, prompt: Tensor) -> Tensor:
        """The states as a plain tensor."""
        return cast(Tensor, self.network(prompt, return_dict=False)[0])


class Decoder(nn.Module):
    """Latents z [N, C, h, w] to images [N, 3, H, W]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder, self.post = vae.decoder, vae.post_quant_conv

    def forward(self, z: Tensor) -> Tensor:
        """About in [-1, 1]."""
        return cast(Tensor, self.decoder(z if self.post is None else self.post(z)))


class Encoder(nn.Module):
    """Images [N, 3, H, W] to the mode of their latents' distribution [N, C, h, w]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant = vae.encoder, vae.quant_conv

    def forward(self, image: Tensor) -> Tensor:
        """The mean, which is the mode too."""
        moments = self.encoder(image)
        moments = moments if self.quant is None else self.quant(moments)
        return cast(Tensor, moments.chunk(2, dim=1)[0])


@dataclass(frozen=True)
class _Configs:
    """What the folder's files say, by part."""

    index: Mapping[str, Any]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    scheduler: Mapping[str, Any]

    @property
    def pipeline(self) -> str:
        """The class that it was saved from."""
        return str(self.index["_class_name"])

    @property
    def guidance(self) -> float:
        """The scale that the pipeline takes by default."""
        return CONSISTENT_GUIDANCE if self.pipeline in LATENT_CONSISTENCY else GUIDANCE

    @property
    def width_of_guidance(self) -> int | None:
        """Numbers that the U-Net is told the guidance scale by; None for one that is guided from outside."""
        width = self.unet.get("time_cond_proj_dim")
        if width is not None and (type(width) is not int or not 4 <= width <= MAX_WIDTH):
            raise ExportError(
                f"expected time_cond_proj_dim of 4 to {MAX_WIDTH} in unet/config.json, got {str(width)[:20]}"
            )
        return width


def stable_diffusion_plan(
    folder: Path,
    *,
    solver: SolverName | None = None,
    size: tuple[int, int] | None = None,
    lora: Sequence[LoraFile] = (),
) -> tuple[ExportPlan, Provenance, tuple[Guess, ...]]:
    """The plan of the pipeline in `folder`, where it came from, and what was taken for granted.

    `solver`: another default than the scheduler's; `size`: (height, width) of the images, by default the U-Net's
    own; `lora`: files to merge, of the U-Net, the text encoder or both. Raises :class:`InputError` where something
    is missing or a LoRA does not fit, :class:`ExportError` for what would sample
    otherwise than in diffusers, and :class:`UnavailableError` without diffusers and transformers.
    """
    configs, changes = _read(folder), LoraFiles.of(lora)
    scheduler, changed = _as_the_pipeline_reads(configs, solver)
    sampling = read_sampling(scheduler, configs.pipeline, solver)
    image, latent = _sizes(configs, size)
    width = configs.width_of_guidance
    text, told = _text(folder, configs)
    vae: Any = load_network(folder / "vae", "diffusers", "AutoencoderKL")
    unet = load_network(folder / "unet", "diffusers", "UNet2DConditionModel")
    merged = changes.merge({"unet": unet, "text_encoder": text.encoder.get_submodule("network")}, "unet")
    autoencoder = Autoencoder(
        Decoder(vae),
        latent,
        Encoder(vae),
        scale=float(configs.vae.get("scaling_factor", 0.18215)),
        shift=float(configs.vae.get("shift_factor") or 0.0),
    )
    plan = diffusion_plan(
        Denoiser(unet) if width is None else GuidedDenoiser(unet, width),
        image,
        sampling.schedule,
        name=bundle_name(folder.resolve().name),
        family=sampling.family,
        prediction_type=sampling.prediction,
        defaults=sampling.defaults.model_copy(update={"guidance_scale": configs.guidance, "clip_sample": False}),
        text=text,
        autoencoder=autoencoder,
    )
    parts = {
        "unet": configs.unet,
        "vae": configs.vae,
        "text_encoder": configs.text,
        "scheduler": configs.scheduler,
    }
    kept = {name: plain_config(config) for name, config in parts.items()}
    config = {"imported_from": "diffusers", "pipeline": configs.pipeline, **kept, **changes.provenance()}
    return plan, Provenance(config=config), (*sampling.guesses, *changed, *told, *_guesses(configs), *merged)


def _read(folder: Path) -> _Configs:
    """The configurations, with all that can be refused by them."""
    index = read_json(folder / "model_index.json")
    refuse_other_parts(folder, index, PARTS)
    found = {name: read_json(folder / name / "config.json") for name in PARTS}
    for name, (wanted, why) in PLAIN_UNET.items():
        if found["unet"].get(name, wanted) != wanted:
            raise ExportError(f"{folder}: the U-Net has {name}={str(found['unet'][name])[:40]}: {why}")
    channels = found["unet"].get("in_channels", 4)
    if not channels == found["unet"].get("out_channels", 4) == found["vae"].get("latent_channels", 4):
        raise ExportError(
            f"{folder}: expected a U-Net with the autoencoder's channels in and out, got {str(channels)[:20]} in; "
            "networks with channels for a mask don't fit, others inpaint by mask_image"
        )
    if found["vae"].get("latents_mean") is not None or found["vae"].get("latents_std") is not None:
        raise ExportError(f"{folder}: its autoencoder scales each channel by itself, which is not taken")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return _Configs(index, found["unet"], found["vae"], found["text_encoder"], scheduler)


def _sizes(configs: _Configs, size: tuple[int, int] | None) -> tuple[ImageSpec, tuple[int, int, int]]:
    """The images, and the shape of latents."""
    blocks = configs.vae.get("block_out_channels", [64])
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 8:
        raise InputError("expected block_out_channels of 1 to 8 blocks in vae/config.json")
    factor, own = 2 ** (len(blocks) - 1), image_sides(configs.unet.get("sample_size"))
    if size is None and own is None:
        raise InputError("the U-Net's configuration has no sample_size; give the images' size with --size HxW")
    height, width = size or tuple(factor * side for side in own or ())
    rows = factor * 2 ** (len(configs.unet.get("down_block_types", "....")) - 1)
    if height % rows or width % rows:
        raise InputError(f"expected images whose sides are multiples of {rows}, got {height}x{width}")
    data = {"channels": configs.vae.get("out_channels", 3), "height": height, "width": width}
    image = ImageSpec.from_dict(data, what="vae/config.json", error=ExportError)
    return image, (int(configs.vae.get("latent_channels", 4)), height // factor, width // factor)


def _text(folder: Path, configs: _Configs) -> tuple[TextConditioning, tuple[Guess, ...]]:
    """The encoder of texts and their tokens, and what is told of them."""
    words = read_words(folder / "tokenizer", "CLIPTokenizer")
    places, length = configs.text.get("max_position_embeddings", 77), words.length
    if not 3 <= length <= min(MAX_TOKENS, places if isinstance(places, int) else 0):
        raise InputError(
            f"{words.place}: expected model_max_length of 3 to {str(places)[:20]} tokens, got {length}"
        )
    vocabulary = words.vocabulary(begin=words.begin, end=words.end)
    size = vocabulary.size
    if size != configs.text.get("vocab_size", 49408):
        raise ExportError(
            f"{words.place}: it has {size} tokens, the text encoder {configs.text.get('vocab_size')}"
        )
    prompt = PromptSpec(
        length=length,
        size=size,
        rest=words.pad,
        begin=words.begin,
        end=words.end,
        empty=True,
        over_long="cut",
    )
    encoder = TextEncoder(load_network(folder / "text_encoder", "transformers", "CLIPTextModel", eager=True))
    width = int(configs.text.get("hidden_size", 512))
    conditioning = TextConditioning(
        encoder,
        prompt,
        {CONTEXT: (length, width)},
        files_of(vocabulary),
        half=("network",),
        guided_inside=configs.width_of_guidance is not None,
    )
    return conditioning, (Guess("texts", f"up to {prompt.own_length} tokens, longer ones are cut", "tokenizer"),)


def _as_the_pipeline_reads(
    configs: _Configs, solver: SolverName | None
) -> tuple[Mapping[str, Any], tuple[Guess, ...]]:
    """A scheduler's configuration with what the pipelines set in it, whatever it says, and what is told of that:
    latents are not clipped, and time steps begin at 1."""
    config = configs.scheduler
    kind = str(config.get("_class_name"))
    if configs.pipeline in LATENT_CONSISTENCY:
        if kind != "LCMScheduler" or config.get("clip_sample"):
            raise ExportError(
                f"expected an LCMScheduler without clip_sample in a {configs.pipeline}, got {kind[:60]} with "
                f"clip_sample={bool(config.get('clip_sample'))}"
            )
        return config, ()  # as it stands
    if kind.startswith("FlowMatch"):
        return config, ()
    forced: dict[str, Any] = {"steps_offset": 1}
    if solver in CLIPPING or (solver is None and kind in CLIPPING.values()):
        forced["clip_sample"] = False
    changed = [f"{name}={value}" for name, value in forced.items() if config.get(name, value) != value]
    reason = "diffusers' pipeline sets it so, whatever the scheduler's file says"
    told = (Guess("the scheduler", ", ".join(changed), reason),) if changed else ()
    return {**config, **forced}, told


def _guesses(configs: _Configs) -> tuple[Guess, ...]:
    told = [
        Guess("guidance_scale", f"{configs.guidance:g}", f"the default of {configs.pipeline}", "--default"),
        Guess("an image to start from", "the mode of its latents", "diffusers draws them, by a generator"),
    ]
    if configs.index.get("safety_checker", [None, None]) != [None, None]:
        told.append(Guess("safety_checker", "left out", "a bundle judges no images; do it in the application"))
    return tuple(told)
