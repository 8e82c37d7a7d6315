# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes for the diffusion engine: what the fuzzers' seeds hold, and what they led to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from keytween.engines.diffmorpher import checkpoints, lora
from keytween.engines.diffmorpher.fits import Fit, FitStore
from keytween.engines.diffmorpher.reschedule import PacingCurve
from keytween_wire.errors import CheckpointUnusable, LoraUnusable
from replayed import replay


def test_no_seed_and_no_finding_does_any_harm_with_pytorch_either(tmp_path: Path) -> None:
    replay("weights", 30, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"prediction_type": "sample"},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": True},
        {"num_train_timesteps": -1},
        {"beta_schedule": "nobody's"},
        {"beta_start": 2.0, "beta_end": 3.0},
        {"trained_betas": [math.nan]},
        {"trained_betas": "a"},
        {"trained_betas": [[0.1]]},
    ],
    ids=str,
)
def test_a_schedule_that_makes_no_sense_is_named(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointUnusable, match="scheduler makes no sense"):
        checkpoints.schedule(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"alphas": [0], "changed": [0], "distance": ""}',
        '{"alphas": [0, 1], "changed": [0, NaN], "distance": ""}',
        '{"alphas": [0, 1], "changed": [0, "a"], "distance": ""}',
        '{"alphas": [0, 1], "changed": [0, 0.5, 1], "distance": ""}',
        '{"alphas": 5, "changed": 5, "distance": ""}',
        "[1]",
        "[" * 5000,
    ],
)
def test_a_curve_that_is_none_is_measured_again(tmp_path: Path, text: str) -> None:
    store = FitStore(tmp_path)
    store.save_curve("known", PacingCurve((0.0, 1.0), (0.0, 1.0), "lpips"))
    assert store.load_curve("known") is not None
    (tmp_path / "known.json").write_text(text)
    assert store.load_curve("known") is None
    assert not (tmp_path / "known.json").exists()


ODD = ({"clean": torch.zeros(4)}, {"noise": torch.zeros(1, 4, 2, 2)}, {"a|down": torch.zeros(2)})


@pytest.mark.parametrize("odd", ODD, ids=["clean", "noise", "down"])
def test_a_fit_whose_parts_do_not_go_together_is_made_again(
    tmp_path: Path, odd: dict[str, torch.Tensor]
) -> None:
    store, latents = FitStore(tmp_path), torch.zeros(1, 4, 1, 1)
    halves = torch.zeros(2, 4), torch.zeros(4, 2)
    store.save("known", Fit({"a": halves}, latents, latents.clone()))
    assert store.load("known") is not None
    whole = {"clean": latents, "noise": latents.clone(), "a|down": halves[0], "a|up": halves[1]}
    save_file({**whole, **odd}, tmp_path / "known.safetensors")
    assert store.load("known") is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"lora_A": torch.zeros(0, 4), "lora_B": torch.zeros(4, 0)},
        {"lora_A": torch.zeros(2, 4), "lora_B": torch.zeros(4, 3)},
        {"lora_A": torch.zeros(2), "lora_B": torch.zeros(4)},
        {"lora_A": torch.zeros(2, 4), "lora_B": torch.zeros(4, 2), "alpha": torch.zeros(2)},
    ],
    ids=["no rank", "two ranks", "vectors", "two scales"],
)
def test_a_lora_whose_halves_do_not_fit_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    names = {
        "lora_A": f"{layer}.lora_A.weight",
        "lora_B": f"{layer}.lora_B.weight",
        "alpha": f"{layer}.alpha",
    }
    save_file({names[name]: tensor for name, tensor in tensors.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(LoraUnusable, match=r"fit each other|no number"):
        lora.load(tmp_path / "odd.safetensors", torch.nn.Module())
