"""From keyframes, exposure and easing to what each timeline frame shows. Pure, integer frames only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from keytween_wire.easing import LINEAR, Curve
from keytween_wire.errors import BadSetting, NoRoomBetween, TooFewKeyframes

MOST_DRIFT = 0.5
"""A hold that drifts further than that is no hold."""
SAME_POSITION = 1e-6
"""Positions closer than this are one drawing: an eye, and 16 bits of colour, cannot tell them apart."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """An image's place in time.

    `frame` is the timeline frame where it starts, `hold` how many frames it is held before the change
    begins (1: no hold), `easing` the curve of the segment that leaves it, `exposure` that segment's
    exposure where it differs from the plan's. `drift` (0..MOST_DRIFT) makes the hold a moving hold: its last
    frame stands at that position already. Nothing leaves the last keyframe: its four are not used.
    """

    frame: int
    hold: int = 1
    easing: Curve = LINEAR
    exposure: int | None = None
    drift: float = 0.0

    @property
    def leaves(self) -> int:
        """The last frame of the hold: position 0 of the segment that follows."""
        return self.frame + self.hold - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """The stretch between two keyframes: position `drift` is at frame `start`, position 1 at frame `end`.

    Before it lies the hold of `hold` frames, `start` the last of them; without a moving hold `drift` is 0.
    """

    index: int
    start: int
    end: int
    easing: Curve
    exposure: int
    hold: int = 1
    drift: float = 0.0

    @property
    def duration(self) -> int:
        """Frames from the first keyframe's last to the second keyframe's first."""
        return self.end - self.start

    def position_at(self, step: float) -> float:
        """The eased position at a share (0..1) of the segment's duration; may overshoot 0..1."""
        return self.drift + (1.0 - self.drift) * self.easing(step, duration=self.duration)

    def held_at(self, frame: int) -> float:
        """The position at a frame of the hold, counted from its first, which is the keyframe itself.

        The drift is even, and its drawings are held as the segment's are.
        """
        if self.hold < 2:
            return 0.0
        return self.drift * (frame - frame % self.exposure) / (self.hold - 1)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One in-between: a position in a segment. Overshooting easings leave 0..1."""

    segment: int
    position: float


@dataclass(frozen=True, slots=True)
class Cel:
    """What one timeline frame shows: a keyframe or a drawing, by index; exactly one is set."""

    keyframe: int | None = None
    drawing: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw, and what each timeline frame shows.

    `cels[i]` belongs to timeline frame `first_frame + i`; the last one is the last keyframe. It is
    shown only there, unless an easing reaches it early, as bounces do.
    """

    first_frame: int
    drawings: tuple[Drawing, ...]
    cels: tuple[Cel, ...]

    @property
    def last_frame(self) -> int:
        """The timeline frame of the last keyframe."""
        return self.first_frame + len(self.cels) - 1

    def positions(self, segments: int) -> tuple[tuple[float, ...], ...]:
        """The drawings' positions, one tuple per segment, in timeline order (MorphRequest's form)."""
        found: list[list[float]] = [[] for _ in range(segments)]
        for drawing in self.drawings:
            found[drawing.segment].append(drawing.position)
        return tuple(map(tuple, found))


def segments(keyframes: Sequence[Keyframe], *, exposure: int = 1) -> tuple[Segment, ...]:
    """The segments between keyframes in time order.

    Raises TooFewKeyframes, NoRoomBetween (no frame between two keyframes) or BadSetting.
    """
    if len(keyframes) < 2:
        raise TooFewKeyframes(count=len(keyframes))
    _check(exposure=exposure)
    for keyframe in keyframes:
        _check_drift(keyframe.drift)
        _check(hold=keyframe.hold, exposure=exposure if keyframe.exposure is None else keyframe.exposure)
    found: list[Segment] = []
    for index, (left, right) in enumerate(pairwise(keyframes)):
        if right.frame - left.leaves < 2:
            raise NoRoomBetween(first=index + 1, second=index + 2)
        drift = left.drift if left.hold > 1 else 0.0
        held = left.exposure or exposure
        found.append(Segment(index, left.leaves, right.frame, left.easing, held, left.hold, drift))
    return tuple(found)


def plan(keyframes: Sequence[Keyframe], *, exposure: int = 1, count: int | None = None) -> Plan:
    """Positions and exposure for every timeline frame from the first keyframe to the last.

    `exposure` holds each drawing for so many frames, counted from the keyframe that the segment leaves;
    a remainder shortens the last drawing. `count` asks instead for so many drawings in each segment,
    spread evenly (fewer where the segment has fewer frames). Drawings whose eased positions coincide
    are one drawing; those that coincide with a keyframe are that keyframe.
    """
    if count is not None and count < 0:
        raise BadSetting(name="in-betweens", value=count, detail="it must be 0 or more")
    drawings: list[Drawing] = []
    cels: list[Cel] = []
    for segment in segments(keyframes, exposure=exposure):
        shown = _Shown(segment.index)
        held = (segment.held_at(frame) for frame in range(segment.hold - 1))
        for position in (*held, *(segment.position_at(step) for step in _steps(segment, count))):
            cel = shown.at(position)
            if cel is None:
                cel = shown.add(position, Cel(drawing=len(drawings)))
                drawings.append(Drawing(segment.index, position))
            cels.append(cel)
    cels.append(Cel(keyframe=len(keyframes) - 1))
    return Plan(keyframes[0].frame, tuple(drawings), tuple(cels))


def spaced(number: int, *, in_betweens: int, exposure: int = 1, first: int = 1) -> tuple[Keyframe, ...]:
    """Keyframes so far apart that `in_betweens` drawings of `exposure` frames fit between neighbours.

    Give `plan` the same exposure. Raises BadSetting when there is nothing to draw.
    """
    _check(in_betweens=in_betweens, exposure=exposure)
    stride = (in_betweens + 1) * exposure
    return tuple(Keyframe(first + i * stride) for i in range(number))


def _steps(segment: Segment, count: int | None) -> list[float]:
    """For each frame of the segment, the share of its duration at which its drawing stands."""
    frames = range(segment.duration)
    if count is None:
        return [(f - f % segment.exposure) / segment.duration for f in frames]
    slots = min(count + 1, segment.duration)
    return [(f * slots // segment.duration) / slots for f in frames]


class _Shown:
    """The cels of one segment by position, found in a few steps however many there are."""

    def __init__(self, segment: int) -> None:
        self._slots: dict[int, tuple[float, Cel]] = {}
        self.add(0.0, Cel(keyframe=segment))
        self.add(1.0, Cel(keyframe=segment + 1))

    def add(self, position: float, cel: Cel) -> Cel:
        """Keeps a cel that `at` does not find yet."""
        self._slots[self._slot(position)] = (position, cel)
        return cel

    def at(self, position: float) -> Cel | None:
        """The cel that shows this position, to within SAME_POSITION."""
        slot = self._slot(position)
        near = (self._slots[s] for s in (slot - 1, slot, slot + 1) if s in self._slots)
        return next((cel for known, cel in near if abs(known - position) < SAME_POSITION), None)

    @staticmethod
    def _slot(position: float) -> int:
        """Slots are as wide as SAME_POSITION, so that one holds at most one cel."""
        return math.floor(position / SAME_POSITION)


def _check_drift(drift: float) -> None:
    if not 0.0 <= drift <= MOST_DRIFT:
        raise BadSetting(name="moving hold", value=drift, detail=f"it must lie in 0..{MOST_DRIFT}")


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise BadSetting(name=name.replace("_", "-"), value=value, detail="it must be 1 or more")
