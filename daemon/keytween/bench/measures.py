"""How far drawings are from the truth: arithmetic on pixels, and the names the tables call it by; pure.

Pictures are compared as they are seen over middle grey, and where there is a matte, by it as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from keytween.images import Picture
from keytween.report import display

Array = NDArray[np.float32]

PSNR_LIMIT = 60.0
"""Two pictures that are the same count as this many decibels, so that means stay finite."""
NEAR = 2
"""Edges this many pixels apart count as one."""
GREY = np.float32(0.5)
_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)
_WINDOW = 5
"""SSIM's window reaches this many pixels to each side (11 x 11, sigma 1.5)."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure's key in JSON, its heading in tables, what it means, and which way is better."""

    key: str
    heading: str
    about: str
    higher: bool = False
    digits: int = 2


QUALITY = (
    Measure("psnr_mid", "PSNR ½", "decibels at the middle", higher=True, digits=1),
    Measure("psnr", "PSNR", "decibels, mean of 1/4, 1/2 and 3/4", higher=True, digits=1),
    Measure("ssim", "SSIM", "likeness in structure, 1 is the same", higher=True, digits=3),
    Measure("lpips", "LPIPS", "perceptual distance (AlexNet), 0 is the same", digits=3),
    Measure(
        "doubled", "doubled", "edges that the truth does not have within 2 pixels, % of its own", digits=1
    ),
    Measure("missing", "missing", "edges of the truth that are not there within 2 pixels, %", digits=1),
    Measure("end", "end", "root-mean-square difference from the keyframe just beside it, in 1/255"),
    Measure("evenness", "evenness", "spread of the steps against the truth's own steps, 0 is even", digits=3),
    Measure("flicker", "flicker", "changes there and back that the truth does not have, in 1/255", digits=3),
)
SPEED = (
    Measure("first_ms", "first ms", "the first drawing, with matching", digits=0),
    Measure("next_ms", "next ms", "a further drawing of the same pair", digits=0),
)
MEMORY = Measure("memory_mb", "peak MB", "the most memory that a process of its own took", digits=0)
Perceptual = Callable[[Array, Array], float]
"""A distance of two pictures (H, W, 3) in 0..1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as it is compared: `colour` (H, W, 3) over middle grey, its `light` (H, W), its `matte`."""

    colour: Array
    light: Array
    matte: Array | None

    @classmethod
    def of(cls, picture: Picture) -> Seen:
        """What is seen of a picture, in display values 0..1."""
        values = display(picture)
        matte = values[..., 3:]
        colour = np.asarray(values[..., :3] * matte + GREY * (1 - matte), np.float32)
        return cls(
            colour, np.asarray(colour @ _LIGHT, np.float32), matte[..., 0] if picture.has_matte else None
        )


def psnr(made: Seen, truth: Seen) -> float:
    """Peak signal to noise ratio in decibels, of colours and matte together; 60 at most."""
    squares = [np.square(made.colour - truth.colour).mean(axis=2, dtype=np.float64)] * 3
    matte = _matte_difference(made, truth)
    if matte is not None:
        squares.append(np.square(matte).astype(np.float64))
    mean = float(np.mean([float(square.mean()) for square in squares]))
    return min(PSNR_LIMIT, -10 * math.log10(mean)) if mean > 0 else PSNR_LIMIT


def rms(made: Seen, truth: Seen) -> float:
    """The root-mean-square difference in 1/255, of the colours and, where there is one, the matte."""
    squares = [float(np.square(made.colour - truth.colour).mean(dtype=np.float64))] * 3
    matte = _matte_difference(made, truth)
    if matte is not None:
        squares.append(float(np.square(matte).mean(dtype=np.float64)))
    return 255 * math.sqrt(float(np.mean(squares)))


def _matte_difference(made: Seen, truth: Seen) -> Array | None:
    """Where the mattes differ, a missing one being opaque; None where neither has one."""
    if made.matte is None and truth.matte is None:
        return None
    opaque = np.float32(1)
    return np.asarray(
        (opaque if made.matte is None else made.matte) - (opaque if truth.matte is None else truth.matte)
    )


def ssim(made: Seen, truth: Seen) -> float:
    """Structural similarity of the light (Wang et al. 2004, Gaussian window), the mean with the matte's."""
    found = [_ssim(made.light, truth.light)]
    if made.matte is not None and truth.matte is not None:
        found.append(_ssim(made.matte, truth.matte))
    return float(np.mean(found))


