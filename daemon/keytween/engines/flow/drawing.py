"""Draws a position between two matched keyframes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.dissolve import straight
from keytween.engines.flow.arcs import Arc, joined
from keytween.engines.flow.bending import Bend
from keytween.engines.flow.coarse import blurred, both
from keytween.engines.flow.fields import fetched, filled, grid, reduced, resized, scaled
from keytween.engines.flow.layers import SEARCHED, UNMOVED, Labels, in_pixels
from keytween.engines.flow.matching import Motion
from keytween.engines.flow.overlay import Overlay
from keytween.engines.flow.posing import Poses, reach, seen_in
from keytween.images import Picture, like

Array = NDArray[np.float32]
Maps = Sequence[tuple[Array, Array]]
View = tuple[Array, NDArray[np.uint8]]
Box = tuple[int, int, int, int]

THROW_SIDE = 224
"""The longest side at which searched motion is thrown forward; the fine motion corrects it afterwards."""
BAND, HANDS = 1 << 17, 2
"""Pictures are drawn in bands of so many pixels, so that memory stays small; and so many bands at once."""
COVERED = 0.5
"""From this cover on, a place is shown by the searched motion's pixels."""
PLATE_SIDE, BEHIND = 256, 0.001
"""The longest side of what is put behind: it is only smooth; and how much less each rank counts for it."""
SAME = 3.0
"""Motions closer than this, in pixels, belong to one surface."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One keyframe's pixels (H, W, C) premultiplied, and its fine motion with labels (h, w).

    `masks` say where each model's pixels are, and `boxes` the left, top, width and height of that;
    `small` is what is thrown.
    """

    pixels: Array
    motion: Array
    bend: Bend
    trust: Array
    labels: Labels
    masks: Sequence[NDArray[np.uint8]]
    boxes: Sequence[Sequence[int]]
    small: Array
    rank: Array

    def way(self, motion: Array, share: float) -> Array:
        """How far each pixel has come after `share` of the motion, (h, w, 2) of the motion's own pixels."""
        height, width = motion.shape[:2]
        bent = self.bend.at(share)
        return cv2.scaleAdd(motion, share, resized(bent, height, width))  # pyright: ignore


