# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tween's strip remembers of how it was made, as JSON, so that it is saved with it. No bpy here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from keytween_wire.messages import Colour, Diffusion, KeyframeImage, MorphRequest
from keytween_wire.timeline import Cel, Plan

from .drawings import Shelf

DRAFT_ENGINE = "flow"
"""What the first look is drawn with while a slower engine works."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The strip that a keyframe was taken from, and what it looked like then.

    `key` is the id that the strip carries, `name` what it was called, `size` and `mtime` its file's (-1: no
    file alone is what it shows), `digest` of that file's bytes, `look` of how the strip showed them.
    """

    key: str = ""
    name: str = ""
    size: int = -1
    mtime: int = -1
    digest: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class Older:
    """Drawings to show until better ones are there: a look, and where in it this segment lies."""

    look: str
    start: float = 0.0
    end: float = 1.0

    def position(self, position: float) -> float:
        """The position there that shows what this segment shows at `position`."""
        return self.start + (self.end - self.start) * position


@dataclass(frozen=True, slots=True)
class Tween:
    """A tween as its strip remembers it. `job_id` is the tween's own id, and its first job's."""

    job_id: str
    label: str
    engine: str
    keys: tuple[str, ...]
    """The file names of the keyframes' copies."""
    frames: tuple[tuple[int, int], ...]
    """Frame and hold of each keyframe, counted from the first keyframe's frame."""
    drawings: tuple[tuple[int, float], ...]
    """Segment and position of each drawing that the timing asks for."""
    cels: tuple[tuple[str, int], ...]
    """What each frame shows: ("k", keyframe) or ("d", drawing)."""
    request: dict[str, Any]
    """What changes pixels, but for the positions."""
    settings: dict[str, Any]
    """The timing."""
    first: int = 0
    """The first keyframe's frame."""
    placed: int = 0
    """Where the strip began when it was timed last."""
    origins: tuple[Origin, ...] = ()
    older: tuple[tuple[Older, ...], ...] = ()
    """For each segment what to show meanwhile, the best first."""
    replaced: tuple[tuple[int, float, str], ...] = ()
    """Drawings that the animator gave a file of their own: segment, position, file."""

    def to_json(self) -> str:
        """The text for the strip."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Tween:
        """The tween that a strip remembers; what a newer version added is passed over."""
        return _parsed(text)

    # ---- looks

    @property
    def looks(self) -> tuple[str, ...]:
        """The look of each segment."""
        return looks(self.request)

    @property
    def draft_looks(self) -> tuple[str, ...]:
        """The look that each segment's draft has."""
        return looks(draft_of(self.request))

    # ---- what each frame shows

    def shown(self, shelf: Shelf, *, draft: bool = False) -> list[str]:
        """The file of each frame; a drawing that is not there yet shows the nearest there is.

        With `draft` the drafts are shown where there are any.
        """
        files = self._files(shelf, draft=draft)
        return [self.keys[index] if kind == "k" else files[index] for kind, index in self.cels]

    def _files(self, shelf: Shelf, *, draft: bool) -> list[str]:
        own, found = self.replacements(), self._sources(draft=draft)
        return [
            own.get(index) or self._file(shelf, found[segment], segment, position)
            for index, (segment, position) in enumerate(self.drawings)
        ]

    def finished(self, shelf: Shelf, index: int, *, draft: bool = False) -> str | None:
        """The file of a drawing, the animator's own or one of its very position; None while there is none."""
        segment, position = self.drawings[index]
        if own := self.replacements().get(index):
            return own
        found = (shelf.exact(s.look, s.position(position)) for s in self._sources(draft=draft)[segment])
        return next((name for name in found if name), None)

    def _sources(self, *, draft: bool) -> list[list[Older]]:
        """For each segment the looks to take drawings from, the best first."""
        found: list[list[Older]] = []
        for segment, (final, first) in enumerate(zip(self.looks, self.draft_looks, strict=True)):
            own = [Older(first), Older(final)] if draft else [Older(final), Older(first)]
            found.append([*own, *(self.older[segment] if segment < len(self.older) else ())])
        return found

    def _file(self, shelf: Shelf, sources: Sequence[Older], segment: int, position: float) -> str:
        for source in sources:
            if name := shelf.exact(source.look, source.position(position)):
                return name
        # Of two that are as near the earlier is shown; rounded, because names have so many digits.
        near = [(abs(position), 0.0, self.keys[segment]), (abs(1.0 - position), 1.0, self.keys[segment + 1])]
        for source in sources:
            if hit := shelf.nearest(source.look, wanted := source.position(position)):
                span = abs(source.end - source.start) or 1.0
                near.append((abs(hit[0] - wanted) / span, position + (hit[0] - wanted) / span, hit[1]))
        return min(near, key=lambda entry: (round(entry[0], 6), entry[1]))[2]

    def replacements(self) -> dict[int, str]:
        """The animator's own file of each drawing that has one.

        A file of one's own stays with the drawing that is nearest to where it was, whatever the timing.
        """
        found: dict[int, tuple[float, str]] = {}
        for segment, position, name in self.replaced:
            near = [(abs(p - position), i) for i, (s, p) in enumerate(self.drawings) if s == segment]
            if near:
                distance, index = min(near)
                if index not in found or distance < found[index][0]:
                    found[index] = (distance, name)
        return {index: name for index, (_, name) in found.items()}

    def missing(self, *shelves: Shelf, draft: bool = False) -> tuple[tuple[float, ...], ...]:
        """For each segment the positions whose drawings are on no shelf and not the animator's own.

        With `draft` those that have no draft either.
        """
        known, own = [self.looks, self.draft_looks] if draft else [self.looks], self.replacements()
        wanted: list[list[float]] = [[] for _ in self.looks]
        for index, (segment, position) in enumerate(self.drawings):
            there = (shelf.exact(looks[segment], position) for shelf in shelves for looks in known)
            if index not in own and not any(there):
                wanted[segment].append(position)
        return tuple(map(tuple, wanted))

    def with_plan(self, plan: Plan, settings: Mapping[str, Any]) -> Tween:
        """The same tween in the timing of a plan."""
        return replace(
            self,
            drawings=tuple((d.segment, d.position) for d in plan.drawings),
            cels=packed(plan.cels),
            settings=dict(settings),
        )


