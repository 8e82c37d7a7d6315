# SPDX-License-Identifier: GPL-3.0-or-later
"""Single drawings of a tween: made a keyframe of its own, replaced by a file, or given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from keytween_wire import timeline
from keytween_wire.errors import NoDrawingThere, PictureError, PictureMissing, PictureSizesDiffer
from keytween_wire.messages import MorphRequest

from . import insert, origins, poller, properties, retiming, vse_compat
from .capture import READABLE, changed, usual_alpha_mode
from .memory import Older, Tween
from .status import JobView
from .tween import Settings

CURVE_POINTS = 24
"""As many points at most are given to a curve that goes on as its segment went before."""


@dataclass(frozen=True, slots=True)
class Found:
    """A drawing of a tween: its number, where it stands, the first frame of its run, and its file."""

    index: int
    segment: int
    position: float
    frame: int
    name: str


def drawing_at(strip: bpy.types.Strip, frame: int) -> Found:
    """The finished drawing that a tween's strip shows at a frame; raises NoDrawingThere."""
    tween = retiming.tween_of(strip)
    place = frame - vse_compat.content_start(strip)
    if not vse_compat.start(strip) <= frame < vse_compat.end(strip) or not 0 <= place < len(tween.cels):
        raise NoDrawingThere(frame=frame, detail="the active tween does not show anything there")
    kind, index = tween.cels[place]
    if kind == "k":
        raise NoDrawingThere(frame=frame, detail="it shows a keyframe already")
    shelf = poller.STATUS.shelf(insert.folder_of(strip))
    name = tween.finished(shelf, index, draft=insert.shows_draft(strip))
    if name is None:
        raise NoDrawingThere(frame=frame, detail="its drawing is not finished yet")
    while place and tween.cels[place - 1] == (kind, index):
        place -= 1
    return Found(index, *tween.drawings[index], tween.first + place, name)


# ---- promote to keyframe


def promote(scene: bpy.types.Scene, strip: bpy.types.Strip, frame: int) -> JobView | None:
    """Makes the drawing at a frame a keyframe with a strip of its own; returns the job for what that changes.

    The picture is the file as it is now, painted over or not. The two segments around it go on in the
    spacing that they had together. Raises NoDrawingThere, NoRoomBetween, PictureError, OutputUnwritable.
    """
    found = drawing_at(strip, frame)
    tween, folder = retiming.tween_of(strip), insert.folder_of(strip)
    # Asked before anything is made: a keyframe right beside another one leaves nothing between them.
    places = retiming.places_of(scene, tween)
    Settings.of_strip(strip).plan(_with(places, found.segment + 1, (found.frame, 1)))
    data = _read(folder / found.name)
    suffix = Path(found.name).suffix
    digest = MorphRequest.digest_of(data)
    copy, own = f"key_{digest[:10]}{suffix}", f"breakdown_{found.frame}_{digest[:10]}{suffix}"
    insert.write_file(folder / copy, data)
    # The animator may paint over this one; the copy stays what the drawings were made from.
    insert.write_file(folder / own, data)
    curves = _halves(strip, tween, found)
    key = _lay(scene, strip, tween, found, folder / own)
    left = tween.request["keyframes"][found.segment]
    image = {**left, "digest": digest, "suffix": suffix, "frame": found.frame, "name": key.name}
    parted = _parted(tween, found, image, copy, key)
    _part_settings(strip, found.segment, curves)
    retiming.put(scene, strip, retiming.timed(scene, parted, Settings.of_strip(strip)))
    return retiming.complete(strip)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PictureMissing(name=path) from error


def _lay(
    scene: bpy.types.Scene, strip: bpy.types.Strip, tween: Tween, found: Found, path: Path
) -> bpy.types.Strip:
    """The new keyframe's strip, beside the keyframe before it if there is room."""
    carried = origins.carriers(scene)
    before = origins.find(carried, tween.origins[found.segment]) if tween.origins else None
    lowest = before.channel if before else max(1, strip.channel - 1)
    channel = insert.free_channel(scene, found.frame, found.frame + 1, lowest=lowest)
    with changed(vse_compat.prefetch(scene.sequence_editor)):
        key = insert.current_strips(scene).new_image(
            name=f"Breakdown {found.frame}",
            filepath=insert.in_blend(path),
            channel=channel,
            frame_start=found.frame,
        )
    insert.give_look(key, insert.look_of(strip))
    key.select = False
    return key


def _parted(tween: Tween, found: Found, image: dict[str, Any], copy: str, key: bpy.types.Strip) -> Tween:
    """The tween with one keyframe more; the timing is still the old one's."""
    at, q = found.segment + 1, found.position
    frames = [*tween.frames]
    frames.insert(at, (found.frame - tween.first, 1))
    older = [*tween.older, *[()] * (len(tween.looks) - len(tween.older))]
    known = (Older(tween.looks[found.segment]), *older[found.segment])
    older[found.segment : at] = [
        tuple(Older(o.look, o.start, o.position(q)) for o in known),
        tuple(Older(o.look, o.position(q), o.end) for o in known),
    ]
    request = {**tween.request, "keyframes": _with(tween.request["keyframes"], at, image)}
    if "diffusion" in request:
        request["diffusion"] = _told(request["diffusion"], at, len(tween.keys))
    return replace(
        tween,
        keys=_with(tween.keys, at, copy),
        frames=tuple(frames),
        origins=_with(tween.origins, at, origins.of(key)),
        older=tuple(older),
        request=request,
        replaced=tuple(_moved(one, found) for one in tween.replaced if one[2] != found.name),
    )


