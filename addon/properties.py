# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings that a scene keeps for its tweens."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import bpy

from keytween_wire.easing import Interpolation, Mode
from keytween_wire.messages import MorphRequest
from keytween_wire.timeline import MOST_DRIFT

from . import insert, poller
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
CURVE_STEPS = 256
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
    draft_first: bpy.props.BoolProperty(
        name="Draft First",
        description="While DiffMorpher works, show drawings of flow, which are there much sooner",
        default=True,
    )
    hide_keyframes: bpy.props.BoolProperty(
        name="Hide Keyframes",
        description="Hide the strips of keyframes with soft mattes below the tween, which shows the same "
        "pictures: a soft edge that lies over itself would be denser",
        default=True,
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


def _choose_curve(segment: KeytweenSegment, _context: bpy.types.Context) -> None:
    """A drawn easing needs a curve to draw: it begins as a straight one."""
    if segment.interpolation == "CURVE" and segment.curve is None:
        segment.curve = new_curve()


class KeytweenSegment(bpy.types.PropertyGroup):
    """What one segment of a tween has of its own."""

    own_exposure: bpy.props.EnumProperty(
        name="Exposure",
        description="For how many frames each drawing of this segment is held",
        items=(("ALL", "As Tween", "As the tween as a whole"), *EXPOSURES),
        default="ALL",
    )
    exposure_frames: bpy.props.IntProperty(
        name="Frames", description="Frames that each drawing is held for", default=4, min=1, soft_max=12
    )
    interpolation: bpy.props.EnumProperty(
        name="Interpolation",
        description="The curve of this segment's change",
        items=(
            ("ALL", "As Tween", "As the tween as a whole", "NONE", 1000),
            ("CURVE", "Drawn", "A curve that you draw below", "IPO_BEZIER", 1001),
            *INTERPOLATIONS,
        ),
        default="ALL",
        update=_choose_curve,
    )
    mode: bpy.props.EnumProperty(name="Easing", description="The curve's easing", items=MODES, default="AUTO")
    drift: bpy.props.FloatProperty(
        name="Moving Hold",
        description="How far the first keyframe's hold drifts towards the next one instead of standing still",
        default=0.0,
        min=0.0,
        max=MOST_DRIFT,
        soft_max=0.2,
        subtype="FACTOR",
    )
    curve: bpy.props.PointerProperty(
        name="Curve", description="Where a drawn easing keeps its curve", type=bpy.types.NodeTree
    )

    @property
    def frames_held(self) -> int | None:
        """The exposure as a number of frames; None is as the tween."""
        return None if self.own_exposure == "ALL" else int(self.own_exposure) or self.exposure_frames


def _show_anew(own: KeytweenOwn, _context: bpy.types.Context) -> None:
    """The strip shows at once what was chosen."""
    for _, strip in insert.tween_strips():
        if strip.keytween_own == own:
            poller.show(strip)


class KeytweenOwn(bpy.types.PropertyGroup):
    """A tween's own settings, on its strip."""

    settings: bpy.props.PointerProperty(
        name="Settings", description="What the tween as a whole is made with", type=KeytweenSettings
    )
    segments: bpy.props.CollectionProperty(
        name="Segments", description="What single segments have of their own", type=KeytweenSegment
    )
    show_draft: bpy.props.BoolProperty(
        name="Show Draft",
        description="Show the draft's drawings where there are any, to compare",
        default=False,
        update=_show_anew,
    )
    segment: bpy.props.IntProperty(
        name="Segment", description="The segment that the panel shows", default=1, min=1
    )


def new_curve() -> bpy.types.NodeTree:
    """A straight curve from 0 to 1 that may be drawn beyond both; Blender keeps curves in nodes only."""
    tree = bpy.data.node_groups.new(".Keytween Easing", "ShaderNodeTree")
    mapping = tree.nodes.new("ShaderNodeFloatCurve").mapping
    mapping.clip_min_y, mapping.clip_max_y = -0.5, 1.5
    mapping.extend = "HORIZONTAL"
    mapping.update()
    return tree


def curve_of(segment: KeytweenSegment) -> bpy.types.ShaderNodeFloatCurve | None:
    """The node that holds a segment's curve; None when there is none yet."""
    nodes = segment.curve.nodes if segment.curve else ()
    return next((node for node in nodes if node.bl_idname == "ShaderNodeFloatCurve"), None)


def drawn_values(segment: KeytweenSegment) -> tuple[float, ...]:
    """The drawn curve at as many steps as Blender itself keeps of it; straight while nothing is drawn."""
    node = curve_of(segment)
    if node is None:
        return (0.0, 1.0)
    mapping = node.mapping
    mapping.update()
    curve = mapping.curves[0]
    return tuple(round(mapping.evaluate(curve, step / CURVE_STEPS), 6) for step in range(CURVE_STEPS + 1))


def draw_curve(segment: KeytweenSegment, points: Sequence[tuple[float, float]]) -> None:
    """Makes the segment's easing a drawn one through these points, from left to right."""
    segment.interpolation = "CURVE"
    if segment.curve is None or segment.curve.users > 1:
        segment.curve = new_curve()
    node = curve_of(segment)
    assert node is not None
    curve = node.mapping.curves[0]
    while len(curve.points) > 2:
        curve.points.remove(curve.points[1])
    for point, place in zip(curve.points, (points[0], points[-1]), strict=True):
        point.location = place
    for x, y in points[1:-1]:
        curve.points.new(x, y)
    node.mapping.update()


def give_own(strip: bpy.types.Strip, settings: KeytweenSettings, segments: int) -> None:
    """Gives a tween's strip settings of its own, and as many segments as it has."""
    own = strip.keytween_own
    copy_settings(settings, own.settings)
    own.segments.clear()
    for _ in range(segments):
        own.segments.add()


def copy_settings(source: KeytweenSettings, target: KeytweenSettings) -> None:
    """Gives one group of settings what another has; the last error is none of them."""
    for prop in source.bl_rna.properties:
        if not prop.is_readonly and prop.identifier not in ("name", "error"):
            setattr(target, prop.identifier, getattr(source, prop.identifier))


def copy_own(source: bpy.types.Strip, target: bpy.types.Strip) -> None:
    """Gives a tween's strip the settings of another one; of its segments too, where they have as many."""
    ours, theirs = source.keytween_own, target.keytween_own
    copy_settings(ours.settings, theirs.settings)
    if len(ours.segments) != len(theirs.segments):
        return
    for one, other in zip(ours.segments, theirs.segments, strict=True):
        for name in ("own_exposure", "exposure_frames", "interpolation", "mode", "drift"):
            setattr(other, name, getattr(one, name))
        other.curve = one.curve.copy() if one.curve else None


_register, _unregister = bpy.utils.register_classes_factory((KeytweenSettings, KeytweenSegment, KeytweenOwn))


def register() -> None:
    """Adds the settings to every scene and every strip."""
    _register()
    bpy.types.Scene.keytween = bpy.props.PointerProperty(type=KeytweenSettings)
    bpy.types.Strip.keytween_own = bpy.props.PointerProperty(type=KeytweenOwn)


def unregister() -> None:
    """Takes the settings away again."""
    del bpy.types.Strip.keytween_own
    del bpy.types.Scene.keytween
    _unregister()
