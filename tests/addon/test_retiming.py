"""Another timing for a tween that is there: only positions that are not there yet are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, frames_computed, remembered, shown, the_tween, turn_until  # noqa: E402
from .test_poller import ended, press, ready  # noqa: E402

Maker = Callable[..., object]


def tweened(scene: object, strip_at: Maker, *starts: int) -> object:
    """A finished tween of keyframes at these frames, active."""
    for index, start in enumerate(starts):
        strip_at(start, 1, 4 + 12 * index)
    bpy.ops.keytween.tween()
    scene.sequence_editor.active_strip = the_tween()
    return the_tween()


def press_retime(extension: SimpleNamespace, scene: object) -> object:
    """What the button does for people, which background Blender never does; returns the job for the rest."""
    job = extension.retiming.retime(scene, the_tween())
    extension.tween_operators.send(the_tween(), [job] if job else [], wait=False)
    bpy.ops.ed.undo_push(message="Retime")
    return job


def test_a_retime_to_positions_that_are_there_computes_nothing(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip = tweened(scene, strip_at, 1, 49)
    assert len(set(elements(strip))) == 49
    before = frames_computed(daemon)
    strip.keytween_own.settings.exposure = "2"
    assert bpy.ops.keytween.retime() == {"FINISHED"}
    assert frames_computed(daemon) == before
    assert len(strip.elements) == 49
    positions = [f"{step / 24:.2f}" for step in range(1, 24) for _ in range(2)]
    assert shown(strip).split() == ["A", "A", *positions, "B"]
    strip.keytween_own.settings.exposure = "1"
    bpy.ops.keytween.retime()
    assert frames_computed(daemon) == before
    assert len(set(elements(strip))) == 49


def test_a_retime_to_new_positions_computes_only_those(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip = tweened(scene, strip_at, 1, 49)
    before = frames_computed(daemon)
    strip.keytween_own.settings.in_betweens = 31
    assert bpy.ops.keytween.retime() == {"FINISHED"}
    # Of 1/32, 2/32 ... the 15 that are sixteenths are there: the tween was drawn in 48ths.
    assert frames_computed(daemon) == before + 16
    positions = sorted({position for _, position in remembered(strip)["drawings"]})
    assert positions == pytest.approx([step / 32 for step in range(1, 32)])
    assert sorted(set(shown(strip).split())) == sorted({"A", "B", *(f"{p:.2f}" for p in positions)})
    bpy.ops.keytween.retime()
    assert frames_computed(daemon) == before + 16


def test_a_pure_retime_needs_no_daemon(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    own_daemon.stop()
    own_daemon.connection.unlink(missing_ok=True)
    strip.keytween_own.settings.exposure = "2"
    assert bpy.ops.keytween.retime() == {"FINISHED"}
    assert shown(strip) == "A A 0.25 0.25 0.50 0.50 0.75 0.75 B"


def test_the_nearest_drawings_show_at_once_and_the_new_ones_land_in_place(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    strip.keytween_own.settings.interpolation, strip.keytween_own.settings.mode = "QUAD", "EASE_IN"
    job = press_retime(extension, scene)
    # 1/64, 4/64, 9/64, 16/64, 25/64, 36/64, 49/64: the fourth is there already.
    assert shown(strip) == "A A A 0.12 0.25 0.38 0.50 0.75 B"
    assert job.total == 6
    turn_until(extension, ended(extension, job.job_id))
    assert shown(strip) == "A 0.02 0.06 0.14 0.25 0.39 0.56 0.77 B"
    assert strip["keytween_state"] == "done"


def test_without_a_daemon_the_new_drawings_wait_for_one(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    own_daemon.kill()
    own_daemon.connection.unlink(missing_ok=True)
    strip.keytween_own.settings.in_betweens = 2
    with pytest.raises(RuntimeError, match="KT-301"):
        bpy.ops.keytween.retime()
    assert shown(strip) == "A A 0.25 0.75 B"
    own_daemon.start()
    bpy.ops.keytween.connect()
    (job,) = [v for v in extension.poller.STATUS.jobs.values() if not v.state.ended]
    turn_until(extension, ended(extension, job.job_id))
    assert shown(strip) == "A A 0.33 0.67 B"


def test_drawings_on_their_way_are_not_asked_for_again(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    strip_at(1, 1, 4)
    strip_at(9, 1, 40)
    before = frames_computed(daemon)
    press(extension, scene)
    strip = scene.sequence_editor.active_strip = the_tween()
    strip.keytween_own.settings.exposure = "2"
    assert press_retime(extension, scene) is None
    turn_until(extension, ended(extension, strip["keytween_job"]))
    assert frames_computed(daemon) == before + 7
    assert shown(the_tween()) == "A A 0.25 0.25 0.50 0.50 0.75 0.75 B"


def test_undo_brings_the_old_timing_back_and_redo_shows_what_was_drawn_meanwhile(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    strip.keytween_own.settings.in_betweens = 2
    bpy.ops.ed.undo_push(message="Before")
    job = press_retime(extension, scene)
    bpy.ops.ed.undo()
    turn_until(extension, ended(extension, job.job_id))
    assert shown(the_tween()) == "A 0.12 0.25 0.38 0.50 0.62 0.75 0.88 B"
    bpy.ops.ed.redo()
    extension.poller.tick()
    assert shown(the_tween()) == "A A A 0.33 0.33 0.33 0.67 0.67 B"
    assert the_tween()["keytween_state"] == "done"


def test_saved_and_loaded_a_retime_goes_on(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip_at(1, 1, 10, size=(640, 360))
    strip_at(5, 1, 260, size=(640, 360))
    scene.keytween.engine = "flow"
    bpy.ops.keytween.tween()
    strip = scene.sequence_editor.active_strip = the_tween()
    bpy.ops.keytween.connect()
    turn_until(extension, ready(extension))
    strip.keytween_own.settings.in_betweens = 0
    strip.keytween_own.settings.interpolation = "CUBIC"
    job = press_retime(extension, scene)
    bpy.ops.wm.save_mainfile()
    turn_until(extension, lambda: job.submission is None)
    extension.poller.STATUS.link.close()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    extension.poller.tick()
    assert {v.job_id for v in extension.poller.STATUS.jobs.values()} >= {job.job_id}
    turn_until(extension, ended(extension, job.job_id), seconds=60)
    assert shown(the_tween()) == "A 0.02 0.12 0.42 B"


# ---- keyframes that were moved


def test_a_keyframe_that_was_dragged_is_where_it_was_dragged_to(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5, 9)
    before = frames_computed(daemon)
    second = scene.sequence_editor.strips["key 5"]
    extension.vse_compat.set_content_start(second, 7)
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.17 0.33 0.50 0.67 0.83 B 0.50 C"
    # One half is there in each segment.
    assert frames_computed(daemon) == before + 4


def test_a_first_keyframe_that_was_dragged_takes_the_strip_with_it(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 5, 9)
    extension.vse_compat.set_content_start(scene.sequence_editor.strips["key 5"], 1)
    extension.vse_compat.set_content_start(scene.sequence_editor.strips["key 9"], 13)
    bpy.ops.keytween.retime()
    assert (extension.vse_compat.start(strip), extension.vse_compat.end(strip)) == (1, 14)
    assert len(strip.elements) == 13
    extension.vse_compat.set_content_start(scene.sequence_editor.strips["key 9"], 4)
    bpy.ops.keytween.retime()
    assert (extension.vse_compat.start(strip), extension.vse_compat.end(strip)) == (1, 5)


def test_a_strip_that_was_moved_away_stays_there(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    extension.vse_compat.set_content_start(strip, 100)
    strip.keytween_own.settings.exposure = "2"
    bpy.ops.keytween.retime()
    assert extension.vse_compat.start(strip) == 100
    assert shown(strip) == "A A 0.50 0.50 B"


def test_a_longer_tween_does_not_run_into_what_comes_after(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    other = strip_at(8, 4, 20, channel=strip.channel)
    extension.vse_compat.set_content_start(scene.sequence_editor.strips["key 5"], 12)
    bpy.ops.keytween.retime()
    assert (other.channel, extension.vse_compat.start(other)) == (2, 8)
    assert strip.channel == 3
    assert len(strip.elements) == 12


def test_a_keyframe_is_known_by_another_name_and_a_copy_of_it_is_not_it(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    key = scene.sequence_editor.strips["key 5"]
    key.name = "the end"
    bpy.ops.keytween.retime()
    copy = strip_at(30, 1, 40)
    copy["keytween_key"] = key["keytween_key"]
    extension.vse_compat.set_content_start(key, 7)
    bpy.ops.keytween.retime()
    assert len(strip.elements) == 7


def test_a_keyframe_whose_strip_is_gone_stays_where_it_was(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    scene.sequence_editor.strips.remove(scene.sequence_editor.strips["key 5"])
    strip.keytween_own.settings.exposure = "2"
    bpy.ops.keytween.retime()
    assert shown(strip) == "A A 0.50 0.50 B"


def test_keyframes_that_were_dragged_past_each_other_are_refused_and_nothing_changes(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    extension.vse_compat.set_content_start(scene.sequence_editor.strips["key 1"], 9)
    with pytest.raises(RuntimeError, match="KT-202"):
        bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.25 0.50 0.75 B"


# ---- segments


def test_segments_have_timings_of_their_own(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip = tweened(scene, strip_at, 1, 7, 13)
    before = frames_computed(daemon)
    second = strip.keytween_own.segments[1]
    second.own_exposure, second.interpolation, second.mode = "3", "QUAD", "EASE_OUT"
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.17 0.33 0.50 0.67 0.83 B B B 0.75 0.75 0.75 C"
    assert frames_computed(daemon) == before + 1


def test_a_moving_hold_drifts(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 5, 4)
    strip_at(9, 1, 40)
    bpy.ops.keytween.tween()
    strip = scene.sequence_editor.active_strip = the_tween()
    assert shown(strip) == "A A A A A 0.25 0.50 0.75 B"
    strip.keytween_own.segments[0].drift = 0.2
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.05 0.10 0.15 0.20 0.40 0.60 0.80 B"


def test_a_drawn_curve_is_the_easing_and_survives_saving(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    segment = strip.keytween_own.segments[0]
    segment.interpolation = "CURVE"
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.25 0.50 0.75 B"
    points = extension.properties.curve_of(segment).mapping.curves[0].points
    points.new(0.5, 1.2)
    for point in points:
        point.handle_type = "VECTOR"
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.60 1.20 1.10 B"
    segment.own_exposure = "2"
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    scene, strip = bpy.context.scene, the_tween()
    own = strip.keytween_own
    assert (own.segments[0].interpolation, own.settings.engine) == ("CURVE", "dissolve")
    scene.sequence_editor.active_strip = strip
    bpy.ops.keytween.retime()
    assert shown(strip) == "A A 1.20 1.20 B"


@pytest.mark.parametrize("operator", ["retime", "regenerate"])
def test_without_an_active_tween_the_buttons_are_grey(
    scene: object, extension: SimpleNamespace, strip_at: Maker, operator: str
) -> None:
    scene.sequence_editor.active_strip = strip_at(1, 1, 4)
    assert not getattr(bpy.ops.keytween, operator).poll()
