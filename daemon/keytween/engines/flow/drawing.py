"""Draws a position between two matched keyframes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import blurred
from keytween.engines.flow.matching import Motion, fetched, grid, reduced, resized

Array = NDArray[np.float32]

THROW_SIDE = 224
"""The longest side at which motion is thrown forward; the fine motion corrects it afterwards."""
SAME = 3.0
"""Motions closer than this, in pixels, belong to one surface."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One keyframe's pixels (H, W, C) premultiplied, their fine motion, and what is thrown of it."""

    pixels: Array
    motion: Array
    trust: Array
    small: Array
    rank: Array


class Stage:
    """A matched pair, ready to be drawn at any position."""

    def __init__(self, motion: Motion, first: Array, second: Array, *, bounded: bool) -> None:
        self._sides = (
            _side(first, motion.there, motion.trust[0], motion.edges[0]),
            _side(second, motion.back, motion.trust[1], motion.edges[1]),
        )
        self._bounded = bounded
        self._places = grid(*first.shape[:2])

    def draw(self, position: float) -> Array:
        """The premultiplied picture (H, W, C) at a position; beyond 0..1 the motion goes on."""
        share = np.float32(min(max(position, 0.0), 1.0))
        views = [_view(s, p) for s, p in zip(self._sides, (position, 1 - position), strict=True)]
        weights = [w * v[1] for w, v in zip((1 - share, share), views, strict=True)]
        mix = np.asarray(weights[1] / (weights[0] + weights[1]), np.float32)
        shown = [self._shown(s, v[0]) for s, v in zip(self._sides, views, strict=True)]
        return self._blend(shown[0], shown[1], mix)

    def _shown(self, side: Side, motion: Array) -> Array:
        height, width = side.pixels.shape[:2]
        how = cv2.INTER_CUBIC if self._bounded else cv2.INTER_LINEAR
        return fetched(side.pixels, cv2.subtract(self._places, resized(motion, height, width)), how=how)  # pyright: ignore

    def _blend(self, first: Array, second: Array, mix: Array) -> Array:
        height, width, channels = first.shape
        mix = cv2.resize(mix, (width, height)) if mix.shape != (height, width) else mix  # pyright: ignore
        step = cv2.multiply(cv2.subtract(second, first), cv2.merge([mix] * channels))
        out = cv2.add(first, step)
        return np.clip(out, 0, 1, out=out) if self._bounded else out  # pyright: ignore


def _side(pixels: Array, motion: Array, trust: Array, edges: Array) -> Side:
    """Lines rank before flat ground, and what both keyframes agree on before what only one shows."""
    lines = blurred(edges, 2.0)
    rank = np.asarray(trust**4 * (lines * lines + np.float32(1e-4)) + np.float32(1e-7), np.float32)
    small = reduced(motion, THROW_SIDE)
    small = resized(motion, *small.shape[:2]) if small.shape != motion.shape else motion
    return Side(pixels, motion, trust, small, reduced(rank, THROW_SIDE))


def _view(side: Side, share: float) -> tuple[Array, Array]:
    """How a keyframe looks after `share` of its motion: what has moved into each pixel, and its weight."""
    thrown, cover = _throw(side.small, side.rank, share)
    height, width = side.motion.shape[:2]
    thrown = resized(_healed(thrown, cover), height, width)
    cover = cv2.resize(cover, (width, height))  # pyright: ignore
    places = grid(height, width)
    thrown = _corrected(thrown, fetched(side.motion, cv2.scaleAdd(thrown, -share, places)))  # pyright: ignore
    trust = fetched(side.trust, cv2.scaleAdd(thrown, -share, places))  # pyright: ignore
    seen = np.clip(2 * cover - np.float32(0.5), 0, 1)
    weight = np.asarray(seen * (trust * trust + np.float32(0.01)) + np.float32(1e-4), np.float32)
    return thrown * np.float32(share), blurred(weight, 1.2)


def _corrected(thrown: Array, exact: Array) -> Array:
    """The exact motion where it belongs to the same surface as the thrown one."""
    off = cv2.transform(cv2.absdiff(exact, thrown), np.ones((1, 2), np.float32))
    return cv2.copyTo(exact, cv2.compare(off, SAME, cv2.CMP_LT), thrown)  # pyright: ignore


def _throw(motion: Array, rank: Array, share: float) -> tuple[Array, Array]:
    """Each pixel's motion, carried to where it is after `share` of it; and how well each place is covered.

    Where several arrive, rank decides: softly, so that a drawing does not flicker from one to the next.
    """
    height, width = rank.shape
    across, down = cv2.split(grid(height, width) + motion * np.float32(share))
    left, top = np.floor(across), np.floor(down)
    inside = (left >= -1) & (left < width) & (top >= -1) & (top < height)
    start = ((top + 1) * (width + 2) + left + 1)[inside].astype(np.int64)
    x, y = (across - left)[inside], (down - top)[inside]
    weight = rank[inside]
    values = (weight, motion[..., 0][inside] * weight, motion[..., 1][inside] * weight)
    total = np.zeros((4, (height + 2) * (width + 2)))
    corners = (((1 - x) * (1 - y), 0), (x * (1 - y), 1), ((1 - x) * y, width + 2), (x * y, width + 3))
    for near, corner in corners:
        index = start + corner
        total[0] += np.bincount(index, near, total.shape[1])
        for row, value in zip(total[1:], values, strict=True):
            row += np.bincount(index, near * value, total.shape[1])
    total = total.reshape(4, height + 2, width + 2)[:, 1:-1, 1:-1].astype(np.float32)
    mean = total[2:] / (total[1] + np.float32(1e-12))
    return np.ascontiguousarray(mean.transpose(1, 2, 0)), total[0]


def _healed(motion: Array, cover: Array) -> Array:
    """The motion with uncovered places filled from around them, and single strays taken out."""
    filled = _filled(motion, np.minimum(cover, 1))
    calm = cv2.medianBlur(np.dstack([filled, cover]), 5)
    return np.ascontiguousarray(calm[..., :2], np.float32)


def _filled(motion: Array, cover: Array) -> Array:
    height, width = cover.shape
    if min(height, width) <= 2:
        return motion
    size = (width + 1) // 2, (height + 1) // 2
    packed = np.dstack([motion * cover[..., None], cover])
    half = cv2.resize(packed, size, interpolation=cv2.INTER_AREA)
    lower = _filled(half[..., :2] / (half[..., 2:] + np.float32(1e-6)), np.minimum(2 * half[..., 2], 1))  # pyright: ignore
    wide = cv2.resize(lower, (width, height))
    return wide + (motion - wide) * cover[..., None]  # pyright: ignore
