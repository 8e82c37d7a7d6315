# SPDX-License-Identifier: GPL-3.0-or-later
"""Another timing, other keyframes or other settings for a tween that is there: only what is new is drawn."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy

from keytween_wire.errors import PictureError, PictureMissing
from keytween_wire.messages import KeyframeImage, MorphRequest, Submit

from . import hiding, insert, memory, origins, poller, vse_compat
from .capture import capture, changed
from .memory import Older, Origin, Record, Tween
from .prompts import prompts_of
from .status import SLOW, JobView, view_of
from .tween import Settings


def active_tween(scene: bpy.types.Scene) -> bpy.types.Strip | None:
    """The active strip, if Keytween made it."""
    strip = scene.sequence_editor.active_strip if scene.sequence_editor else None
    return strip if strip is not None and insert.TWEEN in strip else None


def tween_of(strip: bpy.types.Strip) -> Tween:
    """What a tween's strip remembers."""
    return Tween.from_json(strip[insert.TWEEN])


# ---- timing


def retime(scene: bpy.types.Scene, strip: bpy.types.Strip) -> JobView | None:
    """Gives a tween the timing of its settings and its keyframes' places; returns the job for the rest.

    Every frame shows at once the drawing that is asked for, or the nearest there is. None: nothing is
    missing. The job is on the strip, but not submitted. Raises what timeline.plan raises.
    """
    settings = Settings.of_strip(strip)
    put(scene, strip, timed(scene, tween_of(strip), settings))
    return complete(strip)


def timed(scene: bpy.types.Scene, tween: Tween, settings: Settings) -> Tween:
    """The tween in these settings' timing, its keyframes where their strips are now."""
    places = places_of(scene, tween)
    plan = settings.plan(places)
    keyframes = settings.keyframes(places)
    request = dict(tween.request)
    request["keyframes"] = [
        {**image, "frame": start} for image, (start, _) in zip(request["keyframes"], places, strict=True)
    ]
    carried = origins.carriers(scene)
    return replace(
        remade(tween, request).with_plan(plan, settings.remembered()),
        frames=tuple((k.frame - plan.first_frame, k.hold) for k in keyframes),
        first=plan.first_frame,
        origins=tuple(_renamed(carried, origin) for origin in tween.origins),
    )


def _renamed(carried: dict[str, list[bpy.types.Strip]], origin: Origin) -> Origin:
    strip = origins.find(carried, origin)
    return replace(origin, name=strip.name) if strip else origin


def places_of(scene: bpy.types.Scene, tween: Tween) -> list[tuple[int, int]]:
    """First frame and length of each keyframe: its strip's, or what is remembered when that is gone."""
    carried = origins.carriers(scene)
    places = [(tween.first + frame, hold) for frame, hold in tween.frames]
    for index, origin in enumerate(tween.origins):
        strip = origins.find(carried, origin)
        if strip is not None:
            places[index] = origins.place_of(strip)
    return places


def remade(tween: Tween, request: dict[str, object]) -> Tween:
    """The tween with another request; where a segment looks different, its old drawings show meanwhile."""
    known = (*tween.older, *[()] * len(tween.looks))
    older = tuple(
        kept if old == new else (Older(old), *kept)[:3]
        for old, new, kept in zip(tween.looks, memory.looks(request), known, strict=False)
    )
    return replace(tween, request=request, older=older)


def put(scene: bpy.types.Scene, strip: bpy.types.Strip, tween: Tween) -> None:
    """Writes a tween to its strip and shows it; the strip goes where its first keyframe went."""
    before = tween_of(strip)
    here = vse_compat.content_start(strip)
    # A strip that the user moved away stays where he put it.
    start = here + tween.first - before.first if here == before.placed else here
    strip[insert.TWEEN] = replace(tween, placed=start).to_json()
    with changed(vse_compat.prefetch(scene.sequence_editor)):
        insert.move(scene, strip, start, len(tween.cels))
        poller.show(strip)
    hiding.settle(scene, strip, before)
    insert.mark_stale(strip, "")


# ---- what is missing


def complete(strip: bpy.types.Strip) -> JobView | None:
    """The job for the drawings that a strip lacks and that nobody is making; None when it lacks none.

    It is written on the strip, but not submitted. Raises PictureError when a keyframe's copy is gone.
    """
    tween, folder = tween_of(strip), insert.folder_of(strip)
    coming = poller.on_the_way(tween.job_id)
    return _job(strip, tween, tween.missing(poller.STATUS.shelf(folder), coming))


def draft(strip: bpy.types.Strip) -> JobView | None:
    """The job for drawings to look at while a slow engine makes its own; None where none are wanted.

    To be submitted before that engine's job. Raises PictureError when a keyframe's copy is gone.
    """
    settings = strip.keytween_own.settings
    tween, folder = tween_of(strip), insert.folder_of(strip)
    if not settings.draft_first or tween.request["engine"] not in SLOW:
        return None
    missing = tween.missing(poller.STATUS.shelf(folder), draft=True)
    return _job(strip, tween, missing, draft=True)


