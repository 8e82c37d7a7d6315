"""One engine drawing one scene: what it made, what it should have made, and how long it took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from keytween.bench.measures import Drawn, Perceptual, quality
from keytween.bench.rivals import open_contender
from keytween.bench.scenes import Scene
from keytween.engines.base import Engine, Frame
from keytween.images import Picture
from keytween_wire.errors import EngineUnavailable, KeytweenError
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest

EIGHTHS = tuple(k / 8 for k in range(1, 8))
QUARTERS = (0.25, 0.5, 0.75)
BESIDE = (1 / 1024, 1 - 1 / 1024)
"""Just beside the keyframes, where nothing may have changed yet."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A scene's pictures at the positions where it is known; drawn once for all engines."""

    scene: Scene
    pictures: dict[float, Picture]
    compared: tuple[float, ...]

    @classmethod
    def of(cls, scene: Scene) -> Truth:
        """The truth at both ends and in between: every eighth, or wherever it is known."""
        between = scene.known or EIGHTHS
        pictures = {position: scene.draw(position) for position in (0.0, *between, 1.0)}
        nearest = {min(between, key=lambda p, at=quarter: abs(p - at)) for quarter in QUARTERS}
        return cls(scene, pictures, tuple(sorted(nearest)))


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a trial: everything but the pictures."""

    engine: str
    scene: str
    group: str
    textured: bool
    figures: dict[str, float | None]
    notes: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one engine and one scene.

    `figures` holds a figure by its measure's key, None where it could not be measured; `made` what was
    drawn, by position. `trouble` is the sentence that says why there is neither.
    """

    engine: str
    truth: Truth
    figures: dict[str, float | None] = field(default_factory=dict)
    made: dict[float, Picture] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def record(self) -> Record:
        """The trial without its pictures."""
        scene = self.truth.scene
        return Record(
            self.engine, scene.name, scene.group, scene.textured, self.figures, self.notes, self.trouble
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What is drawn next, in the artist's words, and how many trials are done of how many."""

    phase: str
    done: int
    total: int


def trials(
    scenes: Sequence[Scene],
    names: Sequence[str],
    *,
    perceptual: Perceptual | None = None,
    diffusion: Diffusion | None = None,
) -> Iterator[Step | Trial]:
    """Every engine on every scene, a scene at a time, each Trial after the Step that announces it.

    An engine that cannot run says why in its trials. Raises UnknownEngine before anything is drawn.
    """
    contenders = {name: _opened(name) for name in names}
    total = len(scenes) * len(names)
    for number, scene in enumerate(scenes):
        truth = Truth.of(scene)
        for place, (name, engine) in enumerate(contenders.items()):
            yield Step(f"{scene.name}: {name}", number * len(names) + place, total)
            if isinstance(engine, str):
                yield Trial(name, truth, trouble=engine)
            else:
                yield _tried(engine, name, truth, perceptual=perceptual, diffusion=diffusion)


def _opened(name: str) -> Engine | str:
    """The engine, or the sentence that says why it cannot run here."""
    try:
        return open_contender(name)
    except EngineUnavailable as error:
        return str(error.values["detail"])


def _tried(
    engine: Engine, name: str, truth: Truth, *, perceptual: Perceptual | None, diffusion: Diffusion | None
) -> Trial:
    """The trial of one engine on one scene, measured."""
    try:
        trial = draw(engine, name, truth, diffusion=diffusion)
    except KeytweenError as error:
        return Trial(name, truth, trouble=error.message)
    found = quality(Drawn(trial.made, truth.pictures, truth.compared), perceptual=perceptual)
    return replace(trial, figures={**found, **trial.figures})


def draw(engine: Engine, name: str, truth: Truth, *, diffusion: Diffusion | None = None) -> Trial:
    """What an engine draws at every position where the truth is known, and beside the ends; timed only."""
    positions = (*BESIDE, *(p for p in truth.pictures if 0 < p < 1))
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    request = MorphRequest(ends, (positions,), engine=name, diffusion=diffusion or Diffusion())
    made: dict[float, Picture] = {}
    notes: dict[str, None] = {}
    spent: list[float] = []
    asked = time.perf_counter()
    with closing(engine.morph(request, (truth.pictures[0.0], truth.pictures[1.0]))) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Frame):
                spent.append(time.perf_counter() - asked)
                made[positions[event.index]] = event.picture
                notes.update({event.note: None} if event.note else {})
                asked = time.perf_counter()
    figures: dict[str, float | None] = {
        "first_ms": spent[0] * 1e3,
        "next_ms": statistics.median(spent[1:]) * 1e3,
    }
    return Trial(name, truth, figures, made, tuple(notes))
