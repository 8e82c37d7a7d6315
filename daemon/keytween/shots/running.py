"""A whole batch: which shots there are to make, what is wrong with the others, and the making of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from keytween.placing import place
from keytween.shots import estimate
from keytween.shots.planning import Planned, check_places, prepare
from keytween.shots.pool import FAILED, PROGRESS, PULSE, UNCHANGED, Event
from keytween.shots.reading import matching
from keytween.shots.records import DONE, Record, Shelf, here
from keytween.shots.shot import Batch, Fault, Shot
from keytween.shots.unit import is_done, note_death
from keytween.shots.wishes import take
from keytween_wire.errors import KeytweenError, OutputUnwritable

if TYPE_CHECKING:
    from keytween.config import Config

NEW, CHANGED, INTERRUPTED, UNUSABLE, LEFT_OUT = "new", "changed", "interrupted", "cannot", "left out"
SAY_EVERY = 1.0
"""Seconds between two versions of the file that says how far the batch is."""

Executor = Callable[[Sequence[Shot]], Iterator[Event]]
"""Makes shots and tells of it; every shot ends in one event that is not PROGRESS or BUSY."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which shots are asked for, by names or patterns, and which come first."""

    only: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    skip_done: bool = False
    retry_failed: bool = False
    fresh: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A shot of the plan: where it stands, what it needs, what is wrong with it, and how long it may take."""

    shot: str
    state: str
    planned: Planned | None = None
    error: KeytweenError | None = None
    seconds: float | None = None

    @property
    def to_make(self) -> bool:
        """Whether the shot is going to be made."""
        return self.planned is not None and self.error is None and self.state not in (DONE, LEFT_OUT)


@dataclass(slots=True)
class Summary:
    """How a batch ended."""

    batch: Batch
    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[Fault] = field(default_factory=list)
    seconds: float = 0.0


def lay_out(batch: Batch, config: Config, choice: Choice) -> list[Line]:
    """The plan: every shot that is asked for, in the order of making. Raises UnknownShot."""
    asked = matching(batch, choice.only) if choice.only else None
    first = matching(batch, choice.first) if choice.first else set()
    records = {shot.id: Shelf(batch.results, shot.id).load() or {} for shot in batch.shots}
    known = estimate.rates(records.values())
    lines = [Line(fault.shot, UNUSABLE, error=fault.error) for fault in batch.faults]
    ordered = sorted(batch.shots, key=lambda shot: (shot.id not in first, -shot.priority))
    lines += [_line(batch, shot, records[shot.id], config, choice, known) for shot in ordered]
    return [line for line in lines if asked is None or line.shot in asked]


def _line(
    batch: Batch, shot: Shot, record: Record, config: Config, choice: Choice, known: dict[str, float]
) -> Line:
    state = record.get("state", NEW)
    if choice.retry_failed and state != FAILED:
        return Line(shot.id, LEFT_OUT)
    if choice.skip_done and state == DONE and not choice.fresh:
        return Line(shot.id, LEFT_OUT)
    try:
        planned = prepare(shot, batch.output, config, known=record.get("keyframes", ()))
        if not choice.fresh and is_done(record, planned):
            return Line(shot.id, DONE, planned)
        check_places(planned, Shelf(batch.results, shot.id), overwrite=choice.overwrite)
    except KeytweenError as error:
        return Line(shot.id, UNUSABLE, error=error)
    if state == DONE:
        state = CHANGED
    elif state == "running":
        state = INTERRUPTED
    return Line(shot.id, state, planned, seconds=estimate.seconds(planned, known))


def carry_out(batch: Batch, lines: Sequence[Line], executor: Executor) -> Iterator[Event | Summary]:
    """Makes what the plan says, tells of everything that happens, and ends with the summary.

    Raises OutputUnwritable where the folder of results cannot be made.
    """
    began = time.time()
    summary = Summary(batch)
    known = {shot.id for shot in batch.shots}
    for line in lines:
        if line.error is not None:
            summary.failed.append(Fault(line.shot, line.error))
            if line.shot in known:
                note_death(Shelf(batch.results, line.shot), line.shot, line.error, began)
            yield Event(FAILED, line.shot, error=line.error)
        elif line.state == DONE:
            summary.unchanged.append(line.shot)
    take(batch.results)
    shots = [line.planned.shot for line in lines if line.to_make and line.planned]
    board = _Board(batch, len(lines), _states(lines), began)
    if shots:
        _make_folder(batch.results)
        for event in executor(shots):
            if event.kind != PULSE:
                _sort_in(summary, event)
                board.heard(event)
                yield event
            board.say_now_and_then()
    board.say()
    take(batch.results)
    summary.seconds = time.time() - began
    yield summary


def _states(lines: Sequence[Line]) -> dict[str, str]:
    """Where each shot of the plan stands before anything is made."""
    told = {DONE: UNCHANGED, LEFT_OUT: LEFT_OUT}
    return {line.shot: FAILED if line.error else told.get(line.state, "waiting") for line in lines}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error


def _sort_in(summary: Summary, event: Event) -> None:
    if event.kind in (DONE, UNCHANGED, FAILED):
        # It may have failed before, and been tried again by whoever watches.
        summary.failed = [fault for fault in summary.failed if fault.shot != event.shot]
    if event.kind == DONE:
        summary.done.append(event.shot)
    elif event.kind == UNCHANGED:
        summary.unchanged.append(event.shot)
    elif event.kind == FAILED and event.error is not None:
        summary.failed.append(Fault(event.shot, event.error))


@dataclass(slots=True)
class _Board:
    """A file that says how far the batch is, for `keytween top` and for whoever looks."""

    batch: Batch
    total: int
    states: dict[str, str]
    began: float
    shares: dict[str, tuple[float, str]] = field(default_factory=dict)
    said: float = 0.0
    news: bool = True

    def heard(self, event: Event) -> None:
        """Takes an event in."""
        self.states[event.shot] = "running" if event.kind == PROGRESS else event.kind
        self.shares[event.shot] = (round(event.share, 3), event.phase)
        if event.kind != PROGRESS:
            del self.shares[event.shot]
        self.news = True

    def say_now_and_then(self) -> None:
        """Writes the file when there is news, at most once a second."""
        if self.news and time.time() - self.said >= SAY_EVERY:
            self.say()

    def say(self) -> None:
        """Writes the file; a full disk does not end the batch."""
        self.said, self.news = time.time(), False
        shares = {shot: {"share": share, "phase": phase} for shot, (share, phase) in self.shares.items()}
        whole = {
            "source": str(self.batch.source),
            "shots": self.total,
            "states": self.states,
            "running": shares,
            "started": self.began,
            "updated": self.said,
            **here(),
        }
        with suppress(OSError):
            place(json.dumps(whole).encode(), board_file(self.batch.output))


def board_file(output: Path) -> Path:
    """Where a batch says how far it is."""
    return output / "batch.json"


def room_needed(lines: Sequence[Line]) -> int:
    """Bytes that the frames may take, judged by their keyframes' files; films and sheets not counted."""
    total = 0
    for line in lines:
        if line.to_make and line.planned:
            sizes = [source.bytes for source in line.planned.sources]
            total += int(sum(sizes) / len(sizes) * line.planned.request.total)
    return total


def room_left(output: Path) -> int:
    """Bytes that are free where the output goes."""
    import shutil

    nearest = next(path for path in (output, *output.parents) if os.path.exists(path))
    return shutil.disk_usage(nearest).free