def _ssim(first: Array, second: Array) -> float:
    """SSIM of two planes (H, W) in 0..1, without the borders that the window leaves."""
    mean1, mean2 = blurred(first), blurred(second)
    var1 = blurred(first * first) - mean1 * mean1
    var2 = blurred(second * second) - mean2 * mean2
    both = blurred(first * second) - mean1 * mean2
    c1, c2 = np.float32(0.01**2), np.float32(0.03**2)
    above = (2 * mean1 * mean2 + c1) * (2 * both + c2)
    below = (mean1 * mean1 + mean2 * mean2 + c1) * (var1 + var2 + c2)
    return float((above / below).mean(dtype=np.float64))


def blurred(plane: Array) -> Array:
    """The plane under SSIM's window, smaller by its reach on every side (a small plane: padded first)."""
    reach = _WINDOW
    if min(plane.shape) <= 2 * reach:
        plane = np.pad(plane, reach, mode="edge")
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-(steps**2) / (2 * 1.5**2))
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = plane.shape
    rows = np.zeros((height - 2 * reach, width), np.float32)
    for k, weight in enumerate(weights):
        rows += weight * plane[k : height - 2 * reach + k]
    blurred = np.zeros((height - 2 * reach, width - 2 * reach), np.float32)
    for k, weight in enumerate(weights):
        blurred += weight * rows[:, k : width - 2 * reach + k]
    return blurred


def difference(made: Picture, truth: Picture) -> Picture:
    """Where two pictures differ, brighter than it is so that it is seen: black is the same."""
    seen = np.abs(Seen.of(made).colour - Seen.of(truth).colour) * 3
    return Picture(np.round(np.minimum(seen, 1) * 255).astype(np.uint8))


# ---- edges


def edges(light: Array) -> Array:
    """How strong the edge is at each pixel of a plane (H, W): the length of Sobel's gradient."""
    padded = np.pad(light, 1, mode="edge")
    along = padded[:, 2:] - padded[:, :-2]
    down = padded[2:] - padded[:-2]
    x = (along[:-2] + 2 * along[1:-1] + along[2:]) / 4
    y = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    return np.hypot(x, y).astype(np.float32)


def most_nearby(plane: Array, reach: int = NEAR) -> Array:
    """The largest value within `reach` pixels of each pixel, in a square."""
    padded = np.pad(plane, reach, mode="edge")
    height, width = plane.shape
    rows = np.maximum.reduce([padded[k : k + height] for k in range(2 * reach + 1)])
    return np.asarray(np.maximum.reduce([rows[:, k : k + width] for k in range(2 * reach + 1)]))


def edge_faults(made: Seen, truth: Seen) -> tuple[float, float]:
    """Doubled and missing edges, in % of all the edges of the truth.

    Doubled: how much stronger edges are than the truth's strongest within 2 pixels. Missing: how much
    stronger the truth's are than ours within 2 pixels. A cross-fade shows a line twice at half strength.
    """
    ours, theirs = edges(made.light), edges(truth.light)
    total = float(theirs.sum(dtype=np.float64))
    if total == 0:
        return (0.0, 0.0) if not ours.any() else (100.0, 0.0)
    doubled = np.maximum(ours - most_nearby(theirs), 0).sum(dtype=np.float64)
    missing = np.maximum(theirs - most_nearby(ours), 0).sum(dtype=np.float64)
    return 100 * float(doubled) / total, 100 * float(missing) / total


