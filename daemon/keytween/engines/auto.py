"""`auto`: `flow` moves what both keyframes show, `diffmorpher` turns one thing into another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keytween.engines import DIFFMORPHER, FLOW, open_engine, reason_against
from keytween.engines.base import Engine, Frame, Frugal, Progress
from keytween.engines.flow import Flow
from keytween.images import Picture
from keytween_wire.messages import EngineInfo, MorphRequest

LIKE = 0.25
"""The share of a drawing that must be found again for it to move; measured in docs/diffmorpher.md."""


@dataclass(slots=True)
class _Shares:
    """Which indices each engine draws, and what to say with a segment's first drawing."""

    moved: set[int] = field(default_factory=set[int])
    redrawn: set[int] = field(default_factory=set[int])
    said: dict[int, str] = field(default_factory=dict[int, str])


class Auto:
    """Draws as `flow`; where a checkpoint is named and two keyframes are unlike, as `diffmorpher`."""

    info: EngineInfo = FLOW

    def __init__(self, *, fits: Path | None = None) -> None:
        self._fits = fits
        self._flow = Flow()
        self._morpher: Engine | None = None
        self._lean = 0

    def make_do(self, lean: int) -> None:
        """Passes on how much memory the engine that redraws may take."""
        self._lean = lean
        if isinstance(self._morpher, Frugal):
            self._morpher.make_do(lean)

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position that is not in `skip`: what moves first, then what is redrawn.

        Raises what `diffmorpher` raises where it is needed.
        """
        if not request.diffusion.checkpoint:
            yield from self._flow.morph(request, keyframes, skip=skip)
            return
        shares = _Shares()
        for segment, indices in _segments(request):
            if indices - skip:
                yield Progress("comparing the keyframes", segment + 1, len(request.positions))
                self._share_out(shares, request, keyframes, segment, indices - skip)
        if shares.moved:
            left = frozenset(range(request.total)) - shares.moved
            yield from _saying(self._flow.morph(request, keyframes, skip=left), shares.said)
        if shares.redrawn:
            left = frozenset(range(request.total)) - shares.redrawn
            made = self._opened().morph(_within(request), keyframes, skip=left)
            yield from _saying(made, shares.said)

    def _share_out(
        self,
        shares: _Shares,
        request: MorphRequest,
        keyframes: Sequence[Picture],
        segment: int,
        indices: set[int],
    ) -> None:
        alike = self._flow.alike(request, keyframes, segment)
        numbers, share = f"{segment + 1} and {segment + 2}", f"{100 * alike.found:.0f} %"
        nothing_to_morph = alike.same or alike.small or any(alike.blank)
        if nothing_to_morph or alike.found >= LIKE:
            shares.moved |= indices
            return
        lacking = reason_against(DIFFMORPHER)
        if lacking:
            shares.moved |= indices
            said = f"`diffmorpher` would redraw what lies between keyframes {numbers}, but {lacking}."
        else:
            shares.redrawn |= indices
            said = (
                f"Between keyframes {numbers}, {share} of the drawing was found again, too little to move: "
                "`diffmorpher` redraws it."
            )
        shares.said[min(indices)] = said

    def _opened(self) -> Engine:
        if self._morpher is None:
            self._morpher = open_engine(DIFFMORPHER.name, fits=self._fits)
            self.make_do(self._lean)
        return self._morpher


def _segments(request: MorphRequest) -> Iterator[tuple[int, set[int]]]:
    first = 0
    for segment, positions in enumerate(request.positions):
        yield segment, set(range(first, first + len(positions)))
        first += len(positions)


def _within(request: MorphRequest) -> MorphRequest:
    """For the engine that cannot overshoot, the keyframe is as far as it goes."""
    held = tuple(tuple(min(1.0, max(0.0, p)) for p in segment) for segment in request.positions)
    return replace(request, positions=held)


def _saying(made: Iterator[Progress | Frame], said: dict[int, str]) -> Iterator[Progress | Frame]:
    """Adds to an engine's notes why it draws."""
    for event in made:
        if isinstance(event, Frame) and event.index in said:
            event = replace(event, note=" ".join(filter(None, (said[event.index], event.note))))
        yield event
