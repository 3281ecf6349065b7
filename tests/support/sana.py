"""A SANA pipeline of diffusers' and transformers' own classes, small and with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

SIDE, LATENT_CHANNELS, WIDTH = 8, 4, 16
PAD, END, BEGIN, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"


def tokenizer() -> Any:
    """Gemma's pieces: characters, bytes for others, a few merges, and a mark for each space."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.!?'", "▁"]
    merges = [("d", "o"), ("do", "g"), ("▁", "dog"), ("c", "a"), ("ca", "t"), ("r", "e"), ("re", "d")]
    data = [f"<0x{number:02X}>" for number in range(256)]
    pieces = [PAD, END, BEGIN, UNKNOWN, *data, *letters, *("".join(pair) for pair in merges)]
    return GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        unk_token=UNKNOWN,
        add_bos_token=True,
    )


def pipeline(scheduler: Any = None, *, seed: int = 0, **transformer: Any) -> SanaPipeline:
    """A pipeline for images of 32x32 pixels, by latents of 4x8x8."""
    torch.manual_seed(seed)
    words = tokenizer()
    text = Gemma2Model(
        Gemma2Config(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            query_pre_attn_scalar=8,
            max_position_embeddings=512,
            sliding_window=512,
            pad_token_id=words.pad_token_id,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
        )
    ).eval()
    network = SanaTransformer2DModel(
        **{
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": WIDTH,
            "caption_channels": WIDTH,
            "sample_size": SIDE,
            **transformer,
        }
    ).eval()
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8, 16),
        decoder_block_out_channels=(8, 8, 16),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()
    made = SanaPipeline(
        tokenizer=words,
        text_encoder=text,
        vae=vae,
        transformer=network,
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, scheduler: Any = None, **transformer: Any) -> SanaPipeline:
    """Writes :func:`pipeline` into `folder` as diffusers does."""
    made = pipeline(scheduler, **transformer)
    made.save_pretrained(folder, safe_serialization=True)
    return made
