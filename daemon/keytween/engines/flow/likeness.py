"""How much two keyframes have in common, and what the report says of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween.engines.flow.coarse import both, difference
from keytween.engines.flow.fields import fetched, grid, reduced, resized
from keytween.engines.flow.matching import LEAST_SIDE, Motion, edge_strength, led

Array = NDArray[np.float32]
Pair = tuple[Array, Array]

SIDE = 512
"""The longest side at which drawings are compared."""
NEAR = 0.1
"""Colours closer than this, summed over channels, are the same."""
ASIDE = 0.06
"""How far beside its end, as a share of the longest side, a line is looked for, to know what chance finds."""
PLAIN = 0.004
"""A picture whose colours lie closer together than this, summed over channels, shows nothing."""
UNLIKE, HALF = 0.1, 0.5
"""Where less than this share was found again the keyframes fade; less than half, and the note says so."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What two keyframes have in common: `found` is the share of the drawing's lines found again, 0..1.

    `blank` says of each keyframe that it shows nothing, "empty" or "plain", or is "".
    """

    found: float = 0.0
    same: bool = False
    small: bool = False
    blank: tuple[str, str] = ("", "")

    @property
    def unlike(self) -> bool:
        """Whether the keyframes have too little in common for anything to move."""
        return not self.same and self.found < UNLIKE

    def note(self, number: int) -> str:
        """The sentence for the report; `number` is the first keyframe's, counted from 1."""
        both_of = f"{number} and {number + 1}"
        if self.same:
            return f"Keyframes {both_of} are the same."
        if any(self.blank):
            return self._of_blank(number)
        if self.small:
            return f"Keyframes {both_of} are too small to follow a motion, so they fade."
        if self.unlike:
            return f"Keyframes {both_of} have too little in common, so they fade."
        share, rest = f"{100 * self.found:.0f} %", "" if self.found >= HALF else "; the rest fades"
        return f"Between keyframes {both_of}, {share} of the drawing was found again{rest}."

    def _of_blank(self, number: int) -> str:
        first, second = self.blank
        if first and second:
            return f"Keyframes {number} and {number + 1} show nothing that could move, so they fade."
        blank, shown = (number, number + 1) if first else (number + 1, number)
        what = "empty" if "empty" in self.blank else "one plain colour"
        return f"Keyframe {blank} is {what}, so keyframe {shown} fades {'in' if first else 'out'}."


def likeness(looks: Pair, motion: Motion | None) -> Likeness:
    """What two pictures (H, W, 4), as the matcher saw them, have in common under a motion."""
    blank = _blank(looks[0]), _blank(looks[1])
    small = min(looks[0].shape[:2]) < LEAST_SIDE
    found = 0.0 if motion is None or any(blank) else _found(looks, motion)
    return Likeness(found, small=small, blank=blank)


def _blank(picture: Array) -> str:
    if float((picture.max((0, 1)) - picture.min((0, 1))).sum()) >= PLAIN:
        return ""
    return "plain" if picture[..., 3].max() > PLAIN else "empty"


def _found(looks: Pair, motion: Motion) -> float:
    """The share of both drawings' lines that are found again, beyond what chance finds beside them."""
    pair = reduced(looks[0], SIDE), reduced(looks[1], SIDE)
    told = both(lambda i: _told(pair[i], pair[1 - i], _way(motion, i, pair[i].shape[:2])))
    total, there, beside = (np.array(told[0]) + np.array(told[1])).tolist()
    return float(np.clip((there - beside) / max(total - beside, 1e-3 * total, 1e-9), 0, 1))


def _told(own: Array, other: Array, way: Array) -> tuple[float, float, float]:
    """All of a picture's lines, those found at the end of their way, and those found beside that."""
    around = np.ones((3, 3), np.uint8)
    least, most = cv2.erode(other, around), cv2.dilate(other, around)
    lines = edge_strength(own)

    def found(right: float, down: float) -> float:
        places = grid(*way.shape[:2]) + way + np.array([right, down], np.float32)
        nearest = cv2.min(cv2.max(own, fetched(least, places)), fetched(most, places))  # pyright: ignore
        return float(lines[difference(own, nearest) < NEAR].sum())  # pyright: ignore

    step = ASIDE * max(way.shape)
    beside = np.mean([found(*d) for d in ((step, 0), (-step, 0), (0, step), (0, -step))])
    return float(lines.sum()), found(0, 0), float(beside)


def _way(motion: Motion, which: int, size: tuple[int, ...]) -> Array:
    """Where the pixels of one picture go: with their island or their shape, or as was searched."""
    way = led(resized((motion.there, motion.back)[which], *size[:2]), motion.layers, which)
    return way if motion.islands is None else motion.islands.way(which, way)