def packed(cels: Sequence[Cel]) -> tuple[tuple[str, int], ...]:
    """Cels in the form that a strip remembers."""
    return tuple(("k", c.keyframe) if c.keyframe is not None else ("d", c.drawing or 0) for c in cels)


@lru_cache(maxsize=64)
def _parsed(text: str) -> Tween:
    # Kept, because a tick may not spend its time on parsing what it parsed at the tick before.
    values = json.loads(text)
    known = {name: values[name] for name in Tween.__slots__ if name in values}
    for name in ("keys", "frames", "drawings", "cels", "replaced"):
        known[name] = tuple(tuple(v) if isinstance(v, list) else v for v in known.get(name, ()))
    known["origins"] = tuple(Origin(**origin) for origin in known.get("origins", ()))
    known["older"] = tuple(tuple(Older(**o) for o in segment) for segment in known.get("older", ()))
    return Tween(**known)


# ---- requests and their looks


def told(diffusion: Diffusion) -> dict[str, Any]:
    """The settings that are not at their defaults, as on the wire."""
    defaults = asdict(Diffusion())
    return {name: value for name, value in asdict(diffusion).items() if value != defaults[name]}


def plain(request: MorphRequest) -> dict[str, Any]:
    """A request as plain values, without its positions."""
    values = asdict(request)
    # The positions are with the drawings; colours must be text; what DiffMorpher was not told is left out.
    del values["positions"]
    values["diffusion"] = told(request.diffusion)
    if not values["diffusion"]:
        del values["diffusion"]
    if request.effort == "full":
        # Only drafts have another one, and settings know of none.
        del values["effort"]
    values["keyframes"] = tuple(map(plain_keyframe, request.keyframes))
    return values


def plain_keyframe(image: KeyframeImage) -> dict[str, Any]:
    """A keyframe's picture as plain values."""
    return {**asdict(image), "colour": image.colour.value}


