"""The one reader and writer of pictures (OpenImageIO lives here and nowhere else)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keytween_wire.messages import Colour


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels as the file has them.

    `pixels` is (H, W, C), C 3 or 4, channel 3 being the straight matte; dtype uint8, uint16, float16 or
    float32; `colour` is SRGB or SCENE_LINEAR, never AUTO; `colour_source` says how that was known:
    "given", "file" or "format".
    """

    pixels: NDArray[np.generic]
    colour: Colour = Colour.SRGB
    colour_source: str = "format"

    @property
    def has_matte(self) -> bool:
        """Whether channel 3 is a matte."""
        return self.pixels.shape[2] == 4
