"""Draws a position between two matched keyframes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.arcs import Arc, joined
from keytween.engines.flow.bending import Bend
from keytween.engines.flow.coarse import blurred
from keytween.engines.flow.layers import SEARCHED, Labels, backwards, in_pixels
from keytween.engines.flow.matching import Motion, fetched, grid, reduced, resized
from keytween.engines.flow.posing import Poses

Array = NDArray[np.float32]
Maps = Sequence[tuple[Array, Array]]
View = tuple[Array, NDArray[np.uint8]]

THROW_SIDE = 224
"""The longest side at which searched motion is thrown forward; the fine motion corrects it afterwards."""
BAND = 1 << 20
"""How many pixels are drawn at once: large pictures are drawn in bands, so that memory stays small."""
SAME = 3.0
"""Motions closer than this, in pixels, belong to one surface."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One keyframe's pixels (H, W, C) premultiplied, and its fine motion with labels (h, w).

    `masks` say where each model's pixels are, and in which rows and columns; `small` is what is thrown.
    """

    pixels: Array
    motion: Array
    bend: Bend
    trust: Array
    labels: Labels
    masks: Sequence[NDArray[np.uint8]]
    small: Array
    rank: Array

    def way(self, motion: Array, share: float) -> Array:
        """How far each pixel has come after `share` of the motion, (h, w, 2) of the motion's own pixels."""
        height, width = motion.shape[:2]
        bent = self.bend.at(share)
        return cv2.scaleAdd(motion, share, resized(bent, height, width))  # pyright: ignore


@dataclass(frozen=True, slots=True, eq=False)
class Thrown:
    """The searched motion's pixels at a position: the way they came, and how well they cover each place."""

    way: Array
    cover: Array
    exact: Array


