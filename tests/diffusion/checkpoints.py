"""Tiny random checkpoints in diffusers layout, made through the real classes: seeded, small, quick.

They know nothing of pictures, but their numbers behave: outputs stay tame over a whole denoising, and
attention is strong enough that whoever mixes its inputs wrongly gets other latents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from drawings import draw_pair
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "cat", "dog", "disc", "box", "by", "day", "night", "red", "drawing", "of")
ATTENTION_GAIN = 3.0
"""How much stronger than freshly initialised the attention projections are."""
OUTPUT_GAIN = 0.25
"""How much weaker the network's last layer is: what it says must not change faster than DDIM can follow."""


# ---- the checkpoints


def make_sd(path: Path, *, seed: int = 1) -> Path:
    """A checkpoint in the shape of SD 1.x: predicts the noise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _save_sd(path, _unet(), PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1))
    return path


def make_v(path: Path, *, seed: int = 2) -> Path:
    """A checkpoint in the shape of SD 2.x: predicts v, linear projections, heads by layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = _unet(use_linear_projection=True, attention_head_dim=[2, 4])
        _save_sd(
            path,
            unet,
            DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, steps_offset=1),
        )
    return path


def make_xl(path: Path, *, seed: int = 3) -> Path:
    """A checkpoint in the shape of SDXL: two text encoders, pooled text, sizes, a VAE that asks for fp32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _save_xl(path, _unet(gain=4.0, **_XL), _vae(**_XL_VAE), widths=(16, 32), pooled=16)
    return path


def _save_xl(
    path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, *, widths: tuple[int, int], pooled: int
) -> None:
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(_text_config(widths[0])).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(widths[1], projection_dim=pooled)).eval(),
        tokenizer=_tokenizer(path / "tokenizer"),
        tokenizer_2=_tokenizer(path / "tokenizer_2", pad="!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1),
        add_watermarker=False,
    )
    pipeline.save_pretrained(path, safe_serialization=True)


_XL_VAE: dict[str, Any] = {"force_upcast": True, "scaling_factor": 0.13025}
_XL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "cross_attention_dim": 16 + 32,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": ({"sample_size": 16, "block_out_channels": (32, 64)}, {}),
    "sd15": (
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "cross_attention_dim": 768,
            "norm_num_groups": 32,
            "attention_head_dim": 8,
        },
        {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32},
    ),
}
SHAPES["sd21"] = (
    SHAPES["sd15"][0]
    | {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    SHAPES["sd15"][1],
)
SHAPES["sdxl"] = (
    {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 768 + 1280,
        "norm_num_groups": 32,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 1280,
    },
    SHAPES["sd15"][1] | _XL_VAE,
)
"""Networks in the shape of the real ones, for the benchmark: (changes to the UNet, changes to the VAE)."""


def make_shape(path: Path, shape: str, *, seed: int = 1) -> Path:
    """A random checkpoint whose network and VAE have the real shape; its text encoder is tiny but as wide."""
    unet, vae = SHAPES[shape]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if shape == "sdxl":
            _save_xl(path, _unet(**unet), _vae(**vae), widths=(768, 1280), pooled=1280)
            return path
        width = unet.get("cross_attention_dim", 32)
        scheduler = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1)
        _save_sd(path, _unet(**unet), scheduler, vae=_vae(**vae), width=width)
    return path


def _save_sd(
    path: Path,
    unet: UNet2DConditionModel,
    scheduler: Any,
    *,
    vae: AutoencoderKL | None = None,
    width: int = 32,
) -> None:
    pipeline = StableDiffusionPipeline(
        vae=vae or _vae(),
        text_encoder=CLIPTextModel(_text_config(width)).eval(),
        tokenizer=_tokenizer(path / "tokenizer"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path, safe_serialization=True)


# ---- their parts


def _unet(*, gain: float = ATTENTION_GAIN, **changes: Any) -> UNet2DConditionModel:
    """A network of two levels with attention at one of them and in the middle."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    }
    unet = UNet2DConditionModel(**config | changes).eval()
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and ".attn" in name:
            module.weight.data.mul_(gain)
    unet.conv_out.weight.data.mul_(OUTPUT_GAIN)
    return unet


def _vae(**changes: Any) -> AutoencoderKL:
    """A VAE of factor 8."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 16, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
    }
    return _calibrated(AutoencoderKL(**config | changes).eval())


@torch.no_grad()
def _calibrated(vae: AutoencoderKL) -> AutoencoderKL:
    """The VAE with scaled latents of a drawing around 0 and 1 in spread, and little doubt about them."""
    drawing = torch.from_numpy(draw_pair()[0]).permute(2, 0, 1)[None] / 127.5 - 1
    means = vae.encode(drawing).latent_dist.mean
    centre = means.mean(dim=(0, 2, 3))
    layer, channels = vae.quant_conv, vae.config.latent_channels
    gain = 1 / ((means - centre[:, None, None]).std() * vae.config.scaling_factor)
    layer.weight[:channels] *= gain
    layer.bias[:channels] = (layer.bias[:channels] - centre) * gain
    layer.bias[channels:] -= 1.0
    return vae


def _text_config(width: int, *, projection_dim: int = 32) -> CLIPTextConfig:
    vocabulary = _vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection_dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )


# ---- text


def _tokenizer(folder: Path, *, pad: str = END) -> CLIPTokenizer:
    """A tokenizer read from the files that real checkpoints have."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(_vocabulary()), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in _merges())]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def _vocabulary() -> dict[str, int]:
    """Every printable ASCII character, inside and at the end of a word; what the merges make; the marks."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merged = [left + right for left, right in _merges()]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *merged, START, END]
    return {token: index for index, token in enumerate(tokens)}


def _merges() -> list[tuple[str, str]]:
    """The merges that make each known word one token, letter by letter."""
    found: dict[tuple[str, str], None] = {}
    for word in WORDS:
        left = word[0]
        for position, letter in enumerate(word[1:], start=2):
            right = f"{letter}</w>" if position == len(word) else letter
            found[left, right] = None
            left += right
    return list(found)
