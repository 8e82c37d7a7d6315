"""Keyframes in, a strip out, through the real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, remembered, shown, the_tween  # noqa: E402
from .test_registration import Recorder  # noqa: E402

Maker = Callable[..., object]


def pixels(path: Path) -> tuple[tuple[int, int], list[float]]:
    """Size and numbers of a picture, as Blender reads them."""
    image = bpy.data.images.load(str(path))
    try:
        return tuple(image.size), list(image.pixels)
    finally:
        bpy.data.images.remove(image)


def folder_of(strip: object) -> Path:
    """Where the strip's files are."""
    return Path(bpy.path.abspath(strip.directory))


def test_two_strips_become_one_strip_from_the_first_to_the_last(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip_at(10, 1, 4)
    strip_at(15, 5, 40)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    strip = the_tween()
    assert shown(strip) == "A 0.20 0.40 0.60 0.80 B"
    assert strip["keytween_state"] == "done"
    assert strip.colorspace_settings.name == "sRGB"
    assert (strip.alpha_mode, strip.color_tag) == ("STRAIGHT", "COLOR_04")


def test_frames_lie_beside_the_blend_file(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    bpy.ops.keytween.tween()
    strip = the_tween()
    assert folder_of(strip) == tmp_path / "keytween" / strip["keytween_job"]
    assert strip.directory.startswith("//")
    assert not list(folder_of(strip).glob("*.part"))


def test_keyframes_are_copied_byte_for_byte(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    bpy.ops.keytween.tween()
    folder = folder_of(the_tween())
    assert (folder / "key_00.png").read_bytes() == (tmp_path / "key at 1 é.png").read_bytes()
    assert (folder / "key_01.png").read_bytes() == (tmp_path / "key at 4 é.png").read_bytes()


def test_in_betweens_lie_between_the_keyframes(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 1, 4)
    strip_at(3, 1, 40)
    bpy.ops.keytween.tween()
    folder = folder_of(the_tween())
    sizes, numbers = zip(*(pixels(folder / n) for n in elements(the_tween())), strict=True)
    assert set(sizes) == {(64, 48)}
    for first, middle, last in zip(*numbers, strict=True):
        assert min(first, last) - 0.01 <= middle <= max(first, last) + 0.01
    assert numbers[1] != numbers[0]
    assert numbers[1] != numbers[2]


def test_three_strips_make_two_segments(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    for start, left in ((1, 4), (4, 20), (7, 40)):
        strip_at(start, 1, left)
    bpy.ops.keytween.tween()
    assert shown(the_tween()) == "A 0.33 0.67 B 0.33 0.67 C"
    assert len(set(elements(the_tween()))) == 7
    assert [segment for segment, _ in remembered(the_tween())["drawings"]] == [0, 0, 1, 1]


def test_on_twos_each_drawing_is_held_for_two_frames(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 1, 4)
    strip_at(7, 1, 40)
    scene.keytween.exposure = "2"
    bpy.ops.keytween.tween()
    assert shown(the_tween()) == "A A 0.33 0.33 0.67 0.67 B"


def test_a_held_keyframe_is_one_keyframe(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 4, 4)
    strip_at(7, 3, 40)
    bpy.ops.keytween.tween()
    assert shown(the_tween()) == "A A A A 0.33 0.67 B"


def test_a_count_spreads_that_many_drawings(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 1, 4)
    strip_at(13, 1, 40)
    scene.keytween.in_betweens = 3
    bpy.ops.keytween.tween()
    assert len(set(elements(the_tween()))) == 5


def test_easing_moves_the_drawings_together(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 1, 4)
    strip_at(9, 1, 40)
    scene.keytween.interpolation = "CUBIC"
    scene.keytween.mode = "EASE_IN"
    bpy.ops.keytween.tween()
    positions = [position for _, position in remembered(the_tween())["drawings"]]
    assert positions == pytest.approx([(k / 8) ** 3 for k in range(1, 8)])


def test_the_strip_takes_the_lowest_free_channel_above(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip_at(1, 1, 4, channel=1)
    strip_at(5, 1, 40, channel=2)
    strip_at(3, 1, 20, channel=3).select = False
    strip_at(30, 1, 20, channel=4).select = False
    bpy.ops.keytween.tween()
    assert the_tween().channel == 4


def test_selection_order_and_channel_do_not_matter(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(5, 1, 40, channel=1)
    strip_at(1, 1, 4, channel=2)
    bpy.ops.keytween.tween()
    assert [keyframe["name"] for keyframe in remembered(the_tween())["request"]["keyframes"]] == [
        "key 1",
        "key 5",
    ]


def test_the_strip_keeps_the_keyframes_place_in_the_picture(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    for start, left in ((1, 4), (4, 40)):
        strip = strip_at(start, 1, left)
        strip.transform.scale_x = strip.transform.scale_y = 0.5
        strip.transform.offset_x = 7
    bpy.ops.keytween.tween()
    transform = the_tween().transform
    assert (transform.scale_x, transform.scale_y, transform.offset_x) == (0.5, 0.5, 7)


def test_the_frames_can_be_seen_in_the_sequencer(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip_at(1, 1, 4)
    strip_at(3, 1, 40)
    bpy.ops.keytween.tween()
    scene.view_settings.view_transform = "Standard"
    scene.render.filepath = str(tmp_path / "seen.png")
    if hasattr(scene.render.image_settings, "media_type"):
        scene.render.image_settings.media_type = "IMAGE"
    scene.render.image_settings.file_format = "PNG"
    scene.frame_set(2)
    bpy.ops.render.render(write_still=True)
    seen = pixels(tmp_path / "seen.png")
    drawn = pixels(folder_of(the_tween()) / elements(the_tween())[1])
    assert seen[0] == drawn[0]
    assert max(abs(a - b) for a, b in zip(seen[1], drawn[1], strict=True)) < 0.006


def test_the_last_error_is_cleared_by_success(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    scene.keytween.error = json.dumps({"code": "KT-301", "values": {}})
    strip_at(1, 1, 4)
    strip_at(3, 1, 40)
    bpy.ops.keytween.tween()
    assert scene.keytween.error == ""


def test_settings_are_what_the_request_says(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker
) -> None:
    strip_at(1, 1, 4)
    strip_at(3, 1, 40)
    scene.keytween.engine = "flow"
    scene.keytween.seed = 7
    scene.keytween.file_format = "png16"
    request = extension.tween.order(scene).submission.request
    assert (request.engine, request.seed, request.file_format) == ("flow", 7, "png16")
    assert request.positions == ((0.5,),)


@pytest.mark.parametrize(
    ("engine", "asked"),
    [("flow", "arc"), ("auto", "arc"), ("dissolve", "straight"), ("diffmorpher", "straight")],
)
def test_a_path_is_asked_of_engines_that_move(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path, engine: str, asked: str
) -> None:
    for start, left in ((1, 4), (5, 20), (13, 40)):
        strip_at(start, 1, left)
    scene.keytween.engine = engine
    scene.keytween.checkpoint = str(tmp_path)
    assert scene.keytween.path == "straight"
    scene.keytween.path = "arc"
    request = extension.tween.order(scene).submission.request
    assert request.path == asked
    assert [image.frame for image in request.keyframes] == [1, 5, 13]


@pytest.mark.parametrize("engine", ["flow", "auto", "dissolve", "diffmorpher"])
def test_the_path_is_shown_for_engines_that_move(
    extension: SimpleNamespace, scene: object, engine: str
) -> None:
    said: list[str] = []
    scene.keytween.engine = engine
    extension.panels.KEYTWEEN_PT_main.draw(SimpleNamespace(layout=Recorder(said)), bpy.context)
    assert ("path" in said) == (engine in ("flow", "auto"))


def test_inside_an_open_meta_strip_the_tween_goes_into_it(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(4, 1, 40)]
    editor = scene.sequence_editor
    meta = editor.strips.new_meta("shot", 1, 1)
    for strip in strips:
        strip.move_to_meta(meta)
    editor.display_stack(meta)
    strips[0].use_flip_x = True
    bpy.ops.keytween.tween()
    assert the_tween().parent_meta() == meta
    assert not meta.mute


def test_linear_exr_keyframes_stay_linear_exr(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    image = bpy.data.images.new("bright", 64, 48, alpha=True, float_buffer=True)
    image.colorspace_settings.name = "Linear Rec.709"
    strips = []
    for start, value in ((1, 0.25), (3, 4.0)):
        image.pixels = [value, value, value, 1.0] * (64 * 48)
        image.file_format = "OPEN_EXR"
        image.filepath_raw = str(tmp_path / f"key_{start}.exr")
        image.save()
        strips.append(scene.sequence_editor.strips.new_image(f"e{start}", image.filepath_raw, 1, start))
        strips[-1].colorspace_settings.name = "Linear Rec.709"
    bpy.ops.keytween.tween()
    strip = the_tween()
    assert shown(strip) == "A 0.50 B"
    assert {Path(name).suffix for name in elements(strip)} == {".exr"}
    assert (strip.colorspace_settings.name, strip.alpha_mode) == ("Linear Rec.709", "PREMUL")
    size, numbers = pixels(folder_of(strip) / elements(strip)[1])
    assert size == (64, 48)
    assert 0.25 < numbers[0] < 4.0
