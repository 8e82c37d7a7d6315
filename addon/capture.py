# SPDX-License-Identifier: GPL-3.0-or-later
"""From strips to keyframe pictures: the source files' own bytes where possible, else a render."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any

import bpy

from keytween_wire.errors import PictureEmpty, PictureError, PictureMissing, StripUnusable
from keytween_wire.messages import Colour

from . import vse_compat

READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".exr"}
KINDS = {"IMAGE", "MOVIE", "SCENE", "META"}
"""The strips that can be keyframes."""
DEEP = {".tif", ".tiff", ".dpx", ".cin"}
"""Formats that may hold more than 8 bits."""
HEAD_BYTES = 4096
"""Enough of a file to see how many bits its numbers have."""
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


class Precision(IntEnum):
    """What a rendered keyframe must hold, so that nothing of its source is lost."""

    BYTE = 0
    SHORT = 1
    HALF = 2
    FLOAT = 3

    @property
    def is_linear(self) -> bool:
        """Whether the numbers are scene-linear, in OpenEXR."""
        return self >= Precision.HALF

    @property
    def suffix(self) -> str:
        """The file's suffix."""
        return ".exr" if self.is_linear else ".png"

    @property
    def depth(self) -> str:
        """The number of bits, as Blender's output settings call it."""
        return {Precision.BYTE: "8", Precision.FLOAT: "32"}.get(self, "16")

    @property
    def look(self) -> Look:
        """How the sequencer must show such files."""
        return Look("Linear Rec.709", "PREMUL") if self.is_linear else Look()


def capture(scene: bpy.types.Scene, strips: Sequence[bpy.types.Strip]) -> tuple[tuple[Captured, ...], Look]:
    """The strips' pictures and their look: all from their files, or all rendered at the scene's size.

    A rendered keyframe is what the sequencer shows of the strip: fitted as the strip is, transparent where
    it is not, never squashed. Raises StripUnusable or a PictureError.
    """
    for strip in strips:
        _refuse_sequences(strip)
    if all(_is_plain(scene, strip) for strip in strips):
        looks, sizes = {_look(strip) for strip in strips}, {_size(strip) for strip in strips}
        if len(looks) == 1 and len(sizes) == 1:
            return tuple(_captured(strip, *_source(strip)) for strip in strips), looks.pop()
    precision = max(precision_of(strip) for strip in strips)
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        path = Path(folder) / f"keyframe{precision.suffix}"
        rendered = [
            _captured(strip, _render(scene, strip, path, precision), precision.suffix) for strip in strips
        ]
    return tuple(rendered), precision.look


def may_be_keyframe(strip: bpy.types.Strip) -> bool:
    """Whether a strip is of a kind that can be a keyframe."""
    return strip.type in KINDS


def precision_of(strip: bpy.types.Strip) -> Precision:
    """What a render of the strip must hold: what the deepest picture in it has."""
    if strip.type == "META":
        return max((precision_of(part) for part in strip.strips if not part.mute), default=Precision.BYTE)
    if strip.type == "SCENE":
        return Precision.SHORT
    return _precision_of_file(source_path(strip)) if strip.type == "IMAGE" else Precision.BYTE


def _precision_of_file(path: Path) -> Precision:
    suffix = path.suffix.lower()
    if suffix == ".hdr":
        return Precision.FLOAT
    if suffix not in {".exr", ".png"}:
        return Precision.SHORT if suffix in DEEP else Precision.BYTE
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        # A picture that is packed, or gone: rendering it will say so.
        return Precision.HALF if suffix == ".exr" else Precision.BYTE
    if suffix == ".png":
        return Precision.SHORT if head[24:25] == b"\x10" else Precision.BYTE
    return Precision.HALF if _has_half_channels(head) else Precision.FLOAT


def _has_half_channels(head: bytes) -> bool:
    """Whether the first channel of an OpenEXR file has 16 bits."""
    _, found, rest = head.partition(b"channels\0chlist\0")
    _, _, after_name = rest[4:].partition(b"\0")
    return bool(found) and after_name[:4] == b"\x01\0\0\0"


def _size(strip: bpy.types.Strip) -> tuple[int, int]:
    element = strip.elements[0]
    return element.orig_width, element.orig_height


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
    """A meta strip may hold anything: it is taken at its first frame, and held."""
    if strip.type == "META":
        return
    count = len(list(pictures_in(strip))) if strip.type == "IMAGE" else vse_compat.frames_shown(strip)
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
    if strip.type != "IMAGE":
        return False
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
        and len(with_effects(scene, strip)) == 1
        and not _is_animated(scene, strip)
    )


def usual_alpha_mode(suffix: str) -> str:
    """How Blender reads a format's matte unless told otherwise."""
    return "PREMUL" if suffix in (".exr", ".hdr", ".dpx", ".cin") else "STRAIGHT"


def _is_animated(scene: bpy.types.Scene, strip: bpy.types.Strip) -> bool:
    path = f'sequence_editor.strips_all["{bpy.utils.escape_identifier(strip.name)}"]'
    return any(curve.data_path.startswith(path) for curve in vse_compat.fcurves(scene))


def with_effects(scene: bpy.types.Scene, strip: bpy.types.Strip) -> list[bpy.types.Strip]:
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


def _render(scene: bpy.types.Scene, strip: bpy.types.Strip, path: Path, precision: Precision) -> bytes:
    """The strip alone, as the sequencer shows it at its first frame, with a matte."""
    path.unlink(missing_ok=True)
    frame = scene.frame_current_final
    try:
        with changed([*_alone(scene, strip), *output_settings(scene, path, precision)]):
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
    """The changes that leave the strip, its effects and the metas around it as the only ones seen."""
    kept = with_effects(scene, strip)
    parts = list(inside(strip))
    parent = strip.parent_meta()
    while parent is not None:
        kept.append(parent)
        parent = parent.parent_meta()
    return [
        (other, "mute", not any(other == one for one in kept))
        for other in scene.sequence_editor.strips_all
        # What a meta strip hides and shows of its own is part of its picture.
        if not any(other == one for one in parts)
    ]


def inside(strip: bpy.types.Strip) -> Iterator[bpy.types.Strip]:
    """Every strip in a meta strip, however deep."""
    for part in strip.strips if strip.type == "META" else ():
        yield part
        yield from inside(part)


def output_settings(scene: bpy.types.Scene, path: Path, precision: Precision) -> list[Change]:
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
        (image, "file_format", "OPEN_EXR" if precision.is_linear else "PNG"),
        (image, "color_mode", "RGBA"),
        (image, "color_depth", precision.depth),
        (image, "exr_codec", "ZIP"),
        (image, "color_management", "FOLLOW_SCENE"),
        (view, "view_transform", "Standard"),
        (view, "look", "None"),
        (view, "exposure", 0.0),
        (view, "gamma", 1.0),
        (view, "use_curve_mapping", False),
        (view, "use_white_balance", False),
    ]
