"""Single drawings: promoted to keyframes, replaced by files, given back; keyframes are never altered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, frames_computed, png, remembered, shown, the_tween  # noqa: E402
from .test_retiming import tweened  # noqa: E402
from .test_tween import folder_of, pixels  # noqa: E402

Maker = Callable[..., object]


def promoted(scene: object, frame: int) -> object:
    """Promotes the drawing at a frame; returns the new keyframe's strip."""
    scene.frame_set(frame)
    assert bpy.ops.keytween.promote() == {"FINISHED"}
    return next(s for s in scene.sequence_editor.strips if s.name == f"Breakdown {frame}")


def test_only_the_two_segments_around_a_promoted_drawing_are_drawn_again(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 9, 17)
    keys = {name: (tmp_path / name).read_bytes() for name in ("key at 1 é.png", "key at 9 é.png")}
    before, outside = frames_computed(daemon), elements(strip)[8:]
    key = promoted(scene, 4)
    assert shown(strip) == "A 0.33 0.67 B 0.20 0.40 0.60 0.80 C 0.12 0.25 0.38 0.50 0.62 0.75 0.88 D"
    assert frames_computed(daemon) == before + 2 + 4
    assert elements(strip)[8:] == outside
    compat = extension.vse_compat
    assert (key.channel, compat.start(key), compat.end(key)) == (1, 4, 5)
    assert {name: (tmp_path / name).read_bytes() for name in keys} == keys
    assert len(strip.keytween_own.segments) == 3


