"""The bench of morphs as a page: tables, pacing curves and contact sheets in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, stdev
from typing import Any

from keytween.bench import tables
from keytween.bench.curves import curves
from keytween.bench.morphing import Outcome
from keytween.bench.page import SCRIPT, STYLE, legend, table_html
from keytween.bench.sequence import CAVEAT, course, paper_forms
from keytween.bench.tables import Bench, Cell, Table
from keytween.report_page import document


@dataclass(frozen=True, slots=True)
class Morphs:
    """A whole bench of morphs: its figures, every outcome, and a row of each pair's truth or keyframes.

    `gauge` names the distance by which path, evenness and truth are measured; `settings` are names and
    values that tell how it was drawn.
    """

    bench: Bench
    outcomes: tuple[Outcome, ...]
    rows: dict[str, bytes]
    gauge: str
    frames: int
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def groups(self) -> dict[str, list[str]]:
        """The pairs' names by group."""
        return self.bench.grouped()


def shown(morphs: Morphs) -> list[Table]:
    """The tables for the terminal and the page: one for each group, and the paper's forms."""
    named = [_by(tables.spread(morphs.bench, group), morphs.gauge) for group in morphs.groups]
    peaks = tables.peaks(morphs.bench)
    return [*named, *([peaks] if peaks else []), paper_table(morphs)]


def _by(table: Table, gauge: str) -> Table:
    return Table(f"{table.caption}; distances by {gauge}", table.heads, table.rows)


def paper_table(morphs: Morphs) -> Table:
    """PPL and PDV in the form that the paper's figures fit, beside ours; FID is not computed."""
    rows = []
    for group in morphs.groups:
        for contender in morphs.bench.engines:
            found = [paper_forms(o.steps["steps"]) for o in _of(morphs, group, contender) if o.steps]
            cells = [Cell(tables.NONE)] * 2
            if found:
                means = [fmean(pair[i] for pair in found) for i in (0, 1)]
                cells = [Cell(f"{mean:.2f}", mean) for mean in means]
            rows.append((Cell(f"{group}, {contender}"), *cells, Cell("not computed here")))
    caption = f"In the paper's forms, by {morphs.gauge} over {morphs.frames} drawings"
    heads = ("group and contender", "PPL: mean of steps x 256", "PDV: their variance", "FID")
    return Table(caption, heads, tuple(rows))


def _of(morphs: Morphs, group: str, contender: str) -> list[Outcome]:
    return [o for o in morphs.outcomes if (o.record.group, o.record.engine) == (group, contender)]


def page(morphs: Morphs) -> str:
    """The whole page; all texts are escaped."""
    bench = morphs.bench
    notes = "".join(f"<p class=note>{escape(line)}</p>" for line in tables.troubles(bench))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in morphs.settings)
    groups = "".join(_group(morphs, group) for group in morphs.groups)
    peaks = tables.peaks(bench)
    groups += f"<section>{table_html(peaks)}</section>" if peaks else ""
    pairs = "".join(_pair(morphs, group, pair) for group, names in morphs.groups.items() for pair in names)
    body = (
        f"<header><p class=brand>Keytween bench</p><h1>{escape(bench.title)}</h1></header>"
        f"<section>{notes}<dl class=tiles>{facts}</dl>{legend(bench)}</section>{groups}"
        f"<section>{table_html(paper_table(morphs))}<p>{escape(CAVEAT)}</p></section>{pairs}"
        f"<section>{table_html(tables.everything(bench), folded=True)}</section>"
    )
    return document(bench.title, body + SCRIPT, style=STYLE + _MORE)


