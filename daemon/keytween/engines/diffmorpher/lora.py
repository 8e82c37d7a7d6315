"""Fits LoRAs to keyframes, all of a request in one batch, and reads and writes LoRA files (section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from keytween.engines.diffmorpher.attention import Blend, Loras, StackedLora, projections
from keytween.engines.diffmorpher.schedule import NoiseSchedule
from keytween.engines.weights import PICKLED, is_safetensors
from keytween_wire.errors import LoraUnusable

WEIGHT_DECAY = 1e-2
Factors = dict[str, tuple[Tensor, Tensor]]
"""One fit's LoRA: (down (r, in), up (out, r)) by projection."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How LoRAs are fitted; the defaults are the paper's (section 4.1)."""

    steps: int = 200
    learning_rate: float = 2e-4
    rank: int = 16
    seed: int = 0


def initial(unet: Any, settings: FitSettings) -> Factors:
    """The one start of every fit: down from N(0, 1/rank) under the seed, up zero, in float32.

    All fits share it, so that mixing their factors mixes like with like.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rank = settings.rank
    return {
        name: (torch.randn(rank, inside, generator=generator) / rank, torch.zeros(outside, rank))
        for name, (inside, outside) in sorted(projections(unet).items())
    }


def stack(fits: list[Factors], *, device: torch.device, dtype: torch.dtype) -> Loras:
    """The LoRAs of several fits as one stack per projection; a projection that a fit lacks counts as zero."""
    names = sorted({name for factors in fits for name in factors})
    return {name: _stacked([f.get(name) for f in fits], device, dtype) for name in names}


def _stacked(
    pairs: list[tuple[Tensor, Tensor] | None], device: torch.device, dtype: torch.dtype
) -> StackedLora:
    known = next(pair for pair in pairs if pair is not None)
    rank = max(pair[0].shape[0] for pair in pairs if pair is not None)
    filled = [pair or (torch.zeros_like(known[0]), torch.zeros_like(known[1])) for pair in pairs]
    down = torch.stack([F.pad(a, (0, 0, 0, rank - a.shape[0])) for a, _ in filled])
    up = torch.stack([F.pad(b, (0, rank - b.shape[1])) for _, b in filled])
    return StackedLora(down.to(device, dtype), up.to(device, dtype))


def fit(
    unet: Any,
    blend: Blend,
    schedule: NoiseSchedule,
    *,
    means: Tensor,
    spreads: Tensor,
    conditions: list[dict[str, Any]],
    settings: FitSettings,
) -> Generator[tuple[int, list[float]], None, list[Factors]]:
    """Fits one LoRA to each of K latents at once; yields (step, losses), returns the K fits.

    `means` and `spreads` (K, C, h, w) are the VAE's posterior, scaled; `conditions` the text of each.
    Every keyframe sees the same noise and timesteps, as if it had been fitted alone under the seed.
    """
    count, device = means.shape[0], means.device
    stacked = _trainable(unet, count, settings, device)
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = [p for lora in stacked.values() for p in (lora.down, lora.up)]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=WEIGHT_DECAY, fused=device.type in ("cuda", "cpu")
    )
    blend.loras, blend.weights, blend.mixing = stacked, None, False
    try:
        for step in range(settings.steps):
            with torch.enable_grad():
                losses = _losses(unet, schedule, means, spreads, conditions, generator)
                losses.sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield step + 1, losses.detach().tolist()
    finally:
        blend.loras = {}
    return [_take(stacked, index) for index in range(count)]


def _trainable(unet: Any, count: int, settings: FitSettings, device: torch.device) -> Loras:
    """The start, once for each keyframe, in float32: bf16 would swallow such small steps."""
    start = initial(unet, settings)
    found = stack([start] * count, device=device, dtype=torch.float32)
    for lora in found.values():
        lora.down.requires_grad_(True)
        lora.up.requires_grad_(True)
    return found


def _losses(
    unet: Any,
    schedule: NoiseSchedule,
    means: Tensor,
    spreads: Tensor,
    conditions: list[dict[str, Any]],
    generator: torch.Generator,
) -> Tensor:
    """The mean squared error of each keyframe (K,), at one timestep and with one noise for all."""
    shape = means.shape[1:]
    posterior = torch.randn(shape, generator=generator).to(means)
    noise = torch.randn(shape, generator=generator).to(means)
    timestep = int(torch.randint(len(schedule.alphas_cumprod), (1,), generator=generator))
    timesteps = torch.full((means.shape[0],), timestep, device=means.device)
    noised, target = schedule.target(means + spreads * posterior, noise.expand_as(means), timesteps)
    output = run(unet, noised, timestep, conditions)
    return F.mse_loss(output.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))