@dataclass(frozen=True, slots=True, eq=False)
class Thrown:
    """The searched motion's pixels at a position: the way they came, and how well they cover each place.

    `box` says in parts of the height and width where they cover enough: top, bottom, left, right.
    """

    way: Array
    cover: Array
    exact: Array
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a position shows of one keyframe: the places in it, (h, w, 2), and how much they count, (h, w).

    `rank` (h, w) counts what is laid there from behind, from 1; where nothing is, it is 0.
    """

    thrown: Thrown | None
    places: Array
    rank: NDArray[np.uint8]
    weight: Array


class Stage:
    """A matched pair, ready to be drawn at any position."""

    def __init__(
        self, motion: Motion, first: Array, second: Array, *, bounded: bool, path: Arc | None = None
    ) -> None:
        pixels = first, second
        self._overlay = None
        if motion.islands is not None:
            self._overlay = Overlay(motion.islands, pixels, None if path is None else path.bends[0])
            islands = motion.islands
            pixels = both(lambda i: islands.taken_off(i, (first, second)[i]))
        self._sides = [_side(motion, i, pixels[i], _bend(motion, i, path)) for i in (0, 1)]
        self._poses = Poses(motion.layers, None if path is None else path.shifts)
        self._order = [int(k) for k in np.argsort(motion.layers.front, kind="stable")]
        self._ground = _ground(motion)
        self._fronts = [_front(side.labels, self._ground) for side in self._sides]
        self._small = both(lambda i: reduced(pixels[i], PLATE_SIDE))
        self._bounded = bounded
        self._how = cv2.INTER_CUBIC if bounded else cv2.INTER_LINEAR

    def draw(self, position: float, template: Picture) -> Picture:
        """The drawing at a position, like the template in all but its pixels.

        Beyond 0..1 the motion goes on.
        """
        maps = self._poses.to_side(position)
        sights = both(lambda i: self._sight(i, maps, position))
        share = np.float32(min(max(position, 0.0), 1.0))
        first, second = sights[0].weight * (1 - share), sights[1].weight * share
        mix = np.asarray(second / (first + second), np.float32)
        return self._drawn(maps, sights, mix, position, template)

    def _sight(self, which: int, maps: Maps, position: float) -> Sight:
        side = self._sides[which]
        thrown = _thrown(side, position if which == 0 else 1 - position)
        height, width = side.labels.shape
        places, rank = self._view(which, maps, thrown, (height, width), (0, height))
        known = (rank > 0).astype(np.uint8)
        return Sight(thrown, places, rank, self._weight(which, places, known))

    def _drawn(
        self, maps: Maps, sights: tuple[Sight, Sight], mix: Array, position: float, template: Picture
    ) -> Picture:
        height, width, channels = self._sides[0].pixels.shape
        out = np.empty((height, width, channels), template.pixels.dtype)

        def fill(top: int) -> None:
            band = top, min(top + rows, height)
            part = _rows_of(mix, (height, width), band)
            views = [self._places(i, maps, sights[i], (height, width), band) for i in (0, 1)]
            shown = [fetched(s.pixels, v[0], how=self._how) for s, v in zip(self._sides, views, strict=True)]
            drawn = self._blend(shown[0], shown[1], part)
            if plate is not None:
                same = lost.shape == (height, width)
                here = lost[band[0] : band[1]] if same else self._lost(views, (height, width))
                _lay_plate(drawn, plate, here, (height, width), band)
            if self._overlay is not None:
                self._overlay.lay(drawn, position, top, how=self._how)
                drawn = np.clip(drawn, 0, 1, out=drawn) if self._bounded else drawn
            out[band[0] : band[1]] = like(straight(drawn), template).pixels

        lost = self._lost([(s.places, s.rank) for s in sights], sights[0].rank.shape)
        plate = self._plate(sights, mix) if lost.any() else None
        rows = max(1, BAND // width)
        with ThreadPoolExecutor(HANDS) as hands:
            for _ in hands.map(fill, range(0, height, rows)):
                pass
        return Picture(out, template.colour, template.colour_source)

    def _places(
        self, which: int, maps: Maps, sight: Sight, size: tuple[int, int], band: tuple[int, int]
    ) -> View:
        if sight.weight.shape == size:
            return sight.places[band[0] : band[1]], sight.rank[band[0] : band[1]]
        return self._view(which, maps, sight.thrown, size, band)

    def _plate(self, sights: tuple[Sight, Sight], mix: Array) -> Array:
        """What is behind where neither keyframe knows it, small (h, w, C): from what lies around."""
        ranks = np.maximum(sights[0].rank, sights[1].rank)
        size = self._small[0].shape[1::-1]
        near: list[Array] = [cv2.resize(s.places, size, interpolation=cv2.INTER_NEAREST) for s in sights]  # pyright: ignore
        scale = np.float32(max(size) / max(ranks.shape))
        seen = [fetched(s, scaled(p, scale)).reshape(s.shape) for s, p in zip(self._small, near, strict=True)]
        share: Array = cv2.resize(mix, size, interpolation=cv2.INTER_NEAREST)  # pyright: ignore
        drawn = self._blend(seen[0], seen[1], share)
        known = np.where(ranks > 0, np.float32(BEHIND) ** (ranks.astype(np.float32) - 1), np.float32(0))
        # Lines that stayed behind along a shape's border are no ground.
        cover = cv2.erode(cv2.resize(known, size, interpolation=cv2.INTER_AREA), np.ones((5, 5), np.uint8))
        return filled(drawn, cover)  # pyright: ignore

    def _lost(self, views: Sequence[View], size: tuple[int, ...]) -> NDArray[np.uint8]:
        """Where no keyframe knows what is shown, because a whole shape is in front there; a mask (h, w)."""
        lost = cv2.bitwise_not(_over(np.maximum(views[0][1], views[1][1]), 0))
        left, top, wide, tall = cv2.boundingRect(lost)
        if not wide:
            return lost  # pyright: ignore
        box = slice(top, top + tall), slice(left, left + wide)
        hidden = np.zeros((tall, wide), np.float32)
        for front, (places, _) in zip(self._fronts, views, strict=True):
            scale = np.float32(max(front.shape) / max(size))
            seen = fetched(front, scaled(places[box], scale))
            hidden = np.maximum(hidden, seen.reshape(tall, wide))
        lost[box][hidden <= 0.5] = 0
        return lost  # pyright: ignore

    def _blend(self, first: Array, second: Array, mix: Array) -> Array:
        step = cv2.multiply(cv2.subtract(second, first), cv2.merge([mix] * first.shape[2]))
        out = cv2.add(first, step).reshape(first.shape)
        return np.clip(out, 0, 1, out=out) if self._bounded else out  # pyright: ignore

    def _view(
        self, which: int, maps: Maps, thrown: Thrown | None, size: tuple[int, int], band: tuple[int, int]
    ) -> View:
        """Where each pixel of some rows of the drawing comes from, (h, w, 2), and its rank (h, w)."""
        side = self._sides[which]
        places = _affine_places(maps[self._ground - 1][which], size, (band[0], band[1], 0, size[1]))
        ranks = np.zeros(places.shape[:2], np.uint8)
        for rank, label in enumerate(self._order, 1):
            if label == SEARCHED:
                if thrown is not None:
                    _lay_thrown(places, ranks, rank, thrown, size, band)
            elif side.boxes[label - 1][2]:
                _lay_model(places, ranks, rank, side, label, maps[label - 1][which], size, band)
        inside = cv2.inRange(places, (-1.0, -1.0, 0.0, 0.0), (float(size[1]), float(size[0]), 0.0, 0.0))
        # Beyond the picture nobody knows what is there.
        return places, cv2.bitwise_and(ranks, inside)  # pyright: ignore

    def _weight(self, which: int, places: Array, known: NDArray[np.uint8]) -> Array:
        trust = fetched(self._sides[which].trust, places)
        calm = blurred(np.asarray(known * (trust * trust + np.float32(0.01)), np.float32), 1.2)
        return known * calm + np.float32(1e-4)


def _ground(motion: Motion) -> int:
    """The label that most of the pictures' borders have: it shows where nothing is known."""
    edges = np.concatenate([e for p in motion.layers.labels for e in (p[0], p[-1], p[:, 0], p[:, -1])])
    counts = np.bincount(edges, minlength=len(motion.layers.front))
    counts[SEARCHED] = 0
    return max(1, int(counts.argmax()))


