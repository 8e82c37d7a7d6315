"""Bends straight motions so that shapes stay rigid on their way: what turns goes along an arc.

A motion says where each pixel ends. Half of it is not halfway of a turn: there a shape that follows straight
lines has shrunk. So the motion's local turn and stretch are interpolated apart, and the places that fit them
best, in least squares over neighbours, are the path (Alexa, Cohen-Or and Levin, As-rigid-as-possible shape
interpolation, SIGGRAPH 2000, on a grid in place of triangles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

FREE = 2e-4
"""How firmly a shape's middle keeps to the straight line, against an edge's firmness of 1."""
TEAR = 0.35
"""Neighbours that move this many pixels otherwise than their turn and stretch say belong to two shapes."""
WINDOW = 2.5
"""How far around, in pixels of the grid, a place looks for its turn and stretch."""
STEPS = 120
SAMPLES = (1 / 3, 2 / 3)


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """How far the path leaves the straight line, (h, w, 2) each: position * (1 - position) of `bow`,
    and of `lean` more in the second half than in the first."""

    bow: Array
    lean: Array

    def at(self, position: float) -> Array:
        """The way from the straight line, (h, w, 2), in pixels of this grid."""
        share = np.float32(position * (1 - position))
        return share * (self.bow + np.float32(2 * position - 1) * self.lean)  # pyright: ignore


def bend(motion: Array, trust: Array, groups: Array) -> Bend:
    """The bend for a motion (h, w, 2) in its own pixels; `groups` (h, w, k) keep shapes apart by colour."""
    slope = _slope(motion.astype(np.float64), trust.astype(np.float64), groups.astype(np.float64))
    sound, turn, stretch = _turn_and_stretch(slope)
    firm = _firmness(motion, slope, np.where(sound, 0.02 + trust, 0.02))
    wanted = [_excess(slope, sound, turn, stretch, p) for p in SAMPLES]
    first, second = np.split(_solved(firm, np.concatenate(wanted, axis=2)), 2, axis=2)
    bow = (first + second) / (2 * SAMPLES[0] * SAMPLES[1])
    lean = (second - first) / (2 * SAMPLES[0] * SAMPLES[1] * (2 * SAMPLES[1] - 1))
    return Bend(bow.astype(np.float32), lean.astype(np.float32))


def _slope(motion: Doubles, trust: Doubles, groups: Doubles) -> Doubles:
    """How the motion changes from pixel to pixel, (h, w, 2, 2): a plane fitted around each, by colour."""
    height, width = motion.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    u, v = motion[..., 0], motion[..., 1]
    ones = np.ones_like(x)
    moments = np.stack([ones, x, y, x * x, x * y, y * y, u, v, x * u, y * u, x * v, y * v], axis=2)
    weight = trust[..., None] ** 2 + 1e-3
    total = np.zeros_like(moments)
    for share in np.split(groups, groups.shape[2], axis=2):
        total += _spread(moments * (weight * share)) * share
    x, y, xx, xy, yy, u, v, xu, yu, xv, yv = np.moveaxis(total[..., 1:] / total[..., :1], 2, 0)
    xx, xy, yy = xx - x * x + 0.05, xy - x * y, yy - y * y + 0.05
    xu, yu, xv, yv = xu - x * u, yu - y * u, xv - x * v, yv - y * v
    area = xx * yy - xy * xy
    rows = [(xu * yy - yu * xy) / area, (yu * xx - xu * xy) / area]
    rows += [(xv * yy - yv * xy) / area, (yv * xx - xv * xy) / area]
    return np.stack(rows, axis=2).reshape(height, width, 2, 2)


def _spread(values: Doubles) -> Doubles:
    return cv2.GaussianBlur(values, (0, 0), WINDOW, borderType=cv2.BORDER_REPLICATE)  # pyright: ignore


def _turn_and_stretch(slope: Doubles) -> tuple[NDArray[np.bool_], Doubles, Doubles]:
    """Where a shape stays a shape, its turn in radians, and the stretch (h, w, 2, 2) before the turn."""
    whole = slope + np.eye(2)
    area = whole[..., 0, 0] * whole[..., 1, 1] - whole[..., 0, 1] * whole[..., 1, 0]
    size = np.square(whole).sum((2, 3))
    sound = (area > 0.2) & (size < 4 * area + 1) & (area < 6)
    turn = turn_of(whole)
    return sound, turn, turned(-turn) @ whole


def turn_of(linear: NDArray[Any]) -> NDArray[Any]:
    """The turn in radians (...) that is nearest to linear maps (..., 2, 2)."""
    return np.arctan2(linear[..., 1, 0] - linear[..., 0, 1], linear[..., 0, 0] + linear[..., 1, 1])


def partly(turn: Doubles, stretch: Doubles, position: float) -> Doubles:
    """A part of a turn (...) and of the stretch (..., 2, 2) before it, each in its own measure."""
    return turned(position * turn) @ (np.eye(2) + position * (stretch - np.eye(2)))


def turned(angle: Doubles) -> Doubles:
    """The linear maps (..., 2, 2) that turn by angles (...) in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos, -sin, sin, cos], axis=-1).reshape(*angle.shape, 2, 2)


