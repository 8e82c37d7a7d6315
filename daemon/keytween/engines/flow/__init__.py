"""Optical flow: the embedded engine. It finds where each part of a drawing went, and moves it there.

`coarse` tries every displacement on small pictures, on all colour channels at once: flat-coloured drawings
give a tracker of brightness alone too little to hold on to. `matching` corrects that at finer sizes and says
how far to trust it. `drawing` throws the motion forward to a position, so that what moves in front covers
what it passes, and fetches every pixel from the keyframes at their full depth. cv2 is used in this folder
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keytween.engines import FLOW
from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import dissolve, premultiplied, template, with_channels
from keytween.engines.flow import arcs
from keytween.engines.flow.arcs import Leg
from keytween.engines.flow.drawing import Stage
from keytween.engines.flow.matching import Motion, match
from keytween.images import Picture, as_float
from keytween_wire.messages import Colour, EngineInfo, MorphRequest

Array = NDArray[np.float32]

MIDDLE_GREY = np.float32(0.5)


class Flow:
    """Moves the drawing from each keyframe to the next."""

    info: EngineInfo = FLOW

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position that is not in `skip`; a pair is matched once for all of them."""
        index = 0
        pairs = _Pairs(request, keyframes)
        for segment, positions in enumerate(request.positions):
            wanted = [(index + i, p) for i, p in enumerate(positions) if index + i not in skip]
            index += len(positions)
            if wanted:
                for pair in pairs.missing(segment):
                    yield Progress("matching", pair + 1, len(request.positions))
                    pairs.match(pair)
                yield from _segment(pairs, segment, wanted, total=request.total)


class _Pairs:
    """The matches of neighbouring keyframes, each made once; those that lie behind are forgotten."""

    def __init__(self, request: MorphRequest, keyframes: Sequence[Picture]) -> None:
        self.keyframes = keyframes
        self._frames = arcs.durations([image.frame for image in request.keyframes])
        self._arc = request.path == "arc"
        self._motions: dict[int, Motion | None] = {}
        self._legs: dict[int, Leg | None] = {}

    def missing(self, segment: int) -> list[int]:
        """What must be matched for a segment: itself, and for an arc its neighbours."""
        reach = 1 if self._arc else 0
        near = range(max(0, segment - reach), min(len(self._frames), segment + reach + 1))
        self._motions = {k: m for k, m in self._motions.items() if k in near}
        self._legs = {k: leg for k, leg in self._legs.items() if k in near}
        return [k for k in near if k not in self._motions]

    def match(self, segment: int) -> None:
        """Matches a pair; with an arc, also keeps what its neighbours need of it."""
        first, second = self.keyframes[segment : segment + 2]
        still = first.pixels.dtype == second.pixels.dtype and np.array_equal(first.pixels, second.pixels)
        if still and not self._arc:
            self._motions[segment] = None
            return
        seen = look(first), look(second)
        motion = self._motions[segment] = None if still else match(seen[0], seen[1])
        if self._arc and (still or motion is not None):
            self._legs[segment] = arcs.leg_of(motion, seen[0], seen[1], self._frames[segment])

    def stage(self, segment: int) -> Stage | None:
        """The pair, ready to draw; None where nothing moves or nothing corresponds."""
        motion = self._motions[segment]
        if motion is None:
            return None
        first, second = self.keyframes[segment : segment + 2]
        channels = max(first.pixels.shape[2], second.pixels.shape[2])
        ends = [premultiplied(with_channels(as_float(p), channels)) for p in (first, second)]
        whole_numbers = first.pixels.dtype.kind == second.pixels.dtype.kind == "u"
        leg = self._legs.get(segment)
        around = self._legs.get(segment - 1), self._legs.get(segment + 1)
        path = None if leg is None else arcs.arc(around[0], leg, around[1], motion.layers)
        return Stage(motion, *ends, bounded=whole_numbers, path=path)


def _segment(
    pairs: _Pairs, segment: int, wanted: Sequence[tuple[int, float]], *, total: int
) -> Iterator[Progress | Frame]:
    first, second = pairs.keyframes[segment : segment + 2]
    stage = None
    try:
        stage = pairs.stage(segment)
        for index, position in wanted:
            yield Progress("drawing", index + 1, total)
            yield Frame(index, _picture(stage, first, second, position))
    finally:
        del stage


def _picture(stage: Stage | None, first: Picture, second: Picture, position: float) -> Picture:
    if position in (0, 1):
        return second if position else first
    if stage is None:
        return dissolve(first, second, position)
    return stage.draw(position, template(first, second))


def look(picture: Picture) -> Array:
    """What the matcher sees: (H, W, 4) in 0..1, display colour over middle grey, and the matte.

    On a middle ground both dark and light shapes have an edge; the matte is one more channel to match.
    """
    pixels = with_channels(np.nan_to_num(as_float(picture)), 4)
    colour, matte = pixels[..., :3], np.clip(pixels[..., 3:], 0, 1)
    if picture.colour is Colour.SCENE_LINEAR:
        bright = np.maximum(colour, 0)
        colour = (bright / (1 + bright)) ** np.float32(1 / 2.2)
    shown = np.clip(colour, 0, 1) * matte + MIDDLE_GREY * (1 - matte)
    return np.concatenate([shown, matte], axis=2, dtype=np.float32)
