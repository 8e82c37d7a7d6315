# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons that mend things: the daemon's set-up, its memory and log, checkpoints, all jobs at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import bpy

from keytween_wire.errors import KeytweenError, ModelNotFetched, OnlineAccessOff
from keytween_wire.messages import FreeMemory

from . import errands, link, poller, preferences, setting_up, vse_compat, words
from .errands import Errand, Step
from .link import LinkState

Result = set[str]


def _report(operator: bpy.types.Operator, error: KeytweenError) -> Result:
    operator.report({"ERROR"}, f"{words.sentence(error)} ({error.code}) {words.advice(error)}")
    return {"CANCELLED"}


def _no_errand(cls: type[bpy.types.Operator]) -> bool:
    if errands.running():
        cls.poll_message_set("Wait for what is being fetched, or interrupt it")
        return False
    return True


class KEYTWEEN_OT_set_up(bpy.types.Operator):
    """Set the daemon up in an environment of its own, or go on where that stopped; then start it"""

    bl_idname = "keytween.set_up"
    bl_label = "Set Up the Daemon"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """One thing at a time."""
        return _no_errand(cls)

    def execute(self, _context: bpy.types.Context) -> Result:
        """Begins; the panel and the preferences show how it goes."""
        try:
            errands.begin(setting_up.set_up(_start))
        except KeytweenError as error:
            errands.refuse(setting_up.TITLE, error)
            return _report(self, error)
        return {"FINISHED"}


def _start() -> None:
    """Starts what was set up, unless a daemon is connected already."""
    if poller.STATUS.link.state in (LinkState.OFF, LinkState.LOST):
        poller.STATUS.link.start()
        poller.wake()


class KEYTWEEN_OT_interrupt(bpy.types.Operator):
    """Interrupt it; it goes on from here when it is begun again"""

    bl_idname = "keytween.interrupt"
    bl_label = "Interrupt"

    def execute(self, _context: bpy.types.Context) -> Result:
        """Ends the program that runs."""
        if errands.current is None:
            return {"CANCELLED"}
        errands.current.stop()
        return {"FINISHED"}


class KEYTWEEN_OT_remove_daemon(bpy.types.Operator):
    """Delete the daemon that was set up here, with its environment; jobs, checkpoints and frames stay"""

    bl_idname = "keytween.remove_daemon"
    bl_label = "Remove the Daemon"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Not while it is being made."""
        return _no_errand(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> Result:
        """Asks first."""
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: bpy.types.Context) -> Result:
        """Asks the daemon to exit when its queue is empty, and deletes the folder."""
        try:
            if poller.STATUS.link.state is LinkState.READY:
                poller.STATUS.link.stop()
                poller.wake()
            setting_up.remove()
        except KeytweenError as error:
            return _report(self, error)
        return {"FINISHED"}


class KEYTWEEN_OT_cancel_all(bpy.types.Operator):
    """Cancel every job of this file; the frames that are finished stay in their strips"""

    bl_idname = "keytween.cancel_all"
    bl_label = "Cancel All"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """There must be something to cancel."""
        return poller.busy()

    def execute(self, _context: bpy.types.Context) -> Result:
        """Asks the daemon, job by job."""
        try:
            for job_id in [job_id for job_id, view in poller.STATUS.jobs.items() if not view.state.ended]:
                poller.cancel(job_id)
        except KeytweenError as error:
            return _report(self, error)
        return {"FINISHED"}


class KEYTWEEN_OT_free_memory(bpy.types.Operator):
    """Let the daemon give back the memory of the engine and checkpoint that it keeps ready"""

    bl_idname = "keytween.free_memory"
    bl_label = "Free Memory"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Only a connected daemon can."""
        if poller.STATUS.link.state is LinkState.READY:
            return True
        cls.poll_message_set("No daemon is connected")
        return False

    def execute(self, _context: bpy.types.Context) -> Result:
        """Asks for it; a worker that is at work goes on."""
        try:
            poller.STATUS.link.post(FreeMemory())
        except KeytweenError as error:
            return _report(self, error)
        return {"FINISHED"}


