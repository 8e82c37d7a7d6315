"""Trials -> tables, the same for the terminal and the page; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from keytween.bench.measures import MEMORY, Measure
from keytween.bench.trial import Record

NONE = "–"
TWIN = "-textured"
"""How the name of a scene's textured twin ends."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table says in one place; `value` is what it sorts by, `best` whether nothing beats it."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, the headings, and the rows; each row's first cell names it."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole run: its records, what was measured, and each engine's peak memory in MB if that was asked.

    The first measure is the one that tables by scene and by group show. Figures are compared with the
    engine named in `baseline`, where it took part.
    """

    title: str
    measures: tuple[Measure, ...]
    records: tuple[Record, ...]
    memory: Mapping[str, float | None] | None = None
    baseline: str = "dissolve"

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines in the order in which they were asked for."""
        return tuple(dict.fromkeys(record.engine for record in self.records))

    @property
    def scenes(self) -> tuple[str, ...]:
        """The scenes in their order."""
        return tuple(dict.fromkeys(record.scene for record in self.records))

    def figures(self, engine: str, measure: Measure, scenes: Iterable[str] | None = None) -> list[float]:
        """An engine's figures for one measure, where there are any; `scenes` narrows them down."""
        wanted = None if scenes is None else set(scenes)
        found = (
            record.figures.get(measure.key)
            for record in self.records
            if record.engine == engine and (wanted is None or record.scene in wanted)
        )
        return [figure for figure in found if figure is not None]

    def grouped(self) -> dict[str, list[str]]:
        """The scenes by group; and those that are there twice with the same motion, flat and textured."""
        groups: dict[str, list[str]] = {}
        for record in self.records:
            groups.setdefault(record.group, []).append(record.scene)
        twins = [scene for scene in self.scenes if f"{scene}{TWIN}" in self.scenes]
        if twins:
            groups["flat twins"] = twins
            groups["textured twins"] = [f"{scene}{TWIN}" for scene in twins]
        return {name: list(dict.fromkeys(scenes)) for name, scenes in groups.items()}


def overall(bench: Bench) -> Table:
    """Each engine's means over all scenes, a row for each measure."""
    rows: list[tuple[Cell, ...]] = [(Cell(arrowed(m)), *_means(bench, m)) for m in bench.measures]
    held = peaks(bench)
    rows.extend(held.rows if held else ())
    count = len(bench.scenes)
    caption = f"Mean over {count} scene{'' if count == 1 else 's'}"
    return Table(caption, ("measure", *bench.engines), tuple(rows))


def peaks(bench: Bench) -> Table | None:
    """Each engine's peak memory; None where it was not asked for."""
    if bench.memory is None:
        return None
    held = [bench.memory.get(engine) for engine in bench.engines]
    row = (Cell(arrowed(MEMORY)), *_cells(held, MEMORY))
    return Table("Memory of a process of its own", ("measure", *bench.engines), (row,))


def spread(bench: Bench, group: str) -> Table:
    """Each engine's mean over a group's scenes and, behind a ±, the standard deviation over them."""
    scenes = dict.fromkeys(record.scene for record in bench.records if record.group == group)
    inside = replace(bench, records=tuple(r for r in bench.records if r.group == group))
    rows = []
    for measure in _measured(inside):
        found = [inside.figures(engine, measure) for engine in bench.engines]
        means = _cells([fmean(figures) if figures else None for figures in found], measure)
        cells = [_with_spread(cell, figures, measure) for cell, figures in zip(means, found, strict=True)]
        rows.append((Cell(arrowed(measure)), *cells))
    caption = f"{group}: mean ± spread over {len(scenes)} pair{'' if len(scenes) == 1 else 's'}"
    return Table(caption, ("measure", *bench.engines), tuple(rows))


def _with_spread(cell: Cell, figures: Sequence[float], measure: Measure) -> Cell:
    """The mean's cell with the standard deviation over several figures."""
    if len(figures) < 2:
        return cell
    return replace(cell, text=f"{cell.text} ±{stdev(figures):.{measure.digits}f}")


def arrowed(measure: Measure) -> str:
    """A measure's heading, with an arrow that points where better is."""
    return f"{measure.heading} {'↑' if measure.higher else '↓'}"


def troubles(bench: Bench) -> list[str]:
    """A line for each engine that could not draw some or all of the scenes, with the first reason."""
    lines = []
    for engine in bench.engines:
        own = [record for record in bench.records if record.engine == engine]
        found = [record.trouble for record in own if record.trouble]
        part = "" if len(found) == len(own) else f" ({len(found)} of {len(own)} scenes)"
        lines += [f"{engine}: {found[0]}{part}"] if found else []
    return lines


