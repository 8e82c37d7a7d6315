# SPDX-License-Identifier: GPL-3.0-or-later
"""From frames to strips: one image strip on a free channel, whose elements say what each frame shows."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import bpy

from keytween_wire.errors import OutputUnwritable, RequestError
from keytween_wire.messages import JobState

from . import vse_compat
from .capture import TRANSFORM, Look, changed
from .drawings import Shelf
from .memory import Tween

JOB = "keytween_job"
TWEEN = "keytween"
JOBS = "keytween_jobs"
STALE = "keytween_stale"
SINCE = "keytween_since"
STATE = "keytween_state"
ERROR = "keytween_error"
CHANNELS = 128
COLOUR_TAG = "COLOR_04"
STALE_TAG = "COLOR_02"
"""Green where the drawings are those that the keyframes and settings ask for, orange where they are not."""
PIECE_BYTES = 1 << 18
"""What a disk cache takes in a fraction of a millisecond."""


# ---- files


class Writing:
    """A file that is written piece by piece, and appears only when it is whole."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self._data = memoryview(data)
        self._unfinished = path.with_name(f".{path.name}.part")
        self._written = 0

    def go_on(self, budget_s: float = math.inf) -> bool:
        """Writes until the time is up; True when the file is there. Raises OutputUnwritable."""
        deadline = time.perf_counter() + budget_s
        try:
            with self._unfinished.open("ab" if self._written else "wb", buffering=0) as stream:
                while self._written < len(self._data):
                    piece = self._data[self._written : self._written + PIECE_BYTES]
                    self._written += stream.write(piece)
                    if time.perf_counter() > deadline:
                        return False
            os.replace(self._unfinished, self.path)
        except OSError as error:
            self.give_up()
            raise OutputUnwritable(name=self.path, detail=error.strerror) from error
        return True

    def give_up(self) -> None:
        """Takes away what was written so far."""
        with suppress(OSError):
            self._unfinished.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file at once or not at all; raises OutputUnwritable."""
    Writing(path, data).go_on()


def make_folder(folder: Path) -> None:
    """Makes a job's folder; raises OutputUnwritable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror) from error


# ---- strips


def insert(
    scene: bpy.types.Scene, tween: Tween, *, folder: Path, look: Look, start: int, above: int
) -> bpy.types.Strip:
    """The tween's strip, at its full length from the start, on a free channel above `above`."""
    strips = current_strips(scene)
    channel = free_channel(scene, start, start + len(tween.cels), lowest=above + 1)
    names = tween.shown(Shelf.of(folder))
    with changed(vse_compat.prefetch(scene.sequence_editor)):
        strip = strips.new_image(
            name=f"Tween {tween.label}",
            filepath=in_blend(folder / names[0]),
            channel=channel,
            frame_start=start,
        )
        for name in names[1:]:
            strip.elements.append(name)
    strip.blend_type = "ALPHA_OVER"
    strip.color_tag = COLOUR_TAG
    give_look(strip, look)
    strip[JOB] = tween.job_id
    strip[TWEEN] = tween.to_json()
    strip[SINCE] = 0
    strip[STATE] = JobState.QUEUED.value
    strip[STALE] = ""
    return strip


def give_look(strip: bpy.types.Strip, look: Look) -> None:
    """Makes the strip show its pictures as the keyframes' strips show theirs."""
    strip.colorspace_settings.name = look.colour_space
    strip.alpha_mode = look.alpha_mode
    for name, value in look.transform:
        setattr(strip.transform, name, value)


def mark_stale(strip: bpy.types.Strip, reasons: str) -> bool:
    """Says on the strip why its drawings are not what they should be, and colours it; True if it is news.

    A colour that the user gave it stays.
    """
    if strip.get(STALE, "") == reasons:
        return False
    strip[STALE] = reasons
    if strip.color_tag in (COLOUR_TAG, STALE_TAG):
        strip.color_tag = STALE_TAG if reasons else COLOUR_TAG
    return True


