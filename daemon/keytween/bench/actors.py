"""What the scenes show: a bird, a figure, a face, a town, drawn with a pen in any place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keytween.toon.canvas import INK, Canvas, Colour, Place, Points, arc, box, ellipse, limb, smooth

RED: Colour = (0.83, 0.27, 0.22)
ORANGE: Colour = (0.95, 0.62, 0.23)
CREAM: Colour = (0.97, 0.92, 0.80)
TEAL: Colour = (0.20, 0.55, 0.58)
BLUE: Colour = (0.27, 0.42, 0.72)
GREEN: Colour = (0.45, 0.66, 0.36)
SKIN: Colour = (0.93, 0.73, 0.58)
BROWN: Colour = (0.43, 0.28, 0.20)
WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas, in units of the frame's width, through a place.

    With `filled` False it draws as on white paper: lines, and no colour.
    """

    canvas: Canvas
    at: Callable[[Points], Points]
    line: float
    filled: bool = True

    def fill(self, points: Points, colour: Colour, *, line: bool = True) -> None:
        """A shape with its outline; with `line` False without one."""
        self.canvas.fill(self.at(points), colour if self.filled else WHITE, line=self.line if line else 0)

    def stroke(self, points: Points, *, share: float = 1.0) -> None:
        """An open line in ink, `share` times as wide as an outline."""
        self.canvas.stroke(self.at(points), INK, line=self.line * share)

    def inside(self, place: Place) -> Pen:
        """The same pen, drawing in a place of this pen's own."""
        return Pen(self.canvas, lambda points: self.at(place(points)), self.line * _grows(place), self.filled)


def pen(canvas: Canvas, place: Place | None = None, *, filled: bool = True, line: float = 0.007) -> Pen:
    """A pen whose unit is the canvas's width, its origin the top left corner or where `place` says."""
    scale = float(canvas.width)
    inner = place or Place()
    return Pen(canvas, lambda points: inner(points) * scale, line * scale * _grows(inner), filled)


def _grows(place: Place) -> float:
    """How much wider a line is in a place: lines grow with what they surround."""
    return math.sqrt(abs(place.wide * place.tall))


# ---- a bird: asymmetrical, a fifth of the frame in radius

_BODY = [
    (-0.15, 0.01),
    (-0.09, -0.09),
    (0.02, -0.12),
    (0.12, -0.06),
    (0.15, 0.04),
    (0.07, 0.13),
    (-0.07, 0.12),
]
_TAIL = [(-0.11, 0.02), (-0.21, -0.07), (-0.23, 0.0), (-0.19, 0.02), (-0.22, 0.07), (-0.12, 0.09)]
_WING = [(-0.07, 0.0), (0.01, -0.05), (0.06, 0.02), (0.03, 0.08), (-0.04, 0.09), (-0.1, 0.06)]


def bird(draw: Pen) -> None:
    """A bird around the origin."""
    draw.fill(np.array(_TAIL), TEAL)
    for x in (-0.01, 0.06):
        draw.stroke(np.array([(x, 0.11), (x, 0.18), (x + 0.04, 0.18)]), share=1.5)
    draw.fill(smooth(np.array(_BODY)), RED)
    draw.fill(np.array([(0.15, -0.12), (0.23, -0.09), (0.155, -0.06)]), ORANGE)
    draw.fill(ellipse(0.1, -0.1, 0.075, 0.07), RED)
    draw.fill(ellipse(0.125, -0.11, 0.025, 0.03), WHITE)
    draw.stroke(np.array([(0.131, -0.107), (0.132, -0.106)]), share=2.5)
    draw.fill(smooth(np.array([(0.03, 0.04), (0.1, -0.01), (0.125, 0.05), (0.07, 0.11)])), CREAM, line=False)
    draw.fill(smooth(np.array(_WING)), BLUE)
    draw.stroke(np.array([(-0.06, 0.045), (0.0, 0.05), (0.03, 0.04)]))


# ---- a figure with joints


