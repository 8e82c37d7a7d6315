"""Decides which parts of two pictures follow which motion: a proposed one, or the one that was searched.

Each pixel belongs to the motion under which it looks the same in the other picture; neighbours pull it to
theirs, and motions that explain much of the picture pull harder than those that explain little. What looks
the same under none is hidden in the other picture, and goes with what lies around and behind. Between the
rounds each motion is fitted anew, as an affine map, to the pixels that belong to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.bending import turn_of
from keytween.engines.flow.coarse import blurred, both, difference, membership, nearest_colour
from keytween.engines.flow.fields import agreement, filled, grid, moved

Array = NDArray[np.float32]
Pair = tuple[Array, Array]
Labels = NDArray[np.uint8]

SIDE = 160
"""The longest side at which pixels are given to motions."""
NOISE = 0.02
"""Colours that differ by this much speak against a motion by one unit."""
SEARCHED_COST, MOVING_COST, HIDDEN_COST = 1.3, 0.7, 11.0
"""The handicaps, in units: of the searched motion, which fits each pixel on its own; of every motion against
standing still, so that flat ground stays; and of following no motion at all."""
TOGETHER, SPREAD = 6.0, 2.0
"""How strongly neighbours pull, and how far around."""
REGION, REGION_MOST = 1.0, 10.0
"""How much a region's average counts beside the pixel's own cost, and the most that a pixel adds to it."""
WHOLE = 4.0
"""How strongly a region's pixels pull each other to one motion."""
LINE, UNLIKE, NO_GROUND = 0.008, 0.08, 0.3
"""How far around a shape its lines are looked for, as a share of the longest side; from which difference of
colours on a pixel has not stayed; and from which on it is a line and no ground."""
GROW = 0.004
"""How far layers in front reach over their border, as a share of the longest side."""
OUTSIDE = 0.14
"""What it costs to have left the picture, as a difference of colours."""
UNSEEN = 3.0
"""What it costs that the other picture does not follow the same motion at the place it leads to."""
RETURN = math.sqrt(8)
"""How many pixels off there and back may lead for the searched motion to be believed."""
LEAST = 0.0015
"""The smallest share of the picture that is worth a motion of its own."""
ROUNDS, MOST = 2, 10
MOST_TURN = math.radians(100)
SEARCHED, STILL = 0, 1
UNMOVED: Array = np.eye(2, 3, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Motions of whole shapes, and which of two pictures' pixels follow them.

    `models` (K, 2, 3) lead from the first picture to the second, in parts of the longest side, and `labels`
    (h, w) say for each picture's pixels which they follow: 0 is the searched motion, k is model k - 1.
    `front` (K + 1,) says for each label how far it is in front of others, -1..1, and `searched_cost` is
    the handicap under which the searched motion took part.
    """

    models: Array
    labels: tuple[Labels, Labels]
    front: Array
    searched_cost: float = SEARCHED_COST

    def model(self, label: int, which: int) -> Array:
        """The motion (2, 3) of a label from one of the pictures to the other."""
        model = self.models[label - 1]
        return model if which == 0 else backwards(model)

    def labels_at(self, which: int, height: int, width: int) -> Labels:
        """The labels at another size, with smooth borders."""
        labels = self.labels[which]
        if labels.shape == (height, width):
            return labels
        shares = [
            cv2.resize((labels == k).astype(np.float32), (width, height)) for k in range(len(self.models) + 1)
        ]
        return np.argmax(shares, axis=0).astype(np.uint8)

    def field(self, which: int, labels: Labels) -> Array:
        """Where their motions take the pixels with these labels, (h, w, 2); NaN for the searched motion."""
        out = np.full((*labels.shape, 2), np.nan, np.float32)
        for label in range(1, len(self.models) + 1):
            inside = labels == label
            if inside.any():
                out[inside] = affine_field(self.model(label, which), *labels.shape)[inside]
        return out


def find_layers(
    pair: Pair,
    flows: Pair,
    proposals: Sequence[Array],
    colours: Array,
    *,
    searched_cost: float = SEARCHED_COST,
) -> Layers:
    """The layers of two pictures (h, w, C), for a searched motion (h, w, 2) each and proposed ones (2, 3)
    from the first to the second, in parts of the longest side; `colours` are the pictures' chief ones."""
    models = _promising(pair, _distinct([UNMOVED, *proposals], *pair[0].shape[:2]))
    regions = both(lambda i: _regions(pair[i], colours))
    shares = _given(pair, flows, models, regions, searched_cost)
    for _ in range(ROUNDS):
        owner = shares[0].argmax(0)
        moving = [fitted(pair, m, owner == k) for k, m in enumerate(models[1:], STILL + 1)]
        models = _worthwhile([UNMOVED, *moving], shares)
        shares = _given(pair, flows, models, regions, searched_cost)
    return _finished(pair, shares, flows, models, colours, searched_cost)


def find_again(pair: Pair, flows: Pair, layers: Layers, colours: Array) -> Layers:
    """The same motions, given anew to the pixels of larger pictures."""
    height, width = pair[0].shape[:2]
    before = both(
        lambda i: np.stack(
            [layers.labels_at(i, height, width) == k for k in range(len(layers.front))], dtype=np.float32
        )
    )
    models = list(layers.models)
    regions = both(lambda i: _regions(pair[i], colours))
    shares = _given(pair, flows, models, regions, layers.searched_cost, before=before, turns=3)
    return _finished(pair, shares, flows, models, colours, layers.searched_cost)


def affine_field(model: Array, height: int, width: int) -> Array:
    """How far a motion (2, 3) in parts of the longest side moves each pixel, (h, w, 2) in pixels."""
    side = max(height, width)
    x = (np.arange(width, dtype=np.float32) + 0.5)[None, :]
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    slope = model[:, :2] - np.eye(2, dtype=np.float32)
    ways = [slope[i, 0] * x + slope[i, 1] * y + model[i, 2] * side for i in (0, 1)]
    return np.dstack(ways).astype(np.float32)


def in_parts(model: Array, side: int) -> Array:
    """A motion between pixels of pictures with this longest side, in parts of it."""
    out = np.asarray(model, np.float64).copy()
    out[:, 2] = (out[:, 2] + 0.5 - 0.5 * out[:, :2].sum(1)) / side
    return out.astype(np.float32)


def in_pixels(model: Array, side: int) -> Array:
    """The inverse of `in_parts`."""
    out = np.asarray(model, np.float64).copy()
    out[:, 2] = out[:, 2] * side - 0.5 + 0.5 * out[:, :2].sum(1)
    return out.astype(np.float32)


def backwards(model: Array) -> Array:
    """The motion back."""
    inverse = np.linalg.inv(model[:, :2].astype(np.float64))
    return np.concatenate([inverse, -inverse @ model[:, 2:]], axis=1).astype(np.float32)


# ---- which pixel follows which motion


def _given(
    pair: Pair,
    flows: Pair,
    models: Sequence[Array],
    regions: tuple[NDArray[np.intp], NDArray[np.intp]],
    searched_cost: float,
    *,
    before: Pair | None = None,
    turns: int = 10,
) -> Pair:
    """The shares (K + 2, h, w) that labels have of each pixel, by mean field; the last label is hidden."""
    fields = [[flows[i], *(_way(m, i, *pair[0].shape[:2]) for m in models)] for i in (0, 1)]
    against = both(lambda i: _against(pair[i], pair[1 - i], fields[i], regions[i], searched_cost))
    if before is None:
        shares = both(lambda i: _shared(against[i], turns))
    else:
        shares = both(lambda i: np.concatenate([before[i], np.zeros_like(before[i][:1])]))
    for _ in range(2):
        met = both(lambda i, shares=shares: _unmet(shares[1 - i], fields[i], flows[i], flows[1 - i]))
        usual = both(lambda i, shares=shares: _usual(shares[i][:-1], regions[i]))
        full = [np.concatenate([a[:-1] + m - u, a[-1:]]) for a, m, u in zip(against, met, usual, strict=True)]
        shares = both(lambda i, full=full: _shared(full[i], turns))
    return shares


def _unmet(shares: Array, fields: Sequence[Array], motion: Array, opposite: Array) -> Array:
    """What speaks against each label because the other picture's pixels do not follow it, (K + 1, h, w)."""
    out = np.float32(UNSEEN) * (1 - _at_the_end(shares[:-1], fields))
    out[SEARCHED] = np.maximum(out[SEARCHED], np.float32(UNSEEN) * (1 - _returns(motion, opposite)))
    return out


def _against(
    picture: Array, other: Array, fields: Sequence[Array], regions: NDArray[np.intp], searched_cost: float
) -> Array:
    """What speaks against each label, (K + 2, h, w) in units: at the pixel, and on its region's average."""
    bounds = _bounds(other)
    sizes = np.maximum(np.bincount(regions.ravel()), 1)
    cost: list[Array] = []
    for k, field in enumerate(fields):
        own = _mismatch(picture, bounds, field) / np.float32(NOISE)
        own += np.float32(searched_cost if k == SEARCHED else MOVING_COST if k > STILL else 0)
        sums = np.bincount(regions.ravel(), np.minimum(own, REGION_MOST).ravel())
        cost.append(own + (REGION * sums / sizes).astype(np.float32)[regions])
    return np.stack([*cost, np.full_like(cost[0], HIDDEN_COST)])


def _regions(picture: Array, colours: Array) -> NDArray[np.intp]:
    """Which connected region of one colour each pixel belongs to, (h, w)."""
    colour = nearest_colour(picture, colours)
    out = np.zeros(colour.shape, np.intp)
    count = 0
    for k in range(len(colours)):
        found, marks = cv2.connectedComponents((colour == k).astype(np.uint8), connectivity=4)
        out += np.where(marks > 0, marks + count, 0)
        count += found - 1
    return out


def _usual(shares: Array, regions: NDArray[np.intp]) -> Array:
    """What speaks for each label because the pixel's region mostly follows it, (K + 1, h, w), at most 0."""
    sums = np.stack([np.bincount(regions.ravel(), s.ravel()) for s in shares])
    common = sums / np.maximum(sums.max(0), 1e-6)
    return (np.float32(WHOLE) * np.log(common + 0.03)).astype(np.float32)[:, regions]


def _shared(against: Array, turns: int) -> Array:
    shares = _softmax(-against)
    for _ in range(turns):
        common = np.log(shares.mean((1, 2)) + np.float32(1e-4))[:, None, None]
        common[-1] = 0
        near = np.stack([blurred(s, SPREAD) for s in shares])
        shares = _softmax(np.float32(TOGETHER) * near + np.float32(0.7) * common - against)
    return shares


def _softmax(values: Array) -> Array:
    out = np.exp(values - values.max(0))
    return np.asarray(out / out.sum(0), np.float32)


def _at_the_end(shares: Array, fields: Sequence[Array]) -> Array:
    """The other picture's share of each label, where the label's motion ends."""
    return np.stack(
        [np.where(_gone(f), np.float32(1), moved(s, f)) for s, f in zip(shares, fields, strict=True)]
    )


def _returns(motion: Array, opposite: Array) -> Array:
    """Whether going there and back ends where it began: 1 yes, 0 several pixels off."""
    return np.where(_gone(motion), np.float32(0), agreement(motion, opposite, RETURN))


def _bounds(picture: Array) -> Pair:
    """The least and the most that a picture shows within half a pixel: sampled elsewhere, an edge is no
    difference (Birchfield and Tomasi, 1998)."""
    near = np.ones((3, 3), np.uint8)
    return (picture + cv2.erode(picture, near)) / 2, (picture + cv2.dilate(picture, near)) / 2  # pyright: ignore


def _mismatch(picture: Array, bounds: Pair, field: Array) -> Array:
    """How different the picture is from what it finds at the end of its motion, (h, w)."""
    least, most = moved(bounds[0], field), moved(bounds[1], field)
    off = difference(picture, cv2.min(cv2.max(picture, least), most))  # pyright: ignore
    return np.where(_gone(field), np.float32(OUTSIDE), blurred(off, 1.0))


def _gone(field: Array) -> NDArray[np.bool_]:
    """What leaves the picture."""
    height, width = field.shape[:2]
    ends = grid(height, width) + field
    across, down = ends[..., 0], ends[..., 1]
    return (across < -1) | (across > width) | (down < -1) | (down > height)


def _met(labels: NDArray[Any], field: Array) -> NDArray[Any]:
    """The other picture's label at the end of each pixel's motion, the border's for what leaves it."""
    height, width = field.shape[:2]
    ends = np.rint(grid(height, width) + field).astype(int)
    return labels[ends[..., 1].clip(0, height - 1), ends[..., 0].clip(0, width - 1)]


# ---- order


def _finished(
    pair: Pair,
    shares: Pair,
    flows: Pair,
    models: Sequence[Array],
    colours: Array,
    searched_cost: float,
) -> Layers:
    """Layers from shares: what is hidden gets a label, and then what covers what is counted."""
    raw = [s.argmax(0) for s in shares]
    guessed = both(lambda i: _completed(shares[i], membership(pair[i], colours)))
    labels = both(lambda i: _hidden_or_searched(raw, guessed[i], i, models))
    front = _order(labels, flows, models)
    grown = both(lambda i: _grown(_joined(pair[i], pair[1 - i], _smoothed(labels[i], len(front))), front))
    return Layers(np.stack(models), grown, front, searched_cost)


def _smoothed(labels: Labels, count: int) -> Labels:
    """The labels without specks: those take the label that is mostly around them."""
    lost = np.zeros(labels.shape, bool)
    for label in range(count):
        least = LEAST * labels.size * (0.5 if label == SEARCHED else 0.1)
        _, marks, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        specks = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < least)
        lost |= np.isin(marks, specks[specks > 0])
    if not lost.any():
        return labels
    sigma = 0.01 * max(labels.shape)
    shares = [blurred(((labels == k) & ~lost).astype(np.float32), sigma) for k in range(count)]
    return np.where(lost, np.argmax(shares, axis=0), labels).astype(np.uint8)


