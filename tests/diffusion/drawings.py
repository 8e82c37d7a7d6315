"""Two small drawings to morph between: a disc by day and a box by night."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(height, width, 3), 8-bit RGB."""


def draw_pair(width: int = 64, height: int = 64) -> tuple[Picture, Picture]:
    """A disc on a bright sky and a box on a dark ground, of any size."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x / width, y / height
    disc = (x - 0.35) ** 2 + (y - 0.4) ** 2 < 0.06
    box = (abs(x - 0.6) < 0.2) & (abs(y - 0.6) < 0.25)
    day = _paint(y, disc, top=(150, 200, 250), bottom=(235, 245, 250), shape=(220, 60, 40))
    night = _paint(x, box, top=(20, 25, 60), bottom=(60, 40, 90), shape=(240, 200, 60))
    return day, night


def _paint(
    along: NDArray[np.float64],
    inside: NDArray[np.bool_],
    *,
    top: tuple[int, int, int],
    bottom: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> Picture:
    """A shape in one colour on a ground that fades from one colour to another."""
    weight = along[..., None]
    ground = (1 - weight) * np.array(top) + weight * np.array(bottom)
    return np.where(inside[..., None], np.array(shape), ground).round().astype(np.uint8)
