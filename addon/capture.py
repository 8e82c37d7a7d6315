# SPDX-License-Identifier: GPL-3.0-or-later
"""From strips to keyframe pictures: the source files' own bytes where possible, else a render."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import bpy

from keytween_wire.errors import PictureEmpty, PictureError, PictureMissing, StripUnusable
from keytween_wire.messages import Colour

from . import vse_compat

READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".exr"}
DEEP = {".exr", ".tif", ".tiff", ".hdr", ".dpx", ".cin"}
"""Formats that may hold more than 8 bits: rendered keyframes then have 16."""
COLOURS = {"sRGB": Colour.SRGB, "Linear Rec.709": Colour.SCENE_LINEAR}
TRANSFORM = ("scale_x", "scale_y", "offset_x", "offset_y", "rotation", "origin", "filter")

Change = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """How the sequencer must show the pictures so that they look as the keyframes did."""

    colour_space: str = "sRGB"
    alpha_mode: str = "STRAIGHT"
    transform: tuple[tuple[str, Any], ...] = ()

    @property
    def colour(self) -> Colour:
        """The same on the wire."""
        return COLOURS.get(self.colour_space, Colour.AUTO)


@dataclass(frozen=True, slots=True)
class Captured:
    """One keyframe's picture and its place in time; nothing here refers to Blender's data."""

    name: str
    frame: int
    length: int
    data: bytes
    suffix: str


def capture(scene: bpy.types.Scene, strips: Sequence[bpy.types.Strip]) -> tuple[tuple[Captured, ...], Look]:
    """The strips' pictures and their look: all from their files, or all rendered at the scene's size.

    Raises StripUnusable or a PictureError.
    """
    for strip in strips:
        _refuse_sequences(strip)
    looks = [_look(strip) for strip in strips]
    if len(set(looks)) == 1 and all(_is_plain(scene, strip) for strip in strips):
        return tuple(_captured(strip, *_source(strip)) for strip in strips), looks[0]
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        rendered = [_captured(strip, _render(scene, strip, Path(folder)), ".png") for strip in strips]
    return tuple(rendered), Look()


def pictures_in(strip: bpy.types.Strip) -> Iterator[str]:
    """The names of the files that the strip shows, each once; holding one picture is one name."""
    if len(strip.elements) == 1:
        yield strip.elements[0].filename
        return
    seen: set[str] = set()
    for frame in range(vse_compat.start(strip), vse_compat.end(strip)):
        name = strip.strip_elem_from_frame(frame).filename
        if name not in seen:
            seen.add(name)
            yield name


def shows_one_picture(strip: bpy.types.Strip) -> bool:
    """Whether the strip is one picture. Panels ask at every draw, so this stops at the second."""
    return len(list(islice(pictures_in(strip), 2))) == 1


def _refuse_sequences(strip: bpy.types.Strip) -> None:
    count = len(list(pictures_in(strip)))
    if count != 1:
        raise StripUnusable(name=strip.name, detail=f"it shows {count} pictures, and a keyframe is one")


def source_path(strip: bpy.types.Strip) -> Path:
    """The file that the strip shows at its start."""
    element = strip.strip_elem_from_frame(vse_compat.start(strip))
    return Path(bpy.path.abspath(strip.directory)) / element.filename


def _captured(strip: bpy.types.Strip, data: bytes, suffix: str) -> Captured:
    start, end = vse_compat.start(strip), vse_compat.end(strip)
    return Captured(strip.name, start, end - start, data, suffix)


def _source(strip: bpy.types.Strip) -> tuple[bytes, str]:
    path = source_path(strip)
    data = _packed(path) or _read(path)
    if not data:
        raise PictureEmpty(name=path)
    return data, path.suffix.lower()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PictureMissing(name=path) from error
    except OSError as error:
        raise PictureError(name=path, detail=error.strerror) from error


def _packed(path: Path) -> bytes | None:
    """The bytes of an image of that path that is packed into the blend file while its file is gone."""
    if path.is_file():
        return None
    for image in bpy.data.images:
        if image.packed_file and Path(bpy.path.abspath(image.filepath)) == path:
            return bytes(image.packed_file.data)
    return None


# ---- is the file what the strip shows?


def _look(strip: bpy.types.Strip) -> Look:
    # Rounded, because a strip that was fitted to the frame has its scale in single precision.
    values = ((name, getattr(strip.transform, name)) for name in TRANSFORM)
    transform = tuple(
        (name, tuple(value) if name == "origin" else value if isinstance(value, str) else round(value, 5))
        for name, value in values
    )
    return Look(strip.colorspace_settings.name, strip.alpha_mode, transform)


def _is_plain(scene: bpy.types.Scene, strip: bpy.types.Strip) -> bool:
    """Whether the source file alone, with the strip's transform, is what the strip shows."""
    suffix = source_path(strip).suffix.lower()
    crop = strip.crop
    return (
        suffix in READABLE
        and strip.colorspace_settings.name in COLOURS
        and strip.alpha_mode == usual_alpha_mode(suffix)
        and not any((crop.min_x, crop.max_x, crop.min_y, crop.max_y))
        and not (strip.use_flip_x or strip.use_flip_y or strip.use_deinterlace)
        and not len(strip.modifiers)
        and (strip.color_multiply, strip.color_saturation, strip.blend_alpha) == (1.0, 1.0, 1.0)
        and len(_with_effects(scene, strip)) == 1
        and not _is_animated(scene, strip)
    )


