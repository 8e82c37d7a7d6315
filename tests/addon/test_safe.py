"""Nothing that a user may do in Blender while jobs run breaks Blender, the strip or the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import PACKAGE, ZIP, Daemon, shown, the_tween, turn_until  # noqa: E402
from .test_poller import TWENTY_FOUR, ended, press  # noqa: E402

Maker = Callable[..., object]
SLOW = (960, 540)
"""A size at which a job takes some seconds, so that there is a middle."""


@pytest.fixture
def running(scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace) -> Iterator[object]:
    """A job that has begun: two frames are there, 22 are to come."""
    strip_at(1, 1, 10, size=SLOW)
    strip_at(26, 1, 400, size=SLOW)
    bpy.ops.ed.undo_push(message="Keyframes")
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 2)
    bpy.ops.wm.save_mainfile()
    yield view
    cancel(daemon, view.job_id)


def cancel(daemon: Daemon, job_id: str) -> None:
    """Leaves the daemon without work for the next test."""
    from keytween_wire.client import Client
    from keytween_wire.connection import Connection

    with Client(Connection.load(daemon.connection)) as client:
        client.hello()
        client.cancel(job_id)


def tweens() -> list[object]:
    """Every strip that Keytween made, in all scenes."""
    editors = [scene.sequence_editor for scene in bpy.data.scenes if scene.sequence_editor]
    return [strip for editor in editors for strip in editor.strips_all if "keytween_job" in strip]


# ---- in one Blender


def test_undo_and_redo_at_every_moment(running: object, extension: SimpleNamespace) -> None:
    seen = 0
    while not running.state.ended:
        extension.poller.tick()
        if len(running.files) > seen:
            seen = len(running.files)
            bpy.ops.ed.undo()
            extension.poller.tick()
            assert tweens() == []
            bpy.ops.ed.redo()
    assert seen > 5
    extension.poller.tick()
    assert shown(the_tween()) == TWENTY_FOUR
    assert the_tween()["keytween_state"] == "done"


def test_a_strip_that_is_deleted_takes_nothing_with_it(
    running: object, scene: object, extension: SimpleNamespace
) -> None:
    scene.sequence_editor.strips.remove(the_tween())
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    assert (running.error, running.state.value) == (None, "done")
    assert tweens() == []
    assert len(scene.sequence_editor.strips) == 2
    assert len(list(running.folder.glob("drawing_*.png"))) == 24


def test_a_scene_that_is_deleted_takes_nothing_with_it(
    running: object, scene: object, extension: SimpleNamespace
) -> None:
    bpy.context.window.scene = bpy.data.scenes.new("another")
    bpy.data.scenes.remove(scene)
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    assert (running.error, running.state.value) == (None, "done")
    assert tweens() == []


def test_a_new_file_begins_empty_and_the_old_one_fills_up(
    running: object, extension: SimpleNamespace, tmp_path: Path
) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    extension.poller.tick()
    assert extension.poller.STATUS.jobs == {}
    for _ in range(20):
        extension.poller.tick()
        time.sleep(0.01)
    assert tweens() == []
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    extension.poller.tick()
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    assert shown(the_tween()) == TWENTY_FOUR


def test_saved_under_another_name_in_the_middle_the_frames_are_still_found(
    running: object, extension: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "copy.blend"))
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    folder = extension.insert.folder_of(the_tween())
    assert [
        element.filename for element in the_tween().elements if not (folder / element.filename).is_file()
    ] == []
    assert shown(the_tween()) == TWENTY_FOUR


def test_while_a_render_runs_no_strip_is_touched(
    running: object, scene: object, extension: SimpleNamespace, tmp_path: Path
) -> None:
    """In Blender's own words: its handlers say when a render begins and ends."""
    before = shown(the_tween())
    pauses: list[float | None] = []

    def in_the_middle(*_: object) -> None:
        for _ in range(5):
            pauses.append(extension.poller.tick())
            time.sleep(0.05)

    bpy.app.handlers.render_post.append(in_the_middle)
    scene.render.filepath = str(tmp_path / "frame_")
    scene.frame_start, scene.frame_end = 1, 3
    try:
        bpy.ops.render.render(animation=True, scene=scene.name)
    finally:
        bpy.app.handlers.render_post.remove(in_the_middle)
    assert pauses == [extension.poller.RENDERING_S] * 15
    assert shown(the_tween()) == before
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    assert shown(the_tween()) == TWENTY_FOUR