# ---- several drawings of one scene


def unevenness(made: Sequence[Array], truth: Sequence[Array]) -> float | None:
    """How unevenly neighbours follow each other: standard deviation / mean of the steps.

    Both are planes of light (H, W) in order. A step is the mean difference of two neighbours as a share of
    the truth's own step there, so that a pace that the truth has as well does not count. None where the
    truth or what was made stands still.
    """
    shares = []
    for (a, b), (c, d) in zip(pairwise(made), pairwise(truth), strict=True):
        own = float(np.abs(c - d).mean(dtype=np.float64))
        if own > 0:
            shares.append(float(np.abs(a - b).mean(dtype=np.float64)) / own)
    mean = float(np.mean(shares)) if shares else 0.0
    return float(np.std(shares)) / mean if mean > 0 else None


def flicker(made: Sequence[Array], truth: Sequence[Array]) -> float | None:
    """The mean change there and back over three neighbours, beyond what the truth has within 2 pixels.

    Both are planes of light (H, W) in order; the figure is in 1/255, None for fewer than three.
    """
    found = [
        float(np.maximum(_back(*ours) - most_nearby(_back(*theirs)), 0).mean(dtype=np.float64))
        for ours, theirs in zip(_threes(made), _threes(truth), strict=True)
    ]
    return 255 * float(np.mean(found)) if found else None


def _threes(planes: Sequence[Array]) -> list[tuple[Array, Array, Array]]:
    return list(zip(planes, planes[1:], planes[2:], strict=False))


def _back(before: Array, here: Array, after: Array) -> Array:
    """How far a value goes and comes back; 0 where it goes on."""
    there, then = here - before, after - here
    return np.where(there * then < 0, np.minimum(np.abs(there), np.abs(then)), np.float32(0))


# ---- all of it


@dataclass(frozen=True, slots=True)
class Drawn:
    """A scene as drawn and as it should be: pictures by position; `compared` are those to be measured.

    The truth holds both keyframes, at 0 and 1. Where something was made without a truth, just beside a
    keyframe, it is compared with that keyframe.
    """

    made: Mapping[float, Picture]
    truth: Mapping[float, Picture]
    compared: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The compared position that is nearest to a half."""
        return min(self.compared, key=lambda position: abs(position - 0.5))


def quality(drawn: Drawn, *, perceptual: Perceptual | None = None) -> dict[str, float | None]:
    """Every measure of QUALITY by its key; None for what could not be measured."""
    single: dict[float, dict[str, float]] = {}
    ours: list[Array] = []
    theirs: list[Array] = []
    # One pair after the other: at 4K the colours of all of them would not fit into memory.
    for position in sorted(drawn.truth):
        truth = Seen.of(drawn.truth[position])
        made = truth if position in (0, 1) else Seen.of(drawn.made[position])
        ours.append(made.light)
        theirs.append(truth.light)
        if position in drawn.compared:
            single[position] = _single(made, truth, perceptual)
    keys = next(iter(single.values()))
    means = {key: float(np.mean([figures[key] for figures in single.values()])) for key in keys}
    beside = [position for position in drawn.made if position not in drawn.truth]
    ends = [rms(Seen.of(drawn.made[p]), Seen.of(drawn.truth[float(round(p))])) for p in beside]
    return {
        **dict.fromkeys(measure.key for measure in QUALITY),
        **means,
        "psnr_mid": single[drawn.middle]["psnr"],
        "end": max(ends, default=None),
        "evenness": unevenness(ours, theirs),
        "flicker": flicker(ours, theirs),
    }


def _single(made: Seen, truth: Seen, perceptual: Perceptual | None) -> dict[str, float]:
    """The measures of one drawing."""
    doubled, missing = edge_faults(made, truth)
    found = {"psnr": psnr(made, truth), "ssim": ssim(made, truth), "doubled": doubled, "missing": missing}
    return {**found, "lpips": perceptual(made.colour, truth.colour)} if perceptual else found
