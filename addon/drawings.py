# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawings that lie in a tween's folder. A file's name says what it shows: its look and its position.

A look stands for everything that changes a segment's pixels. So nothing needs to remember which drawings
there are: after undo, another timing or another setting, those that fit are found again.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, insort
from collections.abc import Iterable
from pathlib import Path

from keytween_wire.timeline import SAME_POSITION

_NAME = re.compile(r"drawing_([0-9a-f]+)_([+-]\d+\.\d+)\.[a-z]+")
_ROUNDING = 1e-7
"""Half of the last digit that a name has, and a little more."""


def drawing_name(look: str, position: float, suffix: str) -> str:
    """The file name of a drawing."""
    return f"drawing_{look}_{position:+.7f}{suffix}"


class Shelf:
    """The drawings of one folder, by look and position."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._rows: dict[str, list[tuple[float, str]]] = {}
        for name in names:
            self.add(name)

    @classmethod
    def of(cls, folder: Path) -> Shelf:
        """What lies in a folder; empty files do not count, and no folder is an empty shelf."""
        try:
            with os.scandir(folder) as entries:
                return cls(e.name for e in entries if _NAME.fullmatch(e.name) and e.stat().st_size)
        except OSError:
            return cls()

    def add(self, name: str) -> None:
        """Takes in a drawing; a name that is no drawing's is passed over."""
        match = _NAME.fullmatch(name)
        if match is None:
            return
        row, entry = self._rows.setdefault(match[1], []), (float(match[2]), name)
        if entry not in row:
            insort(row, entry)

    def drop(self, name: str) -> None:
        """Forgets a drawing whose file is no good."""
        for row in self._rows.values():
            row[:] = [entry for entry in row if entry[1] != name]

    def exact(self, look: str, position: float) -> str | None:
        """The file that shows this position, to within SAME_POSITION."""
        near = self.nearest(look, position)
        return near[1] if near and abs(near[0] - position) < SAME_POSITION + _ROUNDING else None

    def nearest(self, look: str, position: float) -> tuple[float, str] | None:
        """Position and file of the drawing that is nearest to a position; None without any."""
        row = self._rows.get(look, [])
        at = bisect_left(row, (position, ""))
        near = row[max(0, at - 1) : at + 1]
        # Rounded, so that of two that are as near the earlier is taken, whatever a name's last digit is.
        return min(near, key=lambda entry: round(abs(entry[0] - position), 6), default=None)

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))
