"""Leads motion through a keyframe without a corner: along an arc through three or more keyframes.

What passes a keyframe does so with one velocity, that of the parabola through where it was, is and will be
(Catmull and Rom, 1974, for keyframes that lie unevenly in time). Between two keyframes it follows the cubic
that leaves and arrives with these velocities (Hermite). Only what differs from the path without an arc is
kept: another bend for searched motion, a shift for whole shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.bending import Bend
from keytween.engines.flow.coarse import blurred, both, chief_colours, difference, membership, smoothed
from keytween.engines.flow.fields import agreement, moved, reduced, resized
from keytween.engines.flow.layers import Layers
from keytween.engines.flow.matching import Motion
from keytween.engines.flow.posing import middle, put

Array = NDArray[np.float32]
Pair = tuple[Array, Array]

SIDE = 160
"""The longest side at which arcs are found."""
STEEPEST = 3.0
"""A velocity at a keyframe is at most this many times the slower one of its two segments: no cubic runs back
on itself then, and what rests in one of them stays where it is (Fritsch and Carlson, 1980)."""
ALIKE, RETURN = 0.12, 2.0
"""Where both pictures differ by more than this, or there and back leads this many pixels off, no velocity is
known."""
SPREAD, FLAT = 2.5, 0.02
"""How far around, in pixels, changes are averaged; and what weighs against them where nothing is known."""
ENOUGH = 0.3
"""The share of a whole shape's pixels that must know a velocity."""


@dataclass(frozen=True, slots=True, eq=False)
class Leg:
    """A segment as its keyframes see it, at most SIDE large: each one's motion to the other (h, w, 2), how it
    begins (that and the bend's part), and how far it is known (h, w); `groups` (h, w, k) are colours.

    `frames` is how long it takes; only its share of others' counts.
    """

    motions: Pair
    starts: Pair
    known: Pair
    groups: Pair
    frames: float


@dataclass(frozen=True, slots=True, eq=False)
class Arc:
    """What an arc adds: to each picture's pixels, bends in pixels of their grid; to layers, a bend (K, 2) in
    parts of the longest side."""

    bends: tuple[Bend, Bend]
    shifts: Bend


def leg_of(motion: Motion | None, first: Array, second: Array, frames: float) -> Leg:
    """The segment between two pictures (H, W, C) as their matcher saw them; without a motion it rests."""
    pair = reduced(first, SIDE), reduced(second, SIDE)
    height, width = pair[0].shape[:2]
    still = np.zeros((height, width, 2), np.float32)
    motions = starts = still, still
    if motion is not None:
        motions = resized(motion.there, height, width), resized(motion.back, height, width)
        begin = [resized(b.bow - b.lean, height, width) for b in motion.bends]
        starts = motions[0] + begin[0], motions[1] + begin[1]
    colours = chief_colours(*pair)
    known = both(lambda i: _known(pair[i], pair[1 - i], motions[i], motions[1 - i]))
    return Leg(motions, starts, known, both(lambda i: membership(pair[i], colours)), frames)


def arc(before: Leg | None, own: Leg, after: Leg | None, layers: Layers) -> Arc | None:
    """The arc of a segment between its neighbours; None where there are none, as between two keyframes."""
    around = before, after
    if before is None and after is None:
        return None
    changes = [None if leg is None else _change(own, i, leg) for i, leg in enumerate(around)]
    bends = both(lambda i: _through(changes[i], _carried(changes[1 - i], own.motions[i]), own.motions[i]))
    middles = [_middles(layers, i) for i in (0, 1)]
    steps = [None if g is None else _layer_change(own, i, g, layers, middles) for i, g in enumerate(around)]
    return Arc(bends, _through(steps[0], steps[1], middles[1] - middles[0]))


def joined(bend: Bend, other: Bend) -> Bend:
    """Both bends in one, in pixels of the other's grid."""
    height, width = other.bow.shape[:2]
    return Bend(resized(bend.bow, height, width) + other.bow, resized(bend.lean, height, width) + other.lean)


def durations(frames: Sequence[int]) -> list[float]:
    """How long each segment between keyframes at these frames takes; all alike where that is not said."""
    steps = np.diff(np.asarray(frames, np.float64))
    return [float(s) for s in (steps if (steps > 0).all() else np.ones_like(steps))]


def _known(picture: Array, other: Array, motion: Array, opposite: Array) -> Array:
    off = blurred(difference(picture, moved(other, motion)), 1.0) / np.float32(ALIKE)
    return np.exp(-off * off) * agreement(motion, opposite, RETURN)


