# SPDX-License-Identifier: Apache-2.0
"""What happens inside the windowed Blender: scenes, played step by step from a timer, as a user would do it.

Run by `windowed.py` as `blender --python windowed_inside.py -- SCENE NOTES.json KEY=VALUE...`. A scene is
a generator that yields how many seconds to let Blender's own loop run. Mouse and keys are real: they go
through the X server. What a scene finds out it writes into its notes; the test outside judges them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bpy

Steps = Iterator[float]
MODULE = "bl_ext.user_default.keytween"
SETTLE = 0.4


class Stage:
    """The one window: its sequencer, its sidebar, mouse, keys and camera."""

    def __init__(self, notes: Path, options: dict[str, str]) -> None:
        self.options = options
        self.mouse = (0.0, 0.0)
        """Where the mouse was put last."""
        self._file = notes
        self._notes: dict[str, Any] = {}

    def note(self, **found: Any) -> None:
        """Writes down what was found; on disk at once, because Blender may not come to an end."""
        self._notes.update(found)
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._notes, default=str))
        part.replace(self._file)

    @property
    def window(self) -> bpy.types.Window:
        """Blender's window; never kept, because undo and file loading move things in memory."""
        return bpy.context.window_manager.windows[0]

    @property
    def scene(self) -> bpy.types.Scene:
        """The scene that the sequencer shows."""
        return getattr(self.window.workspace, "sequencer_scene", None) or self.window.scene

    def area(self, view: str) -> bpy.types.Area:
        """The sequencer area of that view type: SEQUENCER or PREVIEW."""
        areas = [area for area in self.window.screen.areas if area.type == "SEQUENCE_EDITOR"]
        return next(area for area in areas if area.spaces.active.view_type == view)

    def region(self, kind: str, view: str = "SEQUENCER") -> bpy.types.Region:
        """A region of a sequencer area."""
        return next(region for region in self.area(view).regions if region.type == kind)

    def looking_at(self, kind: str = "WINDOW", view: str = "SEQUENCER") -> Any:
        """The context that a button or shortcut in that region has."""
        return bpy.context.temp_override(
            window=self.window, area=self.area(view), region=self.region(kind, view)
        )

    def robot(self, *words: object) -> Steps:
        """Moves the mouse or presses keys; Blender's loop must run for them to arrive."""
        process = subprocess.Popen(["xdotool", *map(str, words)])
        while process.poll() is None:
            yield 0.02
        if process.returncode:
            raise RuntimeError(f"xdotool {words} failed with {process.returncode}")
        yield 0.05

    def point_at(self, x: float, y: float) -> Steps:
        """Moves the mouse to a place in the window, counted as Blender counts: from the bottom left."""
        self.mouse = (x, y)
        yield from self.robot("mousemove", int(x), int(self.window.height - y))

    def press(self, keys: str) -> Steps:
        """Presses a shortcut with the mouse over an empty place of the timeline."""
        timeline = self.region("WINDOW")
        yield from self.point_at(timeline.x + timeline.width * 0.6, timeline.y + timeline.height * 0.85)
        yield from self.robot("key", keys)
        yield SETTLE

    def settle(self) -> Steps:
        """Lets every region draw itself until nothing moves any more."""
        for _ in range(4):
            for area in self.window.screen.areas:
                area.tag_redraw()
            yield SETTLE / 2

    def shoot(self, name: str) -> Steps:
        """Takes a picture of the screen as it is, once everything is drawn."""
        yield from self.settle()
        path = str(self._file.with_name(f"{name}.png"))
        subprocess.run(["import", "-window", "root", path], check=True, timeout=30)

    def rest_mouse(self) -> Steps:
        """Puts the mouse where it lights nothing up; on its way a tooltip goes as well."""
        for height in (0.3, 0.28):
            yield from self.point_at(self.window.width * 0.4, self.window.height * height)
        yield from self.point_at(self.window.width * 0.4, 3)

    def find_button(self, operator: str, *, across: float = 0.4) -> Steps:
        """Moves the mouse down the sidebar until it is over the button of that operator, as an eye would.

        `across` is how far to the right in the sidebar, 0..1.
        """
        bpy.context.window_manager.clipboard = ""
        sidebar = self.region("UI")
        for down in range(12, sidebar.height, 12):
            yield from self.point_at(sidebar.x + sidebar.width * across, sidebar.y + sidebar.height - down)
            if operator in self._hovered():
                return
        raise LookupError(f"no button {operator} in the sidebar")

    def _hovered(self) -> str:
        """The Python command of the button under the mouse; Blender tells it through the clipboard."""
        with self.looking_at("UI"):
            if not bpy.ops.ui.copy_python_command_button.poll():
                return ""
            bpy.ops.ui.copy_python_command_button()
        return bpy.context.window_manager.clipboard

    def click(self) -> Steps:
        """Presses the left button where the mouse is."""
        yield from self.robot("click", 1)
        yield SETTLE