def _excess(
    slope: Doubles, sound: NDArray[np.bool_], turn: Doubles, stretch: Doubles, position: float
) -> Doubles:
    """What the bend must add to the straight motion's change, (h, w, 2, 2), to keep shapes as they are."""
    kept = partly(turn, stretch, position)
    straight = np.eye(2) + position * slope
    return np.where(sound[..., None, None], kept - straight, 0)


def _firmness(motion: Array, slope: Doubles, weight: Doubles) -> tuple[Doubles, Doubles]:
    """How firmly each pixel holds to the next across, (h, w - 1), and down, (h - 1, w)."""
    out: list[Doubles] = []
    for axis in (1, 0):
        before, after = _neighbours(axis)
        step = motion[after].astype(np.float64) - motion[before]
        expected = (slope[before][..., 1 - axis] + slope[after][..., 1 - axis]) / 2
        off = np.square(step - expected).sum(2) / TEAR**2
        out.append(np.minimum(weight[before], weight[after]) / (1 + off * off))
    return out[0], out[1]


def _neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    none = slice(None)
    before, after = slice(None, -1), slice(1, None)
    return ((none, before), (none, after)) if axis == 1 else ((before, none), (after, none))


def _solved(firm: tuple[Doubles, Doubles], wanted: Doubles) -> Doubles:
    """The way (h, w, n) whose steps to neighbours come closest to `wanted`, by conjugate gradients.

    `wanted` is (h, w, n, 2): for each of n values its change across and down.
    """
    height, width, count = wanted.shape[:3]
    right = np.zeros((height, width, count))
    for axis, strength in zip((1, 0), firm, strict=True):
        before, after = _neighbours(axis)
        pull = strength[..., None] * (wanted[before][..., 1 - axis] + wanted[after][..., 1 - axis]) / 2
        right[after] += pull
        right[before] -= pull
    weight = np.full((height, width, 1), FREE)
    for axis, strength in zip((1, 0), firm, strict=True):
        for side in _neighbours(axis):
            weight[side] += strength[..., None]
    return _conjugate_gradients(firm, weight, right)


def _pulled(firm: tuple[Doubles, Doubles], way: Doubles) -> Doubles:
    out = FREE * way
    for axis, strength in zip((1, 0), firm, strict=True):
        before, after = _neighbours(axis)
        pull = strength[..., None] * (way[after] - way[before])
        out[after] += pull
        out[before] -= pull
    return out


def _conjugate_gradients(firm: tuple[Doubles, Doubles], weight: Doubles, right: Doubles) -> Doubles:
    way = np.zeros_like(right)
    rest = right.copy()
    eased = rest / weight
    ahead = eased.copy()
    power = (rest * eased).sum((0, 1))
    for _ in range(STEPS):
        if power.max() < 1e-8:
            break
        pulled = _pulled(firm, ahead)
        step = power / np.maximum((ahead * pulled).sum((0, 1)), 1e-30)
        way += step * ahead
        rest -= step * pulled
        eased = rest / weight
        again = (rest * eased).sum((0, 1))
        ahead = eased + (again / np.maximum(power, 1e-30)) * ahead
        power = again
    return way