def _group(morphs: Morphs, group: str) -> str:
    table = _by(tables.spread(morphs.bench, group), morphs.gauge)
    lines = {}
    for contender in morphs.bench.engines:
        found = [course(o.steps["steps"]) for o in _of(morphs, group, contender) if o.steps]
        if found:
            lines[contender] = [fmean(values) for values in zip(*found, strict=True)]
    title = f"{group}: pacing, the mean over its pairs, by {morphs.gauge}"
    plot = f"<figure><figcaption>{escape(title)}</figcaption>{curves(title, lines)}</figure>" if lines else ""
    return f"<section><h2>{escape(group)}</h2>{table_html(table)}{plot}</section>"


def _pair(morphs: Morphs, group: str, pair: str) -> str:
    """A pair's contact sheet: the truth or the keyframes, then a row for each contender; and its pacing."""
    own = [o for o in morphs.outcomes if (o.record.group, o.record.scene) == (group, pair)]
    lines = {o.record.engine: course(o.steps["steps"]) for o in own if o.steps}
    title = f"{pair}: pacing, by {morphs.gauge}"
    plot = f"<details><summary>Pacing</summary>{curves(title, lines)}</details>" if lines else ""
    rows = [_row("keyframes and truth", pair, morphs.rows.get(f"{group}/{pair}", b""))]
    rows += [_row(_said(outcome), pair, outcome.row) for outcome in own]
    shown = f'<div class=scroll tabindex=0 role=region aria-label="{escape(pair)}">{"".join(rows)}</div>'
    return f"<section><h2>{escape(pair)} <small>{escape(group)}</small></h2>{shown}{plot}</section>"


def _said(outcome: Outcome) -> str:
    """A row's caption: who drew it, how sharp and how even it is, or why there is none."""
    record = outcome.record
    if record.trouble:
        return f"{record.engine}: {record.trouble}"
    known = (("sharpness", "sharpness"), ("evenness", "evenness"), ("truth_psnr", "PSNR"))
    found = [(name, record.figures.get(key)) for key, name in known]
    said = ", ".join(f"{name} {value:.2f}" for name, value in found if value is not None)
    return f"{record.engine}: {said}"


def _row(caption: str, pair: str, row: bytes) -> str:
    if not row:
        return f"<figure class=row><figcaption>{escape(caption)}</figcaption></figure>"
    data = base64.b64encode(row).decode("ascii")
    alt = escape(f"{pair}, {caption}")
    image = f'<img loading=lazy alt="{alt}" src="data:image/jpeg;base64,{data}">'
    return f"<figure class=row><figcaption>{escape(caption)}</figcaption>{image}</figure>"


def as_json(morphs: Morphs) -> dict[str, Any]:
    """The bench as one JSON value: means and spread by group, the paper's forms, and every trial's steps."""
    whole = tables.as_json(morphs.bench)
    trials = [
        {**trial, "steps": outcome.steps}
        for trial, outcome in zip(whole["trials"], morphs.outcomes, strict=True)
    ]
    return {
        **whole,
        "distance": morphs.gauge,
        "frames": morphs.frames,
        "settings": dict(morphs.settings),
        "groups": {group: _figures(morphs.bench, pairs) for group, pairs in morphs.groups.items()},
        "paper": {"table": _plain(paper_table(morphs)), "caveat": CAVEAT},
        "trials": trials,
    }


def _figures(bench: Bench, pairs: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """By contender and measure: mean, spread over the pairs, and how many there are."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for contender in bench.engines:
        for measure in bench.measures:
            values = bench.figures(contender, measure, pairs)
            if values:
                spread = stdev(values) if len(values) > 1 else 0.0
                figures = {"mean": fmean(values), "spread": spread, "pairs": len(values)}
                found.setdefault(contender, {})[measure.key] = figures
    return found


def _plain(table: Table) -> list[dict[str, Any]]:
    return [
        {
            head: cell.text if cell.value is None else cell.value
            for head, cell in zip(table.heads, row, strict=True)
        }
        for row in table.rows
    ]


_MORE = """
main { max-width: 92rem; }
svg.curves { max-width: 44rem; }
figure.row img { max-width: none; }
"""
