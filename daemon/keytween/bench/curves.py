"""Pacing curves as inline SVG: how much of the way is behind each drawing; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 460, 260, 34
COLOURS = ("#8a8f98", "#2a9d8f", "#d1495b", "#edae49", "#6a4c93", "#3d7ea6", "#e36414", "#588157", "#bc4b9b")
"""A line's colour by its place in the legend; on dark and on light ground."""


def curves(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """A plot of courses, each from 0 to 1 at equally distant positions; an even one is straight."""
    shown = "".join(_line(number, course) for number, course in enumerate(lines.values()))
    legend = "".join(_entry(number, name) for number, name in enumerate(lines))
    right, low = WIDTH + MARGIN, HEIGHT + MARGIN
    return (
        f'<svg class=curves viewBox="0 0 {right + 130} {low + 24}" role=img aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
        f"<rect class=rule fill=none x={MARGIN} y={MARGIN} width={WIDTH} height={HEIGHT} />"
        f'<line class=rule x1={MARGIN} y1={low} x2={right} y2={MARGIN} stroke-dasharray="4 4" />'
        f"<text x={MARGIN} y={MARGIN - 12}>share of the way</text>"
        f"<text x={right} y={low + 18} text-anchor=end>position</text>{shown}{legend}</svg>"
    )


def _line(number: int, course: Sequence[float]) -> str:
    last = max(1, len(course) - 1)
    points = " ".join(
        f"{MARGIN + WIDTH * i / last:.1f},{MARGIN + HEIGHT * (1 - value):.1f}"
        for i, value in enumerate(course)
    )
    return f'<polyline fill=none stroke-width=2 stroke="{_colour(number)}" points="{points}" />'


def _entry(number: int, name: str) -> str:
    x, y = WIDTH + MARGIN + 14, MARGIN + 10 + 20 * number
    line = f'<line stroke-width=3 stroke="{_colour(number)}" x1={x} y1={y} x2={x + 18} y2={y} />'
    return f"{line}<text x={x + 24} y={y + 4}>{escape(name)}</text>"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
