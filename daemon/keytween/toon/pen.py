"""Draws a toon's own shapes, which know nothing of the sheet, at its place there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keytween.toon.canvas import INK, Canvas, Colour, Place, Points

WHITE: Colour = (0.99, 0.99, 0.97)


class Pen:
    """Draws a toon's own points, around (0, 0) and about 1 across, at its place on the sheet."""

    def __init__(self, canvas: Canvas, place: Place, line: float) -> None:
        self.canvas, self.place, self.line = canvas, place, line

    def fill(self, points: Points, colour: Colour, *, line: float = 1.0) -> None:
        """A shape with an outline `line` times as wide as others; 0 leaves it out."""
        self.canvas.fill(self.place(points), colour, line=line * self.line)

    def stroke(self, points: Points, colour: Colour = INK, *, line: float = 1.0) -> None:
        """A line through the points."""
        self.canvas.stroke(self.place(points), colour, line=line * self.line)

    def moved(self, x: float, y: float, *, scale: float = 1.0, turn: float = 0.0) -> Pen:
        """The same pen around another point of the toon, for a part of it."""
        at = self.place(np.array([[x, y]]))[0]
        place = replace(
            self.place,
            x=float(at[0]),
            y=float(at[1]),
            wide=scale * self.place.wide,
            tall=scale * self.place.tall,
            turn=self.place.turn + turn,
        )
        return Pen(self.canvas, place, self.line)