def until(condition: Callable[[], object], seconds: float, what: str) -> Steps:
    """Waits for something, and fails by its name when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds:g} s")
        yield 0.1


# ---- setting the table -------------------------------------------------------------------------------


def furnish(stage: Stage) -> Steps:
    """The window as the pictures show it: preview above, sequencer below, the sidebar on our tab."""
    bpy.context.preferences.view.ui_scale = 1.2
    yield SETTLE
    yield from close_areas(stage, {"FILE_BROWSER", "PROPERTIES"})
    preview = stage.area("PREVIEW").spaces.active
    preview.show_region_toolbar = False
    preview.show_overlays = preview.show_gizmo = False
    timeline = stage.area("SEQUENCER").spaces.active
    timeline.show_region_toolbar = False
    timeline.show_region_ui = True
    timeline.timeline_overlay.show_strip_source = False
    yield SETTLE
    stage.region("UI").active_panel_category = "Keytween"
    yield from raise_timeline(stage)
    yield from stage.settle()


def close_areas(stage: Stage, kinds: set[str]) -> Steps:
    """Closes areas of those types; their neighbours take the room."""
    while area := next((area for area in stage.window.screen.areas if area.type in kinds), None):
        with bpy.context.temp_override(window=stage.window, area=area, region=area.regions[0]):
            bpy.ops.screen.area_close()
        yield SETTLE


def raise_timeline(stage: Stage) -> Steps:
    """Drags the edge between preview and timeline up, so that the sidebar has room for the whole panel."""
    top = stage.area("SEQUENCER").y + stage.area("SEQUENCER").height
    yield from stage.point_at(500, top + 1)
    yield from stage.robot("mousedown", 1)
    yield from stage.point_at(500, top + 60)
    yield from stage.point_at(500, 565)
    yield from stage.robot("mouseup", 1)
    yield SETTLE


def lay_keyframes(stage: Stage) -> Steps:
    """Two pictures on channel 1, both selected, and one undo step that later undos come back to."""
    scene = stage.scene
    editor = scene.sequence_editor or scene.sequence_editor_create()
    first, second = stage.options["first"], stage.options["second"]
    for path, frame in ((first, 1), (second, int(stage.options.get("frame", "25")))):
        strip = editor.strips.new_image(Path(path).stem, path, channel=1, frame_start=frame)
        strip.right_handle = frame + 4
        strip.select = True
    element = editor.strips[0].elements[0]
    scene.render.resolution_x, scene.render.resolution_y = element.orig_width, element.orig_height
    scene.view_settings.view_transform = "Standard"
    scene.frame_end = editor.strips[-1].right_handle + 3
    with stage.looking_at():
        bpy.ops.sequencer.view_all()
        bpy.ops.ed.undo_push(message="Lay Keyframes")
    with stage.looking_at("PREVIEW", "PREVIEW"):
        bpy.ops.sequencer.view_all_preview()
        bpy.ops.sequencer.view_zoom_ratio(ratio=1.0)
    yield SETTLE
    yield from show_few_channels(stage)


def show_few_channels(stage: Stage) -> Steps:
    """Two channels are in use; with the usual eight in view the strips' pictures are too small to see."""
    with stage.looking_at():
        bpy.ops.view2d.zoom(deltay=2.4)
    yield SETTLE
    timeline = stage.region("WINDOW")
    bottom = timeline.view2d.region_to_view(0, 0)[1]
    height = timeline.view2d.region_to_view(0, timeline.height)[1] - bottom
    with stage.looking_at():
        bpy.ops.view2d.pan(deltay=int((0.75 - bottom) / height * timeline.height))
    yield SETTLE


def status() -> Any:
    """What the extension's panels draw from."""
    return sys.modules[f"{MODULE}.poller"].STATUS


def connect(stage: Stage) -> Steps:
    """Waits for the extension to find the daemon by itself, as it does after Blender has started."""
    yield from until(lambda: status().link.state.value == "ready", 15, "the connection to the daemon")
    # Connecting imports libraries, once; frames that arrive are another matter.
    stage.note(connect_tick_ms=status().tick_max_ms)
    status().tick_max_ms = 0.0


