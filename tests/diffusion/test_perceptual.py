# SPDX-License-Identifier: Apache-2.0
"""LPIPS for the bench: where its weights are, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from keytween.bench import runs  # noqa: E402
from keytween.engines.diffmorpher import perceptual  # noqa: E402


def test_the_bench_has_no_perceptual_distance_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert runs.perceptual() is None


def test_the_network_gets_pictures_in_its_own_range_and_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / perceptual.ALEXNET).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    seen = []

    def between(first: torch.Tensor, second: torch.Tensor) -> float:
        seen.extend((first, second))
        return 0.5

    monkeypatch.setattr(perceptual, "lpips_distance", lambda device: perceptual.Distance("LPIPS", between))
    distance = runs.perceptual()
    assert distance is not None
    first = np.zeros((4, 6, 3), np.float32)
    first[1, 2] = 1, 0.5, 0
    assert distance(first, np.ones_like(first)) == 0.5
    assert seen[0].shape == (1, 3, 4, 6)
    assert seen[0][0, :, 1, 2].tolist() == [1, 0, -1]
    assert seen[1].min() == 1
