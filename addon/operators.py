# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons. They gather, call and report; the work is in `tween`, `link` and `poller`."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING, ClassVar

import bpy

import keytween_wire
from keytween_wire.errors import KeytweenError, NothingSelected
from keytween_wire.messages import JobState

from . import link, poller, retiming, tween, vse_compat
from .link import LinkState
from .status import JobView, error_from, error_to

if TYPE_CHECKING:
    from keytween_wire.client import Client

Result = set[str]


def keep_error(scene: bpy.types.Scene, error: KeytweenError | None) -> None:
    """Stores the scene's last error, for scripts and the panel."""
    scene.keytween.error = error_to(error) if error else ""


def report(operator: bpy.types.Operator, context: bpy.types.Context, error: KeytweenError) -> Result:
    """Says what went wrong, in Blender's way and in the panel."""
    keep_error(vse_compat.sequencer_scene(context), error)
    operator.report({"ERROR"}, f"{error} {error.advice}")
    return {"CANCELLED"}


class KEYTWEEN_OT_tween(bpy.types.Operator):
    """Make the in-betweens of the selected keyframes, in the order of time"""

    bl_idname = "keytween.tween"
    bl_label = "Tween"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Two keyframes must be selected, and nothing may be rendering."""
        scene = vse_compat.sequencer_scene(context)
        count = tween.count_selected(scene)
        if count < 2:
            error = NothingSelected(count=count)
            cls.poll_message_set(f"{error} {error.advice}")
            return False
        if poller.STATUS.rendering:
            cls.poll_message_set("Wait for the render to end")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        """For people: hands the job over and returns; the timer brings the frames."""
        scene = vse_compat.sequencer_scene(context)
        try:
            need_daemon()
            view = begin(scene)
        except KeytweenError as error:
            return report(self, context, error)
        keep_error(scene, None)
        self.report({"INFO"}, f"Keytween: {view.total} in-betweens on their way")
        return {"FINISHED"}

    def execute(self, context: bpy.types.Context) -> Result:
        """For scripts: blocks until the last frame is there."""
        # "Repeat Last" comes here too, and a person must not wait for it.
        if not bpy.app.background and self.is_repeat():
            return self.invoke(context, None)
        scene = vse_compat.sequencer_scene(context)
        keep_error(scene, None)
        try:
            order = tween.order(scene)
            with link.open_client(link.load_connection()) as client:
                client.hello(timeout=5.0, name=f"Blender {bpy.app.version_string}")
                job = client.submit(order.submission.job_id, order.submission.request, order.blobs)
                view = tween.place(scene, order)
                poller.accept(view, job)
                poller.STATUS.jobs[view.job_id] = view
                _hear_out(client, view)
        except KeytweenError as error:
            return report(self, context, error)
        return self._finish(context, view)

    def _finish(self, context: bpy.types.Context, view: JobView) -> Result:
        """The strip stays even when the job failed: what was finished is in it."""
        if view.error is not None:
            report(self, context, view.error)
        elif view.state is not JobState.DONE:
            self.report({"WARNING"}, f"The job ended as {view.state.value}")
        return {"FINISHED"}


def carry_out(view: JobView) -> None:
    """Hands a strip's further job over and waits until it has ended; raises what the daemon answers."""
    assert view.submission is not None
    message, blobs = view.submission
    poller.STATUS.jobs[view.job_id] = view
    with link.open_client(link.load_connection()) as client:
        client.hello(timeout=5.0, name=f"Blender {bpy.app.version_string}")
        poller.accept(view, client.submit(message.job_id, message.request, blobs, label=message.label))
        _hear_out(client, view)


def _hear_out(client: Client, view: JobView) -> None:
    for received in client.events(view.job_id):
        poller.take_event(view, received.message, received.blobs)


def need_daemon() -> None:
    """Connects if need be; raises when there is no daemon to connect to."""
    state = poller.STATUS.link.state
    if state in (LinkState.OFF, LinkState.LOST):
        poller.STATUS.link.connect()


def begin(scene: bpy.types.Scene) -> JobView:
    """Makes the selected keyframes' strip and hands its job over, its draft's before it."""
    view = tween.place(scene, tween.order(scene))
    first = retiming.draft(scene.sequence_editor.strips_all[view.places[0][1]])
    for job in filter(None, (first, view)):
        poller.submit(job)
    return view


class KEYTWEEN_OT_cancel(bpy.types.Operator):
    """Cancel this job; the frames that are finished stay in its strip"""

    bl_idname = "keytween.cancel"
    bl_label = "Cancel"

    job_id: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> Result:
        """Asks the daemon."""
        if self.job_id not in poller.STATUS.jobs:
            return {"CANCELLED"}
        try:
            poller.cancel(self.job_id)
        except KeytweenError as error:
            return report(self, context, error)
        return {"FINISHED"}