def tween_strip(stage: Stage) -> Any:
    """The strip that the extension has made, None when there is none."""
    editor = stage.scene.sequence_editor
    return next((strip for strip in editor.strips if "keytween_job" in strip), None)


def state_of(stage: Stage) -> str:
    """What the tween's strip says about its job; empty without a strip."""
    strip = tween_strip(stage)
    return strip["keytween_state"] if strip else ""


def drawings_shown(strip: Any) -> int:
    """How many of the finished drawings the strip shows already."""
    return len({element.filename for element in strip.elements if element.filename.startswith("drawing_")})


def describe(strip: Any) -> dict[str, Any] | None:
    """What the test outside wants to know of a tween's strip."""
    if strip is None:
        return None
    return {
        "type": strip.type,
        "channel": strip.channel,
        "start": strip.left_handle,
        "end": strip.right_handle,
        "state": strip["keytween_state"],
        "directory": bpy.path.abspath(strip.directory),
        "files": [element.filename for element in strip.elements],
    }


def press_tween(stage: Stage) -> Steps:
    """Finds the Tween button with the mouse, presses it, and waits for the strip."""
    yield from stage.find_button("keytween.tween")
    before = time.monotonic()
    yield from stage.robot("click", 1)
    yield from until(lambda: tween_strip(stage), 10, "the strip")
    stage.note(strip_after_s=round(time.monotonic() - before, 2))


def show_middle(stage: Stage) -> None:
    """Puts the current frame between the keyframes, where a new drawing is to be seen."""
    strip = tween_strip(stage)
    stage.scene.frame_current = (strip.left_handle + strip.right_handle) // 2


# ---- scenes ------------------------------------------------------------------------------------------


def tween(stage: Stage) -> Steps:
    """Two keyframes, one press, and the in-betweens are there; undo and redo by their shortcuts."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    yield from press_tween(stage)
    yield from until(lambda: state_of(stage) in {"done", "failed", "cancelled"}, 60, "the job's end")
    yield SETTLE
    stage.note(made=describe(tween_strip(stage)), tick_max_ms=status().tick_max_ms)
    show_middle(stage)
    stage.area("SEQUENCER").spaces.active.timeline_overlay.thumbnail_display_style = "CONTINUOUS"
    yield from stage.rest_mouse()
    # The thumbnails come from a thread of their own; the report in the status bar goes after ten seconds.
    yield 10.0
    yield from stage.shoot("blender-panel")
    yield from stage.press("ctrl+z")
    stage.note(undone=describe(tween_strip(stage)), strips_undone=len(stage.scene.sequence_editor.strips))
    yield from stage.press("ctrl+shift+z")
    yield SETTLE
    stage.note(redone=describe(tween_strip(stage)), tick_max_ms=status().tick_max_ms)
    bpy.ops.wm.save_mainfile()
    stage.note(saved=describe(tween_strip(stage)))


def timing(stage: Stage) -> Steps:
    """A finished tween is timed anew with the mouse, half of it from drawings that are there."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    yield from press_tween(stage)
    yield from until(lambda: state_of(stage) == "done", 60, "the job's end")
    own = tween_strip(stage).keytween_own
    own.settings.exposure = "2"
    own.segments[0].interpolation, own.segments[0].mode = "SINE", "EASE_IN_OUT"
    yield from seek_button(stage, "keytween.retime")
    yield from stage.click()
    yield from until(lambda: state_of(stage) == "done", 60, "the new drawings")
    yield SETTLE
    stage.note(retimed=describe(tween_strip(stage)), tick_max_ms=status().tick_max_ms)
    show_middle(stage)
    for _ in range(12):
        yield from stage.robot("click", 5)
    yield from stage.rest_mouse()
    yield 3.0
    yield from stage.shoot("blender-timing")


