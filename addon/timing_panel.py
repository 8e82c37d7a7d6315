# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar's panels for the active tween: its timing, segment by segment, and what can be done with it."""

from __future__ import annotations

from typing import ClassVar

import bpy

from . import insert, menus, panels, properties, retiming, timing_chart, vse_compat, words
from .status import SLOW

CHART_SCALE = 9.0
"""How many buttons high the timing chart is."""


class _TweenPanel:
    """Where these panels are, and when: while a tween is active."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "Keytween"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """There must be a tween to speak of."""
        return retiming.active_tween(vse_compat.sequencer_scene(context)) is not None


class KEYTWEEN_PT_tween(_TweenPanel, bpy.types.Panel):
    """The active tween: what it is, whether it is up to date, its timing."""

    bl_label = "Active Tween"
    bl_idname = "KEYTWEEN_PT_tween"

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the panel, top to bottom in the order of use."""
        scene = vse_compat.sequencer_scene(context)
        strip = retiming.active_tween(scene)
        if strip is None:
            return
        layout = self.layout
        draw_standing(layout, context, strip)
        row = layout.row(align=True)
        # A click must go through invoke: execute waits for the drawings.
        row.operator_context = "INVOKE_DEFAULT"
        row.operator("keytween.retime", icon="TIME")
        row.operator("keytween.regenerate", icon="FILE_REFRESH")
        row = layout.row(align=True)
        row.operator_context = "INVOKE_DEFAULT"
        row.operator("keytween.promote", icon="KEYFRAME")
        row.operator("keytween.replace_drawing", text="", icon="FILE_IMAGE")
        row.operator("keytween.give_back", text="", icon="LOOP_BACK")
        menus.draw_hiding(layout, scene)
        if strip.keytween_own.settings.engine in SLOW:
            layout.prop(strip.keytween_own, "show_draft", toggle=True)
        layout.use_property_split = True
        layout.use_property_decorate = False
        panels.draw_timing(layout, strip.keytween_own.settings)
        draw_chart(layout, strip)
        draw_segment(layout, strip)
        layout.operator("keytween.reuse_settings", icon="COPYDOWN")


def draw_standing(layout: bpy.types.UILayout, context: bpy.types.Context, strip: bpy.types.Strip) -> None:
    """The strip's name, and why its drawings are not what they should be, if they are not."""
    layout.label(text=strip.name, icon="SEQUENCE")
    for line in filter(None, strip.get(insert.STALE, "").split("\n")):
        for index, part in enumerate(panels.wrapped(context, line)):
            layout.label(text=part, icon="BLANK1" if index else "ERROR")


def draw_chart(layout: bpy.types.UILayout, strip: bpy.types.Strip) -> None:
    """The timing chart of the strip as it is timed now, its chosen segment the brightest."""
    tween, own = retiming.tween_of(strip), strip.keytween_own
    chosen = max(0, min(own.segment, len(tween.looks)) - 1)
    if icon := timing_chart.icon_of(tween, chosen):
        layout.template_icon(icon_value=icon, scale=CHART_SCALE)


def draw_segment(layout: bpy.types.UILayout, strip: bpy.types.Strip) -> None:
    """What one segment has of its own, and which one."""
    own = strip.keytween_own
    if not len(own.segments):
        return
    number = min(own.segment, len(own.segments))
    chosen = own.segments[number - 1]
    box = layout.box().column()
    if len(own.segments) > 1:
        text = words.said("Segment (of {count})", count=len(own.segments))
        box.prop(own, "segment", text=text, translate=False)
    box.prop(chosen, "own_exposure", text="Exposure")
    if chosen.own_exposure == "0":
        box.prop(chosen, "exposure_frames")
    box.prop(chosen, "interpolation")
    node = properties.curve_of(chosen)
    if chosen.interpolation == "CURVE" and node is not None:
        box.template_curve_mapping(node, "mapping")
    elif chosen.interpolation not in {"ALL", *panels.CURVES_WITHOUT_MODE}:
        box.prop(chosen, "mode")
    box.prop(chosen, "drift")


class KEYTWEEN_PT_tween_engine(_TweenPanel, bpy.types.Panel):
    """What the active tween is drawn with."""

    bl_label = "Engine"
    bl_parent_id = "KEYTWEEN_PT_tween"
    bl_options: ClassVar[set[str]] = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the engine's settings; Regenerate makes them so."""
        strip = retiming.active_tween(vse_compat.sequencer_scene(context))
        if strip is None:
            return
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        panels.draw_engine(layout, context, strip.keytween_own.settings)
        layout.prop(strip.keytween_own.settings, "file_format")


register, unregister = bpy.utils.register_classes_factory((KEYTWEEN_PT_tween, KEYTWEEN_PT_tween_engine))
