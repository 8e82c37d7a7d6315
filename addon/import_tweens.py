# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that opens a batch's timeline: each clip of pictures becomes a strip at its frames."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import bpy
from bpy_extras.io_utils import ImportHelper

from keytween_wire.errors import KeytweenError, RequestError, TimelinePicturesMissing

from . import insert, poller, timeline_file, vse_compat, words
from .capture import changed
from .operators import Result, keep_error, report
from .timeline_file import Cut, Timeline, Track

NAMED = 3
"""How many missing files are named; the others are counted."""


class KEYTWEEN_OT_import_tweens(bpy.types.Operator, ImportHelper):
    """Open the timeline that a batch left (.otio): its stills and image sequences become strips at the \
timeline's frames, each track on a free channel"""

    bl_idname = "keytween.import_tweens"
    bl_label = "Import Tweens"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}
    filename_ext = ".otio"

    filter_glob: bpy.props.StringProperty(default="*.otio", options={"HIDDEN"})
    take_rate: bpy.props.BoolProperty(
        name="Take Frame Rate",
        description="Give the scene the timeline's frame rate. Without it, strips of a timeline with another "
        "rate are moved to the same time, where frames may be left out or shown twice",
        default=False,
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Nothing may be rendering."""
        if poller.STATUS.rendering:
            cls.poll_message_set("Wait for the render to end")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> Result:
        """Reads and checks everything, then inserts the strips."""
        scene = vse_compat.sequencer_scene(context)
        keep_error(scene, None)
        source = Path(bpy.path.abspath(self.filepath))
        try:
            found = timeline_file.read(source, bpy.path.extensions_image)
            find_all(found)
            own = rate_of(scene)
            moved = not self.take_rate and not timeline_file.same_rate(own, found.rate)
            placed = timeline_file.at_rate(found, own) if moved else found
            strips = place(scene, placed)
        except KeytweenError as error:
            return report(self, context, error)
        if self.take_rate:
            take_rate(scene, found.rate)
        self._say(found, own if moved else None, len(strips))
        return {"FINISHED"}

    def _say(self, found: Timeline, other: Fraction | None, count: int) -> None:
        said = words.said("Strips imported: {count}", count=count)
        if found.left_out:
            said += ". " + words.said("Left out, since they are no pictures: {count}", count=found.left_out)
        if other is not None:
            said += ". " + words.said(
                "The timeline has {theirs} frames a second and the scene {ours}: "
                "strips were moved to the same time, not the same frame",
                theirs=f"{float(found.rate):.6g}",
                ours=f"{float(other):.6g}",
            )
        self.report({"WARNING"} if found.left_out or other is not None else {"INFO"}, said)


def rate_of(scene: bpy.types.Scene) -> Fraction:
    """The scene's frames a second."""
    return Fraction(scene.render.fps) / Fraction(scene.render.fps_base).limit_denominator(100_000)


def take_rate(scene: bpy.types.Scene, rate: Fraction) -> None:
    """Gives the scene a rate; Blender keeps a whole number and what it is divided by."""
    scene.render.fps = math.ceil(rate)
    scene.render.fps_base = float(math.ceil(rate) / rate)


def find_all(found: Timeline) -> None:
    """Looks whether every picture is there; raises TimelinePicturesMissing."""
    files = dict.fromkeys(file for track in found.tracks for cut in track.cuts for file in cut.files)
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        names = ", ".join(str(file) for file in missing[:NAMED])
        rest = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise TimelinePicturesMissing(count=len(missing), name=found.source, names=names + rest)


def place(scene: bpy.types.Scene, found: Timeline) -> list[bpy.types.Strip]:
    """Inserts a strip for each clip, each track on a free channel above the one before; all or none.

    The new strips are selected, as with Blender's own import; a channel that was empty gets
    its track's name. Raises RequestError.
    """
    if scene.sequence_editor is None:
        scene.sequence_editor_create()
    tracks = [track for track in found.tracks if track.cuts]
    channels = free_channels(scene, tracks)
    present = list(insert.current_strips(scene))
    used = {strip.channel for strip in present}
    strips: list[bpy.types.Strip] = []
    with changed(vse_compat.prefetch(scene.sequence_editor)), ExitStack() as undone:
        for track, channel in zip(tracks, channels, strict=True):
            for cut in track.cuts:
                strip = _strip(scene, cut, channel)
                undone.callback(insert.current_strips(scene).remove, strip)
                strips.append(strip)
        undone.pop_all()
    for strip in present:
        strip.select = False
    for track, channel in zip(tracks, channels, strict=True):
        if channel not in used:
            insert.current_channels(scene)[channel].name = track.name
    return strips


def free_channels(scene: bpy.types.Scene, tracks: Sequence[Track]) -> list[int]:
    """A channel for each track that is free from its first frame to its last; raises RequestError."""
    found: list[int] = []
    for track in tracks:
        lowest = found[-1] + 1 if found else 1
        start, end = track.cuts[0].start, track.cuts[-1].end
        channel = insert.free_channel(scene, start, end, lowest=lowest) if lowest <= insert.CHANNELS else 0
        if channel < lowest:
            raise RequestError(detail=f"no channel of the sequencer is free for the track {track.name}")
        found.append(channel)
    return found


def _strip(scene: bpy.types.Scene, cut: Cut, channel: int) -> bpy.types.Strip:
    strip = insert.current_strips(scene).new_image(
        name=cut.name,
        filepath=insert.in_blend(cut.files[0]),
        channel=channel,
        frame_start=cut.start,
        fit_method="FIT",
    )
    for file in cut.files[1:]:
        strip.elements.append(file.name)
    # A still is one picture that is held; a sequence already has its length.
    vse_compat.set_end(strip, cut.end)
    strip.blend_type = "ALPHA_OVER"
    strip.mute = cut.muted
    strip.select = True
    return strip


def draw_add_menu(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    """Our entry at the end of the sequencer's Add menu."""
    layout = menu.layout
    layout.separator()
    # A click must open the file chooser.
    layout.operator_context = "INVOKE_DEFAULT"
    layout.operator(KEYTWEEN_OT_import_tweens.bl_idname, icon="IPO_EASE_IN_OUT")


_register, _unregister = bpy.utils.register_classes_factory((KEYTWEEN_OT_import_tweens,))


def register() -> None:
    """Adds the operator and the menu's entry."""
    _register()
    bpy.types.SEQUENCER_MT_add.append(draw_add_menu)


def unregister() -> None:
    """Takes them away again."""
    bpy.types.SEQUENCER_MT_add.remove(draw_add_menu)
    _unregister()
