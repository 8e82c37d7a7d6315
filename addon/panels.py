# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar of the sequencer. Draws from the scene's settings and `poller.STATUS`; asks nobody."""

from __future__ import annotations

import textwrap
from typing import ClassVar

import bpy

from keytween_wire.errors import KeytweenError
from keytween_wire.messages import JobState

from . import poller, tween, vse_compat
from .link import LinkState
from .status import DIFFMORPHER, MOVING, JobView, error_from

DAEMON_LINES = {
    LinkState.OFF: ("Daemon not connected", "UNLINKED"),
    LinkState.STARTING: ("Starting the daemon…", "SORTTIME"),
    LinkState.CONNECTING: ("Connecting…", "SORTTIME"),
    LinkState.READY: ("Daemon ready", "LINKED"),
    LinkState.LOST: ("Daemon gone, looking for it…", "UNLINKED"),
}
JOB_ICONS = {
    JobState.QUEUED: "SORTTIME",
    JobState.RUNNING: "PLAY",
    JobState.DONE: "CHECKMARK",
    JobState.FAILED: "ERROR",
    JobState.CANCELLED: "X",
}
ENGINES_WITHOUT_CHANCE = {"auto", "flow", "dissolve"}
CURVES_WITHOUT_MODE = {"CONSTANT", "LINEAR", "BEZIER"}


class _SequencerPanel:
    """Where Keytween's panels are."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "Keytween"


class KEYTWEEN_PT_main(_SequencerPanel, bpy.types.Panel):
    """The daemon, the timing, the engine and the button."""

    bl_label = "Keytween"
    bl_idname = "KEYTWEEN_PT_main"

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the panel, top to bottom in the order of use."""
        scene = vse_compat.sequencer_scene(context)
        layout = self.layout
        draw_daemon(layout)
        error = poller.STATUS.link.error or error_from(scene.keytween.error)
        if error is not None:
            draw_error(layout.box(), context, error)
        layout.use_property_split = True
        layout.use_property_decorate = False
        draw_timing(layout, scene.keytween)
        draw_engine(layout, context, scene.keytween)
        draw_button(layout, scene)


def draw_daemon(layout: bpy.types.UILayout) -> None:
    """The state of the daemon and what can be done about it."""
    state = poller.STATUS.link.state
    text, icon = DAEMON_LINES[state]
    row = layout.row(align=True)
    row.label(text=text, icon=icon)
    if state in (LinkState.OFF, LinkState.LOST):
        buttons = row.row(align=True)
        buttons.operator("keytween.start", icon="PLAY")
        buttons.operator("keytween.connect", text="", icon="FILE_REFRESH")
    elif state is LinkState.READY:
        row.operator("keytween.stop", text="", icon="CANCEL", emboss=False)


def draw_error(box: bpy.types.UILayout, context: bpy.types.Context, error: KeytweenError) -> None:
    """An error: its sentence, its code, the next step, and a way to report it."""
    column = box.column(align=True)
    column.scale_y = 0.85
    for index, line in enumerate(_wrapped(context, f"{error.message} ({error.code})")):
        column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
    for line in _wrapped(context, error.advice):
        column.label(text=line, icon="BLANK1")
    box.operator("keytween.copy_diagnostics", icon="COPYDOWN")


def _wrapped(context: bpy.types.Context, text: str) -> list[str]:
    """The text in lines that fit the sidebar; labels do not wrap by themselves."""
    width = context.region.width if context.region else 280
    scale = context.preferences.system.ui_scale or 1.0
    return textwrap.wrap(text, max(20, int((width / scale - 70) / 6.2))) or [""]


