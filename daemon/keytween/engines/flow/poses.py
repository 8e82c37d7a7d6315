"""Finds how whole shapes moved, turned and grew: candidates that the search of displacements cannot reach.

Three sources. Features (SIFT) that agree on one motion, found again and again among those left over: they
serve textured pictures. Flat-coloured shapes, paired by colour and size and turned until they fit: they serve
drawings, where features are few. And shifts on which the edges of one colour agree. What is found is only
proposed; `layers` decides where it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import both, chief_colours, difference, membership, nearest_colour

Array = NDArray[np.float32]
Fit = tuple[float, float, float, Array]

MODELS = 5
"""How many motions features may agree on, one after the other."""
LEAST_FEATURES = 7
MOVED, LEAST_SLOPES = 0.15, 0.05
"""Colours that differ by this much have moved; and how much slope must be left to look for its shift."""
PEAKS, LEAST_FIT, MOST_SHIFTS = 2, 0.1, 10
"""How many shifts of each colour's edges, with how good a fit, and how many in all."""
SHAPE_SIDE = 128
LEAST_SHAPE, MOST_SHAPES = 0.002, 14
"""The smallest shape, as a share of the picture, and how many of each picture are looked at."""
GROWTH = 2.6
"""How much larger or smaller, in area, a shape may have become."""
TURNS = np.arange(-90, 91, 7.5)
LEAST_PART, MOST_PARTS = 0.0008, 12
PART_TURNS, PART_SIZES = np.arange(-75, 76, 15.0), (0.87, 1.0, 1.15)
PART_FITS = 0.04
"""Parts whose colours are further apart than this, squared and averaged, were not found."""
GOOD = 0.16
"""Shapes whose colours are further apart than this, after turning, are not the same."""


