# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that tweens a scene's own keys."""

from __future__ import annotations

from typing import ClassVar

import bpy

from keytween_wire.errors import KeytweenError

from . import poller, scene_keys, tween, vse_compat, words
from .capture import Precision
from .operators import Result, carry_out, keep_error, need_daemon, report
from .prompts import prompts_of
from .status import JobView


class KEYTWEEN_OT_tween_scene_keys(bpy.types.Operator):
    """Render the scene at its keys and make the in-betweens: the extremes and breakdowns of Grease Pencil, \
or the keys of its objects"""

    bl_idname = "keytween.tween_scene_keys"
    bl_label = "Tween Scene Keys"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    scene: bpy.props.StringProperty(
        name="Scene",
        description="The scene to render; empty for the one in the window",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Nothing else may be rendering."""
        if poller.STATUS.rendering:
            cls.poll_message_set("Wait for the render to end")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        """For people: renders the keys, then hands the job over and returns."""
        try:
            need_daemon()
            view = self._place(context)
            poller.submit(view)
        except KeytweenError as error:
            return report(self, context, error)
        self.report({"INFO"}, words.said("{count} in-betweens on their way", count=view.total))
        return {"FINISHED"}

    def execute(self, context: bpy.types.Context) -> Result:
        """For scripts: blocks until the last frame is there."""
        if not bpy.app.background and self.is_repeat():
            return self.invoke(context, None)
        try:
            view = self._place(context)
            carry_out(view)
        except KeytweenError as error:
            return report(self, context, error)
        if view.error is not None:
            report(self, context, view.error)
        return {"FINISHED"}

    def _place(self, context: bpy.types.Context) -> JobView:
        """Renders the keys and puts the tween's strip into the sequencer."""
        shown = vse_compat.sequencer_scene(context)
        rendered = bpy.data.scenes.get(self.scene) or context.scene
        keep_error(shown, None)
        settings = tween.Settings.of(shown)
        settings.check()
        settings = settings.with_prompts(prompts_of(shown.keytween, ()))
        frames = scene_keys.key_frames(rendered)
        # The timing is checked before the work of rendering.
        settings.plan([(frame, 1) for frame in frames])
        precision = Precision.HALF if settings.file_format.startswith("exr") else Precision.SHORT
        manager = context.window_manager
        manager.progress_begin(0, len(frames))
        try:
            captured = scene_keys.render(
                rendered, frames, precision=precision, advance=manager.progress_update
            )
        finally:
            manager.progress_end()
        if shown.sequence_editor is None:
            shown.sequence_editor_create()
        return tween.place(shown, tween.order_of(captured, precision.look, settings))


register, unregister = bpy.utils.register_classes_factory((KEYTWEEN_OT_tween_scene_keys,))