def _front(labels: Labels, ground: int) -> Array:
    """Where whole shapes are that are not the ground: 1 there, (h, w)."""
    return ((labels != ground) & (labels != SEARCHED)).astype(np.float32)


def _bend(motion: Motion, which: int, path: Arc | None) -> Bend:
    return motion.bends[which] if path is None else joined(motion.bends[which], path.bends[which])


def _side(motion: Motion, which: int, pixels: Array, bend: Bend) -> Side:
    """Lines rank before flat ground, and what both keyframes agree on before what only one shows."""
    flow, trust = (motion.there, motion.back)[which], motion.trust[which]
    labels = motion.layers.labels_at(which, *trust.shape)
    lines = blurred(motion.edges[which], 2.0)
    rank = np.asarray(trust**4 * (lines * lines + np.float32(1e-4)) + np.float32(1e-7), np.float32)
    rank *= labels == SEARCHED
    masks = [(labels == k).astype(np.uint8) * np.uint8(255) for k in range(1, len(motion.layers.front))]
    small = reduced(flow, THROW_SIDE)
    small = resized(flow, *small.shape[:2]) if small.shape != flow.shape else flow
    boxes = [cv2.boundingRect(mask) for mask in masks]
    return Side(pixels, flow, bend, trust, labels, masks, boxes, small, reduced(rank, THROW_SIDE))


def _affine_places(model: Array, size: tuple[int, int], box: Box) -> Array:
    """Where a map (2, 3) in parts takes a box's pixels (top, bottom, left, right), in pixels of `size`."""
    return _spread(in_pixels(model, max(size)), box)


def _spread(m: Array, box: Box) -> Array:
    """Where a map (2, 3) takes a box's pixels (top, bottom, left, right), (h, w, 2)."""
    top, bottom, left, right = box
    x = np.arange(left, right, dtype=np.float32)[:, None] * m[:, 0]
    y = np.arange(top, bottom, dtype=np.float32)[:, None] * m[:, 1] + m[:, 2]
    # As complex numbers: numpy adds these pairs at once.
    out = x.astype(np.float32).view(np.complex64).T + y.astype(np.float32).view(np.complex64)
    return out.view(np.float32).reshape(bottom - top, right - left, 2)


def _lay_model(
    places: Array,
    ranks: NDArray[np.uint8],
    rank: int,
    side: Side,
    label: int,
    model: Array,
    size: tuple[int, int],
    band: tuple[int, int],
) -> None:
    """Puts a model's pixels on top, wherever its mask has come to lie."""
    mask = side.masks[label - 1]
    box = reach(mask.shape, side.boxes[label - 1], model, size, band)
    if box is None:
        return
    top, bottom, left, right = box
    inside = seen_in(mask, model, size, box, cv2.INTER_LINEAR)
    here = _affine_places(model, size, box)
    rows = slice(top - band[0], bottom - band[0])
    seen = _over(inside, 127)  # pyright: ignore
    cv2.copyTo(here, seen, places[rows, left:right])
    cv2.copyTo(np.full_like(seen, rank), seen, ranks[rows, left:right])