def _joined(picture: Array, other: Array, labels: Labels) -> Labels:
    """Labels whose shapes take along the lines around them: what has not stayed and looks like no ground."""
    off = difference(picture, other)
    rest = ((labels == STILL) & (off < UNLIKE)).astype(np.uint8)
    if rest.all() or not rest.any():
        return labels
    ground = filled(picture, cv2.erode(rest, np.ones((5, 5), np.uint8)).astype(np.float32))
    alone = (labels == STILL) & (off >= UNLIKE) & (difference(picture, ground) > NO_GROUND)
    out = labels.copy()
    wide = 2 * max(1, round(LINE * max(labels.shape))) + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    for label in range(STILL + 1, int(labels.max()) + 1):
        mask = (labels == label).astype(np.uint8)
        out[alone & (cv2.dilate(mask, near) > 0) & (out == STILL)] = label
    return out


def _grown(labels: Labels, front: Array) -> Labels:
    """Labels in front take the pixels around them, whose colour is partly theirs."""
    out = labels.copy()
    wide = 2 * max(1, round(GROW * max(labels.shape))) + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    for label in np.argsort(front, kind="stable"):
        mask = (labels == label).astype(np.uint8)
        out[(cv2.dilate(mask, near) > 0) & (front[out] < front[label])] = label
    return out