def _with(items: Sequence[Any], at: int, item: Any) -> tuple[Any, ...]:
    return (*items[:at], item, *items[at:])


def _told(diffusion: dict[str, Any], at: int, count: int) -> dict[str, Any]:
    """DiffMorpher's settings with one keyframe more: it is spoken of as the one before it."""
    return {
        name: _with(value, at, value[at - 1])
        if name in ("prompts", "loras") and len(value) == count
        else value
        for name, value in diffusion.items()
    }


def _moved(replaced: tuple[int, float, str], found: Found) -> tuple[int, float, str]:
    """A replaced drawing, in the segment that it lies in now."""
    segment, position, name = replaced
    if segment != found.segment:
        return (segment + (segment > found.segment), position, name)
    q = found.position
    if position < q:
        return (segment, position / q, name)
    return (segment + 1, (position - q) / (1.0 - q), name)


# ---- the spacing of the two halves

Points = list[tuple[float, float]]


def _halves(strip: bpy.types.Strip, tween: Tween, found: Found) -> tuple[Points, Points, float] | None:
    """Curves in which the two new segments go on as the one did, and the first one's moving hold.

    None where that is a straight line anyway.
    """
    places = [(tween.first + frame, hold) for frame, hold in tween.frames]
    settings = Settings.of_strip(strip)
    keyframes = settings.keyframes(places)
    segment = timeline.segments(keyframes, exposure=settings.exposure)[found.segment]
    q = found.position
    straight = segment.easing == timeline.LINEAR and not segment.drift
    if straight or not 0.001 < q < 0.999:
        return None
    if found.frame <= segment.start:
        return None
    middle = (found.frame - segment.start) / segment.duration
    drift = min(segment.drift / q, timeline.MOST_DRIFT)
    first = _points(
        lambda u: (segment.position_at(u * middle) / q - drift) / (1.0 - drift), found.frame - segment.start
    )
    second = _points(
        lambda u: (segment.position_at(middle + u * (1.0 - middle)) - q) / (1.0 - q),
        segment.end - found.frame,
    )
    return first, second, drift


def _points(curve: Callable[[float], float], frames: int) -> Points:
    """A curve at each of so many frames, or at as many even steps as a curve should have points."""
    steps = max(1, min(frames, CURVE_POINTS))
    return [(0.0, 0.0), *((s / steps, curve(s / steps)) for s in range(1, steps)), (1.0, 1.0)]


def _part_settings(strip: bpy.types.Strip, segment: int, curves: tuple[Points, Points, float] | None) -> None:
    """Gives both halves what their segment had of its own, and the curves."""
    own = strip.keytween_own
    own.segments.add()
    own.segments.move(len(own.segments) - 1, segment + 1)
    left, right = own.segments[segment], own.segments[segment + 1]
    right.own_exposure, right.exposure_frames = left.own_exposure, left.exposure_frames
    right.interpolation, right.mode = left.interpolation, left.mode
    if curves is not None:
        first, second, left.drift = curves
        for half, points in ((left, first), (right, second)):
            properties.draw_curve(half, points)


# ---- replace by a file


def replace_drawing(scene: bpy.types.Scene, strip: bpy.types.Strip, frame: int, path: Path) -> None:
    """Shows a file in place of the drawing at a frame, in this and every later timing.

    The file is copied. Raises NoDrawingThere, PictureError or PictureSizesDiffer.
    """
    found = drawing_at(strip, frame)
    tween, folder = retiming.tween_of(strip), insert.folder_of(strip)
    data, suffix = _read(path), path.suffix.lower()
    if suffix not in READABLE or usual_alpha_mode(suffix) != strip.alpha_mode:
        detail = f"the tween's drawings are {Path(found.name).suffix} files, and one strip reads all alike"
        raise PictureError(name=path, detail=detail)
    _check_size(folder / tween.keys[0], path)
    name = f"own_{MorphRequest.digest_of(data)[:10]}{suffix}"
    insert.write_file(folder / name, data)
    kept = _without(tween, found.index)
    _keep(strip, replace(tween, replaced=(*kept, (found.segment, found.position, name))))


def give_back(strip: bpy.types.Strip, frame: int) -> JobView | None:
    """Shows the generated drawing again where a file took its place; returns the job if it was never made.

    Raises NoDrawingThere.
    """
    found, tween = drawing_at(strip, frame), retiming.tween_of(strip)
    kept = _without(tween, found.index)
    if kept == tween.replaced:
        raise NoDrawingThere(frame=frame, detail="its drawing was not replaced")
    _keep(strip, replace(tween, replaced=kept))
    return retiming.complete(strip)


def _without(tween: Tween, index: int) -> tuple[tuple[int, float, str], ...]:
    """The replaced drawings but for the one that this drawing shows."""
    name = tween.replacements().get(index)
    segment = tween.drawings[index][0]
    return tuple(one for one in tween.replaced if (one[0], one[2]) != (segment, name))


def _keep(strip: bpy.types.Strip, tween: Tween) -> None:
    strip[insert.TWEEN] = tween.to_json()
    poller.show(strip)


def _check_size(key: Path, path: Path) -> None:
    sizes: list[str] = []
    for file in (key, path):
        try:
            image = bpy.data.images.load(str(file))
        except RuntimeError as error:
            raise PictureError(name=file, detail="Blender cannot read it") from error
        size = tuple(image.size)
        bpy.data.images.remove(image)
        if 0 in size:
            raise PictureError(name=file, detail="Blender cannot read it")
        sizes.append("{} x {}".format(*size))
    if sizes[0] != sizes[1]:
        raise PictureSizesDiffer(first="the keyframe", first_size=sizes[0], name=path, size=sizes[1])