def log_file() -> Path | None:
    """The log that says most about the last trouble: of an errand that failed, else the daemon's."""
    welcome = poller.STATUS.link.welcome
    errand = errands.current
    found = [
        errand.log if errand is not None and errand.error is not None else None,
        Path(welcome.log) if welcome is not None and welcome.log else None,
        poller.STATUS.link.log,
    ]
    return next((path for path in found if path is not None and path.is_file()), None)


class KEYTWEEN_OT_open_log(bpy.types.Operator):
    """Open the log in the program that opens text files"""

    bl_idname = "keytween.open_log"
    bl_label = "Open Log"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """A log must be there."""
        if log_file() is not None:
            return True
        cls.poll_message_set("There is no log on this computer")
        return False

    def execute(self, _context: bpy.types.Context) -> Result:
        """Hands the file to the system."""
        path = log_file()
        return set(bpy.ops.wm.path_open(filepath=str(path))) if path else {"CANCELLED"}


class KEYTWEEN_OT_use_checkpoint(bpy.types.Operator):
    """Use this checkpoint"""

    bl_idname = "keytween.use_checkpoint"
    bl_label = "Use Checkpoint"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO", "INTERNAL"}

    name: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> Result:
        """Writes its name into the setting."""
        chosen = getattr(context, "keytween_settings", None)
        (chosen or vse_compat.sequencer_scene(context).keytween).checkpoint = self.name
        return {"FINISHED"}


class KEYTWEEN_OT_pull_checkpoint(bpy.types.Operator):
    """Let the daemon's program fetch this checkpoint; it goes on where an earlier try stopped"""

    bl_idname = "keytween.pull_checkpoint"
    bl_label = "Pull Checkpoint"

    name: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """One thing at a time."""
        return _no_errand(cls)

    def execute(self, _context: bpy.types.Context) -> Result:
        """Begins; the panel shows how it goes."""
        name = self.name
        title = words.said("Fetching {name}", name=name)
        try:
            if not bpy.app.online_access:
                raise OnlineAccessOff(what=f"Fetching {name}")
            command = [*link.daemon_command(), "models", "pull", name]
        except KeytweenError as error:
            errands.refuse(title, error)
            return _report(self, error)
        errands.begin(
            Errand(
                title,
                (Step("Fetching", lambda: command),),
                preferences.user_folder("log") / "pull.log",
                finish=_connect_again,
                explain=lambda said, _log: ModelNotFetched(name=name, detail=said),
            )
        )
        return {"FINISHED"}


def _connect_again() -> None:
    """The welcome has the new list of checkpoints."""
    if poller.STATUS.link.state is LinkState.READY:
        poller.STATUS.link.connect()
        poller.wake()


class KEYTWEEN_MT_checkpoints(bpy.types.Menu):
    """The checkpoints that the daemon knows, and those that it could fetch."""

    bl_idname = "KEYTWEEN_MT_checkpoints"
    bl_label = "Checkpoints"

    def draw(self, _context: bpy.types.Context) -> None:
        """One entry for each."""
        layout = self.layout
        known = poller.STATUS.checkpoints
        if not known:
            layout.label(text="Connect to a daemon to see its checkpoints", icon="INFO")
        for checkpoint in known:
            if checkpoint.available:
                entry = layout.operator("keytween.use_checkpoint", text=checkpoint.name, translate=False)
                entry.name = checkpoint.name
        for checkpoint in known:
            if checkpoint.pullable:
                text = words.said("Pull {name}", name=checkpoint.name)
                entry = layout.operator("keytween.pull_checkpoint", text=text, icon="IMPORT", translate=False)
                entry.name = checkpoint.name


register, unregister = bpy.utils.register_classes_factory(
    (
        KEYTWEEN_OT_set_up,
        KEYTWEEN_OT_interrupt,
        KEYTWEEN_OT_remove_daemon,
        KEYTWEEN_OT_cancel_all,
        KEYTWEEN_OT_free_memory,
        KEYTWEEN_OT_open_log,
        KEYTWEEN_OT_use_checkpoint,
        KEYTWEEN_OT_pull_checkpoint,
        KEYTWEEN_MT_checkpoints,
    )
)
