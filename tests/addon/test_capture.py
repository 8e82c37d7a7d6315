"""What counts as a plain strip, and what a render makes of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, png, the_tween  # noqa: E402

Maker = Callable[..., object]
Change = Callable[[object], None]


def capture(extension: SimpleNamespace, *strips: object) -> tuple[tuple[object, ...], object]:
    """What the extension captures of the strips."""
    return extension.capture.capture(bpy.context.scene, strips)


def decoded(data: bytes, tmp_path: Path) -> tuple[tuple[int, int], list[float]]:
    """Size and numbers of a picture in memory."""
    path = tmp_path / "decoded.png"
    path.write_bytes(data)
    image = bpy.data.images.load(str(path))
    try:
        return tuple(image.size), list(image.pixels)
    finally:
        bpy.data.images.remove(image)


def settings_of(owner: object) -> dict[str, object]:
    """Every plain value of a piece of Blender's data."""
    names = [p.identifier for p in owner.bl_rna.properties if p.type != "POINTER" and p.type != "COLLECTION"]
    values = {name: getattr(owner, name) for name in names if name != "is_movie_format"}
    return {
        name: tuple(v) if hasattr(v, "__len__") and not isinstance(v, str) else v
        for name, v in values.items()
    }


def flip(strip: object) -> None:
    """Mirrors the strip."""
    strip.use_flip_x = True


def crop(strip: object) -> None:
    """Cuts off a side."""
    strip.crop.min_x = 8


def fade(strip: object) -> None:
    """Makes it half transparent."""
    strip.blend_alpha = 0.5


def brighten(strip: object) -> None:
    """Adds a modifier."""
    if bpy.app.version[:2] == (5, 0):
        pytest.skip("making a strip modifier crashes Blender 5.0 in background")
    strip.modifiers.new("Bright", "BRIGHT_CONTRAST").bright = 10.0


def fade_colours(strip: object) -> None:
    """Takes half the colour out."""
    strip.color_saturation = 0.5


def move_by_keyframes(strip: object) -> None:
    """Animates its place."""
    strip.transform.keyframe_insert("offset_x", frame=1)


def reinterpret(strip: object) -> None:
    """Reads the file in another colour space."""
    strip.colorspace_settings.name = "Non-Color"


@pytest.mark.parametrize("change", [flip, crop, fade, brighten, fade_colours, move_by_keyframes, reinterpret])
def test_a_changed_strip_is_rendered(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path, change: Change
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    change(strips[0])
    captured, look = capture(extension, *strips)
    assert captured[0].data != (tmp_path / "key at 1 é.png").read_bytes()
    assert look == extension.capture.Look()
    assert [c.suffix for c in captured] == [".png", ".png"]
    assert decoded(captured[0].data, tmp_path)[0] == (64, 48)


def test_a_plain_strip_is_its_file(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    captured, _ = capture(extension, strip_at(1, 3, 4), strip_at(5, 1, 40))
    assert captured[0].data == (tmp_path / "key at 1 é.png").read_bytes()
    assert (captured[0].frame, captured[0].length, captured[0].name) == (1, 3, "key 1")


def test_a_render_keeps_the_numbers_whatever_the_view_transform(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    assert scene.view_settings.view_transform == "AgX"
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    flip(strips[0])
    flip(strips[1])
    captured, _ = capture(extension, *strips)
    _, mirrored = decoded(captured[1].data, tmp_path)
    _, straight = decoded(png(64, 48, 8), tmp_path)
    # The square from 40 to 56 lies from 8 to 24 in the mirror.
    assert mirrored == pytest.approx(straight, abs=1e-6)


def test_a_render_keeps_the_matte(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    (tmp_path / "key at 1 é.png").write_bytes(png(64, 48, 4, matte=0))
    flip(strips[0])
    captured, _ = capture(extension, *strips)
    _, numbers = decoded(captured[0].data, tmp_path)
    assert set(numbers[3::4]) == {0.0}


def test_only_the_keyframe_is_in_its_render(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    above = scene.sequence_editor.strips.new_image("above", str(tmp_path / "key at 5 é.png"), 5, 1)
    flip(strips[0])
    captured, _ = capture(extension, *strips)
    _, numbers = decoded(captured[0].data, tmp_path)
    _, mirrored = decoded(png(64, 48, 44), tmp_path)
    assert numbers == pytest.approx(mirrored, abs=1e-6)
    assert not above.mute


def test_rendering_leaves_every_setting_as_it_was(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    flip(strips[0])
    render = scene.render
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "IMAGE"
    render.image_settings.file_format = "OPEN_EXR"
    render.image_settings.color_depth = "32"
    scene.view_settings.exposure = 1.5
    scene.frame_set(42)
    owners = (render, render.image_settings, scene.view_settings)
    before = [settings_of(owner) for owner in owners]
    capture(extension, *strips)
    assert [settings_of(owner) for owner in owners] == before
    assert scene.frame_current == 42
    assert not any(strip.mute for strip in strips)


def test_settings_come_back_after_a_failed_render(
    scene: object, extension: SimpleNamespace, strip_at: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    flip(strips[0])
    before = settings_of(scene.view_settings)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no graphics")

    fake = SimpleNamespace(render=SimpleNamespace(render=broken))
    monkeypatch.setattr(
        extension.capture, "bpy", SimpleNamespace(**{n: getattr(bpy, n) for n in ("path", "utils")}, ops=fake)
    )
    with pytest.raises(extension.capture.StripUnusable, match="no graphics"):
        capture(extension, *strips)
    assert settings_of(scene.view_settings) == before
    assert not any(strip.mute for strip in strips)


def test_an_effect_on_a_keyframe_is_in_its_render(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    editor = scene.sequence_editor
    names = editor.strips.bl_rna.functions["new_effect"].parameters.keys()
    long = {"length": 1} if "length" in names else {"frame_end": 2}
    editor.strips.new_effect(
        name="blur", type="GAUSSIAN_BLUR", channel=6, frame_start=1, input1=strips[0], **long
    )
    captured, _ = capture(extension, *strips)
    _, numbers = decoded(captured[0].data, tmp_path)
    _, sharp = decoded(png(64, 48, 4), tmp_path)
    assert len(set(numbers)) >= len(set(sharp))
    assert decoded(captured[0].data, tmp_path)[0] == (64, 48)


def test_strips_of_different_sizes_are_rendered_to_one(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker
) -> None:
    small = strip_at(1, 1, 4, size=(32, 24))
    small.transform.scale_x = small.transform.scale_y = 2
    strip_at(4, 1, 40)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween().transform.scale_x == 1


def test_a_packed_image_stands_in_for_a_file_that_is_gone(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    path = tmp_path / "key at 1 é.png"
    data = path.read_bytes()
    bpy.data.images.load(str(path)).pack()
    path.unlink()
    captured, _ = capture(extension, *strips)
    assert captured[0].data == data
