"""Draws toons: the backdrop, faces and small figures; props are in their own file."""

from __future__ import annotations

import math

import numpy as np

from keytween.toon.canvas import (
    INK,
    Array,
    Canvas,
    Colour,
    Place,
    Points,
    arc,
    box,
    ellipse,
    limb,
    smooth,
)
from keytween.toon.characters import ANIMAL, CHILD, FIGURE, Looks, Pose, Toon
from keytween.toon.pen import WHITE, Pen
from keytween.toon.props import PROPS
from keytween.toon.strangers import STRANGERS

LINE = 0.019
"""How wide an outline is, in parts of the sheet, before `Looks.line`."""
RED: Colour = (0.76, 0.27, 0.3)


def draw(toon: Toon, size: int, *, backdrop: bool = True) -> Array:
    """The drawing (size, size, 4) in 0..1, straight matte; without its backdrop the sheet is clear."""
    canvas = Canvas(size, size, paper=toon.looks.paper if backdrop else None)
    if backdrop:
        _backdrop(canvas, toon)
    pen = Pen(canvas, _place(toon.pose, size), toon.looks.line * LINE * size)
    parts = {CHILD: _child, ANIMAL: _animal, FIGURE: _figure} | PROPS | STRANGERS
    parts[toon.kind](pen, toon)
    return canvas.picture()


def _place(pose: Pose, size: int) -> Place:
    """Squashed shapes keep about their area, and their foot where it was."""
    tall = 1 - 0.16 * pose.squash
    foot = pose.y + pose.scale * (1 - tall)
    return Place(pose.x * size, foot * size, pose.tilt, pose.scale * size / tall, pose.scale * size * tall)


def _backdrop(canvas: Canvas, toon: Toon) -> None:
    size, looks = canvas.width, toon.looks
    if toon.backdrop == "ground":
        middle = size * (1 + looks.horizon) / 2
        canvas.fill(box(size / 2, middle, size, size * (1 - looks.horizon) / 2 + 1), looks.ground)
    elif toon.backdrop == "sun":
        canvas.fill(ellipse(size / 2, size * 0.5, size * 0.44, size * 0.44), looks.ground)


# ---- faces


def _child(pen: Pen, toon: Toon) -> None:
    looks, turn = toon.looks, toon.pose.turn
    _hair_behind(pen, toon.style, looks, turn)
    _shoulders(pen, looks)
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.93 * looks.wide - 0.1 * turn, 0.08, 0.16, 0.2), looks.skin)
    pen.fill(_head(looks), looks.skin)
    _features(pen, toon, nose=looks.skin)
    _hair_before(pen, toon.style, looks, turn)


def _animal(pen: Pen, toon: Toon) -> None:
    looks, turn = toon.looks, toon.pose.turn
    _shoulders(pen, looks)
    for side in (-1, 1):
        _ear(pen, toon.style, looks, side, turn)
    pen.fill(_head(looks), looks.hair)
    pen.fill(ellipse(0.36 * turn, 0.42, 0.5 * looks.wide, 0.38), _pale(looks.trim), line=0)
    _features(pen, toon, nose=INK)


def _pale(colour: Colour) -> Colour:
    """A muzzle is bright, whatever the trim."""
    red, green, blue = (0.35 * c + 0.63 for c in colour)
    return red, green, blue


def _head(looks: Looks) -> Points:
    return ellipse(0, 0, 0.92 * looks.wide, 0.95 * looks.tall)


def _ear(pen: Pen, style: str, looks: Looks, side: int, turn: float) -> None:
    x = side * 0.58 * looks.wide - 0.12 * turn
    if style == "cat":
        for grown, colour, line in ((1.0, looks.hair, 1.0), (0.55, looks.trim, 0.0)):
            ear = np.array([[-0.36, 0.2], [side * 0.22, -0.62], [0.36, 0.2]]) * grown
            pen.fill(ear + np.array([x, -0.62]), colour, line=line)
    elif style == "bear":
        pen.fill(ellipse(x * 1.12, -0.7, 0.32, 0.32), looks.hair)
        pen.fill(ellipse(x * 1.12, -0.68, 0.17, 0.17), looks.trim, line=0)
    else:
        pen.fill(ellipse(x * 0.75, -1.08, 0.21, 0.52, turn=side * 10), looks.hair)
        pen.fill(ellipse(x * 0.75, -1.05, 0.1, 0.36, turn=side * 10), looks.trim, line=0)