class KEYTWEEN_OT_forget(bpy.types.Operator):
    """Take ended jobs off this list; their strips and frames stay"""

    bl_idname = "keytween.forget"
    bl_label = "Clear List"

    def execute(self, context: bpy.types.Context) -> Result:
        """Clears the list and the last error."""
        poller.forget_ended()
        keep_error(vse_compat.sequencer_scene(context), None)
        return {"FINISHED"}


class KEYTWEEN_OT_connect(bpy.types.Operator):
    """Connect to the daemon that is running"""

    bl_idname = "keytween.connect"
    bl_label = "Connect"

    def execute(self, context: bpy.types.Context) -> Result:
        """Opens the connection; the timer hears the answer."""
        try:
            poller.STATUS.link.connect()
        except KeytweenError as error:
            poller.STATUS.link.fail(error)
            return report(self, context, error)
        keep_error(vse_compat.sequencer_scene(context), None)
        poller.wake()
        return {"FINISHED"}


class KEYTWEEN_OT_start(bpy.types.Operator):
    """Start the daemon; it ends with Blender, once its queue is empty"""

    bl_idname = "keytween.start"
    bl_label = "Start"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """One start at a time."""
        if poller.STATUS.link.state in (LinkState.OFF, LinkState.LOST):
            return True
        cls.poll_message_set("The daemon is running or starting already")
        return False

    def execute(self, context: bpy.types.Context) -> Result:
        """Starts the process; the timer sees when it is ready."""
        try:
            poller.STATUS.link.start()
        except KeytweenError as error:
            poller.STATUS.link.fail(error)
            return report(self, context, error)
        keep_error(vse_compat.sequencer_scene(context), None)
        poller.wake()
        return {"FINISHED"}


class KEYTWEEN_OT_stop(bpy.types.Operator):
    """Stop the daemon; unfinished jobs go on when it is started again"""

    bl_idname = "keytween.stop"
    bl_label = "Stop"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """There must be something to stop."""
        if poller.STATUS.link.state is LinkState.READY:
            return True
        cls.poll_message_set("No daemon is connected")
        return False

    def execute(self, context: bpy.types.Context) -> Result:
        """Asks the daemon to exit."""
        try:
            poller.STATUS.link.stop()
        except KeytweenError as error:
            return report(self, context, error)
        poller.wake()
        return {"FINISHED"}


class KEYTWEEN_OT_copy_diagnostics(bpy.types.Operator):
    """Copy versions, the daemon's state and the last errors, for a report; holds no keys"""

    bl_idname = "keytween.copy_diagnostics"
    bl_label = "Copy Diagnostics"

    def execute(self, context: bpy.types.Context) -> Result:
        """Fills the clipboard."""
        context.window_manager.clipboard = diagnostics(context)
        self.report({"INFO"}, "Diagnostics copied")
        return {"FINISHED"}


def diagnostics(context: bpy.types.Context) -> str:
    """The text for a report: versions, states and errors; never a key, an address or a path of pictures."""
    status = poller.STATUS
    welcome = status.link.welcome
    lines = [
        f"Keytween {keytween_wire.__version__}, protocol {keytween_wire.PROTOCOL}",
        f"Blender {bpy.app.version_string}, Python {sys.version.split()[0]}, {platform.platform()}",
        *(f"{name} {_version(name)}" for name in ("pyzmq", "msgpack", "keytween_wire")),
        f"Daemon: {status.link.state.value}" + (f", version {welcome.version}" if welcome else ""),
        f"Engines: {', '.join(e.name + ('' if e.available else ' (not available)') for e in status.engines)}",
        f"Ticks: {status.ticks}, longest {status.tick_max_ms:.1f} ms",
    ]
    scene = vse_compat.sequencer_scene(context)
    errors = [status.link.error, error_from(scene.keytween.error)]
    errors += [view.error for view in status.jobs.values()]
    lines += [f"Error {error.code}: {error.message}" for error in errors if error is not None]
    lines += [f"Job {v.job_id}: {v.state.value}, {len(v.files)} of {v.total}" for v in status.jobs.values()]
    return "\n".join(lines) + "\n"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


_register_classes, _unregister_classes = bpy.utils.register_classes_factory(
    (
        KEYTWEEN_OT_tween,
        KEYTWEEN_OT_cancel,
        KEYTWEEN_OT_forget,
        KEYTWEEN_OT_connect,
        KEYTWEEN_OT_start,
        KEYTWEEN_OT_stop,
        KEYTWEEN_OT_copy_diagnostics,
    )
)


def get_ready() -> None:
    """Has the daemon load its libraries while the artist thinks: whoever selects keyframes may tween them."""
    scene = vse_compat.sequencer_scene(bpy.context)
    if scene is not None and tween.count_selected(scene) > 1:
        poller.STATUS.link.prepare()


def register() -> None:
    """Adds the buttons, and has the timer look whether they may soon be pressed."""
    _register_classes()
    poller.CHORES.append(get_ready)


def unregister() -> None:
    """Takes them away again."""
    if get_ready in poller.CHORES:
        poller.CHORES.remove(get_ready)
    _unregister_classes()
