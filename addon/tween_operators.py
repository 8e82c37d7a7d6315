# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons for a tween that is there: another timing, another keyframe, another drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import bpy

from keytween_wire.errors import KeytweenError, NoTweenActive

from . import poller, retiming, vse_compat
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
        except KeytweenError as error:
            return report(self, context, error)
        try:
            send(jobs, wait=wait)
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


def send(jobs: Sequence[JobView], *, wait: bool) -> None:
    """Hands jobs over, or carries them out; those that find no daemon are handed over once there is one."""
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
        job = retiming.retime(scene, strip)
        return [job] if job else []


class KEYTWEEN_OT_regenerate(_OnTween, bpy.types.Operator):
    """Bring the active tween up to its keyframes and settings as they are now; only what changed is drawn"""

    bl_idname = "keytween.regenerate"
    bl_label = "Regenerate"

    def change(
        self, _context: bpy.types.Context, scene: bpy.types.Scene, strip: bpy.types.Strip
    ) -> list[JobView]:
        """Takes the keyframes, their places and the settings anew."""
        job = retiming.regenerate(scene, strip)
        return [job] if job else []


register, unregister = bpy.utils.register_classes_factory((KEYTWEEN_OT_retime, KEYTWEEN_OT_regenerate))
