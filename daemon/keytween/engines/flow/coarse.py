"""Finds large displacements: every one is tried on small pictures, and neighbours agree on the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Result = TypeVar("Result")

REACH = 0.18
"""The longest displacement that is found, as a share of the longest side."""
FAR = 0.6
"""Colours further apart than this, summed over channels, are just different."""
BEND, BREAK, BREAK_AT_EDGE = 0.02, 0.25, 6.0
"""What it costs neighbours to move by one step differently, or quite differently; less across an edge."""
REST = 0.002
"""What each pixel of displacement costs: where nothing tells, nothing moves."""
SOFT = 0.015
"""How much dearer a displacement must be to drop out of the average."""
PULLS = (0.0, 0.0004, 0.001, 0.002, 0.004, 0.008, 0.012)
"""How strongly each round pulls displacements towards their surroundings' average."""
COLOURS = 8


def coarse_motion(first: Array, second: Array, colours: Array) -> Array:
    """The displacement (h, w, 2), in pixels, that takes each pixel of `first` (h, w, C) to `second`."""
    reach = max(1, math.ceil(REACH * max(first.shape[:2])))
    costs = _agreed(_costs(first, second, reach), first)
    span = np.arange(-reach, reach + 1, dtype=np.float32)
    moves = np.stack(np.meshgrid(span, span), axis=-1).reshape(-1, 2)
    return _settled(costs.reshape(len(moves), -1), moves, membership(first, colours))


def difference(first: Array, second: Array) -> Array:
    """How far two pictures' colours are apart, (H, W), from 0 to FAR."""
    ones = np.ones((1, first.shape[2]), np.float32)
    return cv2.min(cv2.transform(cv2.absdiff(first, second), ones), FAR)  # pyright: ignore


def blurred(pixels: Array, sigma: float) -> Array:
    """A Gaussian blur that ends at the picture's edge."""
    return cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)  # pyright: ignore


def chief_colours(first: Array, second: Array, *, most: int = COLOURS) -> Array:
    """The few colours (k, C) that differ most from each other; the same pictures give the same ones."""
    pixels = np.concatenate([first.reshape(-1, first.shape[2]), second.reshape(-1, first.shape[2])])
    chosen = [np.median(pixels, axis=0)]
    distance = np.square(pixels - chosen[0]).sum(1)
    while len(chosen) < most and distance.max() > 0.01:
        chosen.append(pixels[distance.argmax()])
        distance = np.minimum(distance, np.square(pixels - chosen[-1]).sum(1))
    return np.stack(chosen).astype(np.float32)


def membership(picture: Array, colours: Array) -> Array:
    """How much each pixel belongs to each colour: (h, w, k) in 0..1."""
    flat = picture.reshape(-1, picture.shape[2])
    # Squares of differences but for each pixel's own square, which takes no part in the comparison.
    distance = np.square(colours).sum(1) - 2 * flat @ colours.T
    near = np.exp((distance.min(1, keepdims=True) - distance) / np.float32(0.013))
    near /= near.sum(1, keepdims=True)
    return near.reshape(*picture.shape[:2], len(colours))


def nearest_colour(picture: Array, colours: Array) -> NDArray[np.intp]:
    """Which of the colours each pixel is most like, (h, w)."""
    distance = np.square(colours).sum(1) - 2 * picture.reshape(-1, picture.shape[2]) @ colours.T
    return distance.argmin(1).reshape(picture.shape[:2])


def both(work: Callable[[int], Result]) -> tuple[Result, Result]:
    """What the work gives for either picture, 0 and 1, done at once: most of it leaves the interpreter."""
    with ThreadPoolExecutor(1) as other:
        second = other.submit(work, 1)
        return work(0), second.result()


