"""Lays islands on the ground that was drawn without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.bending import Bend
from keytween.engines.flow.islands import Islands
from keytween.engines.flow.posing import chained_to, pose, reach, seen_in

Array = NDArray[np.float32]
Place = tuple[Array, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """An island in one keyframe: its mask (h, w) at the islands' own size, and the box around that."""

    mask: NDArray[np.uint8]
    box: Sequence[int]


class Overlay:
    """The islands of a pair of keyframes, to be laid at any position; `bend` leads them along an arc."""

    def __init__(self, islands: Islands, pixels: tuple[Array, Array], bend: Bend | None = None) -> None:
        self._models = [m.astype(np.float64) for m in islands.models]
        self._pixels = pixels
        self._bend = bend
        cuts = [[_cut(labels, k) for k in range(1, len(self._models) + 1)] for labels in islands.labels]
        self._cuts = list(zip(cuts[0], cuts[1], strict=True))
        self._middles = [_middle(cut.box, cut.mask.shape) for cut in cuts[0]]

    def lay(self, drawn: Array, position: float, top: int, *, how: int) -> None:
        """Lays all islands on some rows, from `top` on, of a drawing (h, w, C), premultiplied."""
        size = self._pixels[0].shape[0], self._pixels[0].shape[1]
        band = top, top + drawn.shape[0]
        share = np.float32(min(max(position, 0.0), 1.0))
        for k, cuts in enumerate(self._cuts):
            maps = self._maps(k, position)
            reached = [reach(c.mask.shape, c.box, m, size, band) for c, m in zip(cuts, maps, strict=True)]
            box = _around(reached)
            if box is None:
                continue
            rows = slice(box[0] - top, box[1] - top), slice(box[2], box[3])
            part = drawn[rows]
            cover, colour = np.zeros(part.shape[:2], np.float32), np.zeros_like(part)
            for cut, own, model, weight in zip(cuts, self._pixels, maps, (1 - share, share), strict=True):
                if weight:
                    mask = seen_in(cut.mask, model, size, box, cv2.INTER_LINEAR) * (weight / np.float32(255))
                    seen = seen_in(own, model, size, box, how).reshape(part.shape)
                    cover += mask
                    colour += seen * mask[..., None]
            drawn[rows] = part * (1 - cover)[..., None] + colour

    def _maps(self, k: int, position: float) -> Place:
        """The maps (2, 3) from the drawing at a position to both pictures, in parts."""
        there = pose(self._models[k], self._middles[k], position)
        if self._bend is not None:
            there[:, 2] += _bent(self._bend, self._middles[k], position)
        return chained_to(there, self._models[k].astype(np.float32))


def _cut(labels: NDArray[np.uint8], k: int) -> Cut:
    mask = (labels == k).astype(np.uint8) * np.uint8(255)
    return Cut(mask, cv2.boundingRect(mask))


def _middle(box: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float64]:
    left, top, wide, tall = box
    return np.array([left + wide / 2, top + tall / 2], np.float64) / max(shape)


def _bent(bend: Bend, place: NDArray[np.float64], position: float) -> Array:
    """How far a bend leads a place aside, in parts of the longest side."""
    field = bend.at(position)
    height, width = field.shape[:2]
    across, down = (place * max(height, width)).astype(int)
    return field[min(max(int(down), 0), height - 1), min(max(int(across), 0), width - 1)] / max(height, width)


def _around(boxes: Sequence[tuple[int, int, int, int] | None]) -> tuple[int, int, int, int] | None:
    """The box (top, bottom, left, right) around those that there are."""
    there = [b for b in boxes if b is not None]
    if not there:
        return None
    low, high = np.min(there, axis=0), np.max(there, axis=0)
    return int(low[0]), int(high[1]), int(low[2]), int(high[3])
