# SPDX-License-Identifier: GPL-3.0-or-later
"""The deed itself: selected strips and settings -> an order -> a strip, and its retiming."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from keytween_wire import timeline
from keytween_wire.easing import Curve, Drawn, Easing, Interpolation, Mode
from keytween_wire.errors import CheckpointUnusable, NothingSelected
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest, Submit
from keytween_wire.timeline import Keyframe, Plan

from . import hiding, insert, memory, origins, poller, preferences, properties, vse_compat
from .capture import Captured, Look, capture, may_be_keyframe, shows_one_picture
from .memory import Origin, Tween
from .prompts import prompts_of
from .status import DIFFMORPHER, MOVING, JobView


@dataclass(frozen=True, slots=True)
class SegmentTiming:
    """What one segment has of its own; None is as the tween."""

    exposure: int | None = None
    easing: Curve | None = None
    drift: float = 0.0

    @classmethod
    def of(cls, chosen: bpy.types.PropertyGroup) -> SegmentTiming:
        """What the panel shows for a segment."""
        easing: Curve | None = None
        if chosen.interpolation == "CURVE":
            easing = Drawn(properties.drawn_values(chosen))
        elif chosen.interpolation != "ALL":
            easing = Easing(Interpolation(chosen.interpolation), Mode(chosen.mode))
        return cls(chosen.frames_held, easing, round(chosen.drift, 6))

    def remembered(self) -> dict[str, Any]:
        """The same in plain values."""
        easing = list(self.easing.values) if isinstance(self.easing, Drawn) else str(self.easing or "")
        found = {"exposure": self.exposure, "easing": easing, "drift": self.drift}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings at the press of the button: the scene's for a new tween, a strip's for its own."""

    engine: str
    exposure: int
    count: int | None
    easing: Easing
    seed: int
    file_format: str
    diffusion: Diffusion
    path: str
    segments: tuple[SegmentTiming, ...] = ()

    @classmethod
    def of(cls, scene: bpy.types.Scene) -> Settings:
        """What the panel shows for new tweens."""
        return cls.read(scene.keytween)

    @classmethod
    def of_strip(cls, strip: bpy.types.Strip) -> Settings:
        """What the panel shows for a tween's strip, with what its segments have of their own."""
        own = strip.keytween_own
        return replace(cls.read(own.settings), segments=tuple(SegmentTiming.of(s) for s in own.segments))

    @classmethod
    def read(cls, chosen: bpy.types.PropertyGroup) -> Settings:
        """What a group of settings says."""
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
        segments = [segment.remembered() for segment in self.segments]
        return {
            "exposure": self.exposure,
            "count": self.count,
            "interpolation": self.easing.interpolation.value,
            "mode": self.easing.mode.value,
            **({"segments": segments} if any(segments) else {}),
        }

    def asked(self) -> dict[str, Any]:
        """What the engine is asked for, in plain values as the strip remembers them."""
        told = memory.told(self.diffusion)
        return {
            "engine": self.engine,
            "seed": self.seed,
            "file_format": self.file_format,
            "path": self.path,
            **({"diffusion": told} if told else {}),
        }

    def keyframes(self, places: Sequence[tuple[int, int]]) -> tuple[Keyframe, ...]:
        """First frame and length of each keyframe in this timing; the last one is shown once."""
        last = len(places) - 1
        segments = [*self.segments, *[SegmentTiming()] * len(places)]
        return tuple(
            Keyframe(start, length if index < last else 1, own.easing or self.easing, own.exposure, own.drift)
            for index, ((start, length), own) in enumerate(zip(places, segments, strict=False))
        )

    def plan(self, places: Sequence[tuple[int, int]]) -> Plan:
        """The plan for keyframes at these places; raises what timeline.plan raises."""
        return timeline.plan(self.keyframes(places), exposure=self.exposure, count=self.count)


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
    """The selected strips that can be keyframes, in the order of time; a whole tween is none."""
    if scene.sequence_editor is None:
        return []
    chosen = [s for s in insert.current_strips(scene) if s.select and may_be_keyframe(s)]
    chosen = [s for s in chosen if insert.JOB not in s or shows_one_picture(s)]
    return sorted(chosen, key=vse_compat.start)


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
    settings = settings.with_prompts(prompts_of(scene.keytween, strips))
    channel = max(strip.channel for strip in strips)
    # The timing is checked first: capturing may mean rendering.
    places = [origins.place_of(strip) for strip in strips]
    plan = settings.plan(places)
    captured, look = capture(scene, strips)
    found = _order(captured, look, settings.keyframes(places), plan, settings, channel)
    return replace(found, tween=replace(found.tween, origins=tuple(map(origins.of, strips))))


def order_of(captured: Sequence[Captured], look: Look, settings: Settings) -> Order:
    """The order for pictures that come from no strips; raises what timeline.plan raises."""
    places = [(picture.frame, picture.length) for picture in captured]
    found = _order(captured, look, settings.keyframes(places), settings.plan(places), settings, 0)
    return replace(found, tween=replace(found.tween, origins=tuple(Origin("", c.name) for c in captured)))


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
        cels=memory.packed(plan.cels),
        request=memory.plain(request),
        settings=settings.remembered(),
        first=plan.first_frame,
        placed=plan.first_frame,
    )
    blobs = tuple(c.data for c in captured)
    return Order(Submit(job_id, request, label), blobs, tween, look, plan.first_frame, channel)


def place(scene: bpy.types.Scene, order: Order) -> JobView:
    """Writes the keyframes' copies and makes the strip, which may hide theirs; raises OutputUnwritable."""
    tween = order.tween
    folder: Path = preferences.output_folder() / tween.job_id
    insert.make_folder(folder)
    for name, data in zip(tween.keys, order.blobs, strict=True):
        insert.write_file(folder / name, data)
    strip = insert.insert(scene, tween, folder=folder, look=order.look, start=order.start, above=order.above)
    # Its panel shows up at once.
    scene.sequence_editor.active_strip = strip
    properties.give_own(strip, scene.keytween, len(tween.keys) - 1)
    hiding.settle(scene, strip)
    request = order.submission.request
    view = JobView(
        tween.job_id, tween.label, tween.job_id, folder, memory.looks(tween.request), request.positions
    )
    view.submission = (order.submission, order.blobs)
    view.places = [(scene.name, strip.name)]
    poller.enlist(strip, view)
    return view