def test_the_promoted_keyframe_is_the_drawing_byte_for_byte(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    drawing = (folder_of(strip) / elements(strip)[3]).read_bytes()
    key = promoted(scene, 4)
    assert extension.capture.source_path(key).read_bytes() == drawing
    assert (folder_of(strip) / elements(strip)[3]).read_bytes() == drawing
    assert pixels(folder_of(strip) / elements(strip)[3]) == pixels(extension.capture.source_path(key))


def test_what_was_painted_over_is_used_as_it_is(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    painted = png(64, 48, 33)
    (folder_of(strip) / elements(strip)[4]).write_bytes(painted)
    key = promoted(scene, 5)
    assert extension.capture.source_path(key).read_bytes() == painted
    assert (folder_of(strip) / elements(strip)[4]).read_bytes() == painted
    # Painted over once more, the keyframe is another one.
    before = frames_computed(daemon)
    extension.capture.source_path(key).write_bytes(png(64, 48, 12))
    bpy.ops.keytween.regenerate()
    assert frames_computed(daemon) == before + 6
    assert (folder_of(strip) / elements(strip)[4]).read_bytes() == png(64, 48, 12)


def test_on_twos_the_first_frame_of_the_drawing_becomes_the_keyframe(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    strip.keytween_own.settings.exposure = "2"
    bpy.ops.keytween.retime()
    assert shown(strip) == "A A 0.25 0.25 0.50 0.50 0.75 0.75 B"
    scene.frame_set(6)
    bpy.ops.keytween.promote()
    assert shown(strip) == "A A 0.50 0.50 B B 0.50 0.50 C"
    assert remembered(strip)["frames"] == [[0, 1], [4, 1], [8, 1]]


def test_the_spacing_goes_on_as_it_was(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip = tweened(scene, strip_at, 1, 13)
    strip.keytween_own.settings.interpolation = "BEZIER"
    bpy.ops.keytween.retime()
    whole = [0.0, *(position for _, position in remembered(strip)["drawings"]), 1.0]
    q = whole[4]
    promoted(scene, 5)
    parts = remembered(strip)["drawings"]
    assert [p * q for s, p in parts if s == 0] == pytest.approx(whole[1:4], abs=2e-3)
    assert [q + p * (1 - q) for s, p in parts if s == 1] == pytest.approx(whole[5:12], abs=2e-3)


def test_a_moving_hold_goes_on_as_it_was(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 5, 4)
    strip_at(13, 1, 40)
    bpy.ops.keytween.tween()
    strip = scene.sequence_editor.active_strip = the_tween()
    strip.keytween_own.segments[0].drift = 0.2
    bpy.ops.keytween.retime()
    whole = [position for _, position in remembered(strip)["drawings"]]
    q = whole[6]
    promoted(scene, 8)
    parts = remembered(strip)["drawings"]
    assert [p * q for s, p in parts if s == 0] == pytest.approx(whole[:6], abs=2e-3)
    assert [q + p * (1 - q) for s, p in parts if s == 1] == pytest.approx(whole[7:], abs=2e-3)


def test_a_promoted_keyframe_can_be_dragged_and_undone(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    bpy.ops.ed.undo_push(message="Before")
    key = promoted(scene, 4)
    bpy.ops.ed.undo_push(message="Promoted")
    extension.vse_compat.set_content_start(key, 6)
    bpy.ops.keytween.retime()
    assert shown(strip) == "A 0.20 0.40 0.60 0.80 B 0.33 0.67 C"
    bpy.ops.ed.undo_push(message="Dragged")
    bpy.ops.ed.undo()
    bpy.ops.ed.undo()
    extension.poller.tick()
    assert shown(the_tween()) == "A 0.12 0.25 0.38 0.50 0.62 0.75 0.88 B"
    assert len(bpy.context.scene.sequence_editor.strips) == 3


@pytest.mark.parametrize(
    ("frame", "reason"), [(1, "keyframe already"), (40, "anything there"), (2, "KT-202")]
)
def test_what_cannot_be_promoted_is_named_and_nothing_changes(
    scene: object, daemon: Daemon, strip_at: Maker, frame: int, reason: str
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    scene.frame_set(frame)
    before = strip["keytween"]
    with pytest.raises(RuntimeError, match=reason):
        bpy.ops.keytween.promote()
    assert strip["keytween"] == before
    assert len(scene.sequence_editor.strips) == 3


# ---- replaced by a file


def test_a_file_takes_a_drawings_place_in_every_timing_until_it_is_given_back(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip = tweened(scene, strip_at, 1, 9)
    own = tmp_path / "mine.png"
    own.write_bytes(png(64, 48, 50))
    scene.frame_set(4)
    before, generated = frames_computed(daemon), elements(strip)[3]
    assert bpy.ops.keytween.replace_drawing(filepath=str(own)) == {"FINISHED"}
    mine = elements(strip)[3]
    assert (folder_of(strip) / mine).read_bytes() == own.read_bytes()
    # On twos no drawing stands at 3/8: the nearest is the animator's now.
    strip.keytween_own.settings.exposure = "2"
    bpy.ops.keytween.retime()
    assert [i for i, name in enumerate(elements(strip)) if name == mine] == [2, 3]
    strip.keytween_own.settings.exposure = "1"
    bpy.ops.keytween.retime()
    assert [i for i, name in enumerate(elements(strip)) if name == mine] == [3]
    assert bpy.ops.keytween.give_back() == {"FINISHED"}
    assert elements(strip)[3] == generated
    assert frames_computed(daemon) == before
    with pytest.raises(RuntimeError, match="not replaced"):
        bpy.ops.keytween.give_back()


def test_a_file_of_ones_own_is_not_drawn_and_can_become_a_keyframe(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 9, 17)
    for name, frame in (("first.png", 4), ("second.png", 7), ("third.png", 12)):
        (tmp_path / name).write_bytes(png(64, 48, frame * 3))
        scene.frame_set(frame)
        bpy.ops.keytween.replace_drawing(filepath=str(tmp_path / name))
    mine = [elements(strip)[frame - 1] for frame in (4, 7, 12)]
    before = frames_computed(daemon)
    key = promoted(scene, 4)
    assert extension.capture.source_path(key).read_bytes() == (tmp_path / "first.png").read_bytes()
    assert [elements(strip).index(name) for name in mine[1:]] == [6, 11]
    # Two and four between, one of them the animator's own.
    assert frames_computed(daemon) == before + 2 + 3


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("small.png", png(32, 24, 4), "KT-108"),
        ("none.png", b"no picture", "KT-100"),
        ("a.exr", b"x", "KT-100"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path, name: str, data: bytes, code: str
) -> None:
    strip = tweened(scene, strip_at, 1, 5)
    scene.frame_set(3)
    before = elements(strip)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RuntimeError, match=code):
        bpy.ops.keytween.replace_drawing(filepath=str(tmp_path / name))
    assert elements(strip) == before
