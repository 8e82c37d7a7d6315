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


# ---- other strips than images


def sharp_edges() -> object:
    """Numbers that 8 bits hold exactly: four flat fields."""
    import numpy as np

    numbers = np.zeros((48, 64, 4))
    numbers[..., 3] = 1
    numbers[:24, :32], numbers[24:, 32:] = (1, 0.2, 0, 1), (0, 0.4, 1, 1)
    return numbers


def movie(scene: object, folder: Path) -> Path:
    """Five frames without loss: the picture, mirrored on every other frame."""
    from .pictures import write_png

    path = write_png(folder / "frame.png", sharp_edges(), bits=8)
    strips = scene.sequence_editor.strips
    shown = [strips.new_image(f"frame {n}", str(path), 9, n) for n in range(1, 6)]
    for strip in shown[1::2]:
        strip.use_flip_x = True
    render, image = scene.render, scene.render.image_settings
    view = scene.view_settings
    view.view_transform = "Standard"
    if hasattr(image, "media_type"):
        image.media_type = "VIDEO"
    image.file_format = "FFMPEG"
    render.ffmpeg.format, render.ffmpeg.codec = "MKV", "FFV1"
    render.filepath, render.use_file_extension = str(folder / "film.mkv"), False
    scene.frame_start, scene.frame_end = 1, 5
    bpy.ops.render.render(animation=True)
    for strip in shown:
        strips.remove(strip)
    view.view_transform = "AgX"
    return folder / "film.mkv"


def trim(strip: object, start: int, length: int) -> None:
    """Leaves `length` frames of a strip from `start` on."""
    if hasattr(strip, "left_handle"):
        strip.left_handle, strip.right_handle = start, start + length
    else:
        strip.frame_final_start, strip.frame_final_end = start, start + length


