#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the blend file of the first tween: two of the bundled keyframes, laid out and selected.

    HOME=/ python packaging/make_first_tween.py

with a Python that has the `bpy` of the oldest Blender that the extension supports, so that every later one
opens the file. The pictures lie beside it and are found by relative paths. HOME is what Blender's file
browser would remember otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

import bpy

EXAMPLES = Path(__file__).resolve().parent.parent / "daemon" / "keytween" / "examples"
KEYFRAMES = (("wave_1.png", 1), ("wave_2.png", 25))
HOLD = 4


def main() -> None:
    """Lays the keyframes out in a new file for video editing, and saves it beside them."""
    bpy.ops.wm.read_homefile(app_template="Video_Editing", use_factory_startup=True)
    scene = bpy.context.scene
    scene.name = "First tween"
    editor = scene.sequence_editor or scene.sequence_editor_create()
    for name, frame in KEYFRAMES:
        strip = editor.strips.new_image(Path(name).stem, str(EXAMPLES / name), 1, frame)
        strip.frame_final_duration = HOLD
        strip.directory = "//"
        strip.select = True
    element = editor.strips[0].elements[0]
    scene.render.resolution_x, scene.render.resolution_y = element.orig_width, element.orig_height
    scene.frame_start, scene.frame_end = 1, KEYFRAMES[-1][1] + HOLD
    scene.render.film_transparent = True
    # Keyframes then look in the preview and in renders as in their files.
    scene.view_settings.view_transform = "Standard"
    for screen in bpy.data.screens:
        for area in screen.areas:
            if area.type == "SEQUENCE_EDITOR":
                area.spaces.active.show_region_ui = True
    bpy.context.preferences.filepaths.save_version = 0
    bpy.ops.wm.save_as_mainfile(filepath=str(EXAMPLES / "first_tween.blend"), compress=True)
    # With the windows of a video editing file, Blender never comes to an end as a module.
    os._exit(0)


if __name__ == "__main__":
    main()