def draft_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for the engine that draws drafts."""
    kept = {name: value for name, value in request.items() if name != "diffusion"}
    return kept | {"engine": DRAFT_ENGINE, "seed": 0, "effort": "draft"}


def looks(request: Mapping[str, Any]) -> tuple[str, ...]:
    """For each segment a name for everything that changes its pixels, but for the position."""
    keyframes = request["keyframes"]
    return tuple(_look(request, segment) for segment in range(len(keyframes) - 1))


def _look(request: Mapping[str, Any], segment: int) -> str:
    keyframes, arc = request["keyframes"], request.get("path", "straight") == "arc"
    # Along an arc the motion comes from the segment before and goes on into the one after, each in its time.
    first, last = (max(0, segment - 1), segment + 3) if arc else (segment, segment + 2)
    near = keyframes[first:last]
    seen: dict[str, Any] = {
        "keyframes": [(k["digest"], k["colour"]) for k in near],
        "segment": segment - first,
        "frames": [k["frame"] - near[0]["frame"] for k in near] if arc and len(near) > 2 else [],
        "diffusion": _told_of(request.get("diffusion", {}), segment, len(keyframes)),
        **{name: request.get(name) for name in ("engine", "seed", "file_format")},
    }
    if request.get("effort", "full") != "full":
        # Only then: drawings that were made before there was a choice keep their names.
        seen["effort"] = request["effort"]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:10]


def _told_of(diffusion: Mapping[str, Any], segment: int, count: int) -> dict[str, Any]:
    """DiffMorpher's settings as far as they concern one segment."""
    found = dict(diffusion)
    for name in ("prompts", "loras"):
        given = list(found.get(name, ()))
        if given:
            found[name] = given[segment : segment + 2] if len(given) == count else given * 2
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """A job for some of a tween's drawings: what to ask for, whose pictures it needs, and what comes back."""

    request: MorphRequest
    keys: tuple[str, ...]
    """The files of its keyframes, in the tween's folder."""
    looks: tuple[str, ...]
    """The look of each of its segments."""


def part_for(tween: Tween, positions: Sequence[Sequence[float]], *, draft: bool = False) -> Part | None:
    """The job for these positions of each segment; None when there are none."""
    needed = [segment for segment, wanted in enumerate(positions) if wanted]
    if not needed:
        return None
    request = draft_of(tween.request) if draft else tween.request
    # An arc needs its neighbours; which these are is the engine's business, so it gets all.
    arc = request.get("path") == "arc"
    first, last = (0, len(positions)) if arc else (needed[0], needed[-1] + 1)
    chosen = slice(first, last + 1)
    values = {
        name: request[name] for name in ("engine", "seed", "file_format", "path", "effort") if name in request
    }
    found = MorphRequest(
        keyframes=tuple(_keyframe(k) for k in request["keyframes"][chosen]),
        positions=tuple(tuple(wanted) for wanted in positions[first:last]),
        diffusion=_diffusion(request.get("diffusion", {}), chosen, len(tween.keys)),
        **values,
    )
    return Part(found, tween.keys[chosen], looks(request)[first:last])


def _keyframe(values: Mapping[str, Any]) -> KeyframeImage:
    return KeyframeImage(**{**values, "colour": Colour(values["colour"])})


def _diffusion(values: Mapping[str, Any], chosen: slice, count: int) -> Diffusion:
    kept = dict(values)
    for name in ("prompts", "loras"):
        if name in kept:
            given = tuple(kept[name])
            kept[name] = given[chosen] if len(given) == count else given
    return Diffusion(**kept)


# ---- jobs


@dataclass(frozen=True, slots=True)
class Record:
    """What a strip remembers of a job: enough to go on with it after a reload."""

    job_id: str
    looks: tuple[str, ...]
    positions: tuple[tuple[float, ...], ...]
    draft: bool = False
    since: int = 0
    state: str = "queued"
    error: str = ""

    @classmethod
    def list_from(cls, text: str) -> list[Record]:
        """The records in a strip's text."""
        return [
            cls(**{**r, "looks": tuple(r["looks"]), "positions": tuple(map(tuple, r["positions"]))})
            for r in json.loads(text or "[]")
        ]

    @staticmethod
    def to_text(records: Sequence[Record]) -> str:
        """The text for the strip."""
        return json.dumps([asdict(record) for record in records], separators=(",", ":"))


def wanted(positions: Sequence[Sequence[float]]) -> Iterator[tuple[int, float]]:
    """Segment and position of each drawing of a job, in the order that its events count."""
    for segment, row in enumerate(positions):
        for position in row:
            yield segment, position
