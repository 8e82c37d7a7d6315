"""Keyframes in the rendered sequence: the numbers of the file, to no or one quantisation step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, the_tween  # noqa: E402
from .pictures import Numbers, gradient, read_exr, read_png, write_exr, write_png  # noqa: E402

STEPS = {"png8": 0.0, "png16": 1.0, "exr": 1.0}
"""How far a number may be off: whole steps of the file's own depth. docs/first-tween.md says the same."""


def keyframe(folder: Path, kind: str, name: str, *, matte: bool, mirrored: bool) -> Path:
    """A picture in which every pixel differs; scene-linear and up to 4 in OpenEXR."""
    numbers = gradient(48, 64)[:, :: -1 if mirrored else 1].copy()
    if not matte:
        numbers[..., 3] = 1
    if kind != "exr":
        return write_png(folder / f"{name}.png", numbers, bits=int(kind.removeprefix("png")))
    numbers[..., :3] *= 4 * numbers[..., 3:]
    return write_exr(folder / f"{name}.exr", numbers)


def rendered(scene: object, frame: int, path: Path, kind: str) -> Numbers:
    """The sequence as the user renders it, in the view Standard."""
    image = scene.render.image_settings
    if hasattr(image, "media_type"):
        image.media_type = "IMAGE"
    image.file_format, image.color_mode = ("OPEN_EXR" if kind == "exr" else "PNG"), "RGBA"
    image.color_depth = "8" if kind == "png8" else "16"
    scene.render.filepath, scene.render.use_file_extension = str(path), False
    scene.render.film_transparent, scene.render.dither_intensity = True, 0.0
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True, scene=scene.name)
    return read_exr(path) if kind == "exr" else read_png(path)[0]


def steps_between(seen: Numbers, source: Numbers, kind: str) -> float:
    """The largest difference, in steps of the file's depth."""
    if kind != "exr":
        return float(np.abs(seen - source).max())
    # A half float has ten bits behind its first one.
    step = np.maximum(2.0 ** (np.floor(np.log2(np.maximum(np.abs(source), 2.0**-14))) - 10), 2.0**-24)
    return float((np.abs(seen - source) / step).max())


def laid_out(scene: object, folder: Path, kind: str, *, matte: bool) -> dict[int, Path]:
    """Two keyframes on the timeline, selected: each one's file by its frame."""
    found = {}
    for start, mirrored in ((1, False), (5, True)):
        path = keyframe(folder, kind, f"key_{start}", matte=matte, mirrored=mirrored)
        strip = scene.sequence_editor.strips.new_image(f"key {start}", str(path), 1, start)
        if kind == "exr":
            strip.colorspace_settings.name = "Linear Rec.709"
        strip.select = True
        found[start] = path
    return found


def steps_off(scene: object, folder: Path, kind: str, keys: dict[int, Path], at: int = 0) -> list[float]:
    """How far the rendered sequence is off from each keyframe's file: where it is, or at one frame."""
    read = read_exr if kind == "exr" else lambda file: read_png(file)[0]
    return [
        steps_between(rendered(scene, at or start, folder / f"seen{path.suffix}", kind), read(path), kind)
        for start, path in keys.items()
    ]


@pytest.mark.parametrize("matte", [False, True])
@pytest.mark.parametrize("kind", STEPS)
def test_keyframes_are_exact_in_the_rendered_sequence(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path, kind: str, matte: bool
) -> None:
    keys = laid_out(scene, tmp_path, kind, matte=matte)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween()["keytween_state"] == "done"
    assert {Path(name).suffix for name in elements(the_tween())} == {path.suffix for path in keys.values()}
    found = steps_off(scene, tmp_path, kind, keys)
    assert max(found) <= STEPS[kind], found
    # And what lies between is neither of them.
    assert min(steps_off(scene, tmp_path, kind, keys, at=3)) > 10


@pytest.mark.parametrize("kind", STEPS)
def test_a_soft_matte_over_itself_is_denser_where_the_keyframes_are_not_hidden(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    keys = laid_out(scene, tmp_path, kind, matte=True)
    scene.keytween.hide_keyframes = False
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert min(steps_off(scene, tmp_path, kind, keys)) > 10
    assert bpy.ops.keytween.hide_keyframes() == {"FINISHED"}
    found = steps_off(scene, tmp_path, kind, keys)
    assert max(found) <= STEPS[kind], found
