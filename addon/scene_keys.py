# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene's own keys as keyframes: where Grease Pencil or objects are keyed, rendered there one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bpy

from keytween_wire.errors import SceneHasNoKeys, StripUnusable

from . import vse_compat
from .capture import Captured, Precision, changed, output_settings

MARKED = {"EXTREME", "BREAKDOWN"}
"""The types of the Grease Pencil keys that are keyframes; others are holds or in-betweens."""


def key_frames(scene: bpy.types.Scene) -> list[int]:
    """The frames of the scene's keys in its range: of Grease Pencil if it has any, else of its objects.

    Of Grease Pencil the drawings that are marked as extremes and breakdowns count; where none is, all do.
    Raises SceneHasNoKeys when there are fewer than two.
    """
    drawn = list(_drawings(scene))
    marked = [frame for frame, kind in drawn if kind in MARKED]
    found = marked or [frame for frame, _ in drawn] or list(_poses(scene))
    frames = sorted({f for f in found if scene.frame_start <= f <= scene.frame_end})
    if len(frames) < 2:
        raise SceneHasNoKeys(name=scene.name, count=len(frames), start=scene.frame_start, end=scene.frame_end)
    return frames


def _drawings(scene: bpy.types.Scene) -> Iterator[tuple[int, str]]:
    """Frame and type of every Grease Pencil drawing that a render shows."""
    for thing in scene.objects:
        if thing.type != "GREASEPENCIL" or thing.hide_render:
            continue
        for layer in thing.data.layers:
            if not layer.hide:
                yield from ((frame.frame_number, frame.keyframe_type) for frame in layer.frames)


def _poses(scene: bpy.types.Scene) -> Iterator[int]:
    """The frame of every key of the scene's objects, their data and their shapes."""
    for thing in scene.objects:
        owners = (thing, thing.data, getattr(thing.data, "shape_keys", None))
        for owner in (owner for owner in owners if owner is not None and not thing.hide_render):
            for curve in vse_compat.fcurves(owner):
                yield from (round(point.co.x) for point in curve.keyframe_points)


def render(
    scene: bpy.types.Scene,
    frames: Sequence[int],
    *,
    precision: Precision,
    advance: Callable[[int], None] = lambda _done: None,
) -> tuple[Captured, ...]:
    """The scene's picture at each frame, transparent where nothing is, without its view transform.

    The sequencer applies its own when it shows them, as it does to scene strips. `advance` is called with
    the number of pictures that are done. Raises StripUnusable when a picture cannot be rendered.
    """
    before = scene.frame_current_final
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        path = Path(folder) / f"keyframe{precision.suffix}"
        changes = [*output_settings(scene, path, precision), (scene.render, "use_sequencer", False)]
        try:
            with changed(changes):
                return tuple(
                    Captured(f"{scene.name} {frame}", frame, 1, _one(scene, frame, path), precision.suffix)
                    for frame in _told(frames, advance)
                )
        finally:
            scene.frame_set(int(before), subframe=before - int(before))


def _told(frames: Sequence[int], advance: Callable[[int], None]) -> Iterator[int]:
    for done, frame in enumerate(frames):
        advance(done)
        yield frame


def _one(scene: bpy.types.Scene, frame: int, path: Path) -> bytes:
    path.unlink(missing_ok=True)
    scene.frame_set(frame)
    try:
        bpy.ops.render.render(write_still=True, scene=scene.name)
    except RuntimeError as error:
        raise StripUnusable(name=scene.name, detail=f"frame {frame} cannot be rendered: {error}") from error
    if not path.is_file():
        raise StripUnusable(name=scene.name, detail=f"rendering frame {frame} wrote no file")
    return path.read_bytes()