def _over(field: Array | NDArray[np.uint8], least: float) -> NDArray[np.uint8]:
    """A mask, 255 where the field is larger."""
    return cv2.compare(field, least, cv2.CMP_GT)  # pyright: ignore


def _thrown(side: Side, share: float) -> Thrown | None:
    if not side.rank.any():
        return None
    way, cover = _throw(side.way(side.small, share), side.rank)
    left, top, wide, tall = cv2.boundingRect(_over(cover, COVERED))
    if not wide:
        return None
    height, width = cover.shape
    # Between two pixels of which one is covered well, the cover is enough nearly up to the other.
    box = (top - 1) / height, (top + tall + 1) / height, (left - 1) / width, (left + wide + 1) / width
    return Thrown(_healed(way, cover), cover, side.way(side.motion, share), box)


def _rows_of(field: Array, size: tuple[int, int], band: tuple[int, int]) -> Array:
    if field.shape[:2] == size:
        return field[band[0] : band[1]]
    return _box_of(field, size, (band[0], band[1], 0, size[1]))


def _box_of(field: Array, size: tuple[int, int], box: Box) -> Array:
    """A box of a field (h, w) or (h, w, 2) at a larger size; a way's displacements are scaled along."""
    down, across = field.shape[0] / size[0], field.shape[1] / size[1]
    places = _spread(np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]], np.float32), box)
    out = fetched(field, places)
    return out * np.float32(1 / across) if field.ndim == 3 else out


def _lay_plate(
    drawn: Array, plate: Array, lost: NDArray[np.uint8], size: tuple[int, int], band: tuple[int, int]
) -> None:
    """Puts what is behind where it is lost."""
    left, top, wide, tall = cv2.boundingRect(lost)
    if wide:
        box = slice(top, top + tall), slice(left, left + wide)
        scale = max(plate.shape) / max(size)
        shift = [(v + 0.5) * scale - 0.5 for v in (left, band[0] + top)]
        at = _spread(np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32), (0, tall, 0, wide))
        cv2.copyTo(fetched(plate, at).reshape(drawn[box].shape), lost[box], drawn[box])


def _lay_thrown(
    places: Array,
    ranks: NDArray[np.uint8],
    rank: int,
    thrown: Thrown,
    size: tuple[int, int],
    band: tuple[int, int],
) -> None:
    """Puts the searched motion's pixels on top, wherever they cover enough."""
    top, bottom = max(band[0], int(thrown.box[0] * size[0])), min(band[1], math.ceil(thrown.box[1] * size[0]))
    left, right = max(0, int(thrown.box[2] * size[1])), min(size[1], math.ceil(thrown.box[3] * size[1]))
    if top >= bottom or left >= right:
        return
    box = top, bottom, left, right
    seen = _over(_box_of(thrown.cover, size, box), COVERED)
    way = _box_of(thrown.way, size, box)
    own = _spread(UNMOVED, box)
    scale = thrown.exact.shape[1] / size[1]
    at: Array = own - way
    if scale != 1:
        at = scaled(at, scale)
    exact = fetched(thrown.exact, at) * np.float32(1 / scale)
    there = slice(top - band[0], bottom - band[0]), slice(left, right)
    cv2.copyTo(cv2.subtract(own, _corrected(way, exact)), seen, places[there])
    cv2.copyTo(np.full_like(seen, rank), seen, ranks[there])


def _corrected(thrown: Array, exact: Array) -> Array:
    """The exact motion where it belongs to the same surface as the thrown one."""
    off = cv2.transform(cv2.absdiff(exact, thrown), np.ones((1, 2), np.float32))
    return cv2.copyTo(exact, cv2.compare(off, SAME, cv2.CMP_LT), thrown)  # pyright: ignore


def _throw(way: Array, rank: Array) -> tuple[Array, Array]:
    """The way that each pixel came, carried to where it is now; and how well each place is covered.

    Where several arrive, rank decides: softly, so that a drawing does not flicker from one to the next.
    """
    height, width = rank.shape
    across, down = cv2.split(grid(height, width) + way)
    left, top = np.floor(across), np.floor(down)
    inside = (left >= -1) & (left < width) & (top >= -1) & (top < height) & (rank > 0)
    start = ((top + 1) * (width + 2) + left + 1)[inside].astype(np.int64)
    x, y = (across - left)[inside], (down - top)[inside]
    weight = rank[inside]
    values = (weight, way[..., 0][inside] * weight, way[..., 1][inside] * weight)
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
    whole = filled(motion, np.minimum(cover, 1))
    calm = cv2.medianBlur(np.dstack([whole, cover]), 5)
    return np.ascontiguousarray(calm[..., :2], np.float32)
