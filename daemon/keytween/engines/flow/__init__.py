"""Optical flow: the embedded engine. It finds where each part of a drawing went, and moves it there.

`coarse` tries every displacement on small pictures, on all colour channels at once: flat-coloured drawings
give a tracker of brightness alone too little to hold on to. `matching` corrects that at finer sizes and says
how far to trust it. `drawing` throws the motion forward to a position, so that what moves in front covers
what it passes, and fetches every pixel from the keyframes at their full depth. `likeness` says what two
keyframes have in common; where that is too little, they fade. cv2 is used in this folder
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keytween.engines import FLOW
from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import dissolve, template
from keytween.engines.flow.drawing import Stage
from keytween.engines.flow.keeping import Kept
from keytween.engines.flow.likeness import Likeness
from keytween.engines.flow.pairs import Pairs
from keytween.images import Picture
from keytween_wire.messages import EngineInfo, MorphRequest


class Flow:
    """Moves the drawing from each keyframe to the next; the pairs of keyframes met lately stay known."""

    info: EngineInfo = FLOW

    def __init__(self) -> None:
        self._kept = Kept()

    def alike(self, request: MorphRequest, keyframes: Sequence[Picture], segment: int) -> Likeness:
        """What a segment's keyframes have in common; they are matched for it, and stay known."""
        pairs = Pairs(request, keyframes, self._kept)
        for missing in pairs.missing(segment):
            pairs.match(missing)
        return pairs.ready(segment).likeness

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position that is not in `skip`; a pair is matched once for all of them."""
        index = 0
        pairs = Pairs(request, keyframes, self._kept)
        for segment, positions in enumerate(request.positions):
            wanted = [(index + i, p) for i, p in enumerate(positions) if index + i not in skip]
            index += len(positions)
            if wanted:
                for missing in pairs.missing(segment):
                    yield Progress("matching", missing + 1, len(request.positions))
                    pairs.match(missing)
                pair = pairs.ready(segment)
                first, second = keyframes[segment : segment + 2]
                note = pair.likeness.note(segment + 1)
                for index_of, position in wanted:
                    yield Progress("drawing", index_of + 1, request.total)
                    yield Frame(index_of, _picture(pair.stage, first, second, position), note)
                    # Once is enough.
                    note = ""


def _picture(stage: Stage | None, first: Picture, second: Picture, position: float) -> Picture:
    if position in (0, 1):
        return second if position else first
    if stage is None:
        return dissolve(first, second, position)
    return stage.draw(position, template(first, second))
