"""The Engine protocol: what every way to make in-betweens looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from keytween.images import Picture
from keytween_wire.messages import EngineInfo, MorphRequest


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the engine is: a phase in the artist's words, and a step of so many."""

    phase: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A finished drawing: `index` counts through all segments of the request in order.

    `note` is a sentence that the report should show, where the engine has something to say.
    """

    index: int
    picture: Picture
    note: str = ""


class Engine(Protocol):
    """Makes in-betweens from keyframes.

    `morph` is a generator: it yields Progress and Frame, knows no files, sockets, jobs or bars, and is
    cancelled by `close()`. Indices in `skip` are finished already and must not be computed.
    """

    info: EngineInfo

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position of `request.positions` that is not in `skip`."""
        ...


@runtime_checkable
class Frugal(Protocol):
    """An engine that can make do with less memory, at a price in time."""

    def make_do(self, lean: int) -> None:
        """Told before each request: 0 is as usual, more is as little memory as there is a way to."""
        ...
