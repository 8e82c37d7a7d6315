"""Neighbouring keyframes, matched and ready to draw; pairs met lately are known by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keytween.engines.dissolve import premultiplied, with_channels
from keytween.engines.flow import arcs
from keytween.engines.flow.arcs import Leg
from keytween.engines.flow.drawing import Stage
from keytween.engines.flow.fields import reduced
from keytween.engines.flow.keeping import Kept
from keytween.engines.flow.likeness import Likeness, likeness
from keytween.engines.flow.looks import look
from keytween.engines.flow.matching import Motion, match
from keytween.images import Picture, as_float
from keytween_wire.messages import MorphRequest

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Two keyframes' motion, None where nothing moves, and what they have in common.

    `small` is how an arc sees them, (h, w, 4) each; nothing where they are the same.
    """

    motion: Motion | None
    likeness: Likeness
    small: tuple[Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two keyframes, ready to draw; without a stage they fade, or are the same."""

    stage: Stage | None
    likeness: Likeness


class Pairs:
    """The pairs of neighbouring keyframes of a request, each matched once."""

    def __init__(self, request: MorphRequest, keyframes: Sequence[Picture], kept: Kept) -> None:
        self._keyframes, self._kept = keyframes, kept
        self._frames = arcs.durations([image.frame for image in request.keyframes])
        self._reach = 1 if request.path == "arc" else 0
        self._quick = request.effort == "draft"
        self._names: dict[int, str] = {}
        self._matched: dict[int, Matched] = {}

    def missing(self, segment: int) -> list[int]:
        """What must be matched for a segment: itself, and for an arc its neighbours; none if it is known."""
        near = self._near(segment)
        self._matched = {k: m for k, m in self._matched.items() if k in near}
        if self._kept.get(self._stage_key(segment)) is not None:
            return []
        for k in near:
            found = self._kept.get(self._match_key(k))
            if found is not None:
                self._matched.setdefault(k, found)
        return [k for k in near if k not in self._matched]

    def match(self, segment: int) -> None:
        """Matches a pair, for itself and for its neighbours."""
        found = self._matched[segment] = self._found(segment)
        self._kept.put(self._match_key(segment), found)

    def ready(self, segment: int) -> Pair:
        """The pair, once nothing is missing."""
        key = self._stage_key(segment)
        pair: Pair | None = self._kept.get(key)
        if pair is None:
            matched = self._matched[segment]
            pair = Pair(self._stage(segment, matched.motion), matched.likeness)
            self._kept.put(key, pair)
        return pair

    def _found(self, segment: int) -> Matched:
        if self._name(segment) == self._name(segment + 1):
            return Matched(None, Likeness(same=True), ())
        looks = look(self._keyframes[segment]), look(self._keyframes[segment + 1])
        motion = match(*looks, quick=self._quick)
        alike = likeness(looks, motion)
        small = tuple(reduced(one, arcs.SIDE) for one in looks)
        return Matched(None if alike.unlike else motion, alike, small)

    def _stage(self, segment: int, motion: Motion | None) -> Stage | None:
        if motion is None:
            return None
        first, second = self._keyframes[segment : segment + 2]
        channels = max(first.pixels.shape[2], second.pixels.shape[2])
        ends = [premultiplied(with_channels(as_float(p), channels)) for p in (first, second)]
        whole_numbers = first.pixels.dtype.kind == second.pixels.dtype.kind == "u"
        leg = self._leg(segment)
        around = self._leg(segment - 1), self._leg(segment + 1)
        path = None if leg is None else arcs.arc(around[0], leg, around[1], motion.layers)
        return Stage(motion, *ends, bounded=whole_numbers, path=path)

    def _leg(self, segment: int) -> Leg | None:
        """A segment as an arc sees it; None where keyframes fade, and without an arc."""
        found = self._matched.get(segment)
        if not self._reach or found is None or found.likeness.unlike:
            return None
        small = found.small or (reduced(look(self._keyframes[segment]), arcs.SIDE),) * 2
        return arcs.leg_of(found.motion, small[0], small[1], self._frames[segment])

    def _near(self, segment: int) -> range:
        return range(max(0, segment - self._reach), min(len(self._frames), segment + self._reach + 1))

    def _stage_key(self, segment: int) -> Hashable:
        near = self._near(segment)
        names = tuple(self._name(k) for k in range(near[0], near[-1] + 2))
        # Only the shares of the segments' durations shape an arc.
        shares = tuple(self._frames[k] / self._frames[segment] for k in near)
        return "stage", self._quick, segment - near[0], names, shares

    def _match_key(self, segment: int) -> Hashable:
        return "match", self._quick, self._name(segment), self._name(segment + 1)

    def _name(self, keyframe: int) -> str:
        if keyframe not in self._names:
            self._names[keyframe] = _digest(self._keyframes[keyframe])
        return self._names[keyframe]


def _digest(picture: Picture) -> str:
    pixels = np.ascontiguousarray(picture.pixels)
    head = f"{pixels.dtype} {pixels.shape} {picture.colour}"
    return hashlib.sha256(head.encode() + b"\n" + pixels.tobytes()).hexdigest()