@dataclass(frozen=True)
class Pose:
    """A figure's angles in degrees, 0 hanging down, positive forward; its nearer and its farther limbs.

    An arm and a leg are two angles each: at the shoulder or hip, and how far the elbow or knee bends.
    """

    near_arm: tuple[float, float] = (20, 10)
    far_arm: tuple[float, float] = (-20, 10)
    near_leg: tuple[float, float] = (-12, -5)
    far_leg: tuple[float, float] = (12, -5)
    lift: float = 0.0

    def towards(self, other: Pose, position: float) -> Pose:
        """The pose at a position on the way to another: angles linear."""

        def pair(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
            return (a[0] + (b[0] - a[0]) * position, a[1] + (b[1] - a[1]) * position)

        return Pose(
            pair(self.near_arm, other.near_arm),
            pair(self.far_arm, other.far_arm),
            pair(self.near_leg, other.near_leg),
            pair(self.far_leg, other.far_leg),
            self.lift + (other.lift - self.lift) * position,
        )


def figure(draw: Pen, pose: Pose) -> None:
    """A figure seen from the side, walking right; the hips are at the origin and 0.7 is its height."""
    draw = draw.inside(Place(0, -pose.lift))
    shoulder, hip = (0.005, -0.19), (0.0, 0.0)
    _bent(draw, shoulder, pose.far_arm, (0.115, 0.1, 0.03), ((0.55, 0.16, 0.15), SKIN))
    _bent(draw, hip, pose.far_leg, (0.15, 0.15, 0.04), ((0.19, 0.29, 0.5), (0.19, 0.29, 0.5)), foot=True)
    _bent(draw, hip, pose.near_leg, (0.15, 0.15, 0.042), (BLUE, BLUE), foot=True)
    draw.fill(limb((0.0, -0.01), (0.01, -0.19), 0.06, 0.065), RED)
    draw.fill(ellipse(0.03, -0.33, 0.075, 0.085), SKIN)
    draw.fill(np.array([(0.1, -0.345), (0.13, -0.315), (0.098, -0.305)]), SKIN)
    hair = [
        (0.09, -0.39),
        (0.03, -0.43),
        (-0.05, -0.39),
        (-0.06, -0.3),
        (-0.02, -0.29),
        (0.0, -0.36),
        (0.06, -0.37),
    ]
    draw.fill(smooth(np.array(hair)), BROWN)
    draw.stroke(np.array([(0.07, -0.34), (0.07, -0.33)]), share=2.2)
    draw.stroke(arc(0.075, -0.285, 0.025, 0.015, 20, 150))
    _bent(draw, shoulder, pose.near_arm, (0.115, 0.1, 0.032), (RED, SKIN))


def _bent(
    draw: Pen,
    start: tuple[float, float],
    angles: tuple[float, float],
    measures: tuple[float, float, float],
    colours: Sequence[Colour],
    *,
    foot: bool = False,
) -> None:
    """An arm or leg of two parts from a joint; measures are both lengths and the thickness."""
    first, second, thick = measures
    knee = _reach(start, angles[0], first)
    end = _reach(knee, angles[0] + angles[1], second)
    draw.fill(limb(knee, end, thick * 0.85, thick * 0.65), colours[1])
    if foot:
        draw.fill(Place(*end, -angles[0] - angles[1])(ellipse(0.03, 0.012, 0.055, 0.026)), BROWN)
    draw.fill(limb(start, knee, thick, thick * 0.85), colours[0])


def _reach(start: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
    """Where a limb ends that leaves a joint at an angle: 0 down, 90 right."""
    return (
        start[0] + length * math.sin(math.radians(angle)),
        start[1] + length * math.cos(math.radians(angle)),
    )


# ---- a face that turns


def face(draw: Pen, turn: float) -> None:
    """A head around the origin, turned by `turn` degrees to the right; its features lie on a ball."""
    draw.fill(ellipse(0, 0.0, 0.27, 0.31), BROWN)
    draw.fill(limb((0, 0.2), (0, 0.4), 0.08), SKIN)
    for side in (-100, 100):
        x, seen = _on_ball(side + turn, 0.25)
        if seen > -0.5:
            draw.fill(ellipse(x, 0.03, 0.035, 0.06), SKIN)
    draw.fill(ellipse(0, 0.04, 0.24, 0.27), SKIN)
    for side in (-32, 32):
        x, seen = _on_ball(side + turn, 0.22)
        draw.fill(ellipse(x, -0.01, 0.055 * seen, 0.045), WHITE)
        pupil, _ = _on_ball(side + turn * 1.15, 0.22)
        draw.fill(ellipse(pupil, -0.01, 0.022 * seen, 0.03), INK, line=False)
        brow = arc(x, -0.06, 0.06 * seen, 0.03, 200, 340)
        draw.stroke(brow, share=1.8)
        cheek, _ = _on_ball(side * 1.35 + turn, 0.22)
        draw.fill(ellipse(cheek, 0.1, 0.04 * seen, 0.03), (0.93, 0.58, 0.5), line=False)
    nose, _ = _on_ball(turn, 0.27)
    root, _ = _on_ball(turn, 0.22)
    draw.stroke(np.array([(root, 0.0), (nose, 0.085), (root, 0.095)]))
    mouth, seen = _on_ball(turn, 0.22)
    draw.fill(arc(mouth, 0.16, 0.075 * seen, 0.055, 0, 180), RED)
    _fringe(draw, turn)


def _on_ball(degrees: float, radius: float) -> tuple[float, float]:
    """How far right a spot on a turning ball is seen, and how much of its width."""
    return radius * math.sin(math.radians(degrees)), math.cos(math.radians(degrees))


def _fringe(draw: Pen, turn: float) -> None:
    """The hair over the forehead: tips go round with the head."""
    tips = [
        (_on_ball(at + turn, 0.24)[0], -0.09 - 0.05 * (n % 2)) for n, at in enumerate((-70, -35, 0, 35, 70))
    ]
    rim = [tuple(p) for p in arc(0, 0.0, 0.27, 0.31, 200, 340)[::8]]
    draw.fill(np.array(rim + tips[::-1]), BROWN)


# ---- backgrounds


def meadow(draw: Pen) -> None:
    """A flat landscape behind an actor: sky, sun, two hills."""
    draw.fill(box(0.5, 0.5, 0.6, 0.6), (0.73, 0.86, 0.93), line=False)
    draw.fill(ellipse(0.83, 0.16, 0.07, 0.07), (0.98, 0.88, 0.5))
    draw.fill(ellipse(0.2, 1.05, 0.55, 0.35), GREEN)
    draw.fill(ellipse(0.85, 1.1, 0.5, 0.32), (0.56, 0.74, 0.42))


def town(draw: Pen) -> None:
    """A street twice as wide as the frame, from -0.5 to 1.5, with many different houses and trees."""
    random = np.random.default_rng(5)
    draw.fill(box(0.5, 0.5, 1.2, 0.9), (0.93, 0.85, 0.72), line=False)
    for ground, tall in ((0.62, 0.3), (0.86, 0.26)):
        for x in np.arange(-0.6, 1.65, 0.17):
            _house(draw, x + random.uniform(-0.03, 0.03), ground, tall * random.uniform(0.6, 1.3), random)
    draw.fill(box(0.5, 1.1, 1.2, 0.24), (0.55, 0.53, 0.52))
    for x in np.arange(-0.5, 1.6, 0.21):
        draw.fill(box(x, 0.98, 0.05, 0.008), CREAM, line=False)
        draw.fill(limb((x + 0.1, 0.86), (x + 0.1, 0.72), 0.012, 0.008), BROWN)
        draw.fill(ellipse(x + 0.1, 0.7, 0.05 * random.uniform(0.7, 1.2), 0.07), GREEN)


def _house(draw: Pen, x: float, ground: float, tall: float, random: np.random.Generator) -> None:
    colour = (RED, CREAM, TEAL, ORANGE, (0.72, 0.6, 0.75))[random.integers(5)]
    wide = random.uniform(0.06, 0.08)
    draw.fill(box(x, ground - tall / 2, wide, tall / 2), colour)
    roof = np.array(
        [(x - wide * 1.15, ground - tall), (x, ground - tall - 0.07), (x + wide * 1.15, ground - tall)]
    )
    draw.fill(roof, BROWN)
    for row in np.arange(ground - tall + 0.04, ground - 0.05, 0.06):
        for side in (-0.5, 0.5):
            lit = (0.98, 0.9, 0.55) if random.random() < 0.4 else (0.3, 0.36, 0.45)
            draw.fill(box(x + side * wide, row, 0.014, 0.018), lit)
