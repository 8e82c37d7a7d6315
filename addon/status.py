# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels draw from: the link, the jobs as this Blender sees them, and the ticks' times."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from keytween_wire.errors import KeytweenError, from_wire
from keytween_wire.messages import CheckpointInfo, Diffusion, EngineInfo, JobState, PresetInfo, Submit

from . import insert
from .drawings import Shelf
from .link import Link
from .memory import Record, Tween, wanted

DIFFMORPHER = "diffmorpher"
"""The one engine whose own settings the panel has."""
MOVING = frozenset({"auto", "flow"})
"""The engines that may know what moves where, and so can lead it along an arc."""

SLOW = frozenset({DIFFMORPHER})
"""The engines that are worth a draft."""

ENGINES = (
    EngineInfo("flow", "Optical flow on the processor: fast, needs no download"),
    EngineInfo("dissolve", "A plain cross-fade, for comparison"),
    EngineInfo(DIFFMORPHER, "Morphs what the pictures show, with a diffusion checkpoint from a folder"),
    EngineInfo("auto", "The best engine that can run"),
)
PRESETS = tuple(
    PresetInfo(name, summary, Diffusion(**Diffusion.PRESETS[name]))
    for name, summary in (
        ("final", "For the result: a true inversion and an even pace"),
        ("draft", "A first look, at about half the work"),
        ("paper", "As the method was published, for comparison; the slowest"),
    )
)
"""What the panel offers until a daemon says what it has."""


@dataclass(slots=True)
class JobView:
    """A job as this Blender sees it. The daemon's store is its owner; this is what panels draw.

    A strip may have several: the one that made it, and those for drawings that it lacked later.
    """

    job_id: str
    label: str
    strip_id: str
    """The tween that it draws for; its first job has the same id."""
    folder: Path
    looks: tuple[str, ...] = ()
    """The look of each of the job's segments."""
    positions: tuple[tuple[float, ...], ...] = ()
    draft: bool = False
    """Whether it makes drawings that better ones will replace."""
    state: JobState = JobState.QUEUED
    phase: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float = -1.0
    number: int = 0
    error: KeytweenError | None = None
    asked_again: bool = False
    """Whether the frames that were missing at the end have been asked for once more."""
    files: dict[int, str] = field(default_factory=dict[int, str])
    submission: tuple[Submit, tuple[bytes, ...]] | None = None
    """Kept until the daemon has it, so that one that dies before can be asked again."""
    places: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Scene and name of its strips; checked at every use."""

    @property
    def total(self) -> int:
        """How many drawings there will be."""
        return sum(map(len, self.positions))

    @property
    def factor(self) -> float:
        """How much is done, 0..1: whole drawings, and the step of the phase while there is none."""
        if self.files or not self.steps:
            return len(self.files) / self.total if self.total else 1.0
        return min(self.step / self.steps, 1.0)

    @property
    def asked(self) -> tuple[tuple[int, float], ...]:
        """Segment and position of each drawing, in the order that events count."""
        return tuple(wanted(self.positions))

    @property
    def record(self) -> Record:
        """What the strip remembers of it."""
        return Record(
            self.job_id,
            self.looks,
            self.positions,
            self.draft,
            self.number,
            self.state.value,
            error_to(self.error) if self.error else "",
        )

    def look_through(self, shelf: Shelf) -> None:
        """Counts the drawings of the job that lie on a shelf."""
        found = {
            index: shelf.exact(self.looks[segment], position)
            for index, (segment, position) in enumerate(self.asked)
        }
        self.files = {index: name for index, name in found.items() if name}


@dataclass(slots=True)
class Status:
    """All that panels show, and how long the ticks took."""

    link: Link = field(default_factory=Link)
    jobs: dict[str, JobView] = field(default_factory=dict[str, JobView])
    engines: tuple[EngineInfo, ...] = ENGINES
    shelves: dict[Path, Shelf] = field(default_factory=dict[Path, Shelf])
    """The drawings in the folders of the strips that have jobs."""
    rendering: bool = False
    news: bool = False
    refreshed: float = 0.0
    tidied: float = 0.0
    drew: bool = False
    drawing_s: float = 0.0
    left: float = 0.0
    ticking: bool = False
    ticks: int = 0
    tick_last_ms: float = 0.0
    tick_max_ms: float = 0.0

    @property
    def presets(self) -> tuple[PresetInfo, ...]:
        """The presets of DiffMorpher: the daemon's, or those that this version knows."""
        return (self.link.welcome.presets if self.link.welcome else ()) or PRESETS

    @property
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """The checkpoints that the daemon knows by name."""
        return self.link.welcome.checkpoints if self.link.welcome else ()

    def shelf(self, folder: Path) -> Shelf:
        """What lies in a folder: looked up once, kept up to date by whoever adds to it."""
        if folder not in self.shelves:
            self.shelves[folder] = Shelf.of(folder)
        return self.shelves[folder]


def views_of(strip: bpy.types.Strip) -> list[JobView]:
    """The jobs that a strip remembers."""
    tween = Tween.from_json(strip[insert.TWEEN])
    folder = insert.folder_of(strip)
    return [view_of(record, tween, folder) for record in Record.list_from(strip.get(insert.JOBS, ""))]


def view_of(record: Record, tween: Tween, folder: Path) -> JobView:
    """A job as its strip remembers it."""
    label = f"{tween.label} (draft)" if record.draft else tween.label
    view = JobView(
        record.job_id, label, tween.job_id, folder, record.looks, record.positions, draft=record.draft
    )
    view.state, view.number = JobState(record.state), record.since
    view.error = error_from(record.error)
    return view


def error_to(error: KeytweenError) -> str:
    """An error as text for a property."""
    return json.dumps({"code": error.code, "values": error.values})


def error_from(text: str) -> KeytweenError | None:
    """The error in such a text."""
    if not text:
        return None
    values = json.loads(text)
    return from_wire(values["code"], values["values"])
