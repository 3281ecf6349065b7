"""A diffusers folder of SANA as a bundle: flow matching by a linear transformer in a deep latent space.

Xie et al. (2024), "SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers": Gemma
reads the text, a transformer of linear attention tells the flow, and an autoencoder stands for 32x32 pixels by one
place. Four graphs: ``text_encoder``, once for each distinct text; ``step``, with guidance and the solver's update;
``decoder``, and ``encoder`` for images to start from. Tokens are made by the folder's own tokenizer, which goes
into the bundle, of texts in lower case without white space around them, as the pipeline does it.

It does not: put an instruction before prompts (the pipeline's ``complex_human_instruction``), take networks with a
guidance scale as input (SANA-Sprint), choose sizes from a list, or read weights in pickle files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from gensdk_export.importers.diffusers.scheduler import Sampling, read_sampling
from gensdk_export.importers.diffusers.texts import files_of, read_words
from gensdk_export.importers.import_report import Guess, bundle_name
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import SolverName
from gensdk_training.graphs.autoencoder import Autoencoder
from gensdk_training.graphs.diffusion_plan import TextConditioning, diffusion_plan
from gensdk_training.plan import ExportPlan

PIPELINES = ("SanaPipeline",)
PARTS = {"transformer": "SanaTransformer2DModel", "vae": "AutoencoderDC", "text_encoder": "Gemma2Model"}
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"
GUIDANCE, STEPS, LENGTH = 4.5, 20, 300
"""What the pipeline takes by default: guidance, steps, and tokens of a text."""
AS_THE_PIPELINE = ({"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True})
"""What it does to a text before it becomes tokens."""


class CrossAttention:
    """diffusers' processor, which looks at sizes that are not known while a graph of any batch is exported: it
    repeats masks for each head, where one for all heads does as well."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Places [N, P, D] that look at states [N, T, D], with a mask [N, 1, T] that is added to scores."""
        query, key = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        heads = (each.unflatten(-1, (attn.heads, -1)) for each in (query, key, attn.to_v(encoder_hidden_states)))
        asked, keys, values = (each.transpose(1, 2) for each in heads)
        seen = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=attention_mask.unsqueeze(1))
        told = attn.to_out[0](seen.transpose(1, 2).flatten(2))
        return cast(Tensor, told / attn.rescale_output_factor)