def test_a_single_frame_of_a_movie_is_a_keyframe(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    import numpy as np

    from .pictures import read_png

    film = scene.sequence_editor.strips.new_movie("film", str(movie(scene, tmp_path)), 2, 20)
    with pytest.raises(extension.capture.StripUnusable, match="5 pictures"):
        capture(extension, film, strip_at(30, 1, 4))
    trim(film, 21, 1)
    film.select = True
    assert [s.name for s in extension.tween.keyframe_strips(scene)] == ["film", "key 30"]
    captured, _ = capture(extension, film, scene.sequence_editor.strips["key 30"])
    assert (captured[0].frame, captured[0].length, captured[0].suffix) == (21, 1, ".png")
    (tmp_path / "seen.png").write_bytes(captured[0].data)
    seen, bits = read_png(tmp_path / "seen.png")
    assert bits == 8
    # A film's colours are luma and chroma: a step or two are lost when it is made.
    assert np.abs(seen - sharp_edges()[:, ::-1] * 255).max() <= 3
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween()["keytween_state"] == "done"


def test_a_meta_strip_is_captured_with_all_its_layers(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    import numpy as np

    from .pictures import read_png, write_png

    below, above = strip_at(1, 4, 4), strip_at(9, 1, 40)
    patch = np.zeros((48, 64, 4))
    patch[:, :16] = (0, 1, 0, 1)
    strips = scene.sequence_editor.strips
    top = strips.new_image("patch", str(write_png(tmp_path / "patch.png", patch, bits=8)), 2, 1)
    hidden = strips.new_image("hidden", str(tmp_path / "key at 9 é.png"), 3, 1)
    hidden.mute = True
    meta = strips.new_meta("layers", 1, 1)
    for strip in (below, top, hidden):
        strip.move_to_meta(meta)
    meta.select, above.select = True, True
    captured, look = capture(extension, meta, above)
    assert look == extension.capture.Look()
    (tmp_path / "seen.png").write_bytes(captured[0].data)
    seen, _ = read_png(tmp_path / "seen.png")
    (tmp_path / "plain.png").write_bytes(png(64, 48, 4))
    expected, _ = read_png(tmp_path / "plain.png")
    expected[:, :16] = (0, 255, 0, 255)
    assert (seen == expected).all()
    assert (hidden.mute, top.mute) == (True, False)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween()["keytween_state"] == "done"


def test_a_single_frame_of_a_scene_is_a_keyframe(
    scene: object, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    from .pictures import read_png

    other = bpy.data.scenes.new("other")
    other.render.engine, other.cycles.samples, other.cycles.device = "CYCLES", 1, "CPU"
    other.render.resolution_x, other.render.resolution_y = 64, 48
    other.world = bpy.data.worlds.new("grey")
    if other.world.node_tree is None:  # 5.0 and later have it from the start
        other.world.use_nodes = True
    other.world.node_tree.nodes["Background"].inputs[0].default_value = (0.5, 0.25, 0.125, 1)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    other.collection.objects.link(camera)
    other.camera = camera
    strip = scene.sequence_editor.strips.new_scene("shot", other, 2, 20)
    if extension.vse_compat.frames_shown(strip) > 1:
        with pytest.raises(extension.capture.StripUnusable, match="pictures"):
            capture(extension, strip, strip_at(30, 1, 4))
    trim(strip, 20, 1)
    captured, _ = capture(extension, strip, strip_at(40, 1, 4))
    (tmp_path / "seen.png").write_bytes(captured[0].data)
    seen, bits = read_png(tmp_path / "seen.png")
    assert bits == 16
    linear = [0.5, 0.25, 0.125]
    expected = [round((1.055 * value ** (1 / 2.4) - 0.055) * 65535) for value in linear]
    assert [abs(a - b) <= 66 for a, b in zip(seen[24, 32, :3], expected, strict=True)] == [True] * 3


# ---- depth, colour and mattes of what is rendered


@pytest.mark.parametrize("half", [True, False])
def test_rendered_exr_keyframes_stay_scene_linear_with_their_matte(
    scene: object, extension: SimpleNamespace, tmp_path: Path, half: bool
) -> None:
    import numpy as np

    from .pictures import gradient, read_exr, write_exr

    straight = gradient(48, 64)
    straight[..., :3] *= 4
    numbers = straight.copy()
    numbers[..., :3] *= straight[..., 3:]
    path = write_exr(tmp_path / "key.exr", numbers, half=half)
    strips = [scene.sequence_editor.strips.new_image(f"k{n}", str(path), 1, n) for n in (1, 5)]
    for strip in strips:
        strip.colorspace_settings.name = "Linear Rec.709"
        strip.use_flip_x = True
    captured, look = capture(extension, *strips)
    assert look == extension.capture.Look("Linear Rec.709", "PREMUL")
    (tmp_path / "seen.exr").write_bytes(captured[0].data)
    seen = read_exr(tmp_path / "seen.exr")
    # The sequencer's own conversions are good to four digits.
    step = 2.0**-10 if half else 1e-4
    assert (np.abs(seen - numbers[:, ::-1]) <= np.maximum(np.abs(numbers[:, ::-1]), 0.01) * 2 * step).all()
    precision = extension.capture.Precision
    assert extension.capture.precision_of(strips[0]) == (precision.HALF if half else precision.FLOAT)


@pytest.mark.parametrize("bits", [8, 16])
def test_rendered_png_keyframes_keep_their_depth_and_matte(
    scene: object, extension: SimpleNamespace, tmp_path: Path, bits: int
) -> None:
    import numpy as np

    from .pictures import gradient, read_png, write_png

    numbers = gradient(48, 64)
    path = write_png(tmp_path / "key.png", numbers, bits=bits)
    strips = [scene.sequence_editor.strips.new_image(f"k{n}", str(path), 1, n) for n in (1, 5)]
    for strip in strips:
        strip.use_flip_x = True
    captured, _ = capture(extension, *strips)
    (tmp_path / "seen.png").write_bytes(captured[0].data)
    (seen, found), (source, _) = read_png(tmp_path / "seen.png"), read_png(path)
    assert found == bits
    assert np.abs(seen - source[:, ::-1])[..., 3].max() == 0
    assert np.abs(seen - source[:, ::-1]).max() <= (0 if bits == 8 else 1)


def test_keyframes_of_different_sizes_are_fitted_and_never_stretched(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker, tmp_path: Path
) -> None:
    from .pictures import read_png

    small = strip_at(1, 1, 0, size=(32, 16))
    captured, _ = capture(extension, small, strip_at(4, 1, 40))
    (tmp_path / "seen.png").write_bytes(captured[0].data)
    seen, _ = read_png(tmp_path / "seen.png")
    (tmp_path / "plain.png").write_bytes(png(32, 16, 0))
    plain, _ = read_png(tmp_path / "plain.png")
    assert (seen[16:32, 16:48] == plain).all()
    seen[16:32, 16:48] = 0
    assert (seen == 0).all()
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween()["keytween_state"] == "done"
