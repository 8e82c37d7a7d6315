# SPDX-License-Identifier: GPL-3.0-or-later
"""The animator's timing chart of a tween: one upright line for each segment, a tick for each drawing.

The upper end is the keyframe that a segment leaves, the lower end the one that it arrives at. Long ticks are
keyframes with their frame numbers, dots beside a tick the frames that its drawing is held for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy.utils.previews

from .memory import Tween

SIZE = 288
MOST_SEGMENTS = 6
"""As many lines fit beside each other; with more, those around the chosen one are drawn."""
_KEPT = 12
_MARGIN_Y = 44
_UNIT = 4
_CLEAR, _LINE, _CHOSEN, _TICK, _KEY = 0, 0xFF8A8A8A, 0xFFE8E8E8, 0xFFB4B4B4, 0xFF3CA0F0
"""Colours as Blender keeps them: 0xAABBGGRR."""
_ROWS = "75557 26227 71747 71717 55711 74717 74757 71222 75757 75717"
_DIGITS = {
    "-": "00700",
    **dict(zip("0123456789", _ROWS.split(), strict=True)),
}
"""Each digit's five rows of three pixels, a row as an octal number."""


@dataclass(frozen=True, slots=True)
class Line:
    """One segment of the chart: its keyframes' frames, and where each drawing stands for how many frames."""

    first: int
    last: int
    ticks: tuple[tuple[float, int], ...]


def lines_of(tween: Tween) -> tuple[Line, ...]:
    """The segments of a tween as its strip shows them; positions in the order of time."""
    held: list[dict[float, int]] = [{} for _ in tween.looks]
    for kind, index in tween.cels:
        if kind == "d":
            segment, position = tween.drawings[index]
        elif index < len(held):
            segment, position = index, 0.0
        else:
            continue
        held[segment][position] = held[segment].get(position, 0) + 1
    starts = [tween.first + frame for frame, _ in tween.frames]
    return tuple(
        Line(starts[segment], starts[segment + 1], tuple(ticks.items())) for segment, ticks in enumerate(held)
    )


def window(count: int, chosen: int) -> range:
    """Which of so many segments are drawn when one, counted from 0, is the chosen one."""
    first = max(0, min(chosen - MOST_SEGMENTS // 2, count - MOST_SEGMENTS))
    return range(first, min(count, first + MOST_SEGMENTS))


# ---- pixels


class Sheet:
    """A square of pixels, counted from the lower left as Blender does."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels = array("i", bytes(4 * size * size))

    def bar(self, x: float, y: float, width: float, height: float, colour: int) -> None:
        """Fills a rectangle; what lies outside the sheet is left out."""
        left, low = max(0, round(x)), max(0, round(y))
        right, high = min(self.size, round(x + width)), min(self.size, round(y + height))
        if right <= left:
            return
        row = array("I", [colour] * (right - left)).tobytes()
        signed = array("i", row)
        for line in range(low, high):
            self.pixels[line * self.size + left : line * self.size + right] = signed

    def number(self, text: str, x: float, y: float, colour: int) -> None:
        """Writes a number with its middle at x and its lower edge at y."""
        left = x - (len(text) * 4 - 1) * _UNIT / 2
        for place, sign in enumerate(text):
            for row, bits in enumerate(_DIGITS.get(sign, "00000")):
                for column in range(3):
                    if int(bits) & (4 >> column):
                        pixel = left + (place * 4 + column) * _UNIT, y + (4 - row) * _UNIT
                        self.bar(*pixel, _UNIT, _UNIT, colour)


def draw(lines: tuple[Line, ...], chosen: int) -> Sheet:
    """The chart of these segments; the chosen one, counted from 0, is the brightest."""
    sheet = Sheet(SIZE)
    shown = window(len(lines), chosen)
    low = min([0.0, *(p for index in shown for p, _ in lines[index].ticks)])
    high = max([1.0, *(p for index in shown for p, _ in lines[index].ticks)])
    scale = (SIZE - 2 * _MARGIN_Y) / (high - low)
    width = SIZE / max(1, len(shown))

    def at(position: float) -> float:
        return SIZE - _MARGIN_Y - (position - low) * scale

    for place, index in enumerate(shown):
        _draw_line(sheet, lines[index], (place + 0.5) * width, width, at, chosen=index == chosen)
    return sheet


def _draw_line(
    sheet: Sheet, line: Line, x: float, width: float, at: Callable[[float], float], *, chosen: bool
) -> None:
    pale = _CHOSEN if chosen else _LINE
    half = min(45.0, width * 0.3)
    top, bottom = at(0.0), at(1.0)
    sheet.bar(x - 1, min(top, bottom), 3, abs(top - bottom), pale)
    for position, held in line.ticks:
        y, is_key = at(position), position == 0.0
        if not is_key:
            sheet.bar(x - half * 0.6, y - 1, half * 1.2, 3, pale)
        for dot in range(min(held, 8)):
            sheet.bar(x + half + 5 + dot * 7, y - 1, 4, 4, _TICK if not is_key else _KEY)
    for y in (top, bottom):
        sheet.bar(x - half, y - 2, 2 * half, 4, _KEY)
    # Beyond whatever overshoots, at the sheet's edges.
    sheet.number(str(line.first), x, SIZE - _MARGIN_Y + 12, pale)
    sheet.number(str(line.last), x, _MARGIN_Y - 12 - 5 * _UNIT, pale)


# ---- for the panel

_icons: Any = None
_names: dict[tuple[tuple[Line, ...], int], str] = {}


def icon_of(tween: Tween, chosen: int) -> int:
    """The icon that shows a tween's chart; drawn when it is new, otherwise as it was."""
    key = (lines_of(tween), chosen)
    if key not in _names:
        if len(_names) >= _KEPT:
            # What is on screen is drawn anew right after.
            _names.clear()
            _icons.clear()
        name = f"chart {len(_names)}"
        preview = _icons.new(name)
        preview.image_size = preview.icon_size = (SIZE, SIZE)
        preview.image_pixels.foreach_set(draw(*key).pixels)
        _names[key] = name
    return int(_icons[_names[key]].icon_id)


def register() -> None:
    """Makes room for the pictures."""
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    """Frees the pictures."""
    _names.clear()
    bpy.utils.previews.remove(_icons)
