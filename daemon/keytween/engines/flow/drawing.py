"""Draws a position between two matched keyframes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import blurred
from keytween.engines.flow.matching import Motion, fetched, grid, reduced, resized

Array = NDArray[np.float32]

THROW_SIDE = 288
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
        mix = weights[1] / (weights[0] + weights[1])
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
    rank = trust**4 * (blurred(edges, 2.0) ** 2 + np.float32(1e-4)) + np.float32(1e-7)
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
    part = np.float32(share)
    for _ in range(2):
        exact = fetched(side.motion, places - thrown * part)
        off = exact - thrown
        same = cv2.magnitude(off[..., 0], off[..., 1]) < SAME
        thrown = np.where(same[..., None], exact, thrown)
    trust = fetched(side.trust, places - thrown * part)
    seen = np.clip(2 * cover - np.float32(0.5), 0, 1)
    weight = seen * (trust * trust + np.float32(0.01)) + np.float32(1e-4)
    return thrown * part, blurred(weight, 1.2)


def _throw(motion: Array, rank: Array, share: float) -> tuple[Array, Array]:
    """Each pixel's motion, carried to where it is after `share` of it; and how well each place is covered.

    Where several arrive, rank decides: softly, so that a drawing does not flicker from one to the next.
    """
    height, width = rank.shape
    places = (grid(height, width) + motion * np.float32(share)).reshape(-1, 2)
    corner = np.floor(places)
    inside = ((corner >= -1) & (corner < (width, height))).all(1)
    part, corner = (places - corner)[inside], corner[inside].astype(np.int64)
    weight = rank.reshape(-1)[inside]
    values = np.stack([weight, *(motion.reshape(-1, 2)[inside] * weight[:, None]).T])
    start = (corner[:, 1] + 1) * (width + 2) + corner[:, 0] + 1
    total = np.zeros((4, (height + 2) * (width + 2)))
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x = part[:, 0] if right else 1 - part[:, 0]
        near = x * (part[:, 1] if down else 1 - part[:, 1])
        index = start + right + down * (width + 2)
        total[0] += np.bincount(index, near, total.shape[1])
        for row, value in zip(total[1:], values, strict=True):
            row += np.bincount(index, near * value, total.shape[1])
    total = total.reshape(4, height + 2, width + 2)[:, 1:-1, 1:-1]
    mean = total[2:] / (total[1] + 1e-12)
    return mean.transpose(1, 2, 0).astype(np.float32), total[0].astype(np.float32)


def _healed(motion: Array, cover: Array) -> Array:
    """The motion with uncovered places filled from around them, and single strays taken out."""
    filled = _filled(motion, np.minimum(cover, 1))
    return np.ascontiguousarray(cv2.medianBlur(np.dstack([filled, cover]), 5)[..., :2])


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
