# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings that a scene keeps for its tweens."""

from __future__ import annotations

import zlib

import bpy

from keytween_wire.easing import Interpolation, Mode
from keytween_wire.messages import MorphRequest

from . import poller
from .status import DIFFMORPHER

INTERPOLATIONS = tuple(
    (
        item.value,
        item.value.title(),
        f"Blender's {item.value.title()} interpolation",
        f"IPO_{item.value}",
        number,
    )
    for number, item in enumerate(Interpolation)
)
_MODE_ICONS = {
    Mode.AUTO: "IPO_EASE_IN_OUT",
    Mode.EASE_IN: "IPO_EASE_IN",
    Mode.EASE_OUT: "IPO_EASE_OUT",
    Mode.EASE_IN_OUT: "IPO_EASE_IN_OUT",
}
MODES = tuple(
    (
        item.value,
        item.value.replace("_", " ").title(),
        "Which end the easing is at",
        _MODE_ICONS[item],
        number,
    )
    for number, item in enumerate(Mode)
)
EXPOSURES = (
    ("1", "Ones", "A new drawing on every frame"),
    ("2", "Twos", "Every drawing is held for two frames"),
    ("3", "Threes", "Every drawing is held for three frames"),
    ("0", "More", "Every drawing is held for as many frames as you say"),
)
_FORMAT_NAMES = {
    "auto": "As Keyframes",
    "png8": "PNG 8 bit",
    "png16": "PNG 16 bit",
    "exr-half": "OpenEXR Half",
    "exr-float": "OpenEXR Float",
}
FORMATS = tuple(
    (name, _FORMAT_NAMES.get(name, name), "How the in-betweens are written")
    for name in MorphRequest.FILE_FORMATS
)


def _number(name: str) -> int:
    """A number that stays the engine's own when the daemon lists its engines in another order."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


_PATH_TEXTS = {
    "straight": ("Straight", "Straight from each keyframe to the next"),
    "arc": ("Arc", "Along an arc through the keyframes, without corners"),
}
PATHS = tuple((name, *_PATH_TEXTS.get(name, (name.title(), ""))) for name in MorphRequest.PATHS)
_ENGINE_NAMES = {DIFFMORPHER: "DiffMorpher"}
_engine_items: list[tuple[str, str, str, str, int]] = []
_preset_items: list[tuple[str, str, str, str, int]] = []


def engine_items(
    _owner: KeytweenSettings | None, _context: bpy.types.Context | None
) -> list[tuple[str, str, str, str, int]]:
    """The engines that the daemon offered last."""
    # Blender does not keep the strings of a dynamic enum alive: the list must outlive this call.
    _engine_items[:] = [
        (
            engine.name,
            _ENGINE_NAMES.get(engine.name, engine.name.title()),
            engine.summary if engine.available else f"{engine.summary}. Cannot run here: {engine.reason}",
            "NONE" if engine.available else "ERROR",
            _number(engine.name),
        )
        for engine in poller.STATUS.engines
    ]
    return _engine_items


def preset_items(
    _owner: KeytweenSettings | None, _context: bpy.types.Context | None
) -> list[tuple[str, str, str, str, int]]:
    """DiffMorpher's presets, as the daemon offered them last."""
    _preset_items[:] = [
        (preset.name, preset.name.title(), preset.summary, "NONE", _number(preset.name))
        for preset in poller.STATUS.presets
    ]
    return _preset_items


class KeytweenSettings(bpy.types.PropertyGroup):
    """What the panel sets and the operator reads."""

    engine: bpy.props.EnumProperty(
        name="Engine", description="What makes the in-betweens", items=engine_items, default=_number("flow")
    )
    exposure: bpy.props.EnumProperty(
        name="Exposure", description="For how many frames each drawing is held", items=EXPOSURES, default="1"
    )
    exposure_frames: bpy.props.IntProperty(
        name="Frames", description="Frames that each drawing is held for", default=4, min=1, soft_max=12
    )
    in_betweens: bpy.props.IntProperty(
        name="In-betweens",
        description="Drawings in each gap, spread evenly; 0 fills the gap by the exposure",
        default=0,
        min=0,
        soft_max=48,
    )
    interpolation: bpy.props.EnumProperty(
        name="Interpolation", description="The curve of the change", items=INTERPOLATIONS, default="LINEAR"
    )
    mode: bpy.props.EnumProperty(name="Easing", description="The curve's easing", items=MODES, default="AUTO")
    seed: bpy.props.IntProperty(
        name="Seed", description="The same seed gives the same drawings", default=0, min=0
    )
    checkpoint: bpy.props.StringProperty(
        name="Checkpoint",
        description="The name of a checkpoint that the daemon knows, or a folder with one on its machine",
        subtype="DIR_PATH",
        options={"PATH_SUPPORTS_BLEND_RELATIVE"},
    )
    preset: bpy.props.EnumProperty(
        name="Preset",
        description="How thoroughly DiffMorpher works",
        items=preset_items,
        default=_number("final"),
    )
    prompt: bpy.props.StringProperty(
        name="Prompt",
        description="What the pictures show, one sentence for all keyframes; may be empty",
    )
    path: bpy.props.EnumProperty(
        name="Path", description="How motion runs through three or more keyframes", items=PATHS
    )
    file_format: bpy.props.EnumProperty(
        name="Files", description="The in-betweens' file format", items=FORMATS, default="auto"
    )
    error: bpy.props.StringProperty(
        name="Last Error", description="The last tween's error as JSON, empty when there was none"
    )

    @property
    def frames_held(self) -> int:
        """The exposure as a number of frames."""
        return int(self.exposure) or self.exposure_frames


_register, _unregister = bpy.utils.register_classes_factory((KeytweenSettings,))


def register() -> None:
    """Adds the settings to every scene."""
    _register()
    bpy.types.Scene.keytween = bpy.props.PointerProperty(type=KeytweenSettings)


def unregister() -> None:
    """Takes the settings away again."""
    del bpy.types.Scene.keytween
    _unregister()
