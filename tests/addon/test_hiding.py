"""Keyframes with soft mattes are hidden wherever the tween covers them, and come back when it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, png  # noqa: E402
from .pictures import gradient, read_png, write_exr, write_png  # noqa: E402
from .test_breakdowns import promoted  # noqa: E402
from .test_capture import trim  # noqa: E402
from .test_retiming import tweened  # noqa: E402
from .test_stale import told  # noqa: E402
from .test_tween import folder_of  # noqa: E402

Maker = Callable[..., object]
Key = Callable[..., object]
SOFT, HARD, OPAQUE = 0.5, 0.0, 1.0


def drawn(matte: float) -> np.ndarray:
    """A picture whose left third has this matte, and whose rest is opaque."""
    numbers = gradient(48, 64)
    numbers[..., 3] = 1
    numbers[:, :21, 3] = matte
    return numbers


@pytest.fixture
def key_at(scene: object, tmp_path: Path) -> Key:
    """Makes a selected keyframe's strip with a matte: its first frame, and how long it is held."""

    def make(start: int, matte: float = SOFT, *, length: int = 1, channel: int = 1) -> object:
        path = write_png(tmp_path / f"key_{start}.png", drawn(matte), bits=8)
        strip = scene.sequence_editor.strips.new_image(f"key {start}", str(path), channel, start)
        trim(strip, start, length)
        strip.select = True
        return strip

    return make


def tween_of(*keys: object) -> object:
    """A finished tween of what is selected, active."""
    assert len(keys) > 1
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    editor = bpy.context.scene.sequence_editor
    editor.active_strip = found = max(
        (s for s in editor.strips_all if "keytween_job" in s), key=lambda strip: strip.channel
    )
    return found


def later(extension: SimpleNamespace) -> None:
    """The timer has had time for its chores."""
    for _ in range(4):
        extension.poller.STATUS.tidied = 0.0
        extension.poller.tick()


def muted(*strips: object) -> list[bool]:
    """Which of the strips are hidden."""
    return [strip.mute for strip in strips]


# ---- what is soft


@pytest.mark.parametrize("matte", [SOFT, HARD, OPAQUE])
@pytest.mark.parametrize("kind", ["png8", "png16", "half", "float"])
def test_a_matte_is_soft_where_it_is_between_nothing_and_all(
    extension: SimpleNamespace, scene: object, tmp_path: Path, kind: str, matte: float
) -> None:
    if kind.startswith("png"):
        path = write_png(tmp_path / "key.png", drawn(matte), bits=int(kind[3:]))
    else:
        path = write_exr(tmp_path / "key.exr", drawn(matte), half=kind == "half")
    before = len(bpy.data.images)
    assert extension.hiding.is_soft(path) == (matte == SOFT)
    assert len(bpy.data.images) == before


@pytest.mark.parametrize(
    ("matte", "soft"), [(1 - 1e-6, False), (1e-6, False), (1 - 1.1e-5, True), (1.1e-5, True)]
)
def test_what_no_format_can_tell_from_hard_is_hard(
    extension: SimpleNamespace, scene: object, tmp_path: Path, matte: float, soft: bool
) -> None:
    path = write_exr(tmp_path / "key.exr", drawn(matte), half=False)
    assert extension.hiding.is_soft(path) == soft


@pytest.mark.parametrize("matte", [1, 65534])
def test_one_step_of_16_bits_is_soft(
    extension: SimpleNamespace, scene: object, tmp_path: Path, matte: int
) -> None:
    assert extension.hiding.is_soft(write_png(tmp_path / "key.png", drawn(matte / 65535), bits=16))


@pytest.mark.parametrize(
    ("name", "data"), [("none.png", None), ("broken.png", png(8, 8, 1)[:60]), ("text.exr", b"x" * 99)]
)
def test_a_picture_that_cannot_be_read_has_no_soft_matte(
    extension: SimpleNamespace, scene: object, tmp_path: Path, name: str, data: bytes | None
) -> None:
    if data:
        (tmp_path / name).write_bytes(data)
    assert not extension.hiding.is_soft(tmp_path / name)


