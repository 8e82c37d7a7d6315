"""What the matcher sees of a keyframe: small, in display colour over middle grey."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.dissolve import with_channels
from keytween.engines.flow.matching import FINE_SIDE
from keytween.images import Picture, as_float
from keytween_wire.messages import Colour

Array = NDArray[np.float32]

MIDDLE_GREY = np.float32(0.5)
BAND = 1 << 19
"""Large pictures are looked at in bands of so many pixels, so that memory stays small."""


def look(picture: Picture) -> Array:
    """What the matcher sees: (h, w, 4) in 0..1, display colour over middle grey, and the matte.

    On a middle ground both dark and light shapes have an edge; the matte is one more channel to match. The
    longest side is at most that of the finished motion.
    """
    width, height = picture.size
    scale = FINE_SIDE / max(width, height)
    if scale >= 1:
        return _seen(picture)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    rows = max(1, BAND // width)
    narrow = np.empty((height, size[0], 4), np.float32)
    for top in range(0, height, rows):
        band = _seen(Picture(picture.pixels[top : top + rows], picture.colour))
        narrow[top : top + rows] = cv2.resize(band, (size[0], len(band)), interpolation=cv2.INTER_AREA)
    return cv2.resize(narrow, size, interpolation=cv2.INTER_AREA)  # pyright: ignore


def _seen(picture: Picture) -> Array:
    pixels = with_channels(np.nan_to_num(as_float(picture)), 4)
    colour, matte = pixels[..., :3], np.clip(pixels[..., 3:], 0, 1)
    if picture.colour is Colour.SCENE_LINEAR:
        bright = np.maximum(colour, 0)
        colour = (bright / (1 + bright)) ** np.float32(1 / 2.2)
    shown = np.clip(colour, 0, 1) * matte + MIDDLE_GREY * (1 - matte)
    return np.concatenate([shown, matte], axis=2, dtype=np.float32)