class Stage:
    """A matched pair, ready to be drawn at any position."""

    def __init__(
        self, motion: Motion, first: Array, second: Array, *, bounded: bool, path: Arc | None = None
    ) -> None:
        pixels = first, second
        self._sides = [_side(motion, i, pixels[i], _bend(motion, i, path)) for i in (0, 1)]
        self._poses = Poses(motion.layers, None if path is None else path.shifts)
        self._order = [int(k) for k in np.argsort(motion.layers.front, kind="stable")]
        self._ground = _ground(motion)
        self._bounded = bounded

    def draw(self, position: float) -> Array:
        """The premultiplied picture (H, W, C) at a position; beyond 0..1 the motion goes on."""
        share = np.float32(min(max(position, 0.0), 1.0))
        maps = self._poses.to_side(position)
        shares = position, 1 - position
        thrown = [_thrown(s, p) for s, p in zip(self._sides, shares, strict=True)]
        fine = self._sides[0].labels.shape
        views = [self._view(i, maps, thrown[i], fine, (0, fine[0])) for i in (0, 1)]
        weights = [w * self._weight(i, *views[i]) for i, w in enumerate((1 - share, share))]
        mix = np.asarray(weights[1] / (weights[0] + weights[1]), np.float32)
        return self._drawn(maps, thrown, views, mix)

    def _drawn(self, maps: Maps, thrown: Sequence[Thrown | None], views: Sequence[View], mix: Array) -> Array:
        height, width, channels = self._sides[0].pixels.shape
        out = np.empty((height, width, channels), np.float32)
        rows = max(1, BAND // width)
        for top in range(0, height, rows):
            band = top, min(top + rows, height)
            if mix.shape == (height, width):
                part = mix[band[0] : band[1]]
                seen = [v[0][band[0] : band[1]] for v in views]
            else:
                part = _band_of(mix, (height, width), band)
                seen = [self._view(i, maps, thrown[i], (height, width), band)[0] for i in (0, 1)]
            shown = [self._shown(i, seen[i]) for i in (0, 1)]
            out[band[0] : band[1]] = self._blend(shown[0], shown[1], part)
        return out

    def _shown(self, which: int, places: Array) -> Array:
        how = cv2.INTER_CUBIC if self._bounded else cv2.INTER_LINEAR
        return fetched(self._sides[which].pixels, places, how=how)

    def _blend(self, first: Array, second: Array, mix: Array) -> Array:
        step = cv2.multiply(cv2.subtract(second, first), cv2.merge([mix] * first.shape[2]))
        out = cv2.add(first, step).reshape(first.shape)
        return np.clip(out, 0, 1, out=out) if self._bounded else out  # pyright: ignore

    def _view(
        self, which: int, maps: Maps, thrown: Thrown | None, size: tuple[int, int], band: tuple[int, int]
    ) -> View:
        """Where each pixel of some rows of the drawing comes from, (h, w, 2), and whether it is known."""
        side = self._sides[which]
        places = _affine_places(maps[self._ground - 1][which], size, (band[0], band[1], 0, size[1]))
        known = np.zeros(places.shape[:2], np.uint8)
        for label in self._order:
            if label == SEARCHED:
                if thrown is not None:
                    _lay_thrown(places, known, thrown, size, band)
            elif side.masks[label - 1].any():
                _lay_model(places, known, side.masks[label - 1], maps[label - 1][which], size, band)
        known[_beyond(places, size)] = 0
        return places, known

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
    return Side(pixels, flow, bend, trust, labels, masks, small, reduced(rank, THROW_SIDE))


def _affine_places(model: Array, size: tuple[int, int], box: tuple[int, int, int, int]) -> Array:
    """Where a map (2, 3) in parts takes a box's pixels (top, bottom, left, right), in pixels of `size`."""
    top, bottom, left, right = box
    m = in_pixels(model, max(size))
    x = np.arange(left, right, dtype=np.float32)[None, :]
    y = np.arange(top, bottom, dtype=np.float32)[:, None]
    out = np.empty((bottom - top, right - left, 2), np.float32)
    for i in (0, 1):
        np.add(m[i, 0] * x, m[i, 1] * y + m[i, 2], out=out[..., i])
    return out


def _lay_model(
    places: Array,
    known: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    model: Array,
    size: tuple[int, int],
    band: tuple[int, int],
) -> None:
    """Puts a model's pixels on top, wherever its mask has come to lie."""
    box = _reach(mask, model, size, band)
    if box is None:
        return
    top, bottom, left, right = box
    scale = max(mask.shape) / max(size)
    m = in_pixels(model, max(size))
    shift = m[:, :2] @ np.float32([left, top]) + m[:, 2]
    to_mask = np.concatenate([m[:, :2] * scale, ((shift + 0.5) * scale - 0.5)[:, None]], axis=1)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    inside = cv2.warpAffine(
        mask, to_mask, (right - left, bottom - top), flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    here = _affine_places(model, size, box)
    rows = slice(top - band[0], bottom - band[0])
    seen = cv2.compare(inside, 127, cv2.CMP_GT)
    cv2.copyTo(here, seen, places[rows, left:right])
    np.maximum(known[rows, left:right], seen & 1, out=known[rows, left:right])


def _beyond(places: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which places lie outside a picture of that size: nobody knows what is there."""
    across, down = places[..., 0], places[..., 1]
    return (across < -1) | (across > size[1]) | (down < -1) | (down > size[0])


def _reach(
    mask: NDArray[np.uint8], model: Array, size: tuple[int, int], band: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """The box (top, bottom, left, right) of a band that a mask can reach."""
    left, top, wide, tall = cv2.boundingRect(mask)
    corners = np.float32([[x, y] for x in (left, left + wide) for y in (top, top + tall)]) / max(mask.shape)
    ahead = backwards(model)
    ends = (corners @ ahead[:, :2].T + ahead[:, 2]) * max(size)
    least, most = np.floor(ends.min(0)).astype(int) - 1, np.ceil(ends.max(0)).astype(int) + 2
    if left == 0 or top == 0 or left + wide == mask.shape[1] or top + tall == mask.shape[0]:
        # A shape that the frame cuts goes on beyond it.
        least, most = np.array([0, 0]), np.array([size[1], size[0]])
    box = max(least[1], band[0]), min(most[1], band[1]), max(least[0], 0), min(most[0], size[1])
    return box if box[0] < box[1] and box[2] < box[3] else None


def _thrown(side: Side, share: float) -> Thrown | None:
    if not side.rank.any():
        return None
    way, cover = _throw(side.way(side.small, share), side.rank)
    return Thrown(_healed(way, cover), cover, side.way(side.motion, share))


def _band_of(field: Array, size: tuple[int, int], band: tuple[int, int]) -> Array:
    """Some rows of a field (h, w) or (h, w, 2) at a larger size; a way's displacements are scaled along."""
    height, width = field.shape[:2]
    x = (np.arange(size[1], dtype=np.float32) + 0.5) * np.float32(width / size[1]) - np.float32(0.5)
    y = (np.arange(*band, dtype=np.float32) + 0.5) * np.float32(height / size[0]) - np.float32(0.5)
    across, down = np.meshgrid(x, y)
    out = cv2.remap(field, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out * np.float32(size[1] / width) if field.ndim == 3 else out


def _lay_thrown(
    places: Array, known: NDArray[np.uint8], thrown: Thrown, size: tuple[int, int], band: tuple[int, int]
) -> None:
    """Puts the searched motion's pixels on top, wherever they cover enough."""
    cover = _band_of(thrown.cover, size, band)
    seen = cv2.compare(cover, 0.5, cv2.CMP_GT)
    if not seen.any():
        return
    way = _band_of(thrown.way, size, band)
    own = np.dstack(np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(*band, dtype=np.float32)))
    scale = thrown.exact.shape[1] / size[1]
    at = (
        cv2.subtract(own, way)
        if scale == 1
        else (own - way + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)
    )
    exact = fetched(thrown.exact, at) * np.float32(1 / scale)
    way = _corrected(way, exact)
    cv2.copyTo(cv2.subtract(own, way), seen, places)
    np.maximum(known, seen & 1, out=known)


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
