"""One contender morphing one pair: drawn, timed, measured, and kept so that a long bench can go on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keytween import engines
from keytween.bench.ladder import Contender
from keytween.bench.pairs import Pair
from keytween.bench.sequence import Drawings, Gauge, measured
from keytween.bench.trial import Record
from keytween.engines.base import Engine, Frame, Progress
from keytween.images import Picture
from keytween.report import strip
from keytween_wire import __version__
from keytween_wire.errors import KeytweenError
from keytween_wire.messages import KeyframeImage, MorphRequest

STUDY = ("studying the keyframes", "inverting the keyframes")
"""The phases of `diffmorpher` whose work is kept for the next time."""
CELL, QUALITY = 96, 70


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a contender and a pair: its figures, its steps by each distance, a row of its drawings."""

    record: Record
    steps: dict[str, tuple[float, ...]]
    row: bytes = b""


@dataclass(frozen=True, slots=True)
class Known:
    """A pair's keyframes and its truth at the positions where there is any; drawn once for all contenders."""

    pair: Pair
    positions: tuple[float, ...]
    keyframes: tuple[Picture, Picture]
    truth: tuple[Picture | None, ...]

    @classmethod
    def of(cls, pair: Pair, count: int) -> Known:
        """What is known at `count` positions that are equally far apart, both ends included."""
        positions = tuple(i / (count - 1) for i in range(count))
        ends = pair.draw(0.0), pair.draw(1.0)
        inner = (pair.truth(position) for position in positions[1:-1])
        return cls(pair, positions, ends, (ends[0], *inner, ends[1]))

    @property
    def row(self) -> bytes:
        """The truth, or at least the keyframes, as a row of pictures."""
        return strip(self.truth, cell=CELL, quality=QUALITY)


def tried(
    engine: Engine, contender: Contender, known: Known, gauge: Gauge, *, studied: float = 0.0
) -> Generator[Progress, None, Outcome]:
    """Draws and measures; yields what the engine is at.

    `studied` is how long the study of these keyframes took that the engine has kept. What the engine
    cannot do becomes the outcome's trouble.
    """
    made: dict[int, Picture] = {}
    spent = {"study": 0.0, "draw": 0.0}
    notes: dict[str, None] = {}
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    request = MorphRequest(ends, (known.positions,), engine=contender.engine, diffusion=contender.diffusion)
    asked = time.perf_counter()
    try:
        with closing(engine.morph(request, known.keyframes)) as events:  # type: ignore[type-var]
            for event in events:
                now = time.perf_counter()
                phase = event.phase if isinstance(event, Progress) else ""
                spent["study" if phase in STUDY else "draw"] += now - asked
                if isinstance(event, Frame):
                    made[event.index] = event.picture
                    notes |= {event.note: None} if event.note else {}
                else:
                    yield event
                asked = time.perf_counter()
    except KeytweenError as error:
        return _failed(contender, known, error.message)
    pictures = [made[index] for index in range(len(known.positions))]
    figures, steps = measured(Drawings(pictures, known.keyframes, known.truth), gauge)
    figures |= {"seconds": spent["draw"] + (spent["study"] or studied), "again": spent["draw"]}
    record = _record(contender, known, figures, notes=tuple(notes))
    return Outcome(record, steps, strip(pictures, cell=CELL, quality=QUALITY))


def _failed(contender: Contender, known: Known, trouble: str) -> Outcome:
    return Outcome(_record(contender, known, {}, trouble=trouble), {})


def _record(
    contender: Contender,
    known: Known,
    figures: dict[str, float | None],
    *,
    notes: tuple[str, ...] = (),
    trouble: str = "",
) -> Record:
    pair = known.pair
    return Record(contender.name, pair.name, pair.group, False, figures, notes, trouble)


def cannot(contender: Contender, known: Known, reason: str) -> Outcome:
    """The outcome of a contender that cannot run here."""
    return _failed(contender, known, reason)


# ---- kept outcomes


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of outcomes, each in a file whose name says what it is the outcome of."""

    folder: Path

    def load(self, contender: Contender, known: Known, gauge: Gauge) -> Outcome | None:
        """The outcome of an earlier run with the same pictures, settings, checkpoint and version."""
        try:
            kept = json.loads(self._file(contender, known, gauge).read_text("utf-8"))
            record = _record(contender, known, kept["figures"], notes=tuple(kept["notes"]))
            steps = {name: tuple(values) for name, values in kept["steps"].items()}
            return Outcome(record, steps, base64.b64decode(kept["row"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, contender: Contender, known: Known, gauge: Gauge, outcome: Outcome) -> None:
        """Keeps an outcome, whole or not at all; one that failed is tried again next time."""
        if outcome.record.trouble:
            return
        file = self._file(contender, known, gauge)
        file.parent.mkdir(parents=True, exist_ok=True)
        row = base64.b64encode(outcome.row).decode("ascii")
        value = {
            "figures": outcome.record.figures,
            "notes": outcome.record.notes,
            "steps": outcome.steps,
            "row": row,
        }
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(value), "utf-8")
        unfinished.replace(file)

    def clear(self) -> None:
        """Forgets every outcome."""
        for file in self.folder.glob("*.json"):
            file.unlink(missing_ok=True)

    def _file(self, contender: Contender, known: Known, gauge: Gauge) -> Path:
        digest = hashlib.sha256(json.dumps(_conditions(contender, known, gauge), sort_keys=True).encode())
        for picture in known.keyframes:
            digest.update(picture.pixels.tobytes())
        return self.folder / f"{known.pair.group}-{known.pair.name}-{digest.hexdigest()[:24]}.json"


def _conditions(contender: Contender, known: Known, gauge: Gauge) -> dict[str, Any]:
    """All but the pictures that an outcome depends on."""
    diffusion = contender.diffusion
    return {
        "version": __version__,
        "engine": contender.engine,
        "settings": asdict(diffusion) if contender.diffuses else None,
        "gauge": [gauge.name, gauge.weights],
        "shape": [picture.pixels.shape for picture in known.keyframes],
        "positions": known.positions,
        "truth": [picture is not None for picture in known.truth],
    }


def weights_of(folder: Path) -> str:
    """A checkpoint's files by name, size and time: reading gigabytes would take longer than drawing."""
    files = sorted(file for file in folder.rglob("*.safetensors") if file.is_file())
    found = ((file, file.stat()) for file in files)
    return repr([(str(file.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for file, stat in found])


def opened(names: Sequence[str], fits: Path) -> dict[str, Engine | str]:
    """The engines by name, each opened once; in place of one that cannot run, the sentence that says why."""
    found: dict[str, Engine | str] = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = engines.open_engine(name, fits=fits)
        except engines.EngineUnavailable as error:
            found[name] = str(error.values["detail"])
    return found