def draw_timing(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """Exposure and easing."""
    column = layout.column()
    column.row(align=True).prop(settings, "exposure", expand=True)
    if settings.exposure == "0":
        column.prop(settings, "exposure_frames")
    column.prop(settings, "in_betweens")
    column.prop(settings, "interpolation")
    row = column.row()
    row.active = settings.interpolation not in CURVES_WITHOUT_MODE
    row.prop(settings, "mode")


def draw_engine(
    layout: bpy.types.UILayout, context: bpy.types.Context, settings: bpy.types.PropertyGroup
) -> None:
    """The engine, why it cannot run if it cannot, and what it alone is told."""
    column = layout.column()
    column.prop(settings, "engine")
    chosen = next((e for e in poller.STATUS.engines if e.name == settings.engine), None)
    if chosen is not None and not chosen.available:
        for index, line in enumerate(_wrapped(context, chosen.reason)):
            column.label(text=line, icon="BLANK1" if index else "ERROR")
    if settings.engine in MOVING:
        column.row(align=True).prop(settings, "path", expand=True)
    if settings.engine == DIFFMORPHER:
        draw_diffusion(column, settings)
    if settings.engine not in ENGINES_WITHOUT_CHANCE:
        column.prop(settings, "seed")


def draw_diffusion(column: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """What DiffMorpher needs to know; a checkpoint that is missing stands out."""
    row = column.row()
    row.alert = not settings.checkpoint
    row.prop(settings, "checkpoint", placeholder="Folder")
    column.prop(settings, "preset")
    column.prop(settings, "prompt", placeholder="What the pictures show")


def draw_button(layout: bpy.types.UILayout, scene: bpy.types.Scene) -> None:
    """The big one."""
    count = tween.count_selected(scene)
    row = layout.row()
    row.scale_y = 1.6
    # A click must go through invoke: execute waits for the whole job.
    row.operator_context = "INVOKE_DEFAULT"
    text = f"Tween {count} Keyframes" if count > 1 else "Tween"
    row.operator("keytween.tween", text=text, icon="IPO_EASE_IN_OUT")
    layout.operator("keytween.retime", icon="TIME")


class KEYTWEEN_PT_options(_SequencerPanel, bpy.types.Panel):
    """What is seldom changed."""

    bl_label = "Options"
    bl_parent_id = "KEYTWEEN_PT_main"
    bl_options: ClassVar[set[str]] = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the options."""
        settings = vse_compat.sequencer_scene(context).keytween
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "file_format")
        layout.operator("keytween.copy_diagnostics", icon="COPYDOWN")


class KEYTWEEN_PT_jobs(_SequencerPanel, bpy.types.Panel):
    """The jobs of this file."""

    bl_label = "Jobs"
    bl_parent_id = "KEYTWEEN_PT_main"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Only when there are any."""
        return bool(poller.STATUS.jobs)

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the jobs, the newest first."""
        views = list(poller.STATUS.jobs.values())
        for view in reversed(views):
            draw_job(self.layout, context, view)
        if any(view.state.ended for view in views):
            self.layout.operator("keytween.forget", icon="TRASH")


def draw_job(layout: bpy.types.UILayout, context: bpy.types.Context, view: JobView) -> None:
    """One job: its name, how far it is, and what went wrong."""
    box = layout.box()
    row = box.row()
    row.label(text=view.label, icon=JOB_ICONS[view.state])
    if view.state.ended:
        end = row.row()
        end.alignment = "RIGHT"
        end.label(text=_count(view))
    else:
        row.operator("keytween.cancel", text="", icon="X", emboss=False).job_id = view.job_id
        box.progress(factor=view.factor, text=_progress(view), type="BAR")
    if view.error is not None and view.state is not JobState.CANCELLED:
        draw_error(box, context, view.error)


def _count(view: JobView) -> str:
    if view.state is JobState.DONE:
        return f"{view.total} frames"
    return f"{len(view.files)} of {view.total} frames"


def _progress(view: JobView) -> str:
    """How far a job is, in the fewest words."""
    parts = [f"{len(view.files)} / {view.total}"]
    if view.state is JobState.QUEUED:
        parts.append("waiting")
    elif view.phase:
        parts.append(view.phase)
    if view.eta_s >= 0:
        parts.append(remaining(view.eta_s))
    return "  ·  ".join(parts)


def remaining(seconds: float) -> str:
    """A time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s left"
    minutes, rest = divmod(whole, 60)
    return (
        f"{minutes} min {rest:02d} s left"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min left"
    )


register, unregister = bpy.utils.register_classes_factory(
    (KEYTWEEN_PT_main, KEYTWEEN_PT_options, KEYTWEEN_PT_jobs)
)