def test_pictures_without_a_matte_are_not_even_decoded(
    extension: SimpleNamespace, scene: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rgb.png").write_bytes(png(8, 8, 1)[:25] + b"\x02" + png(8, 8, 1)[26:])
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.setattr(extension.hiding, "bpy", None)
    assert not extension.hiding.is_soft(tmp_path / "rgb.png")
    assert not extension.hiding.is_soft(tmp_path / "photo.jpg")


# ---- when a tween is made


def test_keyframes_with_soft_mattes_are_hidden_and_others_are_not(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1, SOFT), key_at(4, HARD), key_at(7, OPAQUE), key_at(10, SOFT)]
    strip = tween_of(*keys)
    assert muted(*keys, strip) == [True, False, False, True, False]
    assert keys[0]["keytween_hidden"] == keys[3]["keytween_hidden"] == strip["keytween_job"]
    assert "keytween_hidden" not in keys[1]
    later(extension)
    assert muted(*keys) == [True, False, False, True]


def test_for_people_they_are_hidden_as_soon_as_the_button_is_pressed(
    scene: object, extension: SimpleNamespace, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    extension.operators.begin(scene)
    assert muted(*keys) == [True, True]


def test_with_the_setting_off_keyframes_stay_as_they_are(scene: object, daemon: Daemon, key_at: Key) -> None:
    assert scene.keytween.hide_keyframes
    scene.keytween.hide_keyframes = False
    keys = [key_at(1), key_at(4)]
    strip = tween_of(*keys)
    assert muted(*keys) == [False, False]
    assert not strip.keytween_own.settings.hide_keyframes


def test_a_rendered_keyframe_counts_as_it_was_rendered(daemon: Daemon, key_at: Key) -> None:
    keys = [key_at(1, OPAQUE), key_at(4, OPAQUE)]
    keys[0].blend_alpha = 0.5
    tween_of(*keys)
    assert muted(*keys) == [True, False]


def test_the_effects_on_a_keyframe_are_hidden_with_it_since_they_show_it(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    strips = scene.sequence_editor.strips
    names = strips.bl_rna.functions["new_effect"].parameters.keys()
    long = {"length": 1} if "length" in names else {"frame_end": 2}
    blur = strips.new_effect(
        name="blur", type="GAUSSIAN_BLUR", channel=2, frame_start=1, input1=keys[0], **long
    )
    strip = tween_of(*keys)
    assert muted(*keys, blur) == [True, True, True]
    strips.remove(strip)
    later(extension)
    assert muted(*keys, blur) == [False, False, False]


def test_a_meta_strip_with_sound_in_it_is_not_hidden_because_it_would_fall_silent(
    scene: object, daemon: Daemon, key_at: Key, tmp_path: Path
) -> None:
    import wave

    with wave.open(str(tmp_path / "word.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    strips = scene.sequence_editor.strips
    metas = []
    for start in (1, 40):
        key, meta = key_at(start), strips.new_meta(f"layers {start}", 3, start)
        key.move_to_meta(meta)
        metas.append(meta)
    strips.new_sound("word", str(tmp_path / "word.wav"), 5, 1).move_to_meta(metas[0])
    for meta in metas:
        meta.select = True
        trim(meta, 1 if meta == metas[0] else 40, 1)
    tween_of(*metas)
    assert muted(*metas) == [False, True]


def test_undo_brings_the_keyframes_back_and_redo_hides_them_again(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    key_at(1), key_at(4)
    bpy.ops.ed.undo_push(message="Keyframes")
    bpy.ops.keytween.tween("EXEC_DEFAULT", True)

    def keys() -> list[object]:
        strips = bpy.context.scene.sequence_editor.strips
        return [strips["key 1"], strips["key 4"]]

    assert muted(*keys()) == [True, True]
    bpy.ops.ed.undo()
    later(extension)
    assert muted(*keys()) == [False, False]
    assert not any("keytween_hidden" in key for key in keys())
    bpy.ops.ed.redo()
    later(extension)
    assert muted(*keys()) == [True, True]


# ---- where the tween does not cover them


def test_a_last_keyframe_that_is_held_on_stays_because_the_tween_shows_it_once(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1, length=3), key_at(7, length=4)]
    tween_of(*keys)
    assert muted(*keys) == [True, False]
    # Cut off behind the tween's end it need not stay, held longer it must.
    trim(keys[1], 7, 1)
    later(extension)
    assert muted(*keys) == [True, True]
    trim(keys[1], 7, 2)
    later(extension)
    assert muted(*keys) == [True, False]


def test_a_keyframe_that_is_dragged_away_is_seen_until_the_tween_is_timed_anew(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    tween_of(*keys)
    extension.vse_compat.set_content_start(keys[1], 9)
    later(extension)
    assert muted(*keys) == [True, False]
    assert bpy.ops.keytween.retime() == {"FINISHED"}
    assert muted(*keys) == [True, True]


def test_while_the_tween_is_hidden_itself_its_keyframes_are_seen(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    strip = tween_of(*keys)
    strip.mute = True
    later(extension)
    assert muted(*keys) == [False, False]
    strip.mute = False
    later(extension)
    assert muted(*keys) == [True, True]


def test_when_the_tween_is_deleted_its_keyframes_are_shown_again(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4), key_at(20, channel=5)]
    keys[2].select, keys[2].mute = False, True
    scene.sequence_editor.strips.remove(tween_of(*keys))
    later(extension)
    assert muted(*keys) == [False, False, True]
    assert not any("keytween_hidden" in key or "keytween_uncovered" in key for key in keys)


def test_in_a_copy_of_the_scene_each_tween_hides_its_own_keyframes(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    strip = tween_of(*keys)
    copy = scene.copy()
    scene.sequence_editor.strips.remove(strip)
    later(extension)
    assert muted(*keys) == [False, False]
    assert muted(*(s for s in copy.sequence_editor.strips if "keytween_key" in s)) == [True, True]


def test_a_keyframe_of_two_tweens_stays_hidden_until_both_are_gone(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    first, middle = key_at(1), key_at(4)
    one = tween_of(first, middle)
    first.select = one.select = False
    last = key_at(7)
    two = tween_of(middle, last)
    assert middle["keytween_hidden"].split() == [one["keytween_job"], two["keytween_job"]]
    scene.sequence_editor.strips.remove(one)
    later(extension)
    assert muted(first, middle, last) == [False, True, True]
    scene.sequence_editor.strips.remove(two)
    later(extension)
    assert muted(first, middle, last) == [False, False, False]


# ---- what the artist does himself


def test_a_keyframe_that_the_artist_shows_is_his_from_then_on(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    strip = tween_of(*keys)
    keys[0].mute = False
    later(extension)
    assert muted(*keys) == [False, True]
    assert "keytween_hidden" not in keys[0]
    strip.keytween_own.settings.exposure = "2"
    for operator in ("retime", "regenerate"):
        getattr(bpy.ops.keytween, operator)()
        assert muted(*keys) == [False, True]
    # Hidden by hand, it stays so without the tween.
    keys[0].mute = True
    scene.sequence_editor.strips.remove(strip)
    later(extension)
    assert muted(*keys) == [True, False]


def test_a_keyframe_that_the_artist_hid_before_is_not_shown_when_the_tween_goes(
    scene: object, extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    keys[0].mute = True
    strip = tween_of(*keys)
    assert "keytween_hidden" not in keys[0]
    scene.sequence_editor.strips.remove(strip)
    later(extension)
    assert muted(*keys) == [True, False]


# ---- keyframes that are new or changed


def test_a_breakdown_with_a_soft_matte_is_hidden_too(
    scene: object, daemon: Daemon, key_at: Key, extension: SimpleNamespace
) -> None:
    strip = tween_of(key_at(1), key_at(9))
    key = promoted(scene, 4)
    assert (key.mute, key["keytween_hidden"]) == (True, strip["keytween_job"])
    assert told(extension, strip) == []


def test_a_breakdown_of_opaque_drawings_is_not(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    tweened(scene, strip_at, 1, 9)
    assert not promoted(scene, 4).mute


def test_regenerate_hides_a_keyframe_whose_matte_became_soft(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key, tmp_path: Path
) -> None:
    keys = [key_at(1, OPAQUE), key_at(4, OPAQUE), key_at(7, OPAQUE)]
    strip = tween_of(*keys)
    write_png(tmp_path / "key_4.png", drawn(SOFT), bits=8)
    assert bpy.ops.keytween.regenerate() == {"FINISHED"}
    assert muted(*keys) == [False, True, False]
    assert told(extension, strip) == []


def test_a_hidden_keyframe_is_rendered_for_regenerate_all_the_same(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key, tmp_path: Path
) -> None:
    keys = [key_at(1), key_at(4)]
    strip = tween_of(*keys)
    keys[0].use_flip_x = True
    assert bpy.ops.keytween.regenerate() == {"FINISHED"}
    assert muted(*keys) == [True, True]
    seen, _ = read_png(folder_of(strip) / elements(strip)[0])
    source, _ = read_png(tmp_path / "key_1.png")
    assert np.abs(seen - source[:, ::-1]).max() == 0
    assert told(extension, strip) == []


# ---- the button


def test_the_button_hides_the_keyframes_whatever_their_mattes_and_shows_them_again(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1, SOFT), key_at(4, HARD), key_at(7, OPAQUE)]
    strip = tween_of(*keys)
    assert muted(*keys) == [True, False, False]
    assert bpy.ops.keytween.hide_keyframes() == {"FINISHED"}
    assert muted(*keys) == [True, True, True]
    later(extension)
    assert bpy.ops.keytween.hide_keyframes() == {"FINISHED"}
    assert muted(*keys) == [False, False, False]
    assert not any("keytween_hidden" in key for key in keys)
    assert told(extension, strip) == []
    assert muted(*keys) == [False, False, False]


def test_keyframes_that_are_shown_by_the_button_stay_so_with_those_promoted_later(
    scene: object, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(9)]
    strip = tween_of(*keys)
    bpy.ops.keytween.hide_keyframes()
    assert muted(*keys, promoted(scene, 4)) == [False, False, False]
    bpy.ops.keytween.hide_keyframes()
    assert muted(*keys, scene.sequence_editor.strips["Breakdown 4"]) == [True, True, True]
    assert strip.keytween_own.settings.hide_keyframes
    assert promoted(scene, 6).mute


def test_the_button_leaves_a_keyframe_that_is_held_on_where_the_tween_ends(
    daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1, OPAQUE), key_at(4, OPAQUE, length=5)]
    tween_of(*keys)
    bpy.ops.keytween.hide_keyframes()
    assert muted(*keys) == [True, False]
    bpy.ops.keytween.hide_keyframes()
    assert not any("keytween_hidden" in key for key in keys)


def test_the_button_can_be_undone(extension: SimpleNamespace, daemon: Daemon, key_at: Key) -> None:
    keys = [key_at(1), key_at(4)]
    tween_of(*keys)
    bpy.ops.ed.undo_push(message="Tween")
    bpy.ops.keytween.hide_keyframes("EXEC_DEFAULT", True)
    assert muted(*keys) == [False, False]
    bpy.ops.ed.undo()
    later(extension)
    strips = bpy.context.scene.sequence_editor.strips
    assert muted(strips["key 1"], strips["key 4"]) == [True, True]


def test_the_button_is_grey_without_a_tween_or_without_keyframes(
    scene: object, daemon: Daemon, key_at: Key
) -> None:
    keys = [key_at(1), key_at(4)]
    scene.sequence_editor.active_strip = keys[0]
    assert not bpy.ops.keytween.hide_keyframes.poll()
    tween_of(*keys)
    assert bpy.ops.keytween.hide_keyframes.poll()
    for key in keys:
        scene.sequence_editor.strips.remove(key)
    assert not bpy.ops.keytween.hide_keyframes.poll()
    with pytest.raises(RuntimeError, match="None of its keyframes has a strip"):
        bpy.ops.keytween.hide_keyframes()


def test_panel_and_menu_say_whether_the_button_hides_or_shows(
    extension: SimpleNamespace, daemon: Daemon, key_at: Key
) -> None:
    from .test_panel import Recorder

    def said() -> list[list[str]]:
        found: list[list[str]] = [[], []]
        panel, menu = (SimpleNamespace(layout=Recorder(texts)) for texts in found)
        extension.timing_panel.KEYTWEEN_PT_tween.draw(panel, bpy.context)
        extension.menus.draw_context_menu(menu, bpy.context)
        assert all("keytween.hide_keyframes" in texts for texts in found)
        return found

    keys = [key_at(1), key_at(4)]
    tween_of(*keys)
    assert all("Show Keyframes" in texts for texts in said())
    keys[0].mute = False
    later(extension)
    assert not any("Show Keyframes" in texts for texts in said())
