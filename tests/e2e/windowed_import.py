# SPDX-License-Identifier: Apache-2.0
"""Import Tweens as a user does it: the sequencer's Add menu, the file chooser, the strips.

Run by `windowed.py` as `windowed_inside.py` is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))

from windowed_inside import SETTLE, Stage, Steps, furnish, main, show_few_channels, until


def import_tweens(stage: Stage) -> Steps:
    """Opens the batch's timeline from the Add menu; one press undoes it, another brings it back."""
    yield from furnish(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    bpy.ops.ed.undo_push(message="Set the Table")
    yield from open_chooser(stage)
    yield from choose(stage, stage.options["name"])
    yield from until(lambda: strips(stage), 20, "the strips")
    yield SETTLE
    stage.note(imported=described(stage))
    yield from show_all(stage)
    yield from stage.shoot("blender-import")
    yield from stage.press("ctrl+z")
    stage.note(undone=described(stage))
    yield from stage.press("ctrl+shift+z")
    stage.note(redone=described(stage))


def open_chooser(stage: Stage) -> Steps:
    """The last entry of the Add menu. The chooser takes the whole window: nobody would place another."""
    bpy.context.preferences.view.filebrowser_display_type = "SCREEN"
    yield from stage.press("shift+a")
    yield from stage.robot("key", "Up")
    yield SETTLE
    yield from stage.robot("key", "Return")
    yield from until(lambda: chooser(stage), 10, "the file chooser")
    yield 1.0
    stage.note(chooser=chooser(stage).spaces.active.active_operator.bl_idname)


def chooser(stage: Stage) -> bpy.types.Area | None:
    """The file chooser, while it is open."""
    return next((area for area in stage.window.screen.areas if area.type == "FILE_BROWSER"), None)


def choose(stage: Stage, name: str) -> Steps:
    """Clicks down the list until that file is chosen, and presses the button."""
    area = chooser(stage)
    listing, button = (next(r for r in area.regions if r.type == kind) for kind in ("WINDOW", "EXECUTE"))
    # The list may still be read from the disk.
    for down in [*range(12, 300, 20)] * 3:
        yield from stage.point_at(listing.x + 120, listing.y + listing.height - down)
        yield from stage.click()
        if area.spaces.active.params.filename == name:
            break
    else:
        raise LookupError(f"no {name} in the file chooser")
    yield from stage.shoot("chooser")
    yield from stage.point_at(button.x + button.width - 100, button.y + button.height / 2)
    yield from stage.click()


def strips(stage: Stage) -> list[bpy.types.Strip]:
    """What is in the sequencer, in the order of time."""
    editor = stage.scene.sequence_editor
    return sorted(editor.strips, key=lambda strip: strip.left_handle) if editor else []


def described(stage: Stage) -> list[dict[str, Any]]:
    """What the test outside wants to know of the strips."""
    return [
        {
            "name": strip.name,
            "channel": strip.channel,
            "start": strip.left_handle,
            "end": strip.right_handle,
            "directory": bpy.path.abspath(strip.directory),
            "files": [element.filename for element in strip.elements],
        }
        for strip in strips(stage)
    ]


def show_all(stage: Stage) -> Steps:
    """All strips in view, large enough to see their pictures, and a drawing under the playhead."""
    scene = stage.scene
    scene.view_settings.view_transform = "Standard"
    scene.frame_start, scene.frame_end = strips(stage)[0].left_handle, strips(stage)[-1].right_handle
    scene.frame_current = strips(stage)[-2].right_handle - 1
    with stage.looking_at():
        bpy.ops.sequencer.view_all()
    with stage.looking_at("PREVIEW", "PREVIEW"):
        bpy.ops.sequencer.view_all_preview()
    yield from show_few_channels(stage)
    stage.area("SEQUENCER").spaces.active.timeline_overlay.thumbnail_display_style = "CONTINUOUS"
    yield from stage.rest_mouse()
    yield 3.0


SCENES = {import_tweens.__name__: import_tweens}

if __name__ == "__main__":
    main(SCENES)
