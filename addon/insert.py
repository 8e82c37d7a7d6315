# SPDX-License-Identifier: GPL-3.0-or-later
"""From frames to strips: one image strip on a free channel, whose elements say what each frame shows."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from keytween_wire.errors import OutputUnwritable, RequestError
from keytween_wire.messages import JobState
from keytween_wire.timeline import Cel

from . import vse_compat
from .capture import Look, changed

JOB = "keytween_job"
TWEEN = "keytween"
SINCE = "keytween_since"
STATE = "keytween_state"
ERROR = "keytween_error"
CHANNELS = 128
COLOUR_TAG = "COLOR_04"
PIECE_BYTES = 1 << 18
"""What a disk cache takes in a fraction of a millisecond."""
_DRAWING = re.compile(r"drawing_(\d{4,})\.[a-z]+")


@dataclass(frozen=True, slots=True)
class Tween:
    """What a strip remembers of how it was made. Kept as JSON on the strip, so that it is saved with it."""

    job_id: str
    label: str
    engine: str
    keys: tuple[str, ...]
    """The file names of the keyframes' copies."""
    frames: tuple[tuple[int, int], ...]
    """Frame and hold of each keyframe, counted from the first keyframe's frame."""
    drawings: tuple[tuple[int, float], ...]
    """Segment and position of each drawing."""
    cels: tuple[tuple[str, int], ...]
    """What each frame shows: ("k", keyframe) or ("d", drawing)."""
    request: dict[str, Any]
    settings: dict[str, Any]

    def to_json(self) -> str:
        """The text for the strip."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Tween:
        """The tween that a strip remembers."""
        values = json.loads(text)
        for name in ("keys", "frames", "drawings", "cels"):
            values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[name])
        return cls(**{name: values[name] for name in cls.__slots__})

    def with_cels(self, cels: Sequence[Cel], settings: Mapping[str, Any]) -> Tween:
        """The same drawings in another timing."""
        return replace(self, cels=packed(cels), settings=dict(settings))

    def shown(self, have: Mapping[int, str]) -> list[str]:
        """The file of each frame; a drawing that is not there yet shows the nearest before it."""
        names: list[str] = []
        current = self.keys[0]
        for kind, index in self.cels:
            current = self.keys[index] if kind == "k" else have.get(index, current)
            names.append(current)
        return names


def packed(cels: Sequence[Cel]) -> tuple[tuple[str, int], ...]:
    """Cels in the form that a strip remembers."""
    return tuple(("k", c.keyframe) if c.keyframe is not None else ("d", c.drawing or 0) for c in cels)


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


def drawing_name(index: int, suffix: str) -> str:
    """The file name of a drawing."""
    return f"drawing_{index:04d}{suffix}"


def drawings_in(folder: Path) -> dict[int, str]:
    """The drawings that lie in a folder, by index; empty files do not count."""
    try:
        entries = [(entry.name, entry.stat().st_size) for entry in os.scandir(folder)]
    except OSError:
        return {}
    found = ((_DRAWING.fullmatch(name), name) for name, size in entries if size)
    return {int(match[1]): name for match, name in found if match}


# ---- strips


def insert(
    scene: bpy.types.Scene, tween: Tween, *, folder: Path, look: Look, start: int, above: int
) -> bpy.types.Strip:
    """The tween's strip, at its full length from the start, on a free channel above `above`."""
    strips = current_strips(scene)
    channel = free_channel(scene, start, start + len(tween.cels), lowest=above + 1)
    names = tween.shown(drawings_in(folder))
    with changed(vse_compat.prefetch(scene.sequence_editor)):
        strip = strips.new_image(
            name=f"Tween {tween.label}",
            filepath=_in_blend(folder / names[0]),
            channel=channel,
            frame_start=start,
        )
        for name in names[1:]:
            strip.elements.append(name)
    strip.blend_type = "ALPHA_OVER"
    strip.color_tag = COLOUR_TAG
    strip.colorspace_settings.name = look.colour_space
    strip.alpha_mode = look.alpha_mode
    for name, value in look.transform:
        setattr(strip.transform, name, value)
    strip[JOB] = tween.job_id
    strip[TWEEN] = tween.to_json()
    strip[SINCE] = 0
    strip[STATE] = JobState.QUEUED.value
    return strip


def _in_blend(path: Path) -> str:
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


def tween_strips(job_id: str = "") -> Iterator[tuple[bpy.types.Scene, bpy.types.Strip]]:
    """Every strip that Keytween made, in all scenes; of one job alone with `job_id`."""
    for scene in bpy.data.scenes:
        if scene.sequence_editor is None:
            continue
        for strip in scene.sequence_editor.strips_all:
            found = strip.get(JOB)
            if found and (not job_id or found == job_id):
                yield scene, strip


def folder_of(strip: bpy.types.Strip) -> Path:
    """Where the strip's files lie."""
    return Path(bpy.path.abspath(strip.directory))


def fill(strip: bpy.types.Strip, names: Sequence[str]) -> int:
    """Gives the strip's elements these files; touches only those that differ and returns how many."""
    count = 0
    for element, name in zip(strip.elements, names, strict=False):
        if element.filename != name:
            element.filename = name
            count += 1
    return count
