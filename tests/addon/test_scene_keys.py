"""A scene's own keys: which frames count, and the tween that comes of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, the_tween  # noqa: E402
from .pictures import read_exr, read_png  # noqa: E402


def pencil(scene: object, *frames: tuple[int, str]) -> object:
    """A Grease Pencil object with drawings of those types at those frames."""
    name = "grease_pencils_v3" if hasattr(bpy.data, "grease_pencils_v3") else "grease_pencils"
    data = getattr(bpy.data, name).new("pencil")
    layer = data.layers.new("lines")
    for number, kind in frames:
        layer.frames.new(number).keyframe_type = kind
    thing = bpy.data.objects.new("pencil", data)
    scene.collection.objects.link(thing)
    return thing


def moving_square(scene: object) -> object:
    """A bright square that is keyed at frames 1, 4 and 7, seen from above; and how to render it quickly."""
    mesh = bpy.data.meshes.new("square")
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    material = bpy.data.materials.new("light")
    if material.node_tree is None:  # 5.0 and later have it from the start
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    light, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    light.inputs["Color"].default_value = (1.0, 0.5, 0.0, 1.0)
    light.inputs["Strength"].default_value = 2.0
    links.new(light.outputs[0], output.inputs[0])
    mesh.materials.append(material)
    square = bpy.data.objects.new("square", mesh)
    for frame, x in ((1, -4.0), (4, 0.0), (7, 4.0)):
        square.location.x = x
        square.keyframe_insert("location", index=0, frame=frame)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location.z, camera.data.type, camera.data.ortho_scale = 10, "ORTHO", 16
    for thing in (square, camera):
        scene.collection.objects.link(thing)
    scene.camera = camera
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 1, "CPU"
    scene.cycles.use_denoising = False
    return square


def test_of_grease_pencil_the_extremes_and_breakdowns_count(
    scene: object, extension: SimpleNamespace
) -> None:
    drawings = ((1, "EXTREME"), (3, "KEYFRAME"), (5, "BREAKDOWN"), (9, "EXTREME"), (400, "EXTREME"))
    pencil(scene, *drawings)
    assert extension.scene_keys.key_frames(scene) == [1, 5, 9]


def test_without_marks_every_drawing_counts_and_hidden_ones_never(
    scene: object, extension: SimpleNamespace
) -> None:
    thing = pencil(scene, (2, "KEYFRAME"), (8, "KEYFRAME"))
    moving_square(scene)
    assert extension.scene_keys.key_frames(scene) == [2, 8]
    thing.hide_render = True
    assert extension.scene_keys.key_frames(scene) == [1, 4, 7]
    scene.frame_end = 5
    assert extension.scene_keys.key_frames(scene) == [1, 4]


def test_a_scene_without_keys_is_told_so(scene: object, daemon: Daemon, extension: SimpleNamespace) -> None:
    with pytest.raises(RuntimeError, match=r"has 0 key from frame 1 to 250.*KT-225"):
        bpy.ops.keytween.tween_scene_keys()
    assert not scene.sequence_editor.strips


def test_an_objects_keys_become_a_tween(scene: object, daemon: Daemon, extension: SimpleNamespace) -> None:
    moving_square(scene)
    scene.frame_set(3)
    scene.render.image_settings.file_format = "JPEG"
    before = (scene.view_settings.view_transform, scene.render.filepath, scene.render.film_transparent)
    assert bpy.ops.keytween.tween_scene_keys() == {"FINISHED"}
    strip = the_tween()
    start, end = extension.vse_compat.start(strip), extension.vse_compat.end(strip)
    assert (start, end, strip.channel) == (1, 8, 1)
    names = elements(strip)
    folder = Path(bpy.path.abspath(strip.directory))
    assert [name.startswith("key_") for name in names] == [True, False, False, True, False, False, True]
    squares = [read_png(folder / names[index]) for index in (0, 3, 6)]
    assert [bits for _, bits in squares] == [16] * 3
    # The square is 8 pixels wide, 16 pixels from its neighbours, and opaque; the rest is clear.
    for (numbers, _), x in zip(squares, (12, 28, 44), strict=True):
        assert set(numbers[24, x + 2 : x + 6, 3]) == {65535.0}
        assert numbers[24, :x, 3].max(initial=0) == 0
        # Light of (2, 1, 0): as scene strips, without the scene's view transform.
        assert [round(value / 65535, 2) for value in numbers[24, x + 4, :3]] == [1.0, 1.0, 0.0]
    after = (scene.view_settings.view_transform, scene.render.filepath, scene.render.film_transparent)
    assert (after, scene.render.image_settings.file_format) == (before, "JPEG")
    assert scene.frame_current == 3
    assert scene.render.use_sequencer


def test_in_openexr_the_light_above_one_stays(scene: object, daemon: Daemon) -> None:
    moving_square(scene)
    scene.keytween.file_format = "exr-half"
    assert bpy.ops.keytween.tween_scene_keys() == {"FINISHED"}
    strip = the_tween()
    numbers = read_exr(Path(bpy.path.abspath(strip.directory)) / elements(strip)[0])
    assert [round(float(value), 2) for value in numbers[24, 16]] == [2.0, 1.0, 0.0, 1.0]
    assert (strip.colorspace_settings.name, strip.alpha_mode) == ("Linear Rec.709", "PREMUL")


def test_another_scene_can_be_rendered_into_this_sequencer(scene: object, daemon: Daemon) -> None:
    other = bpy.data.scenes.new("set")
    other.render.resolution_x, other.render.resolution_y = 64, 48
    moving_square(other)
    assert bpy.ops.keytween.tween_scene_keys(scene="set") == {"FINISHED"}
    assert the_tween().name.startswith("Tween set 1 to set 7")
    assert other.sequence_editor is None