def breakdown(stage: Stage) -> Steps:
    """A keyframe is dragged and the tween follows; a drawing becomes a keyframe, and undo takes that back."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    yield from press_tween(stage)
    yield from until(lambda: state_of(stage) == "done", 60, "the job's end")
    strips = stage.scene.sequence_editor.strips
    with stage.looking_at():
        bpy.ops.sequencer.select_all(action="DESELECT")
    yield from drag(stage, "wave_2", frames=-8)
    stage.note(dragged_to=strips["wave_2"].left_handle)
    yield from until(lambda: tween_strip(stage)["keytween_stale"], 10, "the strip's word that it is stale")
    stage.note(stale=tween_strip(stage)["keytween_stale"], tag=tween_strip(stage).color_tag)
    stage.scene.sequence_editor.active_strip = tween_strip(stage)
    yield from seek_button(stage, "keytween.retime")
    yield from stage.click()
    yield from until(lambda: state_of(stage) == "done", 60, "the drawings for the new place")
    yield SETTLE
    stage.note(retimed=describe(tween_strip(stage)))
    show_middle(stage)
    yield from seek_button(stage, "keytween.promote")
    yield from stage.click()
    yield from until(lambda: len(strips) == 4 and state_of(stage) == "done", 60, "the breakdown's drawings")
    yield SETTLE
    stage.note(promoted=describe(tween_strip(stage)), frame=stage.scene.frame_current)
    yield from stage.rest_mouse()
    yield 3.0
    yield from stage.shoot("blender-breakdown")
    yield from stage.press("ctrl+z")
    yield SETTLE
    stage.note(undone=describe(tween_strip(stage)), strips_undone=len(stage.scene.sequence_editor.strips))
    stage.note(tick_max_ms=status().tick_max_ms)


def drag(stage: Stage, name: str, *, frames: int) -> Steps:
    """Drags a strip along the timeline with the mouse; it may snap to what is near."""
    strip, timeline = stage.scene.sequence_editor.strips[name], stage.region("WINDOW")
    middle = (strip.left_handle + strip.right_handle) / 2
    places = [
        timeline.view2d.view_to_region(f, strip.channel + 0.5, clip=False) for f in (middle, middle + frames)
    ]
    (left, height), (right, _) = [(timeline.x + x, timeline.y + y) for x, y in places]
    yield from stage.point_at(left, height)
    yield from stage.robot("mousedown", 1)
    for share in (0.1, 0.3, 0.6, 1.0):
        yield from stage.point_at(left + (right - left) * share, height)
        yield 0.1
    yield from stage.robot("mouseup", 1)
    yield SETTLE


def seek_button(stage: Stage, operator: str) -> Steps:
    """Finds a button in the sidebar, turning the wheel as long as it is not in view."""
    for _ in range(6):
        try:
            yield from stage.find_button(operator)
            return
        except LookupError:
            for _ in range(6):
                yield from stage.robot("click", 5)
            yield SETTLE
    raise LookupError(f"no button {operator} further down the sidebar either")


def leave_running(stage: Stage) -> Steps:
    """Presses Tween on a wide gap, saves when the first drawings are there, and leaves Blender."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    yield from press_tween(stage)
    yield from until(lambda: drawings_shown(tween_strip(stage)) >= 3, 60, "the first drawings")
    bpy.ops.wm.save_mainfile()
    stage.note(left=describe(tween_strip(stage)))
    show_middle(stage)
    yield from stage.rest_mouse()
    yield from stage.shoot("blender-progress")


def meddle(stage: Stage) -> Steps:
    """Prefetching is on; while drawings arrive: undo and redo by their keys, and a render."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    scene = stage.scene
    scene.keytween.engine = "dissolve"
    scene.sequence_editor.use_prefetch = True
    bpy.context.preferences.view.render_display_type = "NONE"
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    bpy.ops.ed.undo_push(message="Set the Table")
    yield from press_tween(stage)
    undone: list[bool] = []
    for _ in range(2):
        yield from stage.press("ctrl+z")
        undone.append(tween_strip(stage) is None)
        yield from stage.press("ctrl+shift+z")
        undone.append(tween_strip(stage) is not None)
    stage.note(undone=undone)
    yield from render_meanwhile(stage)
    yield from until(lambda: state_of(stage) in {"done", "failed", "cancelled"}, 120, "the job's end")
    yield SETTLE
    drawn = dict(sys.modules[f"{MODULE}.panels"].DRAWN_MS)
    stage.note(
        made=describe(tween_strip(stage)), prefetch=stage.scene.sequence_editor.use_prefetch, drawn_ms=drawn
    )


def render_meanwhile(stage: Stage) -> Steps:
    """Renders some frames as a user does, without waiting; what the strip shows must stay as it is."""
    scene = stage.scene
    scene.frame_start, scene.frame_end = 1, 12
    scene.render.resolution_percentage = 50
    scene.render.filepath = stage.options["frames"]
    with stage.looking_at():
        bpy.ops.render.render("INVOKE_DEFAULT", animation=True)
    yield from until(lambda: bpy.app.is_job_running("RENDER"), 20, "the render")
    before, changed = describe(tween_strip(stage)), 0
    while bpy.app.is_job_running("RENDER"):
        changed += describe(tween_strip(stage)) != before and bpy.app.is_job_running("RENDER")
        yield 0.05
    stage.note(changed_while_rendering=changed)


def come_back(stage: Stage) -> Steps:
    """The file that was left is open again: its strip fills up without being asked."""
    stage.note(found=describe(tween_strip(stage)))
    yield from connect(stage)
    yield from until(lambda: state_of(stage) == "done", 180, "the end of the job that was left")
    yield SETTLE
    stage.note(made=describe(tween_strip(stage)), tick_max_ms=status().tick_max_ms)


def opened_again(stage: Stage) -> Steps:
    """A finished tween in a file that Blender was started with: it is whole, and the daemon is found."""
    stage.note(found=describe(tween_strip(stage)))
    yield from connect(stage)


def first_file(stage: Stage) -> Steps:
    """The bundled file, as a newcomer opens it: one press, and the in-betweens are there."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from press_tween(stage)
    yield from until(lambda: state_of(stage) in {"done", "failed", "cancelled"}, 120, "the job's end")
    yield SETTLE
    stage.note(made=describe(tween_strip(stage)))