def _shoulders(pen: Pen, looks: Looks) -> None:
    outline = np.array([[-0.28, 0.85], [-0.72, 1.12], [-0.98, 1.9], [0.98, 1.9], [0.72, 1.12], [0.28, 0.85]])
    pen.fill(smooth(outline), looks.coat)
    pen.fill(arc(0, 0.93, 0.36, 0.3, 0, 180), looks.trim)


def _features(pen: Pen, toon: Toon, *, nose: Colour) -> None:
    """Eyes, brows, cheeks, nose and mouth; they move over the head as it turns."""
    looks, pose = toon.looks, toon.pose
    shift = 0.36 * pose.turn
    for side in (-1, 1):
        # The far eye is nearer to the middle and narrower.
        narrow = 1 - 0.3 * max(0.0, side * pose.turn)
        x = shift + side * 0.37 * looks.apart * looks.wide * (1 - 0.12 * abs(pose.turn))
        _cheek(pen, looks, x + side * 0.13, narrow)
        _eye(pen, toon, x, narrow)
        lift, slope = -0.42 - 0.1 * pose.brows, side * 0.08 * (0.7 * pose.brows - 0.3)
        pen.stroke(np.array([[x - 0.17, lift + slope], [x + 0.17, lift - slope]]), line=1.3)
    size = 0.1 if nose is INK else 0.085
    pen.fill(ellipse(shift * 1.35, 0.24, size, 0.07), nose, line=0.8)
    _mouth(pen, pose, shift * 1.15)


def _cheek(pen: Pen, looks: Looks, x: float, narrow: float) -> None:
    base = np.array(looks.skin)
    pink = tuple(float(c) for c in base + 0.55 * looks.blush * (np.array((0.96, 0.5, 0.48)) - base))
    if looks.blush > 0:
        pen.fill(ellipse(x, 0.32, 0.16 * narrow, 0.11), (pink[0], pink[1], pink[2]), line=0)


def _eye(pen: Pen, toon: Toon, x: float, narrow: float) -> None:
    looks, pose = toon.looks, toon.pose
    wide, tall = 0.19 * looks.eyes * narrow, 0.24 * looks.eyes * (1 - 0.85 * pose.lids)
    if tall > 0.08:
        pen.fill(ellipse(x, -0.05, wide, tall), WHITE)
        pupil = min(0.12 * looks.eyes, tall)
        pen.fill(ellipse(x + 0.07 * pose.gaze, -0.05, 0.11 * looks.eyes * narrow, pupil), INK, line=0)
        pen.fill(ellipse(x + 0.07 * pose.gaze - 0.04, -0.05 - 0.4 * pupil, 0.04, 0.3 * pupil), WHITE, line=0)
    else:
        pen.stroke(arc(x, -0.05 - tall, wide, max(tall, 0.02) + 0.03, 0, 180), line=1.3)


def _mouth(pen: Pen, pose: Pose, x: float) -> None:
    wide, curve = 0.26, 0.15 * pose.smile
    across = np.linspace(-1, 1, 9)
    upper = np.stack([x + wide * across, 0.52 + curve * (0.5 - across**2)], axis=1)
    drop = 0.3 * pose.mouth * (1 - across**2)
    if pose.mouth > 0.12:
        pen.fill(np.concatenate([upper, (upper + np.stack([0 * drop, drop], axis=1))[::-1]]), RED)
    else:
        pen.stroke(upper, line=1.2)


# ---- hair


def _hair_behind(pen: Pen, style: str, looks: Looks, turn: float) -> None:
    wide, back = looks.wide, -0.08 * turn
    if style == "long":
        down = np.array([[-0.98, -0.3], [-1.14, 0.7], [-1.02, 1.45], [1.02, 1.45], [1.14, 0.7], [0.98, -0.3]])
        pen.fill(smooth(np.concatenate([down, [[0, -1.1]]]) * (wide, 1) + (back, 0)), looks.hair)
    elif style == "bob":
        pen.fill(ellipse(back, 0.12, 1.16 * wide, 1.02), looks.hair)
    elif style == "buns":
        for side in (-1, 1):
            pen.fill(ellipse(side * 0.82 * wide + back, -0.8, 0.36, 0.36), looks.hair)
    elif style == "tail":
        tail = np.array([[0.4, -0.8], [1.15, -0.75], [1.45, 0.0], [1.2, 0.75], [1.05, 0.1], [0.7, -0.3]])
        pen.fill(smooth(tail * (wide, 1) + (2 * back, 0)), looks.hair)


