"""Draws props that the checkpoint `toon` has never seen: cars, trees and rockets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keytween.toon.canvas import INK, arc, box, ellipse, limb, smooth
from keytween.toon.characters import CAR, ROCKET, TREE, Toon
from keytween.toon.pen import WHITE, Pen


def _car(pen: Pen, toon: Toon) -> None:
    """A car from its side; `turn` moves its cabin."""
    looks, shift = toon.looks, 0.15 * toon.pose.turn
    cabin = np.array([[-0.6, 0.0], [-0.4, -0.5], [0.3, -0.5], [0.65, 0.0]]) + np.array([shift, 0])
    pen.fill(cabin, looks.trim)
    pen.fill(box(-0.05 + shift, -0.22, 0.28, 0.17), WHITE, line=0.7)
    body = np.array([[-1.1, 0.0], [-1.15, 0.4], [1.15, 0.4], [1.2, 0.12], [0.7, 0.0]]) * (looks.wide, 1)
    pen.fill(body, looks.coat)
    for x in (-0.6, 0.62):
        pen.fill(ellipse(x * looks.wide, 0.42, 0.27, 0.27), INK)
        pen.fill(ellipse(x * looks.wide, 0.42, 0.12, 0.12), WHITE, line=0)


def _tree(pen: Pen, toon: Toon) -> None:
    """A tree in the wind; `turn` bends it."""
    looks, bend = toon.looks, 0.35 * toon.pose.turn
    pen.fill(limb((0, 1.1), (bend * 0.4, -0.1), 0.16, 0.1), looks.hair)
    for x, y, radius in ((-0.42, 0.0, 0.42), (0.45, -0.05, 0.4), (0.0, -0.5, 0.52)):
        pen.fill(ellipse(x + bend * (0.8 - y), y, radius * looks.wide, radius), looks.coat)
    for x, y in ((-0.35, 0.0), (0.1, -0.5), (0.45, 0.05)):
        pen.fill(ellipse(x + bend * (0.8 - y), y, 0.09, 0.09), looks.trim, line=0)


def _rocket(pen: Pen, toon: Toon) -> None:
    """A rocket; `mouth` is how far its fire reaches."""
    looks, pose = toon.looks, toon.pose
    fire = np.array([[-0.22, 0.7], [0, 1.0 + 0.5 * pose.mouth], [0.22, 0.7]])
    pen.fill(smooth(fire), (0.98, 0.72, 0.25))
    for side in (-1, 1):
        fin = np.array([[side * 0.3, 0.2], [side * 0.75, 0.8], [side * 0.28, 0.7]])
        pen.fill(fin, looks.trim)
    body = np.array(
        [[0, -1.15], [0.36, -0.5], [0.36, 0.3], [0.26, 0.75], [-0.26, 0.75], [-0.36, 0.3], [-0.36, -0.5]]
    )
    pen.fill(smooth(body * (looks.wide, 1)), looks.coat)
    pen.fill(ellipse(0.08 * pose.turn, -0.3, 0.19, 0.19), WHITE)
    pen.stroke(arc(0, 0.1, 0.3, 0.1, 0, 180), line=0.8)


STRANGERS: dict[str, Callable[[Pen, Toon], None]] = {CAR: _car, TREE: _tree, ROCKET: _rocket}
"""What draws each of them."""
