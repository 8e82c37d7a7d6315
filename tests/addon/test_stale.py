"""A strip says when its keyframes or settings have changed, and Regenerate does only what changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, frames_computed, png, shown, the_tween, turn_until  # noqa: E402
from .test_poller import ended, press  # noqa: E402
from .test_retiming import tweened  # noqa: E402
from .test_tween import folder_of  # noqa: E402

Maker = Callable[..., object]


def told(extension: SimpleNamespace, strip: object) -> list[str]:
    """What the strip says after the timer had time to look at everything."""
    for _ in range(40):
        extension.poller.STATUS.tidied = 0.0
        extension.poller.tick()
    return [line for line in strip["keytween_stale"].split("\n") if line]


def test_a_tween_that_was_just_made_is_what_it_should_be(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    assert told(extension, strip) == []
    assert strip.color_tag == "COLOR_04"


def test_another_picture_is_noticed_and_only_its_segments_are_drawn_again(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5, 9, 13)
    path, before, count = tmp_path / "key at 13 é.png", elements(strip), frames_computed(daemon)
    path.write_bytes(png(64, 48, 20))
    assert told(extension, strip) == ["Keyframe 4 shows another picture: press Regenerate"]
    assert strip.color_tag == "COLOR_02"
    assert bpy.ops.keytween.regenerate() == {"FINISHED"}
    assert frames_computed(daemon) == count + 3
    after = elements(strip)
    assert after[:9] == before[:9]
    assert set(after[9:]).isdisjoint(before[9:])
    assert (folder_of(strip) / after[-1]).read_bytes() == path.read_bytes() == png(64, 48, 20)
    assert told(extension, strip) == []
    assert strip.color_tag == "COLOR_04"
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count + 3


def test_a_file_that_was_saved_again_as_it_was_is_no_other_picture(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    path = tmp_path / "key at 5 é.png"
    os.utime(path, (1e9, 1e9))
    assert told(extension, strip) == []


def test_a_keyframe_shown_otherwise_is_another_picture(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 3)
    count = frames_computed(daemon)
    scene.sequence_editor.strips["key 3"].use_flip_x = True
    assert told(extension, strip) == ["Keyframe 2 shows another picture: press Regenerate"]
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count + 1
    assert told(extension, strip) == []


def test_a_keyframe_that_is_hidden_is_no_other_picture(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    key = scene.sequence_editor.strips["key 5"]
    key.mute = True
    assert told(extension, strip) == []
    count = frames_computed(daemon)
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count
    key.mute = False
    assert told(extension, strip) == []


def test_the_look_of_a_strip_is_named_as_in_files_that_were_saved_before(
    scene: object, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = strip_at(1, 1, 4)
    assert extension.origins.look_of(strip) == "d7f0828cc5"
    strip.use_flip_x = True
    assert extension.origins.look_of(strip) != "d7f0828cc5"


def test_a_keyframe_that_was_moved_is_noticed_and_retimed_or_moved_back(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5, 9)
    second = scene.sequence_editor.strips["key 5"]
    extension.vse_compat.set_content_start(second, 6)
    assert told(extension, strip) == ["Keyframe 2 was moved: press Retime"]
    extension.vse_compat.set_content_start(second, 5)
    assert told(extension, strip) == []
    extension.vse_compat.set_content_start(second, 6)
    bpy.ops.keytween.retime()
    assert told(extension, strip) == []


def test_settings_that_were_changed_are_noticed_until_they_are_carried_out(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    scene.keytween.exposure = "3"
    assert told(extension, strip) == []
    own = strip.keytween_own
    own.segments[0].drift, own.settings.engine = 0.1, "flow"
    assert told(extension, strip) == [
        "Its timing was changed: press Retime",
        "Its engine's settings were changed: press Regenerate",
    ]
    count, before = frames_computed(daemon), elements(strip)
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count + 3
    assert told(extension, strip) == []
    # Back again, the drawings of before are there.
    own.settings.engine = "dissolve"
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count + 3
    assert elements(strip) == before


def test_drawings_that_were_cancelled_are_missed_and_made_by_the_next_retime(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 10, size=(480, 270))
    strip_at(18, 1, 160, size=(480, 270))
    scene.keytween.engine = "flow"
    view = press(extension, scene)
    turn_until(extension, lambda: len(view.files) >= 2)
    bpy.ops.keytween.cancel(job_id=view.job_id)
    turn_until(extension, ended(extension, view.job_id))
    strip = scene.sequence_editor.active_strip = the_tween()
    lacking = 16 - len(view.files)
    assert told(extension, strip) == [f"{lacking} drawings are missing: press Retime"]
    count = frames_computed(own_daemon)
    bpy.ops.keytween.retime()
    assert frames_computed(own_daemon) == count + lacking
    assert told(extension, strip) == []


def test_a_job_for_drawings_that_nobody_wants_any_more_is_cancelled(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 10, size=(480, 270))
    strip_at(34, 1, 160, size=(480, 270))
    scene.keytween.engine = "flow"
    old = press(extension, scene)
    turn_until(extension, lambda: len(old.files) >= 2)
    strip = the_tween()
    strip.keytween_own.settings.engine = "dissolve"
    new = extension.retiming.regenerate(scene, strip)
    extension.tween_operators.send(strip, [new], wait=False)
    turn_until(extension, ended(extension, old.job_id))
    turn_until(extension, ended(extension, new.job_id))
    assert (old.state.value, new.state.value) == ("cancelled", "done")
    assert len(old.files) < 32
    assert strip["keytween_state"] == "done"


def test_a_colour_of_the_users_own_stays(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    strip.color_tag = "COLOR_07"
    strip.keytween_own.settings.exposure = "2"
    assert told(extension, strip)
    assert strip.color_tag == "COLOR_07"


def test_looking_round_takes_a_file_in_pieces(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    (tmp_path / "key at 5 é.png").write_bytes(png(64, 48, 7) + bytes(3 * extension.stale.PIECE_BYTES))
    extension.poller.STATUS.tidied = 0.0
    extension.poller.tick()
    assert strip["keytween_stale"] == ""
    assert told(extension, strip) == ["Keyframe 2 shows another picture: press Regenerate"]


def test_undo_of_a_regenerate_brings_the_old_drawings_and_keyframes_back(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    bpy.ops.ed.undo_push(message="Before")
    before = elements(strip)
    first = (folder_of(strip) / before[0]).read_bytes()
    (tmp_path / "key at 1 é.png").write_bytes(png(64, 48, 33))
    bpy.ops.keytween.regenerate("EXEC_DEFAULT", True)
    assert elements(strip)[0] != before[0]
    bpy.ops.ed.undo()
    extension.poller.tick()
    strip = the_tween()
    assert elements(strip) == before
    assert (folder_of(strip) / before[0]).read_bytes() == first
    assert told(extension, strip) == ["Keyframe 1 shows another picture: press Regenerate"]


def test_a_keyframe_that_is_gone_leaves_its_copy(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 5, 9)
    scene.sequence_editor.strips.remove(scene.sequence_editor.strips["key 5"])
    (tmp_path / "key at 1 é.png").write_bytes(png(64, 48, 33))
    count = frames_computed(daemon)
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == count + 3
    assert shown(strip) == "A 0.25 0.50 0.75 B 0.25 0.50 0.75 C"


def test_settings_are_used_again_for_new_tweens_and_for_selected_ones(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    first = tweened(scene, strip_at, 1, 5)
    for strip in scene.sequence_editor.strips:
        strip.select = False
    strip_at(11, 1, 4)
    strip_at(15, 1, 40)
    bpy.ops.keytween.tween()
    second = next(s for s in scene.sequence_editor.strips if "keytween_job" in s and s != first)
    own = first.keytween_own
    own.settings.exposure, own.settings.seed, own.segments[0].drift = "2", 7, 0.2
    scene.sequence_editor.active_strip, second.select = first, True
    assert bpy.ops.keytween.reuse_settings() == {"FINISHED"}
    assert (scene.keytween.exposure, scene.keytween.seed) == ("2", 7)
    theirs = second.keytween_own
    assert (theirs.settings.exposure, theirs.settings.seed) == ("2", 7)
    assert theirs.segments[0].drift == pytest.approx(0.2)
    assert len(told(extension, second)) == 2
