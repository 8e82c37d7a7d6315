# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons for a tween that is there: another timing, another keyframe, another drawing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import bpy

from keytween_wire.errors import DaemonNotRunning, KeytweenError, NoTweenActive

from . import breakdowns, hiding, insert, poller, properties, retiming, vse_compat
from .operators import Result, carry_out, keep_error, need_daemon, report
from .status import JobView


class _OnTween:
    """What these buttons share: they need an active tween, and nothing may be rendering."""

    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """The active strip must be a tween."""
        if retiming.active_tween(vse_compat.sequencer_scene(context)) is None:
            cls.poll_message_set(NoTweenActive().advice)
            return False
        if poller.STATUS.rendering:
            cls.poll_message_set("Wait for the render to end")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event | None) -> Result:
        """For people: changes the strip at once; the timer brings the drawings that are new."""
        return self._do(context, wait=False)

    def execute(self, context: bpy.types.Context) -> Result:
        """For scripts: waits for the drawings that are new."""
        # "Repeat Last" comes here too, and a person must not wait for it.
        return self._do(context, wait=bpy.app.background or not self.is_repeat())

    def _do(self, context: bpy.types.Context, *, wait: bool) -> Result:
        scene = vse_compat.sequencer_scene(context)
        keep_error(scene, None)
        try:
            strip = retiming.active_tween(scene)
            if strip is None:
                raise NoTweenActive()
            jobs = self.change(context, scene, strip)
            if jobs and not wait:
                # Sent first, so that it is drawn first; a script that waits has no use for it.
                jobs = [*listed(retiming.draft(strip)), *jobs]
        except KeytweenError as error:
            return report(self, context, error)
        try:
            send(strip, jobs, wait=wait)
        except KeytweenError as error:
            # What could be done without the daemon is done; the rest waits for it.
            report(self, context, error)
            return {"FINISHED"}
        failed = [job.error for job in jobs if wait and job.error is not None]
        if failed:
            report(self, context, failed[0])
        else:
            count = sum(job.total for job in jobs if not job.draft)
            self.report({"INFO"}, f"{count} drawings to make" if count else "Nothing had to be drawn")
        return {"FINISHED"}

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Does what the button says; returns the jobs for what is new."""
        raise NotImplementedError


def listed(job: JobView | None) -> list[JobView]:
    """A job, if there is one."""
    return [job] if job else []


def send(strip: bpy.types.Strip, jobs: Sequence[JobView], *, wait: bool) -> None:
    """Hands jobs over, or carries them out; those that find no daemon are handed over once there is one.

    Jobs of the strip whose drawings nobody wants any more are cancelled, so that the new ones need not wait.
    """
    for old in retiming.superseded(strip):
        with suppress(DaemonNotRunning):
            poller.cancel(old.job_id)
    for job in jobs:
        poller.STATUS.jobs[job.job_id] = job
    if wait:
        for job in jobs:
            carry_out(job)
    elif jobs:
        for job in jobs:
            poller.submit(job)
        need_daemon()


class KEYTWEEN_OT_retime(_OnTween, bpy.types.Operator):
    """Time the active tween anew, with its keyframes where they are now; only what is missing is drawn"""

    bl_idname = "keytween.retime"
    bl_label = "Retime"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Rewrites which file each frame shows."""
        return listed(retiming.retime(scene, strip))


class KEYTWEEN_OT_regenerate(_OnTween, bpy.types.Operator):
    """Bring the active tween up to its keyframes and settings as they are now; only what changed is drawn"""

    bl_idname = "keytween.regenerate"
    bl_label = "Regenerate"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Takes the keyframes, their places and the settings anew."""
        return listed(retiming.regenerate(scene, strip))


class KEYTWEEN_OT_promote(_OnTween, bpy.types.Operator):
    """Make the drawing at the playhead a keyframe with a strip of its own, to paint over or to move"""

    bl_idname = "keytween.promote"
    bl_label = "Promote to Keyframe"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Only the two segments around it are drawn anew."""
        return listed(breakdowns.promote(scene, strip, scene.frame_current))


class KEYTWEEN_OT_replace_drawing(_OnTween, bpy.types.Operator):
    """Show a picture file in place of the drawing at the playhead, in this and every later timing"""

    bl_idname = "keytween.replace_drawing"
    bl_label = "Replace Drawing"

    filepath: bpy.props.StringProperty(
        name="File", description="The picture to show instead; it is copied", subtype="FILE_PATH"
    )
    filter_image: bpy.props.BoolProperty(
        name="Images", description="Which files are listed", default=True, options={"HIDDEN", "SKIP_SAVE"}
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event | None) -> Result:
        """Asks which file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Copies the file and shows it."""
        path = Path(bpy.path.abspath(self.filepath))
        breakdowns.replace_drawing(scene, strip, scene.frame_current, path)
        return []


class KEYTWEEN_OT_give_back(_OnTween, bpy.types.Operator):
    """Show the generated drawing again where a file took its place"""

    bl_idname = "keytween.give_back"
    bl_label = "Restore Drawing"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Forgets the file; it stays in the tween's folder."""
        return listed(breakdowns.give_back(strip, scene.frame_current))


class KEYTWEEN_OT_hide_keyframes(_OnTween, bpy.types.Operator):
    """Hide the strips of the active tween's keyframes wherever it covers them, or show them all again"""

    bl_idname = "keytween.hide_keyframes"
    bl_label = "Hide Keyframes"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Its keyframes must have strips."""
        if not super().poll(context):
            return False
        scene = vse_compat.sequencer_scene(context)
        if not hiding.sources(scene, scene.sequence_editor.active_strip):
            cls.poll_message_set("None of its keyframes has a strip")
            return False
        return True

    def _do(self, context: bpy.types.Context, *, wait: bool) -> Result:
        """Nothing is drawn, so there is nothing to wait for."""
        scene = vse_compat.sequencer_scene(context)
        strip = retiming.active_tween(scene)
        if strip is None:
            return report(self, context, NoTweenActive())
        hidden = hiding.toggle(scene, strip)
        self.report({"INFO"}, "Keyframes hidden below the tween" if hidden else "Keyframes shown")
        return {"FINISHED"}


class KEYTWEEN_OT_reuse_settings(_OnTween, bpy.types.Operator):
    """Give new tweens, and other tweens that are selected, the settings of the active one"""

    bl_idname = "keytween.reuse_settings"
    bl_label = "Re-use Settings"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Copies them; nothing is drawn until it is asked for."""
        properties.copy_settings(strip.keytween_own.settings, scene.keytween)
        for other in insert.current_strips(scene):
            if other.select and other != strip and insert.TWEEN in other:
                properties.copy_own(strip, other)
        return []


register, unregister = bpy.utils.register_classes_factory(
    (
        KEYTWEEN_OT_retime,
        KEYTWEEN_OT_regenerate,
        KEYTWEEN_OT_promote,
        KEYTWEEN_OT_replace_drawing,
        KEYTWEEN_OT_give_back,
        KEYTWEEN_OT_hide_keyframes,
        KEYTWEEN_OT_reuse_settings,
    )
)