def _hidden_or_searched(
    raw: Sequence[NDArray[np.intp]], guessed: Labels, which: int, models: Sequence[Array]
) -> Labels:
    """The guess where another motion's pixels are found to hide what is hidden; else searched motion."""
    height, width = guessed.shape
    own, other = raw[which], raw[1 - which]
    hidden = len(models) + 1
    lost = np.zeros(own.shape, np.uint8)
    for label in range(1, hidden):
        field = _way(models[label - 1], which, height, width)
        asked = (own == hidden) & (guessed == label)
        ends = _met(other, field)
        lost[asked & ~_gone(field) & ((ends == hidden) | (ends == label))] = 1
    wide = 2 * round(0.008 * max(own.shape)) + 1
    lost = cv2.morphologyEx(lost, cv2.MORPH_OPEN, np.ones((wide, wide), np.uint8))
    return np.where(lost > 0, SEARCHED, guessed).astype(np.uint8)


def _completed(shares: Array, colours: Array) -> Labels:
    """A label for every pixel: what is hidden goes with what lies around it, looks like it and is far behind.

    Far behind is what the border of the picture mostly shows.
    """
    labels = shares.argmax(0)
    hidden = labels == len(shares) - 1
    if not hidden.any() or hidden.all():
        return np.where(hidden, STILL, labels).astype(np.uint8)
    chance: list[Array] = []
    for k, share in enumerate(shares[:-1]):
        known = (labels == k).astype(np.float32)
        looks = (colours * known[..., None]).sum((0, 1)) / (known.sum() + np.float32(1))
        border = np.concatenate([known[0], known[-1], known[:, 0], known[:, -1]]).mean()
        near = blurred(share * ~hidden, 0.04 * max(labels.shape)) + np.float32(1e-6)
        chance.append(near * (colours @ looks + np.float32(0.02)) * np.float32(0.3 + border))
    return np.where(hidden, np.argmax(chance, axis=0), labels).astype(np.uint8)