def run(unet: Any, latents: Tensor, timestep: int, conditions: list[dict[str, Any]]) -> Tensor:
    """The network's output for rows of latents, each with its own condition, in the latents' dtype."""
    text = torch.cat([c["text"] for c in conditions])
    extra: dict[str, Any] = {}
    if "pooled" in conditions[0]:
        pooled = {"text_embeds": torch.cat([c["pooled"] for c in conditions])}
        extra["added_cond_kwargs"] = pooled | {"time_ids": torch.cat([c["size"] for c in conditions])}
    dtype = next(unet.parameters()).dtype
    return unet(latents.to(dtype), timestep, text.to(dtype), return_dict=False, **extra)[0].to(latents.dtype)


def _take(stacked: Loras, index: int) -> Factors:
    return {
        n: (s.down[index].detach().cpu().clone(), s.up[index].detach().cpu().clone())
        for n, s in stacked.items()
    }


# ---- files

_PEFT = re.compile(r"(?:unet\.|base_model\.model\.)?(.+)\.lora_(A|B|down|up)(?:\.default)?\.weight")
_PUBLISHED = re.compile(r"(?:unet\.)?(.+)\.processor\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight")


def save(factors: Factors, path: Path) -> None:
    """Writes a LoRA as diffusers and PEFT read it: `unet.<layer>.lora_A.weight` and `lora_B.weight`."""
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in factors.items():
        layer = f"{name}.0" if name.endswith("to_out") else name
        tensors[f"unet.{layer}.lora_A.weight"] = down.contiguous()
        tensors[f"unet.{layer}.lora_B.weight"] = up.contiguous()
    save_file(tensors, path)


def load(path: Path, unet: Any) -> Factors:
    """Reads a LoRA file: PEFT, diffusers, or the published program's; raises LoraUnusable.

    It must be safetensors: a pickled file could run code, and is not opened.
    """
    factors = _pair(_tensors(path), path)
    known = projections(unet)
    for name, (down, up) in factors.items():
        if name not in known or (down.shape[1], up.shape[0]) != known[name]:
            raise LoraUnusable(name=path, detail=f"its layer {name} does not fit the checkpoint")
        if not bool(down.isfinite().all() and up.isfinite().all()):
            raise LoraUnusable(name=path, detail=f"its layer {name} holds values that are no numbers")
    return factors


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix.lower() in PICKLED and path.is_file():
        raise LoraUnusable(
            name=path, detail=f"{path.suffix} files are pickled, which can run code, and are never opened"
        )
    try:
        if is_safetensors(path):
            return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoraUnusable(name=path, detail="it cannot be read") from error
    raise LoraUnusable(name=path, detail="it is cut off or no safetensors file, whatever its name says")


def _pair(tensors: Mapping[str, Tensor], path: Path) -> Factors:
    halves: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, float] = {}
    for key, tensor in tensors.items():
        if key.endswith(".alpha"):
            scales[_layer(key.removesuffix(".alpha"))] = _scale(tensor, path)
        elif match := _PUBLISHED.fullmatch(key):
            halves.setdefault(f"{match[1]}.{match[2]}", {})[match[3]] = tensor.float()
        elif match := _PEFT.fullmatch(key):
            half = {"A": "down", "B": "up"}.get(match[2], match[2])
            halves.setdefault(_layer(match[1]), {})[half] = tensor.float()
    if not halves or any(len(pair) != 2 for pair in halves.values()):
        raise LoraUnusable(name=path, detail="it holds no LoRA of attention layers")
    for name, pair in halves.items():
        down, up = pair["down"], pair["up"]
        if down.ndim != 2 or up.ndim != 2 or not 0 < down.shape[0] == up.shape[1]:
            raise LoraUnusable(name=path, detail=f"the halves of its layer {name} do not fit each other")
    return {
        name: (pair["down"], pair["up"] * (scales.get(name, pair["down"].shape[0]) / pair["down"].shape[0]))
        for name, pair in halves.items()
    }


def _scale(tensor: Tensor, path: Path) -> float:
    if tensor.numel() != 1:
        raise LoraUnusable(name=path, detail="one of its scales is no number")
    return float(tensor.float())


def _layer(name: str) -> str:
    name = name.removeprefix("unet.").removeprefix("base_model.model.")
    return name.removesuffix(".0") if name.endswith(".to_out.0") else name