def _hair_before(pen: Pen, style: str, looks: Looks, turn: float) -> None:
    """The cap of hair on top with its fringe, which parts where the face looks."""
    wide, tall = looks.wide, looks.tall
    if style == "spiky":
        angles = np.radians(np.linspace(195, 345, 13))
        reach = np.where(np.arange(13) % 2, 1.32, 1.0)[:, None]
        cap = np.stack([np.cos(angles) * wide, np.sin(angles) * tall], axis=1) * reach
    else:
        cap = arc(0, 0, 1.0 * wide, 1.05 * tall, 182, 358)
    middle = 0.3 * turn
    low = {"short": -0.52, "spiky": -0.5, "tail": -0.55}.get(style, -0.42)
    fringe = np.array(
        [[0.62, low + 0.04], [middle + 0.22, low - 0.12], [middle - 0.4, low + 0.06], [-0.74, low]]
    )
    edge = np.concatenate([cap[-1:], fringe * (wide, tall), cap[:1]])
    pen.fill(np.concatenate([cap, smooth(edge, closed=False)]), looks.hair)


# ---- figures


def _figure(pen: Pen, toon: Toon) -> None:
    """A small figure; arms and legs have two parts, `bend` folds their lower ones."""
    looks, pose = toon.looks, toon.pose
    for angle, side in ((pose.left_leg, 1), (pose.right_leg, -1)):
        knee, foot = _joints((0.2 * side * looks.wide, 0.85), (angle, angle * (1 - 0.8 * pose.bend)), 0.42)
        pen.fill(limb((0.2 * side * looks.wide, 0.85), knee, 0.15), looks.trim)
        pen.fill(limb(knee, foot, 0.13), looks.trim)
        pen.fill(ellipse(foot[0] + 0.06 * side, foot[1] + 0.06, 0.22, 0.13), INK, line=0.5)
    for angle, side in ((pose.left_arm, 1), (pose.right_arm, -1)):
        shoulder = 0.34 * side * looks.wide, 0.12
        elbow, hand = _joints(shoulder, (angle, angle + side * 70 * pose.bend), 0.36)
        pen.fill(limb(shoulder, elbow, 0.13), looks.coat)
        pen.fill(limb(elbow, hand, 0.11), looks.coat)
        pen.fill(ellipse(hand[0], hand[1], 0.13, 0.13), looks.skin)
    body = np.array([[-0.3, 0.0], [-0.4, 0.5], [-0.42, 0.95], [0.42, 0.95], [0.4, 0.5], [0.3, 0.0]])
    pen.fill(smooth(body * (looks.wide, 1)), looks.coat)
    _small_head(pen.moved(0, -0.42, scale=0.6), toon)


def _joints(
    start: tuple[float, float], angles: tuple[float, float], length: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the second and the last joint are; 0 degrees hangs down, positive is to the right."""
    first, second = (math.radians(angle) for angle in angles)
    knee = start[0] + length * math.sin(first), start[1] + length * math.cos(first)
    return knee, (knee[0] + length * math.sin(second), knee[1] + length * math.cos(second))


def _small_head(pen: Pen, toon: Toon) -> None:
    """A head that is simple enough to be read when it is small."""
    looks, pose = toon.looks, toon.pose
    _hair_behind(pen, toon.style, looks, pose.turn)
    pen.fill(_head(looks), looks.skin)
    shift = 0.4 * pose.turn
    for side in (-1, 1):
        tall = 0.17 * (1 - 0.8 * pose.lids)
        pen.fill(ellipse(shift + 0.36 * side * looks.apart, 0.05, 0.12 * looks.eyes, tall), INK, line=0)
    across = np.linspace(-1, 1, 7)
    smile = np.stack([shift + 0.28 * across, 0.5 + 0.15 * pose.smile * (0.5 - across**2)], axis=1)
    pen.stroke(smile)
    _hair_before(pen, toon.style, looks, pose.turn)