def _order(labels: Sequence[Labels], flows: Pair, models: Sequence[Array]) -> Array:
    """How far in front each label is, -1..1: what covers others against what is covered.

    Where a motion takes pixels to a place that shows another motion's pixels, they are behind those.
    """
    count = len(models) + 1
    height, width = labels[0].shape
    covered = np.zeros((count, count))
    for which in (0, 1):
        for label in range(count):
            field = flows[which] if label == SEARCHED else _way(models[label - 1], which, height, width)
            ours = (labels[which] == label) & ~_gone(field)
            covered[label] += np.bincount(_met(labels[1 - which], field)[ours], minlength=count)
    np.fill_diagonal(covered, 0)
    over, under = covered.sum(0), covered.sum(1)
    return ((over - under) / np.maximum(over + under, 1e-3 * height * width)).astype(np.float32)


def _way(model: Array, which: int, height: int, width: int) -> Array:
    return affine_field(model if which == 0 else backwards(model), height, width)


# ---- motions


def _distinct(models: Sequence[Array], height: int, width: int) -> list[Array]:
    """Those that a shape could follow, and that are not nearly the same."""
    kept: list[Array] = []
    fields: list[Array] = []
    for model in models:
        linear = model[:, :2]
        if not 0.3 < np.linalg.det(linear) < 3.3 or abs(turn_of(linear)) > MOST_TURN:
            continue
        field = affine_field(model, height, width)[::8, ::8]
        if all(np.abs(field - f).max() > 1 for f in fields):
            kept.append(model)
            fields.append(field)
    return kept


