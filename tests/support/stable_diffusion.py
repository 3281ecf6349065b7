"""A Stable Diffusion pipeline of diffusers' and transformers' own classes, small and with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LENGTH, SIDE = 12, 8
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(length: int = LENGTH) -> Any:
    """CLIP's byte-level pieces of single characters, and a few merges."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), BEGIN, END]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=length,
    )


def pipeline(scheduler: Any = None, *, width: int = 16, seed: int = 0, **unet: Any) -> StableDiffusionPipeline:
    """A pipeline for images of 16x16 pixels, by latents of 4x8x8."""
    torch.manual_seed(seed)
    words = tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    ).eval()
    network = UNet2DConditionModel(
        **{
            "sample_size": SIDE,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (width, 2 * width),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": width,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **unet,
        }
    ).eval()
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIDE,
    ).eval()
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=network,
        scheduler=scheduler or default_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def default_scheduler() -> Any:
    """As Stable Diffusion 1.5 is usually sampled with DDIM."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def consistent(folder: Path, **unet: Any) -> Any:
    """Writes a latent consistency model, whose U-Net takes the guidance scale, into `folder`."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    one_level = {
        "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    parts = pipeline(**{**one_level, "time_cond_proj_dim": 10, **unet}).components
    made = LatentConsistencyModelPipeline(**{**parts, "scheduler": scheduler}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder, safe_serialization=True)
    return made


def save(folder: Path, scheduler: Any = None, **unet: Any) -> StableDiffusionPipeline:
    """Writes :func:`pipeline` into `folder` as diffusers does."""
    made = pipeline(scheduler, **unet)
    made.save_pretrained(folder, safe_serialization=True)
    return made