def look_of(strip: bpy.types.Strip) -> Look:
    """How the strip shows its pictures, for another strip that shall look the same."""
    transform = tuple((name, getattr(strip.transform, name)) for name in TRANSFORM)
    return Look(strip.colorspace_settings.name, strip.alpha_mode, transform)


def in_blend(path: Path) -> str:
    """The path as the blend file should keep it: relative where the user wants that and it can be."""
    if not (bpy.data.filepath and bpy.context.preferences.filepaths.use_relative_paths):
        return str(path)
    try:
        return bpy.path.relpath(str(path))
    except ValueError:  # another drive on Windows
        return str(path)


def current_strips(scene: bpy.types.Scene) -> Any:
    """The strips that the sequencer shows: those of the meta strip that is open, or all."""
    editor = scene.sequence_editor
    return editor.meta_stack[-1].strips if len(editor.meta_stack) else editor.strips


def current_channels(scene: bpy.types.Scene) -> Any:
    """The channels of these strips, by their number."""
    editor = scene.sequence_editor
    return editor.meta_stack[-1].channels if len(editor.meta_stack) else editor.channels


def free_channel(scene: bpy.types.Scene, start: int, end: int, *, lowest: int) -> int:
    """The lowest channel from `lowest` on with nothing between two frames; Blender does not look itself."""
    editor = scene.sequence_editor
    holder = editor.meta_stack[-1] if len(editor.meta_stack) else editor
    taken = {
        strip.channel
        for strip in holder.strips
        if vse_compat.start(strip) < end and start < vse_compat.end(strip)
    }
    for channel in [*range(lowest, CHANNELS + 1), *range(lowest - 1, 0, -1)]:
        if channel not in taken and not holder.channels[channel].lock:
            return channel
    raise RequestError(detail="no channel of the sequencer is free there")


def tween_strips(strip_id: str = "") -> Iterator[tuple[bpy.types.Scene, bpy.types.Strip]]:
    """Every strip that Keytween made, in all scenes; of one tween alone with `strip_id`."""
    for scene in bpy.data.scenes:
        if scene.sequence_editor is None:
            continue
        for strip in scene.sequence_editor.strips_all:
            found = strip.get(JOB)
            if found and (not strip_id or found == strip_id):
                yield scene, strip


def shows_draft(strip: bpy.types.Strip) -> bool:
    """Whether the strip is switched to its drafts."""
    return bool(strip.keytween_own.show_draft)


def folder_of(strip: bpy.types.Strip) -> Path:
    """Where the strip's files lie, by one name: a file saved elsewhere says `//../` for the same folder."""
    return Path(os.path.normpath(bpy.path.abspath(strip.directory)))


def fill(strip: bpy.types.Strip, names: Sequence[str]) -> int:
    """Gives the strip's elements these files; touches only those that differ and returns how many.

    A timing of another length makes the strip longer or shorter at its end.
    """
    elements = strip.elements
    count = 0
    while len(elements) > len(names):
        elements.pop(len(elements) - 1)
        count += 1
    for element, name in zip(elements, names, strict=False):
        if element.filename != name:
            element.filename = name
            count += 1
    for name in names[len(elements) :]:
        elements.append(name)
        count += 1
    return count


def move(scene: bpy.types.Scene, strip: bpy.types.Strip, start: int, length: int) -> None:
    """Makes room for a strip that shall begin at a frame and be so long, and moves it there."""
    now = vse_compat.content_start(strip)
    if (now, len(strip.elements)) == (start, length):
        return
    holder = strip.parent_meta() or scene.sequence_editor
    others = {
        other.channel
        for other in holder.strips
        if other != strip and vse_compat.start(other) < start + length and start < vse_compat.end(other)
    }
    if strip.channel in others:
        free = (c for c in range(strip.channel, CHANNELS + 1) if c not in others)
        strip.channel = next(free, strip.channel)
    vse_compat.set_content_start(strip, start)
