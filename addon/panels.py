# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar of the sequencer. Draws from the scene's settings and `poller.STATUS`; asks nobody."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from typing import Any, ClassVar

import bpy

from keytween_wire.errors import KeytweenError
from keytween_wire.messages import JobState

from . import errands, link, poller, preferences, setting_up, thumbnails, tween, vse_compat, words
from .errands import ErrandState
from .link import LinkState
from .menus import KEYTWEEN_PT_presets
from .prompts import OWN
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


MOST_JOBS = 8
"""As many jobs are drawn, the newest first; a file may remember hundreds."""
FIXES: dict[str, tuple[str, ...]] = {
    "KT-206": ("preferences",),
    "KT-209": ("preferences",),
    "KT-210": ("checkpoints",),
    "KT-211": ("checkpoints",),
    "KT-212": ("checkpoints", "log"),
    "KT-301": ("start",),
    "KT-302": ("start",),
    "KT-303": ("connect",),
    "KT-304": ("set_up",),
    "KT-306": ("start", "log"),
    "KT-308": ("start",),
    "KT-309": ("set_up", "log"),
    "KT-310": ("online",),
    "KT-311": ("set_up", "log"),
    "KT-318": ("connect",),
    "KT-500": ("log",),
    "KT-503": ("memory", "log"),
    "KT-505": ("preferences",),
    "KT-507": ("memory", "log"),
    "KT-509": ("checkpoints",),
}
"""What each error's box offers, by the error's code."""
DRAWN_MS: dict[str, float] = {}
"""How long the slowest drawing of each panel took, by the panel's name."""


def measured(draw: Callable[[Any, bpy.types.Context], None]) -> Callable[[Any, bpy.types.Context], None]:
    """The same drawing, with the time that it takes written down."""

    def timed(panel: Any, context: bpy.types.Context) -> None:
        started = time.perf_counter()
        draw(panel, context)
        name = draw.__qualname__.partition(".")[0]
        DRAWN_MS[name] = max(DRAWN_MS.get(name, 0.0), (time.perf_counter() - started) * 1000)

    timed.__doc__ = draw.__doc__
    return timed


