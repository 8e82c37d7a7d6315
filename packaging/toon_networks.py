"""The networks of the checkpoint `toon`, new and untrained: small enough for two processor cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from keytween.toon.casting import COLOUR_NAMES, WORDS

SIDE, FACTOR, CHANNELS = 128, 8, 8
"""Pixels of a drawing's side, pixels of a latent's side, and channels of a latent."""
TEXT_WIDTH, TEXT_LENGTH = 64, 16
START, END = "<|startoftext|>", "<|endoftext|>"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def new_vae() -> AutoencoderKL:
    """A VAE that is narrow where pictures are large; with eight channels it learns thin lines sooner."""
    vae = AutoencoderKL(
        block_out_channels=(16, 24, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=1.0,
        force_upcast=False,
        # Without attention it sees every place alike, and can be trained on parts of drawings.
        mid_block_add_attention=False,
    )
    layer: Any = vae.quant_conv
    with torch.no_grad():
        # It begins with little doubt; otherwise noise drowns what it first learns.
        layer.weight[CHANNELS:] *= 0.1
        layer.bias[CHANNELS:] = -5.0
    return vae


def new_unet() -> UNet2DConditionModel:
    """A network of two levels with self-attention and cross-attention at both, up and down."""
    return UNet2DConditionModel(
        sample_size=SIDE // FACTOR,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
        attention_head_dim=4,
    )


def new_text_encoder() -> CLIPTextModel:
    """A text encoder for a few words."""
    words = vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=words[START],
            eos_token_id=words[END],
            pad_token_id=words[END],
        )
    )


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """A tokenizer whose files lie in the folder: our words are few tokens, others are spelt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in _merges())]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | special), "utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def vocabulary() -> dict[str, int]:
    """Every printable ASCII character, inside and at the end of a word; what the merges make; the marks."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merged = [left + right for left, right in _merges()]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *merged, START, END]
    return {token: index for index, token in enumerate(tokens)}


def _merges() -> list[tuple[str, str]]:
    """The merges that known words are built with, letter by letter; where two disagree, it is two tokens."""
    found: dict[tuple[str, str], None] = {}
    for word in (*WORDS, *COLOUR_NAMES):
        left = word[0]
        for position, letter in enumerate(word[1:], start=2):
            right = f"{letter}</w>" if position == len(word) else letter
            found[left, right] = None
            left += right
    return list(found)


def new_schedule() -> DDIMScheduler:
    """The noise of Stable Diffusion; the network predicts v, which small networks learn sooner."""
    return DDIMScheduler(
        **BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


@torch.no_grad()
def standardise(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Makes each channel of the VAE's latents (N, C, h, w) 0 in mean and 1 in spread, pictures unchanged."""
    mean = latents.mean(dim=(0, 2, 3)).float()
    spread = latents.std(dim=(0, 2, 3)).float()
    enter: Any = vae.quant_conv
    leave: Any = vae.post_quant_conv
    enter.weight[:CHANNELS] /= spread[:, None, None, None]
    enter.bias[:CHANNELS] = (enter.bias[:CHANNELS] - mean) / spread
    enter.bias[CHANNELS:] -= 2 * spread.log()
    leave.bias += leave.weight[:, :, 0, 0] @ mean
    leave.weight *= spread[None, :, None, None]


def save_pipeline(
    folder: Path, *, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel
) -> None:
    """Writes a checkpoint in diffusers layout, in half precision."""
    networks: list[Any] = [vae, unet, text_encoder]
    parts: list[Any] = [n.half().to(memory_format=torch.contiguous_format) for n in networks]
    pipeline = StableDiffusionPipeline(
        vae=parts[0],
        unet=parts[1],
        text_encoder=parts[2],
        tokenizer=new_tokenizer(folder / "tokenizer"),
        scheduler=new_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