class Denoiser(nn.Module):
    """(x [N, C, H, W], timestep [N], states [N, T, D], mask [N, T]) to the flow, of x's shape.

    What it tells in channels behind those of x, its variance, is dropped.
    """

    def __init__(self, transformer: nn.Module, scale: float) -> None:
        super().__init__()
        self.transformer, self.scale = transformer, scale
        for block in cast(Any, transformer).transformer_blocks:
            block.attn2.set_processor(CrossAttention())

    def forward(self, x: Tensor, timestep: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """The prediction as a plain tensor."""
        told = self.transformer(
            x,
            encoder_hidden_states=states,
            timestep=timestep * self.scale,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        return cast(Tensor, told[:, : x.shape[1]])


class TextEncoder(nn.Module):
    """Tokens int64 [N, T] to Gemma's last hidden states [N, T, D], and where there are tokens, 1 or 0 [N, T]."""

    def __init__(self, encoder: nn.Module, pad: int) -> None:
        super().__init__()
        self.network, self.pad = encoder, pad

    def forward(self, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """The states and the mask as plain tensors."""
        mask = prompt != self.pad
        states = self.network(prompt, attention_mask=mask.long(), use_cache=False, return_dict=False)[0]
        return states, mask.to(states.dtype)


def _divides_in_float32(network: nn.Module) -> nn.Module:
    """The network, whose linear attention stays float32 in half precision: it divides by sums near 0."""
    for part in network.modules():
        if type(part).__name__ == "SanaMultiscaleLinearAttention":
            part.fp32_island = True  # type: ignore[assignment]
    return network


class Decoder(nn.Module):
    """Latents z [N, C, h, w] to images [N, 3, H, W], about in [-1, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = _divides_in_float32(vae.decoder)

    def forward(self, z: Tensor) -> Tensor:
        """The decoder's own answer."""
        return cast(Tensor, self.decoder(z))


class Encoder(nn.Module):
    """Images [N, 3, H, W] to latents [N, C, h, w]: this autoencoder draws nothing."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = _divides_in_float32(vae.encoder)

    def forward(self, image: Tensor) -> Tensor:
        """The encoder's own answer."""
        return cast(Tensor, self.encoder(image))


@dataclass(frozen=True)
class _Configs:
    """What the folder's files say, by part."""

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    scheduler: Mapping[str, Any]

    def kept(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        parts = {"transformer": self.transformer, "vae": self.vae, "text_encoder": self.text}
        return {name: plain_config(config) for name, config in {**parts, "scheduler": self.scheduler}.items()}


def sana_plan(
    folder: Path,
    *,
    solver: SolverName | None = None,
    size: tuple[int, int] | None = None,
    lora: Sequence[LoraFile] = (),
) -> tuple[ExportPlan, Provenance, tuple[Guess, ...]]:
    """The plan of the pipeline in `folder`, where it came from, and what was taken for granted.

    `solver`: another default than the scheduler's; `size`: (height, width) of the images, by default the
    transformer's own; `lora`: files to merge into it. Raises :class:`InputError` where something is missing or a
    LoRA does not fit, :class:`ExportError` for what would sample otherwise than in diffusers, and
    :class:`UnavailableError` without diffusers and transformers.
    """
    configs, changes = _read(folder), LoraFiles.of(lora)
    sampling = read_sampling(configs.scheduler, PIPELINES[0], solver)
    if sampling.family != "flow":
        raise ExportError(
            f"{folder}: expected a scheduler of flows, as this transformer tells, got "
            f"{str(configs.scheduler.get('_class_name'))[:60]} without use_flow_sigmas"
        )
    image, latent = _sizes(configs, size)
    text = _text(folder, configs)
    vae: Any = load_network(folder / "vae", "diffusers", "AutoencoderDC")
    transformer = load_network(folder / "transformer", "diffusers", "SanaTransformer2DModel")
    merged = changes.merge({"transformer": transformer}, "transformer")
    plan = diffusion_plan(
        Denoiser(transformer, float(configs.transformer.get("timestep_scale", 1.0))),
        image,
        sampling.schedule,
        name=bundle_name(folder.resolve().name),
        family=sampling.family,
        prediction_type=sampling.prediction,
        defaults=_defaults(sampling),
        text=text,
        autoencoder=Autoencoder(
            Decoder(vae), latent, Encoder(vae), scale=float(configs.vae.get("scaling_factor", 1.0))
        ),
    )
    config = {"imported_from": "diffusers", "pipeline": PIPELINES[0], **configs.kept(), **changes.provenance()}
    first, *others = sampling.guesses
    first = replace(first, value=f"{sampling.defaults.solver}, {STEPS} steps")
    return plan, Provenance(config=config), (first, *others, *_guesses(text.prompt), *merged)


def _read(folder: Path) -> _Configs:
    """The configurations, with all that can be refused by them."""
    refuse_other_parts(folder, read_json(folder / "model_index.json"), PARTS)
    transformer, vae, text = (read_json(folder / name / "config.json") for name in PARTS)
    if transformer.get("guidance_embeds"):
        raise ExportError(f"{folder}: the transformer takes the guidance scale as an input (SANA-Sprint)")
    channels = transformer.get("in_channels", 32)
    outputs = transformer.get("out_channels") or channels
    if channels != vae.get("latent_channels", 32) or outputs not in (channels, 2 * channels):
        raise ExportError(
            f"{folder}: expected a transformer with the autoencoder's channels in, and as many or twice as many "
            f"out, got {str(channels)[:20]} and {str(outputs)[:20]}"
        )
    return _Configs(transformer, vae, text, read_json(folder / "scheduler" / "scheduler_config.json"))


def _sizes(configs: _Configs, size: tuple[int, int] | None) -> tuple[ImageSpec, tuple[int, int, int]]:
    """The images, and the shape of latents."""
    blocks = configs.vae.get("encoder_block_out_channels", [0] * 6)
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 8:
        raise InputError("expected encoder_block_out_channels of 1 to 8 blocks in vae/config.json")
    factor, own = 2 ** (len(blocks) - 1), image_sides(configs.transformer.get("sample_size", 32))
    if size is None and own is None:
        raise InputError("the transformer has no sample_size; give the images' size with --size HxW")
    height, width = size or tuple(factor * side for side in own or ())
    places = factor * int(configs.transformer.get("patch_size", 1))
    if height % places or width % places:
        raise InputError(f"expected images whose sides are multiples of {places}, got {height}x{width}")
    data = {"channels": configs.vae.get("in_channels", 3), "height": height, "width": width}
    image = ImageSpec.from_dict(data, what="vae/config.json", error=ExportError)
    return image, (int(configs.vae.get("latent_channels", 32)), height // factor, width // factor)


def _text(folder: Path, configs: _Configs) -> TextConditioning:
    """The encoder of texts and their tokens."""
    words = read_words(folder / "tokenizer", "GemmaTokenizer")
    if words.empty != (words.begin,):
        raise ExportError(
            f"{words.place}: expected a tokenizer that puts its begin, and nothing else, around texts"
        )
    vocabulary = words.vocabulary(*AS_THE_PIPELINE, begin=words.begin, end=words.end, pad=words.pad)
    rows, width = configs.text.get("vocab_size", 256_000), configs.text.get("hidden_size", 2304)
    if not isinstance(rows, int) or vocabulary.size > rows:
        raise ExportError(f"{words.place}: it has {vocabulary.size} tokens, the text encoder {str(rows)[:20]}")
    prompt = PromptSpec(
        length=LENGTH,
        size=vocabulary.size,
        rest=words.pad,
        begin=words.begin,
        empty=True,
        over_long="cut",
    )
    encoder = load_network(folder / "text_encoder", "transformers", "Gemma2Model", eager=True)
    return TextConditioning(
        TextEncoder(encoder, words.pad),
        prompt,
        {STATES: (LENGTH, int(width)), MASK: (LENGTH,)},
        files_of(vocabulary),
        half=("network",),
    )


def _defaults(sampling: Sampling) -> Any:
    own = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS, "clip_sample": False}
    return sampling.defaults.model_copy(update=own)


def _guesses(prompt: PromptSpec) -> tuple[Guess, ...]:
    return (
        Guess("guidance_scale", f"{GUIDANCE:g}", f"the default of {PIPELINES[0]}"),
        Guess("texts", f"up to {prompt.own_length} tokens, longer ones are cut", f"the default of {PIPELINES[0]}"),
        Guess("complex_human_instruction", "none", "the pipeline's default instructs the text encoder in English"),
    )