class _SequencerPanel:
    """Where Keytween's panels are."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "Keytween"


class KEYTWEEN_PT_main(_SequencerPanel, bpy.types.Panel):
    """The daemon, the timing, the engine and the button."""

    bl_label = "Keytween"
    bl_idname = "KEYTWEEN_PT_main"

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        """The icon for saved settings."""
        KEYTWEEN_PT_presets.draw_panel_header(self.layout)

    @measured
    def draw(self, context: bpy.types.Context) -> None:
        """Draws the panel, top to bottom in the order of use."""
        scene = vse_compat.sequencer_scene(context)
        layout = self.layout
        draw_daemon(layout)
        draw_errand(layout, context)
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
        there = link.has_program()
        if there:
            buttons.operator("keytween.start", icon="PLAY")
        buttons.operator("keytween.connect", text="", icon="FILE_REFRESH")
        if not there and not errands.running():
            layout.operator("keytween.set_up", icon="IMPORT")
    elif state is LinkState.READY:
        row.operator("keytween.stop", text="", icon="CANCEL", emboss=False)


def draw_errand(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """What is being fetched or set up, how far it is, and why it stopped."""
    errand = errands.current
    if errand is None or errand.state in (ErrandState.DONE, ErrandState.STOPPED):
        return
    box = layout.box()
    row = box.row()
    row.label(text=errand.title, icon="IMPORT")
    if errand.state is ErrandState.RUNNING:
        row.operator("keytween.interrupt", text="", icon="X", emboss=False)
        box.progress(factor=errand.factor, text=errand.label, type="BAR")
        for line in wrapped(context, errand.said)[:2]:
            box.label(text=line, translate=False)
    elif errand.error is not None:
        draw_error(box, context, errand.error)


def draw_error(box: bpy.types.UILayout, context: bpy.types.Context, error: KeytweenError) -> None:
    """An error: its sentence, its code, the next step, the button that mends it, and a way to report it."""
    column = box.column(align=True)
    column.scale_y = 0.85
    for index, line in enumerate(wrapped(context, f"{words.sentence(error)} ({error.code})")):
        column.label(text=line, icon="ERROR" if index == 0 else "BLANK1", translate=False)
    for line in wrapped(context, words.advice(error)):
        column.label(text=line, icon="BLANK1", translate=False)
    fixes = FIXES.get(error.code, ())
    if fixes:
        row = box.row(align=True)
        for fix in fixes:
            FIX_BUTTONS[fix](row)
    box.operator("keytween.copy_diagnostics", icon="COPYDOWN")


def _preferences_button(row: bpy.types.UILayout) -> None:
    row.operator("preferences.addon_show", text="Preferences", icon="PREFERENCES").module = __package__


def _online_button(row: bpy.types.UILayout) -> None:
    row.operator("screen.userpref_show", text="System Preferences", icon="INTERNET").section = "SYSTEM"


def _start_button(row: bpy.types.UILayout) -> None:
    if link.has_program():
        row.operator("keytween.start", icon="PLAY")
    else:
        row.operator("keytween.set_up", icon="IMPORT")


FIX_BUTTONS: dict[str, Callable[[bpy.types.UILayout], object]] = {
    "start": _start_button,
    "connect": lambda row: row.operator("keytween.connect", icon="FILE_REFRESH"),
    "set_up": lambda row: row.operator("keytween.set_up", icon="IMPORT"),
    "checkpoints": lambda row: row.menu("KEYTWEEN_MT_checkpoints", icon="DOWNARROW_HLT"),
    "memory": lambda row: row.operator("keytween.free_memory", icon="MEMORY"),
    "log": lambda row: row.operator("keytween.open_log", icon="TEXT"),
    "preferences": _preferences_button,
    "online": _online_button,
}
"""The buttons that mend something, by what they mend."""


def wrapped(context: bpy.types.Context, text: str) -> list[str]:
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
        for index, line in enumerate(wrapped(context, chosen.reason)):
            column.label(text=line, icon="BLANK1" if index else "ERROR", translate=False)
    if settings.engine in MOVING:
        column.row(align=True).prop(settings, "path", expand=True)
    if settings.engine == DIFFMORPHER:
        draw_diffusion(column, settings)
    if settings.engine not in ENGINES_WITHOUT_CHANCE:
        column.prop(settings, "seed")


def draw_diffusion(column: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """What DiffMorpher needs to know; a checkpoint that is missing stands out."""
    row = column.row(align=True)
    row.alert = not settings.checkpoint
    row.prop(settings, "checkpoint", placeholder="Name or Folder")
    # The menu writes into these settings, be they the scene's or a strip's.
    row.context_pointer_set("keytween_settings", settings)
    row.menu("KEYTWEEN_MT_checkpoints", text="", icon="DOWNARROW_HLT")
    column.prop(settings, "preset")
    column.prop(settings, "prompt", placeholder="What the pictures show")
    column.prop(settings, "draft_first")


def draw_button(layout: bpy.types.UILayout, scene: bpy.types.Scene) -> None:
    """The big one."""
    count = tween.count_selected(scene)
    row = layout.row()
    row.scale_y = 1.6
    # A click must go through invoke: execute waits for the whole job.
    row.operator_context = "INVOKE_DEFAULT"
    if count > 1:
        text = words.said("Tween {count} Keyframes", count=count)
        row.operator("keytween.tween", text=text, icon="IPO_EASE_IN_OUT", translate=False)
    else:
        row.operator("keytween.tween", text="Tween", icon="IPO_EASE_IN_OUT")
    row = layout.row()
    row.operator_context = "INVOKE_DEFAULT"
    row.operator("keytween.tween_scene_keys", icon="SCENE_DATA")


class KEYTWEEN_PT_prompts(_SequencerPanel, bpy.types.Panel):
    """What each keyframe shows, where one sentence does not do for all."""

    bl_label = "Prompts"
    bl_parent_id = "KEYTWEEN_PT_main"
    bl_options: ClassVar[set[str]] = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only for an engine that reads."""
        return vse_compat.sequencer_scene(context).keytween.engine == DIFFMORPHER

    @measured
    def draw(self, context: bpy.types.Context) -> None:
        """One line for each selected keyframe."""
        scene = vse_compat.sequencer_scene(context)
        strips = tween.keyframe_strips(scene)
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        if not strips:
            layout.label(text="Select the keyframes", icon="INFO")
        for strip in strips:
            shared = scene.keytween.prompt or "As for all keyframes"
            layout.prop(strip, OWN, text=strip.name, translate=False, placeholder=shared)


class KEYTWEEN_PT_options(_SequencerPanel, bpy.types.Panel):
    """What is seldom changed."""

    bl_label = "Options"
    bl_parent_id = "KEYTWEEN_PT_main"
    bl_options: ClassVar[set[str]] = {"DEFAULT_CLOSED"}

    @measured
    def draw(self, context: bpy.types.Context) -> None:
        """Draws the options."""
        settings = vse_compat.sequencer_scene(context).keytween
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "file_format")
        layout.prop(settings, "hide_keyframes")
        layout.operator("keytween.copy_diagnostics", icon="COPYDOWN")


