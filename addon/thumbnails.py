# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of the jobs' newest drawings, one for each job. Blender reads them beside the drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy.utils.previews

_kept: Any = None
"""Blender's collection; there only while the extension is enabled."""
_newest: dict[str, str] = {}
"""Which file's picture is kept for each job, by job id."""


def icon(job_id: str, file: Path) -> int:
    """The number of the icon for a job's newest drawing, 0 while there is none."""
    if _kept is None:
        return 0
    name = file.name
    if _newest.get(job_id) != name:
        forget(job_id)
        try:
            _kept.load(job_id, str(file), "IMAGE")
        except (KeyError, RuntimeError):  # the panel does without
            return 0
        _newest[job_id] = name
    return int(_kept[job_id].icon_id)


def forget(job_id: str) -> None:
    """Lets go of a job's picture."""
    if _newest.pop(job_id, None) is not None:
        del _kept[job_id]


def register() -> None:
    """Makes room for pictures."""
    global _kept
    _kept = bpy.utils.previews.new()


def unregister() -> None:
    """Lets go of all of them."""
    global _kept
    if _kept is not None:
        bpy.utils.previews.remove(_kept)
    _kept = None
    _newest.clear()
