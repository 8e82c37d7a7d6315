"""Our easings against the running Blender's, so that a new Blender with other curves is noticed."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keytween_wire.easing import Easing, Interpolation, Mode

bpy = pytest.importorskip("bpy")
RECORDER = Path(__file__).resolve().parents[2] / "packaging" / "record_blender_easing.py"
EVERY = [Easing(interpolation, mode) for interpolation in Interpolation for mode in Mode]


@pytest.fixture(scope="module")
def recorder() -> dict[str, Any]:
    """The names in the script that records Blender's values."""
    return runpy.run_path(str(RECORDER))


@pytest.mark.parametrize("duration", [1, 3, 10, 50])
@pytest.mark.parametrize("easing", EVERY, ids=str)
def test_this_blender_eases_as_we_do(easing: Easing, duration: int, recorder: dict[str, Any]) -> None:
    samples: int = recorder["SAMPLES"]
    values: Callable[..., list[float]] = recorder["values"]
    blender = values(easing.interpolation.value, easing.mode.value, duration=duration)
    ours = [easing(sample / samples, duration=duration) for sample in range(samples + 1)]
    assert ours == pytest.approx(blender, abs=1e-5)


def test_this_blender_offers_the_easings_we_know(recorder: dict[str, Any]) -> None:
    choices: Callable[[str], list[str]] = recorder["choices"]
    assert choices("interpolation") == [i.value for i in Interpolation]
    assert sorted(choices("easing")) == sorted(m.value for m in Mode)
