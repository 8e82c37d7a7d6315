"""What is said of a morph from keyframe to keyframe: how far, how evenly, how sharp; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev, pvariance
from typing import Any

import numpy as np

from keytween.bench.measures import Array, Measure, Seen, blurred, edges, psnr, rms, ssim
from keytween.images import Picture

_SHARES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""What each scale weighs in MS-SSIM, finest first (Wang et al. 2003)."""
_LEAST = 11
"""The side in pixels of SSIM's window: a scale must be as large."""
PAPER_SCALE = 256
CAVEAT = (
    "The paper calls PPL a sum of LPIPS steps in sequences of 17 and PDV their variance, but its figures do "
    "not fit that: they fit the mean and the variance of steps times 256, which is what is given here and "
    "what nobody has confirmed. Only LPIPS over 17 drawings may be held against the paper's table at all. "
    "FID needs an Inception network's weights and is not computed here."
)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A distance of pictures: its name, in full and for headings, and what it is in two steps.

    `keep` gives what is kept of a picture, `apart` how far apart two of those are; 0 is the same. `weights`
    names the network's, where there is one.
    """

    name: str
    short: str
    keep: Callable[[Picture], Any]
    apart: Callable[[Any, Any], float]
    weights: str = ""


def plain() -> Gauge:
    """The distance for a machine without a network: 1 - MS-SSIM."""
    return Gauge("1 - MS-SSIM", "MS-SSIM", Seen.of, lambda first, second: 1 - ms_ssim(first, second))


def measures(gauge: Gauge) -> tuple[Measure, ...]:
    """Every measure in the order of the tables; those by `gauge` have its name in their heading."""
    by, name = gauge.short, gauge.name
    return (
        Measure("sharpness", "sharpness", _SHARPNESS, higher=True, digits=3),
        Measure("path", f"path ({by})", f"sum of the steps, by {name}", digits=3),
        Measure(
            "evenness", f"evenness ({by})", f"standard deviation / mean of the steps, by {name}", digits=3
        ),
        Measure("evenness_rms", "evenness (RMS)", "the same, by root-mean-square difference", digits=3),
        Measure("evenness_ssim", "evenness (SSIM)", "the same, by 1 - SSIM", digits=3),
        Measure(
            "truth", f"truth ({by})", f"mean distance of the in-betweens from the truth, by {name}", digits=3
        ),
        Measure("truth_psnr", "truth (PSNR)", "the same in decibels", higher=True, digits=1),
        Measure(
            "truth_ms_ssim",
            "truth (MS-SSIM)",
            "likeness with the truth, 1 is the same",
            higher=True,
            digits=3,
        ),
        Measure(
            "inputs", f"inputs ({by})", f"mean distance of each from the nearer keyframe, by {name}", digits=3
        ),
        Measure("end", "end (RMS)", "root-mean-square difference of both ends from the keyframes, in 1/255"),
        Measure("end_apart", f"end ({by})", f"the same, by {name}", digits=3),
        Measure("seconds", "seconds", "for all drawings, nothing studied before", digits=1),
        Measure("again", "seconds again", "with the keyframes studied already", digits=1),
    )


_SHARPNESS = "mean gradient energy of the in-betweens, of that of the keyframes: 1 is as sharp"


@dataclass(frozen=True, slots=True)
class Drawings:
    """A morph's drawings in order, both ends included as they were drawn, the keyframes, and the truth.

    `truth` holds a picture for each drawing, None where nobody knows it.
    """

    made: Sequence[Picture]
    keyframes: tuple[Picture, Picture]
    truth: Sequence[Picture | None]


def measured(
    drawings: Drawings, gauge: Gauge
) -> tuple[dict[str, float | None], dict[str, tuple[float, ...]]]:
    """Every measure that pictures can tell, by its key, and the steps by each distance."""
    seen = [Seen.of(picture) for picture in drawings.made]
    kept = [gauge.keep(picture) for picture in drawings.made]
    ends = [Seen.of(picture) for picture in drawings.keyframes]
    kept_ends = [gauge.keep(picture) for picture in drawings.keyframes]
    steps = {
        "steps": tuple(gauge.apart(a, b) for a, b in pairwise(kept)),
        "steps_rms": tuple(rms(a, b) for a, b in pairwise(seen)),
        "steps_ssim": tuple(1 - ssim(a, b) for a, b in pairwise(seen)),
    }
    nearer = [min(gauge.apart(own, end) for end in kept_ends) for own in kept[1:-1]]
    figures: dict[str, float | None] = {
        "sharpness": sharpness([s.light for s in seen[1:-1]], [s.light for s in ends]),
        "path": sum(steps["steps"]),
        "evenness": evenness(steps["steps"]),
        "evenness_rms": evenness(steps["steps_rms"]),
        "evenness_ssim": evenness(steps["steps_ssim"]),
        "inputs": fmean(nearer),
        "end": fmean(rms(seen[i], ends[i]) for i in (0, -1)),
        "end_apart": fmean(gauge.apart(kept[i], kept_ends[i]) for i in (0, -1)),
    }
    return figures | _from_truth(drawings, gauge, seen, kept), steps


def _from_truth(
    drawings: Drawings, gauge: Gauge, seen: Sequence[Seen], kept: Sequence[Any]
) -> dict[str, float | None]:
    """The means over the in-betweens whose truth is known; None where it nowhere is."""
    known = [(i, true) for i, true in enumerate(drawings.truth[1:-1], 1) if true is not None]
    if not known:
        return dict.fromkeys(("truth", "truth_psnr", "truth_ms_ssim"))
    shown = [(seen[i], Seen.of(true)) for i, true in known]
    return {
        "truth": fmean(gauge.apart(kept[i], gauge.keep(true)) for i, true in known),
        "truth_psnr": fmean(psnr(*both) for both in shown),
        "truth_ms_ssim": fmean(ms_ssim(*both) for both in shown),
    }


def evenness(steps: Sequence[float]) -> float | None:
    """Standard deviation over mean of the steps: 0 is perfectly even; None where nothing moves."""
    mean = fmean(steps)
    return pstdev(steps) / mean if mean > 0 else None


def sharpness(made: Sequence[Array], ends: Sequence[Array]) -> float | None:
    """The mean gradient energy of planes of light (H, W), as a share of that of the ends.

    Energy is the square of the gradient: a cross-fade, which shows each line twice at half its strength,
    has half of it.
    """
    own, theirs = (fmean(energy(plane) for plane in planes) for planes in (made, ends))
    return own / theirs if theirs > 0 else None


def energy(light: Array) -> float:
    """The mean square of the gradient of a plane (H, W)."""
    return float(np.square(edges(light)).mean(dtype=np.float64))


def ms_ssim(made: Seen, truth: Seen) -> float:
    """Multi-scale structural similarity of the light (Wang et al. 2003), over the scales that have room."""
    first, second = made.light, truth.light
    scales = max(1, min(len(_SHARES), int(math.log2(max(1, min(first.shape) / _LEAST))) + 1))
    total, found = sum(_SHARES[:scales]), 1.0
    for scale, share in enumerate(_SHARES[:scales], 1):
        light, structure = _likeness(first, second)
        # Below 0 two scales have nothing in common, and a root of it is no number.
        found *= max(0.0, structure * light if scale == scales else structure) ** (share / total)
        first, second = _half(first), _half(second)
    return found


def _likeness(first: Array, second: Array) -> tuple[float, float]:
    """How alike two planes are in their means, and in contrast and structure."""
    mean1, mean2 = blurred(first), blurred(second)
    var1 = blurred(first * first) - mean1 * mean1
    var2 = blurred(second * second) - mean2 * mean2
    both = blurred(first * second) - mean1 * mean2
    light = (2 * mean1 * mean2 + 1e-4) / (mean1 * mean1 + mean2 * mean2 + 1e-4)
    structure = (2 * both + 9e-4) / (var1 + var2 + 9e-4)
    return float(light.mean(dtype=np.float64)), float(structure.mean(dtype=np.float64))


def _half(plane: Array) -> Array:
    """The plane at half its size, each pixel the mean of four."""
    height, width = (side // 2 * 2 for side in plane.shape)
    if not height or not width:
        return plane
    return plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)


def paper_forms(steps: Sequence[float]) -> tuple[float, float]:
    """PPL and PDV of a sequence's steps in the form that the paper's figures fit; see CAVEAT."""
    scaled = [PAPER_SCALE * step for step in steps]
    return fmean(scaled), pvariance(scaled)


def course(steps: Sequence[float]) -> tuple[float, ...]:
    """How much of the way is behind each drawing, 0 to 1; evenly where nothing moves."""
    total = sum(steps)
    if total <= 0:
        return tuple(i / len(steps) for i in range(len(steps) + 1))
    behind = np.cumsum((0.0, *steps)) / total
    return tuple(float(value) for value in behind)
