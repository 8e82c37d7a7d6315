"""Finds how whole shapes moved, turned and grew: candidates that the search of displacements cannot reach.

Two sources. Features (SIFT) that agree on one motion, found again and again among those left over: they serve
textured pictures. And flat-coloured shapes, paired by colour and size and turned until they fit: they serve
drawings, where features are few. What is found is only proposed; `layers` decides where it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import both, chief_colours, difference, membership

Array = NDArray[np.float32]
Fit = tuple[float, float, float, Array]

MODELS = 5
"""How many motions features may agree on, one after the other."""
LEAST_FEATURES = 7
SHAPE_SIDE = 128
LEAST_SHAPE, MOST_SHAPES = 0.002, 14
"""The smallest shape, as a share of the picture, and how many of each picture are looked at."""
GROWTH = 2.6
"""How much larger or smaller, in area, a shape may have become."""
TURNS = np.arange(-90, 91, 7.5)
GOOD = 0.16
"""Shapes whose colours are further apart than this, after turning, are not the same."""


def features(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[Array]:
    """Motions (2, 3) from pixels of `first` (h, w) to `second` on which features agree."""
    pair = first, second
    found = both(lambda i: cv2.SIFT_create(1500, contrastThreshold=0.02).detectAndCompute(pair[i], None))
    (points, words), (others, other_words) = found
    if words is None or other_words is None or min(len(words), len(other_words)) < LEAST_FEATURES:
        return []
    pairs = _paired(words, other_words)
    start = np.array([points[i].pt for i, _ in pairs], np.float32)
    stop = np.array([others[j].pt for _, j in pairs], np.float32)
    return list(_agreeing(start, stop, tolerance=max(first.shape) / 160))


def _paired(words: Array, others: Array) -> list[tuple[int, int]]:
    """Features that are each other's nearest, and not by chance."""
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {m.queryIdx: m.trainIdx for m in matcher.match(others, words)}
    pairs: list[tuple[int, int]] = []
    for two in matcher.knnMatch(words, others, k=2):
        if len(two) == 2 and two[0].distance < 0.85 * two[1].distance:
            best = two[0]
            if back.get(best.trainIdx) == best.queryIdx:
                pairs.append((best.queryIdx, best.trainIdx))
    return pairs


def _agreeing(start: Array, stop: Array, *, tolerance: float) -> Iterator[Array]:
    cv2.setRNGSeed(1)
    for _ in range(MODELS):
        if len(start) < LEAST_FEATURES:
            return
        model, inside = cv2.estimateAffinePartial2D(
            start, stop, ransacReprojThreshold=tolerance, maxIters=3000, confidence=0.999
        )
        if model is None or inside.sum() < LEAST_FEATURES:
            return
        kept = inside[:, 0] == 1
        yield np.asarray(model, np.float32)
        start, stop = start[~kept], stop[~kept]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A region of one colour, or of all that is not ground: its mask (h, w) and what it looks like."""

    mask: NDArray[np.uint8]
    colour: Array
    area: float
    middle: Array
    whole: bool


def shapes(picture: Array, colours: Array, ground: int) -> list[Shape]:
    """The largest shapes of a small picture (h, w, C): regions of one colour, and what is not ground."""
    labels = membership(picture, colours).argmax(-1)
    found = list(_regions(picture, labels != ground, whole=True))
    for label in range(len(colours)):
        if label != ground:
            found += _regions(picture, labels == label, whole=False)
    return sorted(found, key=lambda s: (-s.whole, -s.area))[:MOST_SHAPES]


def _regions(picture: Array, inside: NDArray[np.bool_], *, whole: bool) -> Iterator[Shape]:
    count, marks, stats, middles = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
    for i in range(1, count):
        area = int(stats[i, cv2.CC_STAT_AREA])
        if LEAST_SHAPE * inside.size <= area <= 0.8 * inside.size:
            mask = (marks == i).astype(np.uint8)
            yield Shape(mask, picture[mask > 0].mean(0), area, middles[i].astype(np.float32), whole)


def ground_of(first: Array, second: Array, colours: Array) -> int:
    """Which of the colours the pictures' borders mostly have."""
    counts = np.zeros(len(colours))
    for picture in (first, second):
        shares = membership(picture, colours)
        for edge in (shares[0], shares[-1], shares[:, 0], shares[:, -1]):
            counts += edge.sum(0)
    return int(counts.argmax())


def turned_shapes(first: Array, second: Array) -> list[Array]:
    """Motions (2, 3) that take shapes of one small picture (h, w, C) to like shapes of the other."""
    colours = chief_colours(first, second)
    ground = ground_of(first, second, colours)
    theirs = shapes(second, colours, ground)
    found: list[tuple[float, Array]] = []
    for shape in shapes(first, colours, ground):
        found += sorted(_fits(shape, theirs, first, second), key=lambda f: f[0])[:2]
    return [model for _, model in found]


def _fits(shape: Shape, others: list[Shape], first: Array, second: Array) -> Iterator[tuple[float, Array]]:
    for other in others:
        alike = np.abs(shape.colour - other.colour).sum() < 0.25
        grown = other.area / shape.area
        if shape.whole == other.whole and alike and 1 / GROWTH < grown < GROWTH:
            price, model = _aligned(shape, other, first, second)
            if price < GOOD:
                yield price, model


def _aligned(shape: Shape, other: Shape, first: Array, second: Array) -> tuple[float, Array]:
    """The turn that fits best, first among TURNS and then in ever smaller steps, with place and size."""
    left, top, wide, tall = _bounds(shape.mask)
    ours, mask = first[top : top + tall, left : left + wide], shape.mask[top : top + tall, left : left + wide]
    there = np.dstack([second, other.mask.astype(np.float32)])

    def price(turn: float, grown: float, move: Array) -> float:
        model = _pose(shape.middle, move, turn, grown)
        model[:, 2] += model[:, :2] @ (left, top)
        seen = cv2.warpAffine(
            there, model, (wide, tall), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=(9,) * 4
        )
        inside = mask > 0
        off = difference(ours, np.ascontiguousarray(seen[..., :-1]))[inside].mean()
        missed = 1 - seen[..., -1][inside].clip(0, 1).mean()
        return float(off + np.float32(0.3) * missed)

    grown = math.sqrt(other.area / shape.area)
    turn = float(min(TURNS, key=lambda t: price(t, grown, other.middle) + 1e-5 * abs(t)))
    best: Fit = price(turn, grown, other.middle), turn, grown, other.middle
    for step in (1.0, 0.5, 0.25):
        best = _improved(best, price, step)
    return best[0], _pose(shape.middle, best[3], best[1], best[2])


def _improved(best: Fit, price: Callable[[float, float, Array], float], step: float) -> Fit:
    for _ in range(2):
        _, turn, grown, move = best
        tries = [(turn + d * 4 * step, grown, move) for d in (-1, 1)]
        tries += [(turn, grown * (1 + d * 0.06 * step), move) for d in (-1, 1)]
        tries += [(turn, grown, move + np.float32(d) * step) for d in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        better = min(((price(*t), *t) for t in tries), key=lambda o: o[0])
        if better[0] >= best[0]:
            break
        best = better
    return best


def _bounds(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    left, top, wide, tall = cv2.boundingRect(mask)
    return left, top, wide, tall


def _pose(middle: Array, there: Array, turn: float, grown: float) -> Array:
    """The motion (2, 3) that turns and scales around `middle` and carries it `there`."""
    angle = math.radians(turn)
    cos, sin = grown * math.cos(angle), grown * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]], np.float32)
    return np.concatenate([linear, (there - linear @ middle)[:, None]], axis=1)
