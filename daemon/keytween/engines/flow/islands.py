"""Finds what moves on one-coloured ground: eyes and a mouth on a face, buttons, windows, stars in a sky.

Such ground looks the same wherever it moves, so nothing says which eye became which. But islands on one
ground mostly keep their order: the one motion under which most of them find a like partner says who is who.
They are taken off their ground then, which is matched without them, and laid on top again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import chief_colours, difference, nearest_colour
from keytween.engines.flow.fields import filled, reduced, resized
from keytween.engines.flow.layers import Labels, Layers, affine_field, backwards, in_parts
from keytween.engines.flow.poses import carried, stretch

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Pair = tuple[Array, Array]

SIDE = 320
"""The longest side at which islands are looked for."""
COLOUR_SIDE, COLOURS = 72, 16
"""The longest side at which the pictures' colours are found, and how many."""
GROUND, LEAST, MOST = 0.012, 0.0002, 0.03
"""How large, as shares of the picture, ground is at least, and an island at least and at most."""
MOST_ISLANDS = 40
MIXED = 0.1
"""Colours closer than this to the line between two others are a mix of them."""
SOLID = 7
"""Ground is wider than this, in pixels, somewhere: outlines are no ground."""
STILL = 0.04
"""An island whose pixels differ less than this from what lies there in the other picture has not moved."""
FAR, GROWN = 0.3, 0.9
"""Colours that differ by this much, or areas by this much in their logarithm, are hardly one island's."""
REACH = (0.04, 0.03)
"""How far from where the others' motion leads a partner may lie, in parts of the longest side."""
FEWEST = 3
"""So many islands must agree on a motion."""
ASTRAY, SOME = 0.02, 0.25
"""An island whose middle ends so far from its partner's, in parts of the longest side, is led astray; and
what share of them must be so that islands are matched apart."""
MARGIN = 2
"""How far around an island, in pixels, its picture reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class Islands:
    """Pairs of islands: `models` (K, 2, 3) lead from the first picture to the second, in parts of the longest
    side, and `labels` (h, w) say for each picture's pixels which island, 1..K, they belong to; 0 is none."""

    models: Array
    labels: tuple[Labels, Labels]

    def labels_at(self, which: int, height: int, width: int) -> Labels:
        """The labels at another size."""
        labels = self.labels[which]
        return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)  # pyright: ignore

    def way(self, which: int, motion: Array) -> Array:
        """A motion (h, w, 2) of one of the pictures; where islands are: theirs."""
        labels = self.labels_at(which, *motion.shape[:2])
        out = motion.copy()
        for k, model in enumerate(self.models, 1):
            inside = labels == k
            if inside.any():
                own = model if which == 0 else backwards(model)
                out[inside] = affine_field(own, *labels.shape)[inside]
        return out

    def known_to(self, motions: Pair, layers: Layers) -> bool:
        """Whether motions (h, w, 2) lead the middles of most islands where their partners are."""
        astray, total = 0.0, 0.0
        for which, labels in enumerate(self.labels):
            own = resized(motions[which], *labels.shape)
            field = layers.field(which, layers.labels_at(which, *labels.shape))
            own = np.where(np.isnan(field), own, field)
            off = self.way(which, own) - own
            for k in range(1, len(self.models) + 1):
                inside = labels == k
                # An island that turns is where it should be, though its edges are not.
                away = float(np.hypot(*off[inside].mean(0)))
                astray += float(inside.sum()) * (away > ASTRAY * max(labels.shape))
                total += float(inside.sum())
        return astray < SOME * total

    def taken_off(self, which: int, picture: Array) -> Array:
        """A picture (H, W, C) without its islands: their ground goes on beneath them."""
        labels = self.labels_at(which, *picture.shape[:2])
        out = picture.copy()
        for k in range(1, len(self.models) + 1):
            left, top, wide, tall = cv2.boundingRect((labels == k).astype(np.uint8))
            if not wide:
                continue
            around = max(wide, tall, 8)
            box = (
                slice(max(0, top - around), top + tall + around),
                slice(max(0, left - around), left + wide + around),
            )
            hole = labels[box] > 0
            near = filled(out[box], (~hole).astype(np.float32))
            out[box] = np.where((labels[box] == k)[..., None], near, out[box])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Island:
    """What one-coloured ground surrounds: its mask (h, w), its colour (C,) and middle (2,) in pixels."""

    mask: NDArray[np.uint8]
    grounds: frozenset[int]
    colour: Array
    middle: Array
    area: float


def find_islands(first: Array, second: Array) -> Islands | None:
    """The islands of two pictures (H, W, C) that moved together; None where no such motion is found."""
    pair = reduced(first, SIDE), reduced(second, SIDE)
    colours = chief_colours(reduced(first, COLOUR_SIDE), reduced(second, COLOUR_SIDE), most=COLOURS)
    off = difference(*pair)
    ours, theirs = (
        [i for i in islands_of(picture, colours) if off[i.mask > 0].mean() > STILL] for picture in pair
    )
    if min(len(ours), len(theirs)) < FEWEST:
        return None
    pairs = _partners(ours, theirs, max(off.shape))
    if len(pairs) < FEWEST:
        return None
    models = [_model(ours[i], theirs[j]) for i, j in pairs]
    chosen = [[side[p[which]] for p in pairs] for which, side in enumerate((ours, theirs))]
    return Islands(
        np.stack([in_parts(m, max(off.shape)) for m in models]), (_labels(chosen[0]), _labels(chosen[1]))
    )


