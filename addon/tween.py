# SPDX-License-Identifier: GPL-3.0-or-later
"""The deed itself: selected strips and settings -> an order -> a strip, and its retiming."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from keytween_wire import timeline
from keytween_wire.easing import Easing, Interpolation, Mode
from keytween_wire.errors import CheckpointUnusable, NothingSelected
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest, Submit
from keytween_wire.timeline import Keyframe, Plan

from . import insert, poller, preferences, vse_compat
from .capture import Captured, Look, capture, shows_one_picture
from .insert import Tween
from .prompts import prompts_of
from .status import DIFFMORPHER, MOVING, JobView


@dataclass(frozen=True, slots=True)
class Settings:
    """The scene's settings at the press of the button."""

    engine: str
    exposure: int
    count: int | None
    easing: Easing
    seed: int
    file_format: str
    diffusion: Diffusion
    path: str

    @classmethod
    def of(cls, scene: bpy.types.Scene) -> Settings:
        """What the panel shows."""
        chosen = scene.keytween
        engine = chosen.engine or "flow"
        return cls(
            engine=engine,
            exposure=chosen.frames_held,
            count=chosen.in_betweens or None,
            easing=Easing(Interpolation(chosen.interpolation), Mode(chosen.mode)),
            seed=chosen.seed,
            file_format=chosen.file_format,
            diffusion=_diffusion(chosen),
            path=chosen.path if engine in MOVING else "straight",
        )

    def check(self) -> None:
        """Refuses what could only fail later, after the work of capturing: CheckpointUnusable."""
        if self.engine != DIFFMORPHER:
            return
        if not self.diffusion.checkpoint:
            raise CheckpointUnusable(name="(none)", detail="no folder was chosen")
        if self.diffusion.checkpoint.startswith("//"):
            detail = "it lies beside the blend file, and the blend file is not saved yet"
            raise CheckpointUnusable(name=self.diffusion.checkpoint, detail=detail)

    def with_prompts(self, prompts: tuple[str, ...]) -> Settings:
        """The same with what the keyframes show, for an engine that wants to know."""
        if self.engine != DIFFMORPHER:
            return self
        return replace(self, diffusion=replace(self.diffusion, prompts=prompts))

    def remembered(self) -> dict[str, Any]:
        """The timing in plain values, for the strip."""
        return {
            "exposure": self.exposure,
            "count": self.count,
            "interpolation": self.easing.interpolation.value,
            "mode": self.easing.mode.value,
        }


def _diffusion(chosen: bpy.types.PropertyGroup) -> Diffusion:
    """What DiffMorpher is told; nothing while another engine is chosen."""
    if chosen.engine != DIFFMORPHER:
        return Diffusion()
    preset = next((p.diffusion for p in poller.STATUS.presets if p.name == chosen.preset), Diffusion())
    return replace(preset, checkpoint=_full_path(chosen.checkpoint.strip()))


def _full_path(path: str) -> str:
    """The path as the daemon can read it; one beside a file that is not saved stays as it is."""
    if path.startswith("//") and not bpy.data.filepath:
        return path
    return bpy.path.abspath(path)


@dataclass(frozen=True, slots=True)
class Order:
    """Everything a tween needs, without any reference to Blender's data."""

    submission: Submit
    blobs: tuple[bytes, ...]
    tween: Tween
    look: Look
    start: int
    above: int


def keyframe_strips(scene: bpy.types.Scene) -> list[bpy.types.Strip]:
    """The selected image strips in the order of time; a whole tween among them is no keyframe."""
    if scene.sequence_editor is None:
        return []
    images = [s for s in insert.current_strips(scene) if s.select and s.type == "IMAGE"]
    images = [s for s in images if insert.JOB not in s or shows_one_picture(s)]
    return sorted(images, key=vse_compat.start)


def count_selected(scene: bpy.types.Scene) -> int:
    """How many keyframes are selected."""
    return len(keyframe_strips(scene))


def order(scene: bpy.types.Scene) -> Order:
    """The order for the selected strips; raises NothingSelected and whatever is wrong with them."""
    strips = keyframe_strips(scene)
    if len(strips) < 2:
        raise NothingSelected(count=len(strips))
    settings = Settings.of(scene)
    settings.check()
    settings = settings.with_prompts(prompts_of(scene, strips))
    channel = max(strip.channel for strip in strips)
    # The timing is checked first: capturing may mean rendering.
    frames = [(vse_compat.start(s), vse_compat.end(s)) for s in strips]
    keyframes = _keyframes([(start, end - start) for start, end in frames], settings.easing)
    plan = timeline.plan(keyframes, exposure=settings.exposure, count=settings.count)
    captured, look = capture(scene, strips)
    return _order(captured, look, keyframes, plan, settings, channel)


