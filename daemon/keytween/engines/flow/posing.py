"""Where whole shapes are at any position: turned and stretched evenly, their middles on straight lines.

A shape that is joined to another one turns around the joint in place of its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.bending import Bend, partly, turn_of, turned
from keytween.engines.flow.layers import STILL, Layers, affine_field, backwards, in_pixels

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Box = tuple[int, int, int, int]

JOINT = 0.012
"""Two shapes are joined where their motions differ by less than this share of the longest side."""
HOLD = 0.15
"""How firmly a shape keeps to the straight line, against a joint's firmness of 1."""
LEAST_JOINT = 3


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """A place on the first picture, in parts of the longest side, where two labels hold together."""

    place: Doubles
    labels: tuple[int, int]


class Poses:
    """The poses of all layers between two pictures; `shifts` (K, 2) lead their middles along an arc."""

    def __init__(self, layers: Layers, shifts: Bend | None = None) -> None:
        self._layers = layers
        self._arc = shifts
        self._middles = [middle(layers, k) for k in range(1, len(layers.front))]
        self._joints = _joints(layers)

    def to_side(self, position: float) -> list[tuple[Array, Array]]:
        """For each model the maps (2, 3) from the drawing at a position to both pictures, in parts."""
        poses = [
            pose(m.astype(np.float64), c, position)
            for m, c in zip(self._layers.models, self._middles, strict=True)
        ]
        if self._arc is not None:
            for one, shift in zip(poses, self._arc.at(position), strict=True):
                one[:, 2] += shift
        for one, shift in zip(poses, self._shifts(poses, position), strict=True):
            one[:, 2] += shift
        return [chained_to(p, m) for p, m in zip(poses, self._layers.models, strict=True)]

    def _shifts(self, poses: Sequence[Doubles], position: float) -> Doubles:
        """How far each model's middle leaves the straight line so that joints stay joined, (K, 2)."""
        count = len(poses)
        if not self._joints or position in (0, 1):
            return np.zeros((count, 2))
        normal, pull = HOLD * np.eye(count), np.zeros((count, 2))
        normal[STILL - 1, STILL - 1] += 1e6
        for joint in self._joints:
            i, j = (k - 1 for k in joint.labels)
            gap = put(poses[j], joint.place) - put(poses[i], joint.place)
            gap -= _gap_on_the_way(self._layers, joint, position)
            normal[i, i] += 1
            normal[j, j] += 1
            normal[i, j] -= 1
            normal[j, i] -= 1
            pull[i] += gap
            pull[j] -= gap
        return np.linalg.solve(normal, pull)  # pyright: ignore


def chained(last: Array, first: Array) -> Array:
    """The map (2, 3) that does `first` and then `last`."""
    linear = last[:, :2] @ first[:, :2]
    return np.concatenate([linear, (last[:, :2] @ first[:, 2] + last[:, 2])[:, None]], axis=1).astype(
        np.float32
    )


def chained_to(there: Doubles, model: Array) -> tuple[Array, Array]:
    """The maps from a pose to both pictures, for the pose of the first one's pixels and their motion."""
    back = backwards(there.astype(np.float32))
    return back, chained(model, back)


def put(model: Doubles | Array, place: Doubles) -> Doubles:
    """Where a map (2, 3) takes a place (2,)."""
    return model[:, :2] @ place + model[:, 2]


def _gap_on_the_way(layers: Layers, joint: Joint, position: float) -> Doubles:
    """Where the pictures themselves do not quite hold together, the gap opens evenly."""
    ends = [put(layers.models[k - 1].astype(np.float64), joint.place) for k in joint.labels]
    return position * (ends[1] - ends[0])


def pose(model: Doubles, middle: Doubles, position: float) -> Doubles:
    """The map (2, 3) from the first picture to a position: turn and stretch apart, the middle straight on."""
    linear = model[:, :2]
    turn = turn_of(linear)
    kept = partly(turn, turned(-turn) @ linear, position)
    there = middle + position * (put(model, middle) - middle)
    return np.concatenate([kept, (there - kept @ middle)[:, None]], axis=1)


def reach(
    shape: tuple[int, ...], covered: Sequence[int], model: Array, size: tuple[int, int], band: tuple[int, int]
) -> Box | None:
    """The box of a band (top, bottom, left, right) that a mask of this shape can reach.

    `covered` is the box around it (left, top, width, height), and `model` leads from the drawing to it.
    """
    left, top, wide, tall = covered
    corners = np.array([[x, y] for x in (left, left + wide) for y in (top, top + tall)], np.float32)
    corners /= max(shape)
    ahead = backwards(model)
    ends = (corners @ ahead[:, :2].T + ahead[:, 2]) * max(size)
    least, most = np.floor(ends.min(0)).astype(int) - 1, np.ceil(ends.max(0)).astype(int) + 2
    if left == 0 or top == 0 or left + wide == shape[1] or top + tall == shape[0]:
        # A shape that the frame cuts goes on beyond it.
        least, most = np.array([0, 0]), np.array([size[1], size[0]])
    box = max(least[1], band[0]), min(most[1], band[1]), max(least[0], 0), min(most[0], size[1])
    return box if box[0] < box[1] and box[2] < box[3] else None


def seen_in(
    picture: NDArray[np.float32] | NDArray[np.uint8],
    model: Array,
    size: tuple[int, int],
    box: Box,
    how: int,
) -> Array:
    """What a box of a drawing of this size sees of a picture, which may be smaller; `model` leads to it."""
    top, bottom, left, right = box
    scale = max(picture.shape[:2]) / max(size)
    m = in_pixels(model, max(size))
    shift = m[:, :2] @ np.array([left, top], np.float32) + m[:, 2]
    to_picture = np.concatenate([m[:, :2] * scale, ((shift + 0.5) * scale - 0.5)[:, None]], axis=1)
    flags = how | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(  # pyright: ignore
        picture, to_picture, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def middle(layers: Layers, label: int) -> Doubles:
    """The middle of what follows a label, in the first picture's parts, as both pictures see it."""
    found: list[Doubles] = []
    for which in (0, 1):
        y, x = np.nonzero(layers.labels[which] == label)
        if len(x):
            place = (np.array([x.mean(), y.mean()]) + 0.5) / max(layers.labels[which].shape)
            found.append(place if which == 0 else put(layers.model(label, 1).astype(np.float64), place))
    return np.mean(found, axis=0) if found else np.array([0.5, 0.5])


def _joints(layers: Layers) -> list[Joint]:
    """The places along the borders of two labels where their motions are nearly the same."""
    labels = layers.labels[0]
    count = len(layers.front)
    near = np.ones((5, 5), np.uint8)
    fields = {k: affine_field(layers.model(k, 0), *labels.shape) for k in range(1, count)}
    grown = {k: cv2.dilate((labels == k).astype(np.uint8), near) > 0 for k in range(1, count)}
    found: list[Joint] = []
    for i in range(1, count):
        for j in range(i + 1, count):
            off = np.hypot(*np.moveaxis(fields[i] - fields[j], 2, 0))
            joined = grown[i] & grown[j] & (off < JOINT * max(labels.shape))
            if joined.sum() >= LEAST_JOINT:
                y, x = np.nonzero(joined)
                place = (np.array([x.mean(), y.mean()]) + 0.5) / max(labels.shape)
                found.append(Joint(place, (i, j)))
    return found
