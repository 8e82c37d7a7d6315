# SPDX-License-Identifier: GPL-3.0-or-later
"""Every branch on Blender's version, nowhere else. What differs is looked for, not deduced from numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy


def _has(cls: type, name: str) -> bool:
    return name in cls.bl_rna.properties


def start(strip: bpy.types.Strip) -> int:
    """The first frame that shows the strip."""
    # 5.1 renamed the times; the old names warn there and go away in 6.0.
    return int(strip.left_handle if _has(bpy.types.Strip, "left_handle") else strip.frame_final_start)


def end(strip: bpy.types.Strip) -> int:
    """The first frame after the strip."""
    return int(strip.right_handle if _has(bpy.types.Strip, "right_handle") else strip.frame_final_end)


def content_start(strip: bpy.types.Strip) -> int:
    """The frame of the strip's first picture, whether or not it is trimmed away."""
    return int(strip.content_start if _has(bpy.types.Strip, "content_start") else strip.frame_start)


def set_content_start(strip: bpy.types.Strip, frame: int) -> None:
    """Moves the strip so that its first picture is at a frame."""
    name = "content_start" if _has(bpy.types.Strip, "content_start") else "frame_start"
    setattr(strip, name, frame)


def set_end(strip: bpy.types.Strip, frame: int) -> None:
    """Makes the strip end before a frame; beyond its content it holds its last picture."""
    if _has(bpy.types.Strip, "right_handle"):
        strip.right_handle = frame
    else:
        strip.frame_final_end = frame


def frames_shown(strip: bpy.types.Strip) -> int:
    """How many different frames of its film or scene a strip shows; beyond its content it holds."""
    if _has(bpy.types.Strip, "content_start"):
        first, last = strip.content_start, strip.content_end
    else:
        first, last = strip.frame_start, strip.frame_start + strip.frame_duration
    return max(1, int(min(end(strip), last) - max(start(strip), first)))


def sequencer_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene whose strips the sequencer shows; 5.0 and later let it differ from the active scene."""
    return getattr(context, "sequencer_scene", None) or context.scene


def effect_inputs(strip: bpy.types.Strip) -> tuple[bpy.types.Strip, ...]:
    """The strips that an effect strip reads; none for other strips."""
    found = (getattr(strip, name, None) for name in ("input_1", "input_2", "input_3"))
    return tuple(other for other in found if other is not None)


def choose_picture_output(settings: bpy.types.ImageFormatSettings) -> list[tuple[Any, str, Any]]:
    """The change that must come before a picture format can be chosen; 5.0 asks for the medium first."""
    if _has(bpy.types.ImageFormatSettings, "media_type"):
        return [(settings, "media_type", "IMAGE")]
    return []


def prefetch(editor: bpy.types.SequenceEditor) -> list[tuple[Any, str, Any]]:
    """The change that keeps the prefetch thread out of the way while strips are made."""
    return [(editor, "use_prefetch", False)] if _has(bpy.types.SequenceEditor, "use_prefetch") else []


def fcurves(owner: bpy.types.ID) -> Iterator[bpy.types.FCurve]:
    """The F-curves of a scene, an object or its data; 5.0 keeps them per slot of the action."""
    animation = owner.animation_data
    action = animation.action if animation else None
    if action is None:
        return
    if _has(bpy.types.Action, "fcurves"):
        yield from action.fcurves
        return
    from bpy_extras.anim_utils import action_get_channelbag_for_slot

    bag = action_get_channelbag_for_slot(action, animation.action_slot)
    if bag is not None:
        yield from bag.fcurves