def islands_of(picture: Array, colours: Array) -> list[Island]:
    """The islands of a picture (h, w, C), the largest first."""
    grounds = list(_grounds(nearest_colour(picture, colours)))
    found: list[Island] = []
    taken = np.zeros(picture.shape[:2], bool)
    for mask, colour in grounds:
        found += _holes(picture, mask, frozenset([colour]))
    for island in found:
        taken |= island.mask > 0
    near = np.ones((9, 9), np.uint8)
    for (one, colour), (other, second) in combinations(grounds, 2):
        # What lies across the edge of a shadow.
        if cv2.bitwise_and(cv2.dilate(one, near), other).any():
            middles = [np.median(picture[m > 0], axis=0) for m in (one, other)]
            both_of = one | other | _between(picture, middles[0], middles[1])
            for island in _holes(picture, both_of, frozenset([colour, second])):
                if not (taken & (island.mask > 0)).any():
                    taken |= island.mask > 0
                    found.append(island)
    return sorted(found, key=lambda i: -i.area)[:MOST_ISLANDS]


def _grounds(colours: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Masks of large regions of one colour that are no lines, and which colour that is."""
    for colour in range(int(colours.max()) + 1):
        mask = (colours == colour).astype(np.uint8)
        count, marks, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for i in range(1, count):
            if stats[i, cv2.CC_STAT_AREA] >= GROUND * mask.size:
                own = (marks == i).astype(np.uint8)
                if cv2.erode(own, np.ones((SOLID, SOLID), np.uint8)).sum() >= GROUND / 4 * mask.size:
                    yield own, colour


def _between(picture: Array, one: Array, other: Array) -> NDArray[np.uint8]:
    """Where the colour is a mix of two, (h, w): on the soft edge of a shadow."""
    way = other - one
    share = np.clip((picture - one) @ way / max(float(way @ way), 1e-6), 0, 1)
    off = np.abs(picture - one - share[..., None] * way).sum(2)
    return (off < MIXED).astype(np.uint8)


def _holes(picture: Array, ground: NDArray[np.uint8], colours: frozenset[int]) -> Iterator[Island]:
    """What the ground surrounds."""
    outside = np.pad(1 - ground, 1, constant_values=1)
    count, marks, stats, middles = cv2.connectedComponentsWithStats(outside, connectivity=8)
    for i in range(1, count):
        area = float(stats[i, cv2.CC_STAT_AREA])
        if i != marks[0, 0] and LEAST * ground.size <= area <= MOST * ground.size:
            mask = (marks[1:-1, 1:-1] == i).astype(np.uint8)
            yield Island(mask, colours, picture[mask > 0].mean(0), (middles[i] - 1).astype(np.float32), area)


def _partners(ours: Sequence[Island], theirs: Sequence[Island], side: int) -> list[tuple[int, int]]:
    """Who is who, under the motion that gives most islands a like partner."""
    alike = _alike(ours, theirs)
    start = np.stack([i.middle for i in ours]).astype(np.float64)
    stop = np.stack([i.middle for i in theirs]).astype(np.float64)
    best, most = np.zeros((len(ours), len(theirs))), 0.0
    for i, j in zip(*np.nonzero(alike > 0.1), strict=True):
        score = _mutual(alike, start + (stop[j] - start[i]), stop, REACH[0] * side)
        if score.sum() > most:
            best, most = score, float(score.sum())
    for _ in range(3):
        if (best > 0).sum() < FEWEST:
            break
        best = _mutual(alike, _led(start, stop, best), stop, REACH[1] * side)
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(best > 0), strict=True)]


def _alike(ours: Sequence[Island], theirs: Sequence[Island]) -> Doubles:
    """How alike islands are, (n, m) in 0..1."""
    out = np.zeros((len(ours), len(theirs)))
    for i, one in enumerate(ours):
        for j, other in enumerate(theirs):
            if one.grounds & other.grounds:
                apart = np.abs(one.colour - other.colour).sum() / FAR
                grown = abs(np.log(one.area / other.area)) / GROWN
                out[i, j] = np.exp(-(apart**2) - grown**2)
    return out


def _mutual(alike: Doubles, ends: Doubles, stop: Doubles, reach: float) -> Doubles:
    """How well islands that are each other's best partners fit, (n, m); 0 for all others."""
    away = np.square(ends[:, None] - stop[None]).sum(2) / reach**2
    score = alike * np.exp(-away / 2) * (away < 6)
    top = (score == score.max(1, keepdims=True)) & (score == score.max(0, keepdims=True))
    return np.where(top & (score > 0.05), score, 0)


def _led(start: Doubles, stop: Doubles, score: Doubles) -> Doubles:
    """Where the motion that the pairs agree on leads all islands: a shift, and a stretch along each axis."""
    i, j = np.nonzero(score > 0)
    weight = score[i, j]
    out = np.empty_like(start)
    for axis in (0, 1):
        own, there = start[i, axis], (stop - start[:, None])[i, j, axis]
        middle, shift = np.average(own, weights=weight), np.average(there, weights=weight)
        spread = np.average(np.square(own - middle), weights=weight)
        slope = np.average((own - middle) * (there - shift), weights=weight) / (spread + 25.0)
        out[:, axis] = start[:, axis] + shift + slope * (start[:, axis] - middle)
    return out


def _model(one: Island, other: Island) -> Array:
    return carried(stretch(one.mask, other.mask), one.middle, other.middle)


def _labels(islands: Sequence[Island]) -> Labels:
    """Which island each pixel belongs to, with a margin around it."""
    out = np.zeros(islands[0].mask.shape, np.uint8)
    wide = 2 * MARGIN + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    for k, island in enumerate(islands, 1):
        out[(cv2.dilate(island.mask, near) > 0) & (out == 0)] = k
    for k, island in enumerate(islands, 1):
        out[island.mask > 0] = k
    return out
