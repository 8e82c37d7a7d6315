# SPDX-License-Identifier: GPL-3.0-or-later
"""The strips that a tween's keyframes were taken from: finding them again, and what they looked like then."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import bpy

from . import vse_compat
from .capture import TRANSFORM, source_path
from .memory import Origin

KEY = "keytween_key"
"""The id that a keyframe's strip carries. Names change and Python references die with undo; this stays."""
MOST_BYTES = 64 << 20
"""A file that is larger is known by its size and time alone; no picture is, but films are."""
_SHOWN = (
    *("use_flip_x", "use_flip_y", "use_reverse_frames", "color_multiply", "color_saturation"),
    *("blend_alpha", "alpha_mode"),
)


def mark(strip: bpy.types.Strip) -> str:
    """The strip's id; it is given one when it has none."""
    if not strip.get(KEY):
        strip[KEY] = uuid.uuid4().hex[:12]
    return str(strip[KEY])


def carriers(scene: bpy.types.Scene) -> dict[str, list[bpy.types.Strip]]:
    """The scene's strips by the id that they carry; copies of a strip carry the same one."""
    found: dict[str, list[bpy.types.Strip]] = {}
    for strip in scene.sequence_editor.strips_all if scene.sequence_editor else ():
        if key := strip.get(KEY):
            found.setdefault(str(key), []).append(strip)
    return found


def find(carried: dict[str, list[bpy.types.Strip]], origin: Origin) -> bpy.types.Strip | None:
    """The strip of a keyframe: the one of that name among copies, else the only one; None when it is gone."""
    strips = carried.get(origin.key, []) if origin.key else []
    named = [strip for strip in strips if strip.name == origin.name]
    if named:
        return named[0]
    return strips[0] if len(strips) == 1 else None


def of(strip: bpy.types.Strip) -> Origin:
    """The strip as it is now: its id, and how to see later whether its picture changed."""
    path = file_of(strip)
    size, mtime = stamp(path)
    return Origin(mark(strip), strip.name, size, mtime, digest_of(path), look_of(strip))


def file_of(strip: bpy.types.Strip) -> Path | None:
    """The file that a strip's picture comes from; None where no file alone decides."""
    if strip.type == "IMAGE" and len(strip.elements):
        return source_path(strip)
    if strip.type == "MOVIE":
        return Path(bpy.path.abspath(strip.filepath))
    return None


def stamp(path: Path | None) -> tuple[int, int]:
    """Size and time of a file, -1 and -1 without one."""
    try:
        found = path.stat() if path else None
    except OSError:
        found = None
    return (found.st_size, found.st_mtime_ns) if found else (-1, -1)


def digest_of(path: Path | None) -> str:
    """The digest of a file's bytes; empty without one, and for a file as large as films are."""
    try:
        if path is None or path.stat().st_size > MOST_BYTES:
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def has_changed(strip: bpy.types.Strip, origin: Origin) -> bool:
    """Whether a keyframe's strip shows another picture than it did; a file saved again as it was does not."""
    if look_of(strip) != origin.look:
        return True
    path = file_of(strip)
    if stamp(path) == (origin.size, origin.mtime):
        return False
    return not origin.digest or digest_of(path) != origin.digest


def look_of(strip: bpy.types.Strip) -> str:
    """A name for how the strip shows its picture: place, crop, colours, modifiers."""
    return hashlib.sha256(repr(list(_shown(strip))).encode()).hexdigest()[:10]


def _shown(strip: bpy.types.Strip) -> Iterator[object]:
    for name in TRANSFORM:
        value = getattr(getattr(strip, "transform", None), name, None)
        yield round(value, 5) if isinstance(value, float) else value if value is None else str(value)[:60]
    crop = getattr(strip, "crop", None)
    yield crop and (crop.min_x, crop.max_x, crop.min_y, crop.max_y)
    for name in _SHOWN:
        value = getattr(strip, name, None)
        yield round(value, 5) if isinstance(value, float) else value
    # Whether it is hidden was said here once, and is no look of it; what strips remember stays as it is.
    yield False
    space = getattr(strip, "colorspace_settings", None)
    yield space and space.name
    yield [(modifier.type, modifier.mute) for modifier in strip.modifiers]
    if strip.type == "MOVIE":
        # Which of the film's frames is shown first.
        yield vse_compat.start(strip) - vse_compat.content_start(strip)


def place_of(strip: bpy.types.Strip) -> tuple[int, int]:
    """First frame and length: where the keyframe is, and how long it is held."""
    start = vse_compat.start(strip)
    return start, vse_compat.end(strip) - start