def _measured(bench: Bench) -> list[Measure]:
    """The measures for which there is any figure."""
    return [m for m in bench.measures if any(bench.figures(engine, m) for engine in bench.engines)]


def _means(bench: Bench, measure: Measure, scenes: Sequence[str] | None = None) -> list[Cell]:
    """A cell for each engine: its mean over the scenes."""
    found = [bench.figures(engine, measure, scenes) for engine in bench.engines]
    return _cells([fmean(figures) if figures else None for figures in found], measure)


def _cells(values: Sequence[float | None], measure: Measure) -> list[Cell]:
    """Values of one measure as cells; the best of several is marked."""
    known = [value for value in values if value is not None]
    best = (max if measure.higher else min)(known) if len(known) > 1 else None
    return [Cell(NONE) if v is None else Cell(f"{v:.{measure.digits}f}", v, best=v == best) for v in values]


def gains(bench: Bench) -> Table | None:
    """How far each engine is ahead of the baseline in the first measure; None where there is no baseline."""
    measure = bench.measures[0]
    others = [engine for engine in bench.engines if engine != bench.baseline]
    if bench.baseline not in bench.engines or not others:
        return None
    rows = []
    for engine in others:
        ahead = _ahead(bench, engine, measure)
        if not ahead:
            rows.append((Cell(engine), *[Cell(NONE)] * 3))
            continue
        worst = min(ahead, key=lambda scene: ahead[scene])
        numbers = [fmean(ahead.values()), ahead[worst]]
        cells = [Cell(f"{number:+.{measure.digits}f}", number) for number in numbers]
        rows.append((Cell(engine), *cells, Cell(worst)))
    caption = f"{measure.heading}: how much better than {bench.baseline}"
    return Table(caption, ("engine", "mean", "least", "in the scene"), tuple(rows))


def _ahead(bench: Bench, engine: str, measure: Measure) -> dict[str, float]:
    """By scene, how much better than the baseline an engine is."""
    sign = 1 if measure.higher else -1
    found = {}
    for scene in bench.scenes:
        ours = bench.figures(engine, measure, [scene])
        theirs = bench.figures(bench.baseline, measure, [scene])
        if ours and theirs:
            found[scene] = sign * (fmean(ours) - fmean(theirs))
    return found


def by_group(bench: Bench) -> Table:
    """The first measure's mean for each group of scenes."""
    return _matrix(bench, "group", bench.grouped())


def by_scene(bench: Bench) -> Table:
    """The first measure for each scene."""
    return _matrix(bench, "scene", {scene: [scene] for scene in bench.scenes})


def _matrix(bench: Bench, head: str, parts: Mapping[str, Sequence[str]]) -> Table:
    measure = bench.measures[0]
    rows = [(Cell(name), *_means(bench, measure, scenes)) for name, scenes in parts.items()]
    return Table(f"{arrowed(measure)} by {head}", (head, *bench.engines), tuple(rows))


def everything(bench: Bench) -> Table:
    """Every figure there is: a row for each scene and engine."""
    measures = _measured(bench)
    rows = []
    for record in bench.records:
        cells = [_cells([record.figures.get(measure.key)], measure)[0] for measure in measures]
        rows.append((Cell(record.scene), Cell(record.group), Cell(record.engine), *cells))
    heads = ("scene", "group", "engine", *map(arrowed, measures))
    return Table("Every figure", heads, tuple(rows))


def as_json(bench: Bench) -> dict[str, Any]:
    """The run as one JSON value: what the figures mean, the means, and every trial."""
    means = {
        engine: {
            measure.key: fmean(figures)
            for measure in bench.measures
            if (figures := bench.figures(engine, measure))
        }
        for engine in bench.engines
    }
    return {
        "title": bench.title,
        "measures": {m.key: {"about": m.about, "better": _better(m)} for m in (*bench.measures, MEMORY)},
        "means": means,
        "memory_mb": None if bench.memory is None else dict(bench.memory),
        "trials": [_record(record) for record in bench.records],
    }


def _better(measure: Measure) -> str:
    return "higher" if measure.higher else "lower"


def _record(record: Record) -> dict[str, Any]:
    return {
        "engine": record.engine,
        "scene": record.scene,
        "group": record.group,
        "textured": record.textured,
        "figures": record.figures,
        "notes": list(record.notes),
        "trouble": record.trouble,
    }