def smoothed(
    motion: Array, weight: Array, sigma: float, *, groups: Array | None = None, rest: float
) -> Array:
    """The surroundings' average motion, weighted; within colour `groups`, so that shapes stay apart.

    `rest` is the weight of not moving: it decides where no weight is near.
    """
    stacked = np.dstack([motion * weight[..., None], weight])
    if groups is None:
        total = blurred(stacked, sigma)
    else:
        total = np.zeros_like(stacked)
        for share in np.split(groups, groups.shape[2], axis=2):
            total += blurred(stacked * share, sigma) * share
    return np.asarray(total[..., :2] / (total[..., 2:] + np.float32(rest)), np.float32)


def _costs(first: Array, second: Array, reach: int) -> Array:
    """What each displacement costs each pixel: (2 reach + 1, 2 reach + 1, h, w), rows first."""
    height, width = first.shape[:2]
    padded = cv2.copyMakeBorder(second, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    steps = range(2 * reach + 1)
    costs = np.empty((len(steps), len(steps), height, width), np.float32)
    for down in steps:
        for right in steps:
            there = padded[down : down + height, right : right + width]
            away = math.hypot(down - reach, right - reach)
            costs[down, right] = blurred(difference(first, there), 1.2) + np.float32(REST * away)  # pyright: ignore
    return costs


def _agreed(costs: Array, picture: Array) -> Array:
    """The costs after neighbours along rows and columns have had their say (semi-global matching)."""
    rows = np.ascontiguousarray(costs.transpose(2, 0, 1, 3))
    total = _both_ways(rows, picture).transpose(1, 2, 0, 3)
    columns = np.ascontiguousarray(costs.transpose(3, 0, 1, 2))
    total = total + _both_ways(columns, picture.transpose(1, 0, 2)).transpose(1, 2, 3, 0)
    return total * np.float32(0.25)


def _both_ways(lines: Array, picture: Array) -> Array:
    step = np.zeros(picture.shape[:2], np.float32)
    step[1:] = np.abs(np.diff(picture, axis=0)).sum(2)
    there = BEND + BREAK / (1 + BREAK_AT_EDGE * step)
    back = np.concatenate([there[:1], there[:0:-1]])
    return _sweep(lines, there) + _sweep(lines[::-1], back)[::-1]


def _sweep(lines: Array, leap: Array) -> Array:
    """Costs (lines, n, n, m) with the cheapest way to have come from the line before."""
    out = np.empty_like(lines)
    out[0] = lines[0]
    for i in range(1, len(lines)):
        before = out[i - 1]
        low = before.min((0, 1))
        way = np.minimum(before, _beside(before) + np.float32(BEND))
        np.minimum(way, low + leap[i], out=way)
        out[i] = way - low + lines[i]
    return out


def _beside(costs: Array) -> Array:
    """The least cost within one step of each displacement."""
    tall = costs.copy()
    np.minimum(tall[1:], costs[:-1], out=tall[1:])
    np.minimum(tall[:-1], costs[1:], out=tall[:-1])
    wide = tall.copy()
    np.minimum(wide[:, 1:], tall[:, :-1], out=wide[:, 1:])
    np.minimum(wide[:, :-1], tall[:, 1:], out=wide[:, :-1])
    return wide


def _settled(costs: Array, moves: Array, groups: Array) -> Array:
    """Sub-pixel displacements: soft averages over `moves` that are pulled towards their surroundings."""
    height, width = groups.shape[:2]
    squares = np.square(moves).sum(1)
    around = np.zeros((height * width, 2), np.float32)
    average = around
    for turn, pull in enumerate(PULLS):
        energy = costs + np.float32(pull) * (squares[:, None] - 2 * moves @ around.T)
        share = np.exp((energy.min(0) - energy) / np.float32(SOFT))
        share /= share.sum(0)
        average = share.T @ moves
        spread = np.maximum(share.T @ squares - np.square(average).sum(1), 0)
        weight = (1 / np.square(spread + 0.3)).reshape(height, width)
        sigma = max(1.5, 5 * 0.75**turn)
        field = smoothed(average.reshape(height, width, 2), weight, sigma, groups=groups, rest=3e-4)
        around = field.reshape(-1, 2)
    return average.reshape(height, width, 2)