def _promising(pair: Pair, models: Sequence[Array]) -> list[Array]:
    """Standing still, and those of the other motions that most often fit best: there may be very many."""
    if len(models) <= MOST:
        return list(models)
    bounds = _bounds(pair[1])
    size = pair[0].shape[:2]
    costs = [_mismatch(pair[0], bounds, affine_field(m, *size)) for m in models]
    best = np.argmin(costs, axis=0)
    wins = [int((best == k).sum()) for k in range(len(models))]
    most = sorted(range(1, len(models)), key=lambda k: -wins[k])[: MOST - 1]
    return [models[0], *(models[k] for k in sorted(most))]


def _worthwhile(models: Sequence[Array], shares: Pair) -> list[Array]:
    """The motions that explain enough, and differ where they are used."""
    labels = [s.argmax(0) for s in shares]
    height, width = labels[0].shape
    sizes = [min(float((one == k).mean()) for one in labels) for k in range(1, len(models) + 1)]
    kept = [models[0]]
    for k in sorted(range(1, len(models)), key=lambda k: -sizes[k]):
        if sizes[k] < LEAST:
            continue
        inside = labels[0] == k + 1
        own = affine_field(models[k], height, width)[inside]
        if all(np.abs(own - affine_field(m, height, width)[inside]).mean() > 0.5 for m in kept):
            kept.append(models[k])
    return _distinct(kept, height, width)


def fitted(pair: Pair, model: Array, inside: NDArray[np.bool_]) -> Array:
    """The motion, as the affine map under which its own pixels differ least (Lucas and Kanade, robust)."""
    height, width = inside.shape
    if inside.sum() < LEAST * inside.size:
        return model
    side = max(height, width)
    y, x = np.nonzero(inside)
    basis = np.stack([(x + 0.5) / side - 0.5, (y + 0.5) / side - 0.5, np.ones(len(x))], axis=1)
    slopes = [cv2.Sobel(pair[1], cv2.CV_32F, *d, scale=0.125) for d in ((1, 0), (0, 1))]
    fitted = model
    for _ in range(5):
        step = _step(pair, inside, affine_field(fitted, height, width), slopes, basis)  # pyright: ignore
        if step is None:
            return model
        change = np.concatenate([step[:, :2], step[:, 2:] - step[:, :2].sum(1, keepdims=True) / 2], axis=1)
        fitted = (fitted + change / side).astype(np.float32)
        if np.abs(step).max() < 0.01:
            break
    bounds = _bounds(pair[1])
    costs = [
        _mismatch(pair[0], bounds, affine_field(m, height, width))[inside].mean() for m in (fitted, model)
    ]
    return fitted if costs[0] < costs[1] else model


def _step(
    pair: Pair, inside: NDArray[np.bool_], way: Array, slopes: Sequence[Array], basis: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """How the affine map must change, (2, 3) in pixels, for coordinates that are 0 in the middle."""
    there, right, below = (moved(p, way)[inside] for p in (pair[1], *slopes))
    rest = there - pair[0][inside]
    fair = 1 / (1 + np.square(np.abs(rest).sum(1) / 0.15))
    normal, pull = np.zeros((6, 6)), np.zeros(6)
    for c in range(rest.shape[1]):
        rows = np.concatenate([basis * right[:, c : c + 1], basis * below[:, c : c + 1]], axis=1)
        normal += rows.T @ (rows * fair[:, None])
        pull -= rows.T @ (rest[:, c] * fair)
    weak = np.array([1, 1, 0.05] * 2) * (1e-3 * np.trace(normal) / 6 + 1e-6)
    step = np.linalg.solve(normal + np.diag(weak), pull).reshape(2, 3)
    return step if np.isfinite(step).all() and np.abs(step).max() < 40 else None  # pyright: ignore