def features(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[Array]:
    """Motions (2, 3) from pixels of `first` (h, w) to `second` on which features agree."""
    pair = first, second
    finders = [cv2.SIFT_create(1500, contrastThreshold=0.02) for _ in pair]  # pyright: ignore
    found = both(lambda i: finders[i].detectAndCompute(pair[i], None))
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


def shifts(first: Array, second: Array) -> list[Array]:
    """Shifts (2, 3) under which the edges of a colour in two small pictures (h, w, C) lie on each other.

    By correlation of their slopes: a shape of which others hide a part is found, too.
    """
    colours = chief_colours(first, second)
    moving = cv2.dilate(difference(first, second), np.ones((3, 3), np.uint8)) / np.float32(MOVED)
    moving = np.minimum(moving, np.float32(1))
    height, width = moving.shape
    size = cv2.getOptimalDFTSize(2 * height), cv2.getOptimalDFTSize(2 * width)
    slopes = both(lambda i: _slopes(membership((first, second)[i], colours), moving))
    found: list[tuple[float, Array]] = []
    for ours, theirs in zip(slopes[0], slopes[1], strict=True):
        weight = min(float(np.square(ours).sum()), float(np.square(theirs).sum()))
        if weight > LEAST_SLOPES:
            found += _peaks(_correlated(ours, theirs, size) / np.float32(weight))
    return [shift for _, shift in sorted(found, key=lambda f: -f[0])[:MOST_SHIFTS]]


def _slopes(shares: Array, moving: Array) -> list[Array]:
    """Each colour's slopes across and down, (2, h, w), where the picture is not the same in both."""
    colours = [np.ascontiguousarray(shares[..., k]) for k in range(shares.shape[2])]
    ways = ((1, 0), (0, 1))
    return [np.stack([cv2.Sobel(c, cv2.CV_32F, *d, scale=0.125) * moving for d in ways]) for c in colours]


def _correlated(ours: Array, theirs: Array, size: tuple[int, int]) -> Array:
    """How well slopes (2, h, w) fit under each shift; no shift is in the middle."""
    spectrum = np.conj(np.fft.rfft2(ours, size)) * np.fft.rfft2(theirs, size)
    fit = np.fft.irfft2(spectrum.sum(0), size)
    fit = np.roll(fit, (size[0] // 2, size[1] // 2), (0, 1))
    return cv2.GaussianBlur(fit.astype(np.float32), (0, 0), 0.7)  # pyright: ignore


def _peaks(fit: Array) -> Iterator[tuple[float, Array]]:
    height, width = fit.shape
    for _ in range(PEAKS):
        y, x = np.unravel_index(fit.argmax(), fit.shape)
        if fit[y, x] < LEAST_FIT:
            return
        yield float(fit[y, x]), np.array([[1, 0, x - width // 2], [0, 1, y - height // 2]], np.float32)
        cv2.circle(fit, (int(x), int(y)), 6, 0.0, -1)


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
    """The turn that fits best, first among TURNS and then in ever smaller steps, with place and size.

    Or the stretch: what is squashed has not turned.
    """
    left, top, wide, tall = _bounds(shape.mask)
    ours, mask = first[top : top + tall, left : left + wide], shape.mask[top : top + tall, left : left + wide]
    there = np.dstack([second, other.mask.astype(np.float32)])

    def price(linear: Array, move: Array) -> float:
        model = carried(linear, shape.middle, move)
        model[:, 2] += model[:, :2] @ (left, top)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(there, model, (wide, tall), flags=how, borderValue=(9,) * 4)
        inside = mask > 0
        off = difference(ours, np.ascontiguousarray(seen[..., :-1]))[inside].mean()  # pyright: ignore
        missed = 1 - seen[..., -1][inside].clip(0, 1).mean()
        return float(off + np.float32(0.3) * missed)

    grown = math.sqrt(other.area / shape.area)
    turn = float(min(TURNS, key=lambda t: price(_turned(t, grown), other.middle) + 2e-4 * abs(t)))
    best: Fit = price(_turned(turn, grown), other.middle), turn, grown, other.middle
    for step in (1.0, 0.5, 0.25):
        best = _improved(best, price, step)
    squashed = stretch(shape.mask, other.mask)
    if price(squashed, other.middle) < best[0]:
        return price(squashed, other.middle), carried(squashed, shape.middle, other.middle)
    return best[0], carried(_turned(best[1], best[2]), shape.middle, best[3])


def _improved(best: Fit, price: Callable[[Array, Array], float], step: float) -> Fit:
    for _ in range(2):
        _, turn, grown, move = best
        tries = [(turn + d * 4 * step, grown, move) for d in (-1, 1)]
        tries += [(turn, grown * (1 + d * 0.06 * step), move) for d in (-1, 1)]
        around = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)], np.float32)
        tries += [(turn, grown, move + d * np.float32(step)) for d in around]
        better = min(((price(_turned(t, g), m), t, g, m) for t, g, m in tries), key=lambda o: o[0])
        if better[0] >= best[0]:
            break
        best = better
    return best


def stretch(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> Array:
    """The stretch (2, 2) without a turn that gives one mask's extent to the other: between covariances."""
    ours, theirs = (np.cov(np.nonzero(m)[::-1]) + 0.1 * np.eye(2) for m in (mask, other))
    root = _root(ours)
    back = np.linalg.inv(root)
    return (back @ _root(root @ theirs @ root) @ back).astype(np.float32)


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(np.maximum(values, 1e-9))) @ vectors.T


def parts(first: Array, second: Array, left: tuple[Array, Array]) -> list[tuple[Array, NDArray[np.uint8]]]:
    """Motions (2, 3) and masks (h, w) of parts of one small picture (h, w, C) found again in the other.

    `left` (h, w) each says what of both pictures no motion explains yet: only that is looked for.
    """
    colours = chief_colours(first, second)
    labels = nearest_colour(first, colours)
    near = cv2.dilate(left[1], np.ones((5, 5), np.uint8)) > 0.3
    found: list[tuple[float, NDArray[np.uint8]]] = []
    for label in range(len(colours)):
        count, marks, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        for i in range(1, count):
            area, mask = stats[i, cv2.CC_STAT_AREA], marks == i
            if LEAST_PART * labels.size <= area <= 0.2 * labels.size and left[0][mask].mean() > 0.2:
                found.append((float(area), mask.astype(np.uint8)))
    largest = sorted(found, key=lambda f: -f[0])[:MOST_PARTS]
    masks = [cv2.dilate(m, np.ones((5, 5), np.uint8)) for _, m in largest]
    models = both(lambda half: [_found_part(first, second, m, near) for m in masks[half::2]])  # pyright: ignore
    pairs = [*zip(models[0], masks[0::2], strict=True), *zip(models[1], masks[1::2], strict=True)]
    return [(model, mask) for model, mask in pairs if model is not None]  # pyright: ignore


def _found_part(
    first: Array, second: Array, mask: NDArray[np.uint8], near: NDArray[np.bool_]
) -> Array | None:
    """The motion of a part with the line around it to where it fits best; None where it fits nowhere."""
    left, top, wide, tall = _bounds(mask)
    middle = np.array([left + (wide - 1) / 2, top + (tall - 1) / 2], np.float32)
    side = math.ceil(math.hypot(wide, tall) * max(PART_SIZES)) + 2
    if side >= min(second.shape[:2]):
        return None
    best, model = PART_FITS, None
    for size in PART_SIZES:
        for turn in PART_TURNS:
            pose = carried(_turned(turn, size), middle, np.full(2, (side - 1) / 2, np.float32))
            piece = cv2.warpAffine(first, pose, (side, side), flags=cv2.INTER_LINEAR)
            inside = cv2.warpAffine(mask.astype(np.float32), pose, (side, side))
            weight = np.dstack([inside] * first.shape[2])
            off = cv2.matchTemplate(second, piece, cv2.TM_SQDIFF, mask=weight) / (weight.sum() + 1e-6)
            half = side // 2
            here = near[half : half + off.shape[0], half : half + off.shape[1]]
            off = np.where(here, off, np.float32(9)) + np.float32(1e-4 * abs(turn))
            y, x = np.unravel_index(off.argmin(), off.shape)
            if off[y, x] < best:
                best = float(off[y, x])
                model = pose + np.array([[0, 0, x], [0, 0, y]], np.float32)
    return model


def _bounds(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    left, top, wide, tall = cv2.boundingRect(mask)
    return left, top, wide, tall


def _turned(turn: float, grown: float) -> Array:
    """The linear map that turns by so many degrees and makes larger."""
    angle = math.radians(turn)
    cos, sin = grown * math.cos(angle), grown * math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]], np.float32)


def carried(linear: Array, middle: Array, there: Array) -> Array:
    """The motion (2, 3) that does so around `middle` and carries it `there`."""
    return np.concatenate([linear, (there - linear @ middle)[:, None]], axis=1).astype(np.float32)