def one_strip(stage: Stage) -> Steps:
    """One keyframe selected: the button is grey, does nothing, and says what is missing."""
    yield from furnish(stage)
    yield from connect(stage)
    yield from lay_keyframes(stage)
    yield from stage.find_button("keytween.tween")
    stage.scene.sequence_editor.strips[-1].select = False
    yield from stage.settle()
    yield from stage.click()
    yield from stage.robot("mousemove_relative", "--", -6, 2)
    yield 2.0
    yield from stage.shoot("blender-one-strip")
    stage.note(strips=len(stage.scene.sequence_editor.strips))


def no_daemon(stage: Stage) -> Steps:
    """No daemon runs and Tween is pressed: the panel says so and what to do."""
    yield from furnish(stage)
    yield from lay_keyframes(stage)
    yield from stage.find_button("keytween.tween")
    yield from stage.click()
    # The error pops up as well; the panel goes on showing it.
    yield from stage.robot("key", "Escape")
    yield from stage.rest_mouse()
    yield 10.0
    yield from stage.shoot("blender-no-daemon")
    stage.note(
        state=status().link.state.value, told=stage.scene.keytween.error, made=describe(tween_strip(stage))
    )


def preferences(stage: Stage) -> Steps:
    """The extension's page in Blender's preferences, over the whole window."""
    yield from close_areas(stage, {"FILE_BROWSER", "PROPERTIES"})
    with stage.looking_at():
        bpy.ops.screen.area_close()
    yield SETTLE
    stage.window.screen.areas[0].type = "PREFERENCES"
    bpy.context.preferences.active_section = "ADDONS"
    bpy.context.window_manager.addon_search = "Keytween"
    bpy.ops.preferences.addon_expand(module=MODULE)
    yield from stage.rest_mouse()
    yield from stage.shoot("blender-preferences")


ALL = (tween, timing, breakdown, meddle, leave_running, come_back, opened_again)
ALL += (first_file, one_strip, no_daemon, preferences)
SCENES: dict[str, Callable[[Stage], Steps]] = {scene.__name__: scene for scene in ALL}


def play(scene: Steps, stage: Stage) -> None:
    """Plays a scene from a timer, then leaves Blender by its own door."""

    def tick() -> float | None:
        try:
            return next(scene)
        except StopIteration:
            pass
        except BaseException:  # noqa: BLE001  whatever it was, the test outside must hear of it
            stage.note(error=traceback.format_exc())
        stage.note(quit_at=time.time())
        bpy.ops.wm.quit_blender()
        return None

    # Persistent: a scene may open another file.
    bpy.app.timers.register(tick, first_interval=1.0, persistent=True)


def main(scenes: Mapping[str, Callable[[Stage], Steps]]) -> None:
    """Reads what comes after `--` and begins."""
    name, notes, *options = sys.argv[sys.argv.index("--") + 1 :]
    view = bpy.context.preferences.view
    view.show_splash = False
    bpy.context.preferences.use_preferences_save = False
    if not bpy.data.filepath:
        # As File > New > Video Editing does; Blender's option --app-template would leave the extensions out.
        bpy.ops.wm.read_homefile(app_template="Video_Editing")
    stage = Stage(Path(notes), dict(option.split("=", 1) for option in options))
    play(scenes[name](stage), stage)


if __name__ == "__main__":
    main(SCENES)
