"""Draws the toons that are no people: balls, boxes, stars, leaves, fish, cups and houses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keytween.toon.canvas import INK, arc, box, ellipse, smooth, star
from keytween.toon.characters import BALL, BOX, CUP, FISH, HOUSE, LEAF, STAR, Toon
from keytween.toon.pen import WHITE, Pen


def _ball(pen: Pen, toon: Toon) -> None:
    looks, turn = toon.looks, toon.pose.turn
    pen.fill(ellipse(0, 0, 0.95, 0.95), looks.coat)
    if toon.style == "striped":
        across = np.linspace(-1, 1, 17)
        bulge = 0.25 * (1 - across**2)
        upper = np.stack([0.93 * across, -0.1 + 0.35 * turn + bulge - 0.2], axis=1)
        # The stripe's ends lie on the rim, whatever the turn.
        upper[:, 0] *= np.sqrt(np.maximum(0, 1 - (upper[:, 1] * 0.9) ** 2))
        pen.fill(np.concatenate([upper, (upper + np.array([0, 0.36]))[::-1]]), looks.trim)
    elif toon.style == "spotted":
        for x, y in ((-0.4, -0.35), (0.35, -0.45), (0.0, 0.1), (-0.45, 0.45), (0.48, 0.35)):
            pen.fill(ellipse(x + 0.15 * turn, y, 0.17, 0.17), looks.trim, line=0)
    pen.stroke(arc(0, 0, 0.72, 0.72, 200, 240), WHITE, line=1.5)


def _box(pen: Pen, toon: Toon) -> None:
    """A box seen from a little above; `turn` shows more of one side."""
    looks, lean = toon.looks, 0.3 * toon.pose.turn
    wide, tall = 0.85 * looks.wide, 0.8 * looks.tall
    lid = np.array([[-wide, -0.35], [wide, -0.35], [wide * 0.85 + lean, -tall], [-wide * 0.85 + lean, -tall]])
    pen.fill(lid, looks.trim)
    pen.fill(box(0, 0.25, wide, 0.6), looks.coat)
    if toon.style == "striped":
        pen.fill(box(0, 0.25, 0.16, 0.6), looks.trim)
    elif toon.style == "spotted":
        for x in (-0.45, 0.0, 0.45):
            pen.fill(ellipse(x * looks.wide, 0.25, 0.14, 0.14), looks.trim, line=0)
    else:
        _small_face(pen, toon, y=0.15)


def _star(pen: Pen, toon: Toon) -> None:
    looks = toon.looks
    pen.fill(star(0, 0, 1.1, inner=0.52 + 0.2 * (looks.wide - 1), turn=20 * toon.pose.turn), looks.coat)
    if toon.style == "spotted":
        pen.fill(star(0, 0, 0.6, inner=0.52, turn=20 * toon.pose.turn), looks.trim, line=0)
    else:
        _small_face(pen, toon, y=0.0)


def _leaf(pen: Pen, toon: Toon) -> None:
    looks, curl = toon.looks, 0.35 * toon.pose.turn
    outline = np.array([[0, -1.1], [0.55, -0.45], [0.62, 0.25], [0, 0.85], [-0.62, 0.25], [-0.55, -0.45]])
    outline = outline * (looks.wide, 1) + np.stack([curl * outline[:, 1] ** 2, 0 * outline[:, 1]], axis=1)
    pen.fill(smooth(outline), looks.coat)
    down = np.linspace(-0.8, 1.2, 9)
    vein = np.stack([curl * down**2, down], axis=1)
    pen.stroke(vein, line=1.2)
    if toon.style != "plain":
        for at in (2, 4):
            for side in (-1, 1):
                tip = vein[at] + (0.32 * side, -0.22)
                pen.stroke(np.stack([vein[at] + (0, 0.05), tip]), line=0.9)


def _fish(pen: Pen, toon: Toon) -> None:
    looks, pose = toon.looks, toon.pose
    swing = 0.25 * pose.turn
    tail = np.array([[0.55, 0.0], [1.2, -0.5 + swing], [1.05, swing], [1.2, 0.5 + swing]])
    pen.fill(tail, looks.trim)
    pen.fill(np.array([[-0.25, -0.45], [0.15, -0.85], [0.5, -0.35]]), looks.trim)
    pen.fill(ellipse(-0.1, 0, 0.85, 0.6 * looks.tall), looks.coat)
    if toon.style == "striped":
        for x in (0.05, 0.38):
            pen.fill(box(x, 0, 0.08, 0.4 * looks.tall), looks.trim, line=0)
    pen.fill(smooth(np.array([[0.0, 0.05], [0.4, 0.2 + 0.5 * swing], [0.0, 0.35]])), looks.trim)
    pen.fill(ellipse(-0.55, -0.12, 0.16 * looks.eyes, 0.16 * looks.eyes), WHITE)
    pen.fill(ellipse(-0.57 + 0.05 * pose.gaze, -0.12, 0.08, 0.09), INK, line=0)
    pen.stroke(arc(-0.78, 0.2, 0.14, 0.1, 0, 100), line=1.0)


def _cup(pen: Pen, toon: Toon) -> None:
    looks = toon.looks
    pen.stroke(arc(0.72 * looks.wide, 0.05, 0.4, 0.4, -80, 80), INK, line=5.0)
    pen.stroke(arc(0.72 * looks.wide, 0.05, 0.4, 0.4, -80, 80), looks.coat, line=2.8)
    sides = np.array([[-0.75, -0.6], [-0.6, 0.75], [0.6, 0.75], [0.75, -0.6]]) * (looks.wide, 1)
    pen.fill(sides, looks.coat)
    pen.fill(ellipse(0, -0.6, 0.75 * looks.wide, 0.2), looks.trim)
    _small_face(pen, toon, y=0.1)


def _house(pen: Pen, toon: Toon) -> None:
    looks = toon.looks
    lean = 0.15 * toon.pose.turn
    wide = 0.75 * looks.wide
    pen.fill(box(0.45, -0.75, 0.14, 0.3), looks.trim)
    pen.fill(box(0, 0.35, wide, 0.6), looks.skin)
    pen.fill(np.array([[-wide - 0.2, -0.2], [lean, -1.05 * looks.tall], [wide + 0.2, -0.2]]), looks.coat)
    pen.fill(box(-0.3 * looks.wide, 0.57, 0.18, 0.38), looks.trim)
    pen.fill(box(0.33 * looks.wide, 0.3, 0.2, 0.2), WHITE)
    if toon.style != "plain":
        pen.fill(ellipse(lean / 2, -0.5, 0.15, 0.15), WHITE)


def _small_face(pen: Pen, toon: Toon, *, y: float) -> None:
    looks, pose = toon.looks, toon.pose
    shift = 0.12 * pose.turn
    for side in (-1, 1):
        tall = 0.13 * (1 - 0.8 * pose.lids)
        pen.fill(ellipse(shift + 0.25 * side * looks.apart, y, 0.09 * looks.eyes, tall), INK, line=0)
    across = np.linspace(-1, 1, 7)
    pen.stroke(np.stack([shift + 0.17 * across, y + 0.27 + 0.1 * pose.smile * (0.5 - across**2)], axis=1))


PROPS: dict[str, Callable[[Pen, Toon], None]] = {
    BALL: _ball,
    BOX: _box,
    STAR: _star,
    LEAF: _leaf,
    FISH: _fish,
    CUP: _cup,
    HOUSE: _house,
}
"""What draws each kind of prop."""
