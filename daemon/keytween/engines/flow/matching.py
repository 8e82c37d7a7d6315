"""Matches two pictures: where each pixel of one is in the other, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow import layers as layering
from keytween.engines.flow import poses
from keytween.engines.flow.bending import Bend, bend
from keytween.engines.flow.coarse import (
    blurred,
    both,
    chief_colours,
    coarse_motion,
    difference,
    membership,
    smoothed,
)
from keytween.engines.flow.fields import agreement, fetched, grid, moved, reduced, resized
from keytween.engines.flow.islands import Islands, find_islands
from keytween.engines.flow.layers import Layers

Array = NDArray[np.float32]
Pair = tuple[Array, Array]

COARSE_SIDE, FINE_SIDE, LEAST_SIDE = 72, 1024, 12
"""The longest side at which all displacements are tried, and of the finished motion; less than the least
is too small to hold a drawing."""
FEATURE_SIDE, LABEL_SIDE, BEND_SIDE = 384, 512, 64
"""The longest sides at which features are found, layers are given to pixels anew, and bends are found."""
QUICK_COARSE_SIDE, QUICK_SIDE, QUICK_FEATURE_SIDE = 40, 96, 256
"""The same of a first look: where displacements are tried, of its motion, and where features are found."""
SNAP = 0.006
"""How much worse a layer's motion may fit a pixel than the searched one, as a difference of colours."""
FREE_COST, FREER = 0.5, 0.38
"""The searched motion's smaller handicap, and how much less must stay unlike for it to be taken."""
UNEXPLAINED = 0.002
"""Where less of the picture than this share is unexplained, its parts are not looked for."""
SWAY = 0.004
"""What each pixel away from the surroundings' motion costs while searching."""
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What was matched, in pixels of the match's own size (h, w), at most FINE_SIDE.

    `there` takes pixels of the first picture to the second, `back` the other way, (h, w, 2) each. The
    trusts (h, w) say in 0..1 how well both pictures agree; `edges` (h, w) where each one's lines are;
    `bends` how each one's motion leaves the straight line, in pixels of a smaller grid.
    """

    there: Array
    back: Array
    trust: Pair
    edges: Pair
    layers: Layers
    bends: tuple[Bend, Bend]
    islands: Islands | None = None


def match(first: Array, second: Array, *, quick: bool = False) -> Motion | None:
    """The motion between two pictures (H, W, C) in 0..1 of one size; None where nothing corresponds.

    `quick` is for a first look: fewer motions of whole shapes, at a small size, in a quarter of the time.
    """
    if min(first.shape[:2]) < LEAST_SIDE:
        return None
    if quick:
        return _glimpsed(first, second)
    found = _matched(first, second)
    if found is None:
        return None
    islands = find_islands(first, second)
    if islands is None or islands.known_to((found.there, found.back), found.layers):
        return found
    apart = _matched(islands.taken_off(0, first), islands.taken_off(1, second))
    return found if apart is None else replace(apart, islands=islands)


def _matched(first: Array, second: Array) -> Motion | None:
    small = reduced(first, COARSE_SIDE), reduced(second, COARSE_SIDE)
    colours = chief_colours(*small)
    flows = _coarse(*small, colours)
    pair = reduced(first, layering.SIDE), reduced(second, layering.SIDE)
    flows = _refined(pair, flows, None)
    flows = both(_polishing(pair, flows))
    proposals = _proposals(first, second)
    layers = layering.find_layers(pair, flows, proposals, colours)
    parts = _parts(pair, flows, layers)
    if parts:
        proposals = [*layers.models, *parts, *proposals]
        layers = layering.find_layers(pair, flows, proposals, colours)
    layers = _freer(pair, flows, layers, proposals, colours)
    flows = _both_led(flows, layers)
    for side in _sides(max(first.shape[:2])):
        pair = reduced(first, side), reduced(second, side)
        flows = _refined(pair, flows, layers)
    flows = both(_polishing(pair, flows))
    layers = _found_again(first, second, flows, layers, colours)
    flows = _both_led(flows, layers)
    return _judged(pair, flows, layers)


def _glimpsed(first: Array, second: Array) -> Motion | None:
    """The motion as far as it is seen on small pictures, without turned shapes, parts and islands."""
    small = reduced(first, QUICK_COARSE_SIDE), reduced(second, QUICK_COARSE_SIDE)
    colours = chief_colours(*small)
    pair = reduced(first, QUICK_SIDE), reduced(second, QUICK_SIDE)
    flows = _refined(pair, _coarse(*small, colours), None)
    flows = both(_polishing(pair, flows))
    shapes = reduced(first, poses.SHAPE_SIDE), reduced(second, poses.SHAPE_SIDE)
    shifts = [layering.in_parts(m, max(shapes[0].shape)) for m in poses.shifts(*shapes)]
    proposals = [*_features(first, second, QUICK_FEATURE_SIDE), *shifts]
    layers = layering.find_layers(pair, flows, proposals, colours)
    return _judged(pair, _both_led(flows, layers), layers)


def _found_again(first: Array, second: Array, flows: Pair, layers: Layers, colours: Array) -> Layers:
    pair = reduced(first, LABEL_SIDE), reduced(second, LABEL_SIDE)
    height, width = pair[0].shape[:2]
    small = resized(flows[0], height, width), resized(flows[1], height, width)
    return layering.find_again(pair, small, layers, colours)


def _proposals(first: Array, second: Array) -> list[Array]:
    """How whole shapes may have moved, (2, 3) each, in parts of the longest side."""
    small = reduced(first, poses.SHAPE_SIDE), reduced(second, poses.SHAPE_SIDE)
    shapes = [*poses.turned_shapes(*small), *poses.shifts(*small)]
    found = [layering.in_parts(m, max(small[0].shape)) for m in shapes]
    return _features(first, second, FEATURE_SIDE) + found


def _features(first: Array, second: Array, side: int) -> list[Array]:
    """How what has features may have moved, seen with this longest side."""
    seen = [np.rint(reduced(p, side)[..., :3].mean(2) * 255).astype(np.uint8) for p in (first, second)]
    return [layering.in_parts(m, max(seen[0].shape)) for m in poses.features(*seen)]


def _freer(pair: Pair, flows: Pair, layers: Layers, proposals: Sequence[Array], colours: Array) -> Layers:
    """The layers, or those that let the searched motion speak up, where these explain far more.

    What bends all over, a running animal, is no set of rigid shapes.
    """
    free = layering.find_layers(pair, flows, proposals, colours, searched_cost=FREE_COST)
    return free if _unlike(pair, flows, free) < FREER * _unlike(pair, flows, layers) else layers


def _unlike(pair: Pair, flows: Pair, layers: Layers) -> float:
    """How different the pictures are along their motion, on the average."""
    off = both(lambda i: difference(pair[i], moved(pair[1 - i], led(flows[i], layers, i))))
    return float(np.minimum(off, np.float32(0.3)).mean())


def _parts(pair: Pair, flows: Pair, layers: Layers) -> list[Array]:
    """How parts of what no motion explains may have moved, (2, 3) each, in parts of the longest side."""
    left = both(lambda i: _unexplained(pair[i], pair[1 - i], led(flows[i], layers, i), layers.labels[i]))
    if min(float(one.mean()) for one in left) < UNEXPLAINED:
        return []
    small = reduced(pair[0], poses.SHAPE_SIDE), reduced(pair[1], poses.SHAPE_SIDE)
    height, width = small[0].shape[:2]
    there = reduced(left[0], poses.SHAPE_SIDE), reduced(left[1], poses.SHAPE_SIDE)
    found = poses.parts(*small, there)
    size = pair[0].shape[1::-1]
    soft = blurred(pair[0], 2.0), blurred(pair[1], 2.0)
    out: list[Array] = []
    for model, mask in found:
        inside = cv2.resize(mask, size) > 0
        near = layering.fitted(soft, layering.in_parts(model, max(height, width)), inside)
        out.append(layering.fitted(pair, near, inside))
    return out


def _unexplained(picture: Array, other: Array, motion: Array, labels: layering.Labels) -> Array:
    off = blurred(difference(picture, moved(other, motion)), 1.2) > np.float32(0.06)
    return (off & (labels == layering.SEARCHED)).astype(np.float32)


def led(motion: Array, layers: Layers, which: int) -> Array:
    """A motion (h, w, 2) of one of the pictures, where layers have one: theirs."""
    field = layers.field(which, layers.labels_at(which, *motion.shape[:2]))
    return np.where(np.isnan(field), motion, field)


def _both_led(flows: Pair, layers: Layers) -> Pair:
    return led(flows[0], layers, 0), led(flows[1], layers, 1)


def _snapped(pair: Pair, flows: Pair, layers: Layers) -> Pair:
    """Motions that are those of their layer wherever that shows the same picture: rigid, without noise."""

    def snap(i: int) -> Array:
        field = led(flows[i], layers, i)
        costs = [blurred(difference(pair[i], moved(pair[1 - i], f)), 1.2) for f in (field, flows[i])]
        keep = costs[0] <= costs[1] + np.float32(SNAP)
        return np.where(keep[..., None], field, flows[i])

    return both(snap)


def edge_strength(picture: Array) -> Array:
    """How much the picture changes around each pixel, (H, W) from 0."""
    across = cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=0.25)
    down = cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=0.25)
    ones = np.ones((1, picture.shape[2]), np.float32)
    return blurred(np.sqrt(cv2.transform(across * across + down * down, ones)), 1.0)  # pyright: ignore


def _sides(longest: int) -> Iterator[int]:
    side = min(layering.SIDE, longest)
    last = min(longest, FINE_SIDE)
    while side < last:
        side = min(2 * side, last)
        yield side


def _coarse(first: Array, second: Array, colours: Array) -> Pair:
    pair = first, second
    flows = both(lambda i: coarse_motion(pair[i], pair[1 - i], colours))
    groups = membership(first, colours), membership(second, colours)
    none = np.zeros(first.shape[:2], np.float32)
    edges = edge_strength(first), edge_strength(second)
    return _settled(flows, (none, none), edges, groups=groups, sigma=1.5)


def _refined(pair: Pair, flows: Pair, layers: Layers | None) -> Pair:
    """Motion at a finer size: searched nearby in both directions, then settled where both agree."""
    height, width = pair[0].shape[:2]
    flows = resized(flows[0], height, width), resized(flows[1], height, width)
    if layers is not None:
        flows = _both_led(flows, layers)
    edges = edge_strength(pair[0]), edge_strength(pair[1])
    calm = flows
    for step in (1.0, 0.5):
        found = both(_searching(pair, flows, calm, layers, step))
        flows = found[0][0], found[1][0]
        calm = _settled(flows, (found[0][1], found[1][1]), edges)
        calm = calm if layers is None else _snapped(pair, calm, layers)
    return calm


def _searching(
    pair: Pair, flows: Pair, calm: Pair, layers: Layers | None, step: float
) -> Callable[[int], Pair]:
    def search(i: int) -> Pair:
        offers = _offers(step, flows[i], calm[i], layers, i)
        return _search(pair[i], pair[1 - i], flows[i], calm[i], offers, step)

    return search


def _search(
    first: Array, second: Array, motion: Array, calm: Array, offers: Iterable[Array], step: float
) -> Pair:
    """The best motion near the given one, or of those offered, and what it costs each pixel."""
    places = grid(*motion.shape[:2])

    def cost(tried: Array) -> Array:
        seen = blurred(difference(first, fetched(second, places + tried)), 1.2)
        away = tried - calm
        # cv2.magnitude's last bit depends on where the memory happens to lie.
        far = np.sqrt(np.square(away[..., 0]) + np.square(away[..., 1]))
        return seen + np.float32(SWAY) * np.minimum(far, np.float32(4))

    best, least = motion, cost(motion)
    for tried in offers:
        price = cost(tried)
        better = price < least
        least = np.minimum(price, least)
        best = np.where(better[..., None], tried, best)
    for right, down in AROUND:
        tried = best + np.array([right, down], np.float32) * np.float32(step)
        price = cost(tried)
        better = price < least
        least = np.minimum(price, least)
        best = np.where(better[..., None], tried, best)
    return best, least


def _offers(step: float, motion: Array, calm: Array, layers: Layers | None, which: int) -> Iterator[Array]:
    """Motions worth trying: at first the neighbours' on each side, then the surroundings'."""
    if step < 1:
        yield calm
        return
    height, width = motion.shape[:2]
    for right, down in ((3, 0), (-3, 0), (0, 3), (0, -3)):
        shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
        near = cv2.warpAffine(motion, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        if layers is not None:
            labels = np.roll(layers.labels_at(which, height, width), (down, right), (0, 1))
            field = layers.field(which, labels)
            near = np.where(np.isnan(field), near, field)
        yield near  # pyright: ignore


def _settled(
    flows: Pair, costs: Pair, edges: Pair, *, groups: Pair | None = None, sigma: float = 2.0
) -> Pair:
    """Both motions taken from where there are lines, they fit, and both directions agree.

    Flat ground next to a line then moves with the line, which nobody can see, and the line stays whole.
    """
    out: list[Array] = []
    for i in (0, 1):
        agree = agreement(flows[i], flows[1 - i], 1.5) + np.float32(1e-3)
        fit = np.exp(np.float32(-10) * costs[i])
        weight = np.asarray((edges[i] + np.float32(0.002)) * fit * agree, np.float32)
        group = None if groups is None else groups[i]
        out.append(smoothed(flows[i], weight, sigma, groups=group, rest=1e-7))
    return out[0], out[1]


def _polishing(pair: Pair, flows: Pair) -> Callable[[int], Array]:
    return lambda i: _polished(pair[i], pair[1 - i], flows[i])


def _polished(first: Array, second: Array, motion: Array) -> Array:
    """The motion with its last fraction of a pixel: least squares on all channels (Lucas and Kanade)."""
    ones = np.ones((1, first.shape[2]), np.float32)
    slopes = [cv2.Sobel(first, cv2.CV_32F, *d, scale=0.125) for d in ((1, 0), (0, 1))]
    for _ in range(4):
        there = moved(second, motion)
        gx, gy = (
            (s + cv2.Sobel(there, cv2.CV_32F, *d, scale=0.125)) / 2
            for s, d in zip(slopes, ((1, 0), (0, 1)), strict=True)
        )
        rest = there - first
        fair = 1 / (1 + np.square(cv2.transform(np.abs(rest), ones) / np.float32(0.3)))
        products = (gx * gx, gx * gy, gy * gy, gx * rest, gy * rest)
        xx, xy, yy, xr, yr = (blurred(cv2.transform(p, ones) * fair, 2.0) for p in products)  # pyright: ignore
        xx, yy = xx + np.float32(1e-4), yy + np.float32(1e-4)
        ahead = np.dstack([xy * yr - yy * xr, xy * xr - xx * yr]).astype(np.float32)
        step = blurred(np.asarray(ahead / (xx * yy - xy * xy)[..., None], np.float32), 1.0)
        motion = motion + np.clip(step, -1, 1)
    return motion


def _judged(pair: Pair, flows: Pair, layers: Layers) -> Motion | None:
    """The motion with its trusts; where little corresponds it calms down to a fade."""
    edges = edge_strength(pair[0]), edge_strength(pair[1])
    trusts = _trust(*pair, flows[0], flows[1]), _trust(pair[1], pair[0], flows[1], flows[0])
    sure = _sureness(trusts[0], edges[0]), _sureness(trusts[1], edges[1])
    if max(float(sure[0].max()), float(sure[1].max())) == 0:
        return None
    sure = np.minimum(sure[0], moved(sure[1], flows[0])), np.minimum(sure[1], moved(sure[0], flows[1]))
    there, back = (flow * s[..., None] for flow, s in zip(flows, sure, strict=True))
    even = tuple(1 - s + s * trust for s, trust in zip(sure, trusts, strict=True))
    return Motion(there, back, (even[0], even[1]), edges, layers, _bends(pair, (there, back), trusts))


def _bends(pair: Pair, flows: Pair, trusts: Pair) -> tuple[Bend, Bend]:
    """Both bends, in agreement with each other wherever the motions lead from one picture to the other."""
    small = reduced(pair[0], BEND_SIDE), reduced(pair[1], BEND_SIDE)
    height, width = small[0].shape[:2]
    scale = np.array([width / pair[0].shape[1], height / pair[0].shape[0]], np.float32)
    motions = [reduced(f, BEND_SIDE) * scale for f in flows]
    colours = chief_colours(*small)
    found = both(lambda i: bend(motions[i], reduced(trusts[i], BEND_SIDE), membership(small[i], colours)))
    return _agreed(found[0], found[1], motions[0]), _agreed(found[1], found[0], motions[1])


def _agreed(own: Bend, other: Bend, motion: Array) -> Bend:
    """The mean of both bends; seen from the other end the lean is the other way."""
    bow, lean = moved(other.bow, motion), moved(other.lean, motion)
    return Bend((own.bow + bow) / 2, (own.lean - lean) / 2)  # pyright: ignore


def _trust(first: Array, second: Array, motion: Array, opposite: Array) -> Array:
    alike = blurred(difference(first, moved(second, motion)), 1.5) / np.float32(0.12)
    return np.exp(-alike * alike) * (np.float32(0.3) + np.float32(0.7) * agreement(motion, opposite, 4))


def _sureness(trust: Array, edges: Array) -> Array:
    """Whether the lines in the wider surroundings correspond at all: (h, w), 0 for not, 1 for enough."""
    sigma = 0.06 * max(edges.shape)
    lines = np.asarray(edges + np.float32(1e-5), np.float32)
    near = blurred(reduced(np.dstack([trust * lines, lines]), -(-max(edges.shape) // 4)), sigma / 4)
    share = np.clip((near[..., 0] / near[..., 1] - 0.15) / 0.25, 0, 1)
    return cv2.resize(share, edges.shape[::-1])  # pyright: ignore
