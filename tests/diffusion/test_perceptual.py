# SPDX-License-Identifier: Apache-2.0
"""LPIPS for the bench: where its weights are, and only there."""

from __future__ import annotations

import warnings
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

    def keep(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return torch.tensor([len(seen) / 2.0])

    def lpips(device: torch.device) -> perceptual.Distance:
        return perceptual.Distance("LPIPS", keep, squared=True)

    monkeypatch.setattr(perceptual, "lpips_distance", lpips)
    distance = runs.perceptual()
    assert distance is not None
    first = np.zeros((4, 6, 3), np.float32)
    first[1, 2] = 1, 0.5, 0
    assert distance(first, np.ones_like(first)) == 0.25
    assert seen[0].shape == (1, 3, 4, 6)
    assert seen[0][0, :, 1, 2].tolist() == [1, 0, -1]
    assert seen[1].min() == 1


def test_what_is_kept_for_lpips_is_lpips_itself() -> None:
    """Against the library's own way of comparing two pictures, with a trunk of random weights."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    distance = perceptual.of_network(network, torch.device("cpu"))
    first, second = torch.rand(2, 1, 3, 96, 128) * 2 - 1
    with torch.no_grad():
        expected = float(network(first, second))
    assert expected > 0.001
    assert distance.between(first, second) == pytest.approx(expected, rel=1e-4)
    assert distance.between(first, first) == 0


def test_a_squared_distance_is_the_square_of_a_length() -> None:
    ends = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for squared, expected in ((False, 5.0), (True, 25.0)):
        distance = perceptual.Distance("plain", lambda image: image, squared=squared)
        assert distance.apart(*ends) == pytest.approx(expected)
        assert distance.all_apart(ends, ends).tolist() == [[0, expected], [expected, 0]]