def test_prefetching_stays_on(running: object, scene: object, extension: SimpleNamespace) -> None:
    editor = scene.sequence_editor
    editor.use_prefetch = True
    turn_until(extension, lambda: len(running.files) >= 6)
    view = press(extension, scene)
    turn_until(extension, ended(extension, view.job_id), seconds=60)
    assert editor.use_prefetch
    assert {strip["keytween_state"] for strip in tweens()} == {"done"}


def test_the_extension_disabled_and_enabled_again_goes_on(
    running: object, extension: SimpleNamespace
) -> None:
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    time.sleep(0.3)
    assert len(tweens()) == 1
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    turn_until(extension, lambda: running.job_id in extension.poller.STATUS.jobs)
    assert extension.poller.STATUS.jobs[running.job_id] is not running
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    assert shown(the_tween()) == TWENTY_FOUR


# ---- in several

OTHER = """
import importlib, json, os, sys, time
import bpy
what, file, zipped, package = sys.argv[1:]
bpy.ops.extensions.package_install_files(filepath=zipped, repo="user_default", enable_on_install=True)

def poller():
    return importlib.import_module(package + ".poller")

def turn(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, (poller().STATUS.link.error, poller().STATUS.jobs)
        time.sleep(min(poller().tick() or 0.01, 0.02))

bpy.ops.wm.open_mainfile(filepath=file)
turn(lambda: poller().STATUS.jobs)
(view,) = poller().STATUS.jobs.values()
if what == "update":
    turn(lambda: len(view.files) >= 2)
    bpy.ops.extensions.package_install_files(filepath=zipped, repo="user_default", enable_on_install=True)
    assert not view.state.ended, "the job was too quick to be in the middle of it"
    turn(lambda: poller().STATUS.jobs)
    (view,) = poller().STATUS.jobs.values()
if what == "quit":
    turn(lambda: len(view.files) >= 2)
else:
    turn(lambda: view.state.ended)
strips = [s for s in bpy.context.scene.sequence_editor.strips_all if "keytween_job" in s]
told = {"state": view.state.value, "files": sorted(e.filename for e in strips[0].elements), "at": time.time()}
with open(os.environ["TOLD"], "w") as stream:
    json.dump(told, stream)
if what == "quit":
    sys.exit(0)
"""


def other_blender(what: str, file: Path, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A second Blender, with preferences of its own, that opens the file."""
    script, told = folder / f"{what}.py", folder / f"{what}.json"
    script.write_text(OTHER)
    (folder / f"blender-{what}").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), what, str(file), ZIP, PACKAGE],
        env=os.environ | {"BLENDER_USER_RESOURCES": str(folder / f"blender-{what}"), "TOLD": str(told)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, told


def wait_for(process: subprocess.Popen[str], told: Path) -> dict[str, object]:
    """What the other Blender wrote down before it left, which it must do at once and well."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said[-3000:]
    found = json.loads(told.read_text())
    assert time.time() - found["at"] < 10
    return found


def test_two_blenders_share_one_daemon_and_one_file(
    running: object, extension: SimpleNamespace, tmp_path: Path
) -> None:
    process, told = other_blender("watch", tmp_path / "shot.blend", tmp_path)
    turn_until(extension, ended(extension, running.job_id), seconds=60)
    found = wait_for(process, told)
    assert found["state"] == "done"
    assert found["files"] == sorted(element.filename for element in the_tween().elements)


@pytest.mark.parametrize("what", ["update", "quit"])
def test_updated_or_left_with_a_job_running(
    scene: object,
    daemon: Daemon,
    strip_at: Maker,
    extension: SimpleNamespace,
    tmp_path: Path,
    what: str,
) -> None:
    """The extension is installed over itself, or Blender quits: the job goes on, and so does the file."""
    strip_at(1, 1, 10, size=SLOW)
    strip_at(82, 1, 400, size=SLOW)
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 1)
    bpy.ops.wm.save_mainfile()
    extension.poller.STATUS.link.close()
    process, told = other_blender(what, tmp_path / "shot.blend", tmp_path)
    found = wait_for(process, told)
    assert found["state"] == ("done" if what == "update" else "running")
    if what == "update":
        assert len(set(found["files"])) == 82
        return
    # The daemon goes on without any Blender, and what it makes is for the file.
    extension.poller.STATUS.link.connect()
    before = len(set(found["files"]))
    turn_until(extension, lambda: len(view.files) > before)
    cancel(daemon, view.job_id)
    turn_until(extension, ended(extension, view.job_id))
