"""A sheet to draw flat shapes with outlines on: smooth edges, a matte, places to fractions of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]

FINER = 4
"""Shapes are drawn on a sheet this many times as large, and its blocks are averaged."""
_SHIFT = 6
INK: Colour = (0.2, 0.15, 0.23)


@dataclass(frozen=True)
class Place:
    """Puts local points on the sheet: scaled, turned by `turn` degrees (clockwise as seen), then moved."""

    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0
    wide: float = 1.0
    tall: float = 1.0

    def __call__(self, points: Points) -> Points:
        """The points (N, 2) on the sheet."""
        angle = math.radians(self.turn)
        cos, sin = math.cos(angle), math.sin(angle)
        scaled = np.asarray(points, np.float64) * (self.wide, self.tall)
        return scaled @ np.array([[cos, sin], [-sin, cos]]) + (self.x, self.y)

    def back(self, points: Points) -> Points:
        """Which local points lie at these (N, 2) on the sheet."""
        angle = math.radians(self.turn)
        cos, sin = math.cos(angle), math.sin(angle)
        moved = np.asarray(points, np.float64) - (self.x, self.y)
        return moved @ np.array([[cos, -sin], [sin, cos]]) / (self.wide, self.tall)


class Canvas:
    """A sheet of (height, width) pixels; places are pixels from its top left corner, colours sRGB in 0..1.

    Without `paper` the sheet is clear, and the picture has a matte.
    """

    def __init__(self, width: int, height: int, *, paper: Colour | None = None) -> None:
        self.width, self.height = width, height
        self._sheet = np.zeros((height * FINER, width * FINER, 4), np.uint8)
        if paper is not None:
            self._sheet.view(np.uint32)[:] = np.array(_opaque(paper), np.uint8).view(np.uint32)

    def fill(self, points: Points, colour: Colour, *, line: float = 0.0, ink: Colour = INK) -> None:
        """A filled shape (N, 2), with an outline that is `line` pixels wide; 0 leaves it out."""
        cv2.fillPoly(self._sheet, [_fixed(points)], _opaque(colour), cv2.LINE_8, _SHIFT)
        if line > 0:
            self.stroke(points, ink, line=line, closed=True)

    def stroke(
        self, points: Points, colour: Colour = INK, *, line: float = 2.0, closed: bool = False
    ) -> None:
        """A line through the points (N, 2), `line` pixels wide, with round ends and joints."""
        width = max(1, round(line * FINER))
        cv2.polylines(self._sheet, [_fixed(points)], closed, _opaque(colour), width, cv2.LINE_8, _SHIFT)

    def picture(self) -> Array:
        """What was drawn: (height, width, 4) in 0..1, straight matte; clear pixels are black."""
        large = self._sheet.astype(np.float32)
        small = cv2.resize(large, (self.width, self.height), interpolation=cv2.INTER_AREA)
        packed = np.asarray(small) / np.float32(255)
        matte = packed[..., 3:]
        np.divide(packed[..., :3], matte, out=packed[..., :3], where=matte > 0)
        return packed


def ellipse(x: float, y: float, wide: float, tall: float, *, turn: float = 0.0) -> Points:
    """The outline of an ellipse with radii `wide` and `tall` around (x, y)."""
    return arc(x, y, wide, tall, 0, 360, turn=turn)[:-1]


def arc(
    x: float, y: float, wide: float, tall: float, start: float, stop: float, *, turn: float = 0.0
) -> Points:
    """A part of an ellipse, from `start` to `stop` degrees; 0 is right, 90 is down."""
    angles = np.radians(np.linspace(start, stop, 65))
    return Place(x, y, turn)(np.stack([wide * np.cos(angles), tall * np.sin(angles)], axis=1))


def box(x: float, y: float, wide: float, tall: float, *, turn: float = 0.0) -> Points:
    """The corners of a box with half sides `wide` and `tall` around (x, y)."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    return Place(x, y, turn, wide, tall)(corners)


def star(
    x: float, y: float, radius: float, *, points: int = 5, inner: float = 0.45, turn: float = 0.0
) -> Points:
    """A star whose inner corners are at `inner` of its radius; it points up at turn 0."""
    angles = np.radians(turn - 90) + np.arange(2 * points) * np.pi / points
    reach = np.where(np.arange(2 * points) % 2, inner * radius, radius)
    return np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)


def limb(start: Sequence[float], stop: Sequence[float], thick: float, thin: float | None = None) -> Points:
    """A rounded limb between two joints: radius `thick` at the first and `thin` at the second."""
    end = thick if thin is None else thin
    along = math.degrees(math.atan2(stop[1] - start[1], stop[0] - start[0]))
    first = arc(start[0], start[1], thick, thick, along + 90, along + 270)
    return np.concatenate([first, arc(stop[0], stop[1], end, end, along - 90, along + 90)])


def smooth(points: Points, *, closed: bool = True, fineness: int = 8) -> Points:
    """A curve through the points (N, 2): Catmull-Rom, `fineness` steps from one to the next."""
    knots = np.asarray(points, np.float64)
    around = np.roll(knots, 1, 0), knots, np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    if not closed:
        ends = np.concatenate([knots[:1], knots, knots[-1:]])
        around = ends[:-3], ends[1:-2], ends[2:-1], ends[3:]
    p0, p1, p2, p3 = (p[:, None, :] for p in around)
    t = (np.arange(fineness) / fineness)[None, :, None]
    curve = p1 + t * ((p2 - p0) + t * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + t * (3 * (p1 - p2) + p3 - p0))) / 2
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def _fixed(points: Points) -> NDArray[np.int32]:
    """Points as cv2 wants them: whole numbers that count fractions of the large sheet's pixels."""
    large = np.asarray(points, np.float64) * FINER - 0.5
    return np.round(large * (1 << _SHIFT)).astype(np.int32)


def _opaque(colour: Colour) -> tuple[float, float, float, float]:
    red, green, blue = (round(255 * c) for c in colour)
    return red, green, blue, 255
