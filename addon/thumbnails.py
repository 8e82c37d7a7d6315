# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of the jobs' newest drawings, one for each job. Blender reads them beside the drawing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import bpy.utils.previews

PACE_S = 2.0
"""A picture takes a moment to be read, during which Blender shows a clock: newer ones wait this long."""
_kept: Any = None
"""Blender's collection; there only while the extension is enabled."""
_newest: dict[str, str] = {}
"""Which file's picture is kept for each job, by job id."""
_since: dict[str, float] = {}
"""When it was asked for."""


def icon(job_id: str, file: Path, *, final: bool) -> int:
    """The number of the icon for a job's newest drawing, or a recent one unless it is the final one."""
    if _kept is None:
        return 0
    name, now = file.name, time.monotonic()
    if _newest.get(job_id) != name and (final or now - _since.get(job_id, -PACE_S) >= PACE_S):
        forget(job_id)
        _since[job_id] = now
        try:
            _kept.load(job_id, str(file), "IMAGE")
        except (KeyError, RuntimeError):  # the panel does without
            return 0
        _newest[job_id] = name
    return int(_kept[job_id].icon_id) if job_id in _newest else 0


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
    _since.clear()