class KEYTWEEN_PT_jobs(_SequencerPanel, bpy.types.Panel):
    """The jobs of this file, those of earlier days too."""

    bl_label = "Jobs"
    bl_parent_id = "KEYTWEEN_PT_main"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Only when there are any."""
        return bool(poller.STATUS.jobs)

    @measured
    def draw(self, context: bpy.types.Context) -> None:
        """Draws the jobs: what is at work first, then the newest of what has ended."""
        layout = self.layout
        views = list(reversed(poller.STATUS.jobs.values()))
        shown = sorted(views, key=lambda view: view.state.ended)
        for view in shown[:MOST_JOBS]:
            draw_job(layout, context, view)
        if len(shown) > MOST_JOBS:
            layout.label(text=words.said("{count} more", count=len(shown) - MOST_JOBS), translate=False)
        row = layout.row(align=True)
        if not shown[0].state.ended:
            row.operator("keytween.cancel_all", icon="X")
        if shown[-1].state.ended:
            row.operator("keytween.forget", icon="TRASH")


def draw_job(layout: bpy.types.UILayout, context: bpy.types.Context, view: JobView) -> None:
    """One job: its newest drawing, its name, how far it is, and what went wrong."""
    box = layout.box()
    row = box.row()
    if view.files:
        newest = view.folder / view.files[max(view.files)]
        icon = thumbnails.icon(view.job_id, newest, final=view.state.ended)
        picture = row.column()
        picture.ui_units_x = 2.4
        picture.template_icon(icon_value=icon, scale=2.2)
    column = row.column()
    line = column.row()
    line.label(text=view.label, icon=JOB_ICONS[view.state], translate=False)
    if view.state.ended:
        column.label(text=_count(view), translate=False)
    else:
        line.operator("keytween.cancel", text="", icon="X", emboss=False).job_id = view.job_id
        column.progress(factor=view.factor, text=_progress(view), type="BAR", translate=False)
    if view.error is not None and view.state is not JobState.CANCELLED:
        draw_error(box, context, view.error)


def _count(view: JobView) -> str:
    if view.state is JobState.DONE:
        return words.said("{total} frames", total=view.total)
    return words.said("{done} of {total} frames", done=len(view.files), total=view.total)


def _progress(view: JobView) -> str:
    """How far a job is, in the fewest words."""
    parts = [f"{len(view.files)} / {view.total}"]
    if view.state is JobState.QUEUED:
        parts.append(words.said("waiting"))
    elif view.phase:
        parts.append(words.plain(view.phase))
    if view.eta_s >= 0:
        parts.append(remaining(view.eta_s))
    return "  ·  ".join(parts)


def remaining(seconds: float) -> str:
    """A time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return words.said("{seconds} s left", seconds=whole)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return words.said("{minutes} min {seconds:02d} s left", minutes=minutes, seconds=rest)
    return words.said("{hours} h {minutes:02d} min left", hours=minutes // 60, minutes=minutes % 60)


def draw_set_up(
    layout: bpy.types.UILayout, context: bpy.types.Context, chosen: bpy.types.AddonPreferences
) -> None:
    """On the preferences' page: the daemon's own environment, and what can be done about it."""
    found = setting_up.program()
    if found is not None:
        text = words.said("The daemon {version} is set up", version=setting_up.record()["version"])
        layout.label(text=text, icon="CHECKMARK", translate=False)
    elif link.has_program():
        layout.label(text="A daemon that was installed otherwise is used", icon="CHECKMARK")
    else:
        layout.label(text="The daemon is not set up yet", icon="INFO")
    draw_errand(layout, context)
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    column.prop(chosen, "with_diffusion")
    column.prop(chosen, "requirement", placeholder="The daemon that came with the extension")
    row = layout.row(align=True)
    text = "Set Up the Daemon" if found is None else "Set Up Again" if setting_up.is_current() else "Update"
    row.operator("keytween.set_up", text=text, icon="IMPORT")
    if setting_up.is_there():
        row.operator("keytween.remove_daemon", icon="TRASH")


_register, _unregister = bpy.utils.register_classes_factory(
    (KEYTWEEN_PT_main, KEYTWEEN_PT_prompts, KEYTWEEN_PT_options, KEYTWEEN_PT_jobs)
)


def register() -> None:
    """Adds the panels, and our section of the preferences' page."""
    _register()
    preferences.SECTIONS.append(draw_set_up)


def unregister() -> None:
    """Takes them away again."""
    preferences.SECTIONS.remove(draw_set_up)
    _unregister()
