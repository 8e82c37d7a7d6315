"""The way that people take: nothing blocks, and the timer brings the frames. Here it is turned by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, shown, the_tween, turn_until  # noqa: E402

Maker = Callable[..., object]
FIVE = "A 0.17 0.33 0.50 0.67 0.83 B"
TWENTY_FOUR = " ".join(["A", *(f"{step / 25:.2f}" for step in range(1, 25)), "B"])


def press(extension: SimpleNamespace, scene: object) -> object:
    """What the button does."""
    if extension.poller.STATUS.link.state is extension.link.LinkState.OFF:
        extension.poller.STATUS.link.connect()
    view = extension.tween.place(scene, extension.tween.order(scene))
    extension.poller.submit(view)
    bpy.ops.ed.undo_push(message="Tween")
    return view


def ready(extension: SimpleNamespace) -> Callable[[], bool]:
    """Whether the connection stands."""
    return lambda: extension.poller.STATUS.link.state is extension.link.LinkState.READY


def ended(extension: SimpleNamespace, job_id: str) -> Callable[[], bool]:
    """Whether a job has ended."""
    return lambda: extension.poller.STATUS.jobs[job_id].state.ended


def test_the_strip_has_its_full_length_at_once_and_fills_in(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    view = press(extension, scene)
    assert shown(the_tween()) == "A A A A B B B"
    turn_until(extension, ended(extension, view.job_id))
    assert shown(the_tween()) == FIVE
    assert the_tween()["keytween_state"] == "done"


def test_the_welcome_fills_the_list_of_engines(
    scene: object, daemon: Daemon, extension: SimpleNamespace
) -> None:
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    assert {engine.name for engine in extension.poller.STATUS.engines} >= {"flow", "dissolve"}


def test_undo_takes_the_strip_away_and_redo_brings_it_back_filled(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    bpy.ops.ed.undo_push(message="Keyframes")
    view = press(extension, scene)
    bpy.ops.ed.undo()
    assert not [s for s in bpy.context.scene.sequence_editor.strips_all if "keytween_job" in s]
    turn_until(extension, ended(extension, view.job_id))
    bpy.ops.ed.redo()
    assert shown(the_tween()) == "A A A A B B B"
    extension.poller.tick()
    assert shown(the_tween()) == FIVE
    assert the_tween()["keytween_state"] == "done"


def test_undoing_a_later_step_keeps_the_frames(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    view = press(extension, scene)
    turn_until(extension, ended(extension, view.job_id))
    bpy.context.scene.frame_end = 77
    bpy.ops.ed.undo_push(message="Something else")
    bpy.ops.ed.undo()
    extension.poller.tick()
    assert shown(the_tween()) == FIVE


def test_one_tween_is_one_undo_step(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    bpy.ops.ed.undo_push(message="Keyframes")
    bpy.ops.keytween.tween("EXEC_DEFAULT", True)
    assert the_tween()
    bpy.ops.ed.undo()
    assert len(bpy.context.scene.sequence_editor.strips_all) == 2


def test_saved_and_loaded_the_job_goes_on(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip_at(1, 1, 10, size=(960, 540))
    strip_at(26, 1, 400, size=(960, 540))
    scene.keytween.engine = "flow"
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 2)
    bpy.ops.wm.save_mainfile()
    arrived = len(view.files)
    extension.poller.STATUS.link.close()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    extension.poller.tick()
    again = extension.poller.STATUS.jobs[view.job_id]
    assert again is not view
    assert len(again.files) >= arrived
    turn_until(extension, ended(extension, view.job_id), seconds=60)
    assert shown(the_tween()) == TWENTY_FOUR


def test_a_daemon_that_dies_in_the_middle_loses_nothing(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 10, size=(960, 540))
    strip_at(26, 1, 400, size=(960, 540))
    scene.keytween.engine = "flow"
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 2)
    own_daemon.kill()
    turn_until(extension, lambda: extension.poller.STATUS.link.state is extension.link.LinkState.LOST)
    own_daemon.start()
    turn_until(extension, ended(extension, view.job_id), seconds=60)
    assert view.error is None
    assert shown(the_tween()) == TWENTY_FOUR


def test_a_cancelled_job_keeps_what_was_finished(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 10, size=(960, 540))
    strip_at(66, 1, 400, size=(960, 540))
    scene.keytween.engine = "flow"
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 2)
    bpy.ops.keytween.cancel(job_id=view.job_id)
    turn_until(extension, ended(extension, view.job_id))
    assert the_tween()["keytween_state"] == "cancelled"
    assert "0.03" in shown(the_tween())
    assert len(view.files) < 64


def test_a_job_sent_before_the_connection_stands_is_sent_then(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    view = press(extension, scene)
    assert extension.poller.STATUS.link.state is extension.link.LinkState.CONNECTING
    assert view.submission is not None
    turn_until(extension, ended(extension, view.job_id))
    assert (view.submission, view.error) == (None, None)


def test_a_refused_job_says_why_on_its_strip(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    (tmp_path / "key at 4 é.png").write_bytes(b"no picture at all")
    view = press(extension, scene)
    turn_until(extension, ended(extension, view.job_id))
    assert view.error is not None
    assert view.error.code == "KT-102"
    assert json.loads(the_tween()["keytween_error"])["code"] == "KT-102"


def test_a_frame_that_vanished_is_fetched_again(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    view = press(extension, scene)
    turn_until(extension, ended(extension, view.job_id))
    strip = the_tween()
    cut = view.folder / elements(strip)[3]
    cut.write_bytes(b"cut")
    (record,) = json.loads(strip["keytween_jobs"])
    strip["keytween_jobs"] = json.dumps([{**record, "state": "running", "since": 0}])
    extension.poller.STATUS.jobs.clear()
    extension.poller.adopt_strips()
    turn_until(extension, ended(extension, view.job_id))
    assert cut.stat().st_size > 3
    assert the_tween()["keytween_state"] == "done"


def test_frames_that_cannot_be_written_make_the_job_fail(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    view = press(extension, scene)
    (look,) = view.looks
    (view.folder / f".drawing_{look}_+0.5000000.png.part").mkdir()
    turn_until(extension, ended(extension, view.job_id))
    assert the_tween()["keytween_state"] == "failed"
    assert json.loads(the_tween()["keytween_error"])["code"] == "KT-209"
    assert shown(the_tween()) == "A 0.17 0.33 0.33 0.67 0.83 B"


def test_nothing_is_touched_while_a_render_runs(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    view = press(extension, scene)
    extension.poller.STATUS.rendering = True
    for _ in range(20):
        assert extension.poller.tick() == extension.poller.RENDERING_S
    assert not view.files
    extension.poller.STATUS.rendering = False
    turn_until(extension, ended(extension, view.job_id))


def test_copies_of_the_strip_are_filled_as_well(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    view = press(extension, scene)
    first = the_tween()
    copy = scene.sequence_editor.strips.new_image("copy", str(view.folder / "key_00.png"), 9, 50)
    for name in elements(first)[1:]:
        copy.elements.append(name)
    for key in ("keytween_job", "keytween", "keytween_jobs", "keytween_state"):
        copy[key] = first[key]
    turn_until(extension, ended(extension, view.job_id))
    assert elements(copy) == elements(first)


def test_diagnostics_hold_versions_and_errors_but_no_keys(
    scene: object, daemon: Daemon, extension: SimpleNamespace
) -> None:
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    text = extension.operators.diagnostics(bpy.context)
    assert "pyzmq" in text
    assert "Daemon: ready" in text
    connection = extension.link.load_connection()
    for secret in (
        connection.client_secret,
        connection.client_key,
        connection.server_key,
        connection.endpoint,
    ):
        assert secret not in text