def usual_alpha_mode(suffix: str) -> str:
    """How Blender reads a format's matte unless told otherwise."""
    return "PREMUL" if suffix in (".exr", ".hdr", ".dpx", ".cin") else "STRAIGHT"


def _is_animated(scene: bpy.types.Scene, strip: bpy.types.Strip) -> bool:
    path = f'sequence_editor.strips_all["{bpy.utils.escape_identifier(strip.name)}"]'
    return any(curve.data_path.startswith(path) for curve in vse_compat.fcurves(scene))


def _with_effects(scene: bpy.types.Scene, strip: bpy.types.Strip) -> list[bpy.types.Strip]:
    """The strip and the effect strips that read it and nothing else, in order."""
    chain = [strip]
    for other in scene.sequence_editor.strips_all:
        inputs = vse_compat.effect_inputs(other)
        if inputs and all(any(one == known for known in chain) for one in inputs):
            chain.append(other)
    return chain


# ---- rendering


@contextmanager
def changed(changes: Iterable[Change]) -> Iterator[None]:
    """Makes the changes in order, and puts every old value back in that same order, whatever happens."""
    wanted = list(changes)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    with ExitStack() as stack:
        # Last in, first out: the picture format must be back before its depth can be.
        for owner, name, value in reversed(before):
            stack.callback(setattr, owner, name, value)
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield


def _render(scene: bpy.types.Scene, strip: bpy.types.Strip, folder: Path) -> bytes:
    """The strip alone, as the sequencer shows it at its first frame, as PNG with a matte."""
    path = folder / "keyframe.png"
    path.unlink(missing_ok=True)
    frame = scene.frame_current_final
    depth = "16" if source_path(strip).suffix.lower() in DEEP else "8"
    try:
        with changed([*_alone(scene, strip), *_output(scene, path, depth)]):
            scene.frame_set(vse_compat.start(strip))
            bpy.ops.render.render(write_still=True, scene=scene.name)
    except RuntimeError as error:
        raise StripUnusable(name=strip.name, detail=f"it cannot be rendered: {error}") from error
    finally:
        scene.frame_set(int(frame), subframe=frame - int(frame))
    if not path.is_file():
        raise StripUnusable(name=strip.name, detail="rendering it wrote no file")
    return path.read_bytes()


def _alone(scene: bpy.types.Scene, strip: bpy.types.Strip) -> list[Change]:
    """The changes that leave the strip, its effects and the metas around it as the only ones heard."""
    kept = _with_effects(scene, strip)
    parent = strip.parent_meta()
    while parent is not None:
        kept.append(parent)
        parent = parent.parent_meta()
    return [
        (other, "mute", not any(other == one for one in kept)) for other in scene.sequence_editor.strips_all
    ]


def _output(scene: bpy.types.Scene, path: Path, depth: str) -> list[Change]:
    """The settings under which a render keeps the numbers of the source."""
    render, view, image = scene.render, scene.view_settings, scene.render.image_settings
    return [
        (render, "filepath", str(path)),
        (render, "use_file_extension", False),
        (render, "use_overwrite", True),
        (render, "use_placeholder", False),
        (render, "use_sequencer", True),
        (render, "use_stamp", False),
        (render, "use_border", False),
        (render, "use_multiview", False),
        (render, "resolution_percentage", 100),
        (render, "film_transparent", True),
        (render, "dither_intensity", 0.0),
        *vse_compat.choose_picture_output(image),
        (image, "file_format", "PNG"),
        (image, "color_mode", "RGBA"),
        (image, "color_depth", depth),
        (image, "color_management", "FOLLOW_SCENE"),
        (view, "view_transform", "Standard"),
        (view, "look", "None"),
        (view, "exposure", 0.0),
        (view, "gamma", 1.0),
        (view, "use_curve_mapping", False),
        (view, "use_white_balance", False),
    ]