def _change(own: Leg, which: int, neighbour: Leg) -> Array:
    """How much faster each of a keyframe's pixels must leave it, (h, w, 2), than it would without an arc."""
    start = own.starts[which]
    change = _velocity(own, start, neighbour, -neighbour.starts[1 - which]) - start
    known = own.known[which] * neighbour.known[1 - which]
    calm = smoothed(change, known, SPREAD, groups=own.groups[which], rest=FLAT)
    # What its neighbours said must not move a pixel that stands still.
    return _at_most(calm, np.float32(STEEPEST) * _length(start))


def _velocity(own: Leg, go: Array, neighbour: Leg, come: Array) -> Array:
    """The velocity at a keyframe, per length of `own`, of what comes and goes so far in the two segments."""
    share = np.float32(own.frames / (own.frames + neighbour.frames))
    come = come * np.float32(own.frames / neighbour.frames)
    least = np.minimum(_length(come), _length(go))
    mean = np.asarray(go + share * (come - go), np.float32)
    return _at_most(mean, np.float32(STEEPEST) * least)


def _middles(layers: Layers, which: int) -> Array:
    """The middles of whole shapes in one of the pictures, (K, 2) in parts of the longest side."""
    first = [middle(layers, label) for label in range(1, len(layers.front))]
    there = first if which == 0 else [put(m, c) for m, c in zip(layers.models, first, strict=True)]
    return np.asarray(there, np.float32).reshape(len(first), 2)


def _layer_change(own: Leg, which: int, neighbour: Leg, layers: Layers, middles: Sequence[Array]) -> Array:
    """The same for the middles of whole shapes, (K, 2): they have turns of their own and no bend."""
    known = own.known[which] * neighbour.known[1 - which]
    labels = layers.labels_at(which, *known.shape)
    go = middles[1 - which] - middles[which]
    come = go.copy()
    sure = np.zeros((len(go), 1), bool)
    for i, place in enumerate(middles[which]):
        inside = labels == i + 1
        seen = inside & (known > 0.5)
        if seen.sum() > ENOUGH * inside.sum():
            sure[i] = True
            come[i] = -_motion_at(neighbour.motions[1 - which], seen, place)
    return np.where(sure, _velocity(own, go, neighbour, come) - go, np.float32(0))


def _motion_at(motion: Array, inside: NDArray[np.bool_], place: Array) -> Array:
    """The motion (2,) at a place, both in parts of the longest side, by the plane through most of the pixels.

    Their mean would not do: what turns has a mean that belongs to the middle of these pixels alone.
    """
    side = max(inside.shape)
    y, x = np.nonzero(inside)
    basis = np.stack([np.ones(len(x)), (x + 0.5) / side - place[0], (y + 0.5) / side - place[1]], axis=1)
    values = motion[inside].astype(np.float64)
    weight = np.ones((len(x), 1))
    plane = np.zeros((3, 2))
    for _ in range(4):
        normal = basis.T @ (basis * weight) + np.diag([1e-6, 1e-3, 1e-3])
        plane = np.linalg.solve(normal, basis.T @ (values * weight))
        weight = 1 / (1 + np.square(values - basis @ plane).sum(1, keepdims=True))
    return (plane[0] / side).astype(np.float32)


def _carried(change: Array | None, motion: Array) -> Array | None:
    return None if change is None else moved(change, motion)


def _through(near: Array | None, far: Array | None, way: Array) -> Bend:
    """The path that leaves with one change and arrives with the other; both (..., 2), as is the straight way.

    At the first and the last keyframe nothing is known: there the path mirrors its other end.
    """
    if near is None:
        near = np.zeros_like(way) if far is None else _across(far, way)
    if far is None:
        far = _across(near, way)
    half = np.float32(0.5)
    return Bend(half * (near + far), half * (far - near))


def _across(change: Array, way: Array) -> Array:
    """The part of a change that is square to the way: mirrored, an arc does not begin with a step back."""
    share = (change * way).sum(-1, keepdims=True) / (np.square(way).sum(-1, keepdims=True) + np.float32(1e-6))
    return change - share * way


def _length(vectors: Array) -> Array:
    return np.sqrt(np.square(vectors).sum(-1, keepdims=True))


def _at_most(vectors: Array, most: Array) -> Array:
    return vectors * np.minimum(1, most / (_length(vectors) + np.float32(1e-6)))
