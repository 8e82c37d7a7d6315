# SPDX-License-Identifier: Apache-2.0
"""The part of `weights` that needs PyTorch: what the diffusion engine reads of a user's files."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from bounds import foreseen, scratch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: F401  (takes seconds)

from keytween.engines.diffmorpher import checkpoints, lora
from keytween.engines.diffmorpher.fits import FitStore
from keytween_wire.errors import CheckpointUnusable, LoraUnusable

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"
WIDTH = 4


def one_input(data: bytes) -> None:
    """Reads the rest as what the first letter says."""
    kind, rest = data[:1], data[1:]
    if kind in (b"s", b"t"):
        _lora(rest, ".safetensors" if kind == b"s" else ".pt")
    if kind == b"s":
        _fit(rest)
    elif kind == b"p":
        _curve(rest)
    elif kind == b"n":
        _schedule(rest)


def _lora(data: bytes, suffix: str) -> None:
    file = scratch() / f"strange{suffix}"
    file.write_bytes(data)
    found = foreseen(lambda: lora.load(file, network()), LoraUnusable)
    for down, up in (found or {}).values():
        assert (up @ down).shape == (WIDTH, WIDTH)
        assert down.dtype == up.dtype == torch.float32


@cache
def network() -> Any:
    """Something with one attention layer, as far as LoRAs look at a network."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_processors = {f"{LAYER}.processor": None}

        def get_submodule(self, target: str) -> Any:
            assert target == LAYER
            return self.layer

    layer = torch.nn.Module()
    for name in ("to_q", "to_k", "to_v"):
        setattr(layer, name, torch.nn.Linear(WIDTH, WIDTH))
    layer.to_out = torch.nn.ModuleList([torch.nn.Linear(WIDTH, WIDTH)])
    whole = Network()
    whole.layer = layer
    return whole


def _fit(data: bytes) -> None:
    (scratch() / "fits").mkdir(exist_ok=True)
    (scratch() / "fits" / "any.safetensors").write_bytes(data)
    fit = FitStore(scratch() / "fits").load("any")
    if fit is not None:
        assert fit.clean.shape == fit.noise.shape
        assert fit.clean.ndim == 4
        assert all((up @ down).ndim == 2 for down, up in fit.factors.values())


def _curve(data: bytes) -> None:
    (scratch() / "fits").mkdir(exist_ok=True)
    (scratch() / "fits" / "any.json").write_bytes(data)
    curve = FitStore(scratch() / "fits").load_curve("any")
    if curve is not None:
        assert all(math.isfinite(curve.alpha_at(position / 8)) for position in range(9))


def _schedule(data: bytes) -> None:
    folder = scratch() / "scheduled" / "scheduler"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_bytes(data)
    schedule = foreseen(lambda: checkpoints.schedule(folder.parent), CheckpointUnusable)
    if schedule is not None:
        assert 0 < len(schedule.alphas_cumprod) <= 100_000
        assert schedule.prediction in ("epsilon", "v_prediction")
