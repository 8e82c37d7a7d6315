"""From finished frame folders to the report that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from keytween.engines import choose
from keytween.morph import FrameFolder, Morph
from keytween.report import write_report
from keytween.report_page import FrameEntry, Result
from keytween_wire.timeline import Cel


def result_of(
    morph: Morph,
    folder: FrameFolder,
    *,
    title: str,
    fps: float,
    seconds: float,
    settings: Sequence[tuple[str, str]] = (),
) -> Result:
    """The frames of a morph as the report wants them; `seconds` is how long they took to make."""
    engine, reason = choose(morph.request.engine)
    return Result(
        title=title,
        engine=engine,
        frames=tuple(_entries(morph, folder)),
        fps=fps,
        seconds=seconds,
        settings=tuple(settings),
        notes=(*((reason,) if morph.request.engine == "auto" else ()), *folder.notes),
    )


def show(
    morph: Morph,
    folder: FrameFolder,
    *,
    title: str,
    fps: float,
    seconds: float,
    settings: Sequence[tuple[str, str]] = (),
) -> Path:
    """Writes film, contact sheet and index.html beside the frames; returns the page's path."""
    result = result_of(morph, folder, title=title, fps=fps, seconds=seconds, settings=settings)
    return write_report(folder.folder, [result])


def _entries(morph: Morph, folder: FrameFolder) -> Iterator[FrameEntry]:
    numbered = enumerate(morph.plan.cels, start=1)
    for cel, run in groupby(numbered, key=lambda item: item[1]):
        numbers = [number for number, _ in run]
        yield _entry(morph, cel, numbers[0], held=len(numbers), source=folder.written[numbers[0]])


def _entry(morph: Morph, cel: Cel, frame: int, *, held: int, source: Path) -> FrameEntry:
    if cel.drawing is None:
        return FrameEntry(frame, source, keyframe=True, segment=cel.keyframe or 0, held=held)
    drawing = morph.plan.drawings[cel.drawing]
    return FrameEntry(frame, source, segment=drawing.segment, position=drawing.position, held=held)