def superseded(strip: bpy.types.Strip) -> list[JobView]:
    """The unfinished jobs of a tween none of whose drawings any of its strips would show."""
    strip_id = tween_of(strip).job_id
    tweens = [tween_of(one) for _, one in insert.tween_strips(strip_id)]
    shown = {look for tween in tweens for look in tween.looks}
    shown |= {look for tween in tweens if tween.request["engine"] in SLOW for look in tween.draft_looks}
    jobs = (view for view in poller.STATUS.jobs.values() if view.strip_id == strip_id)
    return [view for view in jobs if not view.state.ended and shown.isdisjoint(view.looks)]


def _job(
    strip: bpy.types.Strip, tween: Tween, positions: Sequence[Sequence[float]], *, draft: bool = False
) -> JobView | None:
    part = memory.part_for(tween, positions, draft=draft)
    if part is None:
        return None
    part.request.check()
    folder = insert.folder_of(strip)
    blobs = tuple(_copy(folder / name, k) for name, k in zip(part.keys, part.request.keyframes, strict=True))
    record = Record(uuid.uuid4().hex, part.looks, part.request.positions, draft)
    view = view_of(record, tween, folder)
    view.submission = (Submit(view.job_id, part.request, view.label), blobs)
    poller.enlist(strip, view)
    return view


def _copy(path: Path, keyframe: KeyframeImage) -> bytes:
    """The bytes of a keyframe's copy, which must be those that the tween was made from."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureMissing(name=path) from error
    if MorphRequest.digest_of(data) != keyframe.digest:
        raise PictureError(name=path, detail="it is Keytween's copy of a keyframe and was changed")
    return data


# ---- other keyframes, other settings


def regenerate(scene: bpy.types.Scene, strip: bpy.types.Strip) -> JobView | None:
    """Brings a tween up to its keyframes, their places and its settings; returns the job for what is new.

    Drawings of segments that nothing changed stay. Raises what capturing and planning raise.
    """
    settings = Settings.of_strip(strip)
    settings.check()
    tween = recaptured(scene, strip, tween_of(strip))
    request = {"keyframes": tween.request["keyframes"], **asked(scene, strip, settings)}
    tween = replace(remade(tween, request), engine=settings.engine)
    put(scene, strip, timed(scene, tween, settings))
    return complete(strip)


def asked(scene: bpy.types.Scene, strip: bpy.types.Strip, settings: Settings) -> dict[str, object]:
    """What the settings ask of the engine, as the strip remembers it."""
    carried, tween = origins.carriers(scene), tween_of(strip)
    found = [origins.find(carried, origin) for origin in tween.origins]
    sources = [source for source in found if source is not None]
    if sources and len(sources) == len(found):
        settings = settings.with_prompts(prompts_of(strip.keytween_own.settings, sources))
    elif prompts := tween.request.get("diffusion", {}).get("prompts"):
        settings = settings.with_prompts(tuple(prompts))
    return settings.asked()


def recaptured(scene: bpy.types.Scene, strip: bpy.types.Strip, tween: Tween) -> Tween:
    """The tween with its keyframes as their strips show them now; those without a strip stay as they were.

    Raises StripUnusable, PictureError or OutputUnwritable.
    """
    carried = origins.carriers(scene)
    pairs = [(i, origins.find(carried, origin)) for i, origin in enumerate(tween.origins)]
    found = [(index, source) for index, source in pairs if source is not None]
    if not any(origins.has_changed(source, tween.origins[index]) for index, source in found):
        return tween
    captured, look = capture(scene, [source for _, source in found])
    if any(origins.look_of(source) != tween.origins[index].look for index, source in found):
        insert.give_look(strip, look)
    folder = insert.folder_of(strip)
    insert.make_folder(folder)
    for (index, source), picture in zip(found, captured, strict=True):
        image = KeyframeImage(
            MorphRequest.digest_of(picture.data), picture.suffix, picture.frame, look.colour, picture.name
        )
        tween = with_key(tween, index, image, picture.data, folder)
        tween = replace(tween, origins=_put_at(tween.origins, index, origins.of(source)))
    return tween


def with_key(tween: Tween, index: int, image: KeyframeImage, data: bytes, folder: Path) -> Tween:
    """The tween with another picture for a keyframe, whose copy is written; the same one changes nothing."""
    known = tween.request["keyframes"]
    if known[index]["digest"] == image.digest:
        return tween
    # A name of its own: undo must find the old copy as it was.
    name = f"key_{image.digest[:10]}{image.suffix}"
    insert.write_file(folder / name, data)
    request = {**tween.request, "keyframes": _put_at(known, index, memory.plain_keyframe(image))}
    return replace(remade(tween, request), keys=_put_at(tween.keys, index, name))


def _put_at(items: Sequence[Any], index: int, item: Any) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])