def _keyframes(frames: Sequence[tuple[int, int]], easing: Easing) -> tuple[Keyframe, ...]:
    """Start and length of each strip as keyframes; the last one is shown once."""
    last = len(frames) - 1
    return tuple(
        Keyframe(start, length if index < last else 1, easing) for index, (start, length) in enumerate(frames)
    )


def _order(
    captured: Sequence[Captured],
    look: Look,
    keyframes: Sequence[Keyframe],
    plan: Plan,
    settings: Settings,
    channel: int,
) -> Order:
    request = MorphRequest(
        keyframes=tuple(
            KeyframeImage(MorphRequest.digest_of(c.data), c.suffix, c.frame, look.colour, c.name)
            for c in captured
        ),
        positions=plan.positions(len(captured) - 1),
        engine=settings.engine,
        seed=settings.seed,
        file_format=settings.file_format,
        diffusion=settings.diffusion,
        path=settings.path,
    )
    request.check()
    job_id = uuid.uuid4().hex
    label = f"{captured[0].name} to {captured[-1].name}"
    tween = Tween(
        job_id=job_id,
        label=label,
        engine=settings.engine,
        keys=tuple(f"key_{index:02d}{c.suffix}" for index, c in enumerate(captured)),
        frames=tuple((k.frame - plan.first_frame, k.hold) for k in keyframes),
        drawings=tuple((d.segment, d.position) for d in plan.drawings),
        cels=insert.packed(plan.cels),
        request=_plain(request),
        settings=settings.remembered(),
    )
    blobs = tuple(c.data for c in captured)
    return Order(Submit(job_id, request, label), blobs, tween, look, plan.first_frame, channel)


def _plain(request: MorphRequest) -> dict[str, Any]:
    values = asdict(request)
    # The positions are with the drawings; colours must be text; what DiffMorpher was not told is left out.
    del values["positions"]
    values["diffusion"] = _told(request.diffusion)
    if not values["diffusion"]:
        del values["diffusion"]
    for keyframe in values["keyframes"]:
        keyframe["colour"] = keyframe["colour"].value
    return values


def _told(diffusion: Diffusion) -> dict[str, Any]:
    """The settings that are not at their defaults, as on the wire."""
    defaults = asdict(Diffusion())
    return {name: value for name, value in asdict(diffusion).items() if value != defaults[name]}


def place(scene: bpy.types.Scene, order: Order) -> JobView:
    """Writes the keyframes' copies and puts the strip into the sequencer; raises OutputUnwritable."""
    tween = order.tween
    folder: Path = preferences.output_folder() / tween.job_id
    insert.make_folder(folder)
    for name, data in zip(tween.keys, order.blobs, strict=True):
        insert.write_file(folder / name, data)
    strip = insert.insert(scene, tween, folder=folder, look=order.look, start=order.start, above=order.above)
    view = JobView(tween.job_id, tween.label, tween, folder)
    view.submission = (order.submission, order.blobs)
    view.places = [(scene.name, strip.name)]
    return view


def retime(strip: bpy.types.Strip, settings: Settings) -> int:
    """Shows the strip's drawings in the settings' timing, each frame the nearest there is; returns how many.

    Nothing is computed again. Raises what timeline.plan raises.
    """
    tween = Tween.from_json(strip[insert.TWEEN])
    keyframes = [Keyframe(frame, hold, settings.easing) for frame, hold in tween.frames]
    plan = timeline.plan(keyframes, exposure=settings.exposure, count=settings.count)
    cels = [_nearest(tween, plan, cel) for cel in plan.cels]
    timed = tween.with_cels(cels, settings.remembered())
    strip[insert.TWEEN] = timed.to_json()
    insert.fill(strip, timed.shown(insert.drawings_in(insert.folder_of(strip))))
    view = poller.STATUS.jobs.get(tween.job_id)
    if view is not None:
        view.tween = timed
    return len(cels)


def _nearest(tween: Tween, plan: Plan, cel: timeline.Cel) -> timeline.Cel:
    """The keyframe or the drawing of the tween that looks most like what the plan asks for."""
    if cel.drawing is None:
        return cel
    wanted = plan.drawings[cel.drawing]
    near = [
        (0.0, timeline.Cel(keyframe=wanted.segment)),
        (1.0, timeline.Cel(keyframe=wanted.segment + 1)),
        *(
            (position, timeline.Cel(drawing=index))
            for index, (segment, position) in enumerate(tween.drawings)
            if segment == wanted.segment
        ),
    ]
    return min(near, key=lambda pair: abs(pair[0] - wanted.position))[1]
