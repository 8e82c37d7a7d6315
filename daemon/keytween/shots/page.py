"""The batch's report: a row for each shot, sortable, its pictures in files beside it. Records in, HTML out.

Rows are drawn by the browser as they come into view, and pictures loaded then, so that thousands of shots
open at once. Its few lines of script sort and filter; without them the page shows the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from keytween.placing import place
from keytween.report_page import document
from keytween.shots.records import DONE, FAILED, RUNNING, Record, Shelf
from keytween.shots.shot import Batch
from keytween_wire.errors import KeytweenError, OutputUnwritable

_WIDE, _HIGH = 150, 44


@dataclass(frozen=True, slots=True)
class Row:
    """What the page shows of a shot; `record` is empty for one that was never begun."""

    shot: str
    record: Record
    error: KeytweenError | None = None

    @property
    def state(self) -> str:
        """The state in the artist's words."""
        if self.error is not None:
            return FAILED
        found = self.record.get("state", "waiting")
        return "interrupted" if found == RUNNING else found


def write(batch: Batch) -> Path:
    """Leaves `index.html` in the batch's output, for every shot of its file. Raises OutputUnwritable."""
    rows = [Row(fault.shot, {}, fault.error) for fault in batch.faults]
    rows += [Row(shot.id, Shelf(batch.results, shot.id).load() or {}) for shot in batch.shots]
    path = batch.output / "index.html"
    try:
        place(page(batch.source.name, rows).encode("utf-8", "replace"), path)
    except OSError as error:
        raise OutputUnwritable(name=path, detail=error.strerror or error) from error
    return path


def page(title: str, rows: Sequence[Row]) -> str:
    """The whole page; all texts are escaped."""
    heads = ("Shot", "State", "Pictures", "Pacing", "Evenness", "Drawings", "Time", "Memory", "Attempts")
    sortable = {0, 1, 4, 5, 6, 7, 8}
    cells = "".join(
        f"<th scope=col{' aria-sort=none' if i in sortable else ''}>"
        f"{f'<button type=button>{head}</button>' if i in sortable else head}</th>"
        for i, head in enumerate(heads)
    )
    body = (
        f"<header><p class=brand>Keytween batch</p><h1>{escape(title)}</h1></header>"
        f"{_tiles(rows)}{_filters(rows)}"
        f"<div class=scroll><table id=shots><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(_row(row) for row in rows)}</tbody></table></div><script>{_SCRIPT}</script>"
    )
    return document(title, body, style=_STYLE)


def _tiles(rows: Sequence[Row]) -> str:
    done = [row.record for row in rows if row.state == DONE]
    seconds = sum(record.get("seconds", 0.0) for record in done)
    memory = max((record.get("memory_bytes") or 0 for record in done), default=0)
    facts = [
        ("Shots", str(len(rows))),
        ("Done", str(len(done))),
        ("Failed", str(sum(row.state == FAILED for row in rows))),
        ("Drawings", str(sum(record.get("drawings", 0) for record in done))),
        ("Time, all shots", _seconds(seconds)),
        ("Most memory", _memory(memory)),
    ]
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f"<dl class=tiles>{tiles}</dl>"


def _filters(rows: Sequence[Row]) -> str:
    states = sorted({row.state for row in rows})
    if len(states) < 2:
        return ""
    buttons = "".join(f"<button type=button data-state='{s}' aria-pressed=false>{s}</button>" for s in states)
    return f"<p class=filters>Show only: {buttons}</p>"


def _row(row: Row) -> str:
    record = row.record
    pacing = record.get("pacing", {})
    drawings = record.get("drawings")
    cells = [
        _cell(_name(row), sort=row.shot, kind="shot"),
        _cell(_state(row), sort=row.state, kind="state"),
        _cell(_pictures(row), kind="pictures"),
        _cell(_curve(pacing.get("steps", ()), row.shot)),
        _number(pacing.get("evenness"), f"{pacing.get('evenness', 0):.3f}"),
        _number(drawings, str(drawings)),
        _number(record.get("seconds"), _seconds(record.get("seconds", 0.0))),
        _number(record.get("memory_bytes"), _memory(record.get("memory_bytes") or 0)),
        _number(record.get("attempts"), str(record.get("attempts"))),
    ]
    return f'<tr class="{row.state}">{"".join(cells)}</tr>'


def _cell(inner: str, *, sort: str | None = None, kind: str = "") -> str:
    data = f' data-sort="{escape(sort)}"' if sort is not None else ""
    return f"<td{f' class={kind}' if kind else ''}{data}>{inner}</td>"


def _number(value: float | None, text: str) -> str:
    return "<td data-sort=''>–</td>" if value is None else f"<td data-sort='{value}'>{text}</td>"


def _name(row: Row) -> str:
    engine = escape(str(row.record.get("engine", "")))
    film = row.record.get("film")
    parts = [f"<b>{escape(row.shot)}</b>", f"<span class=soft>{engine}</span>" if engine else ""]
    first = next(iter(row.record.get("frames", ())), None)
    if first:
        parts.append(f'<a href="{_href(str(Path(first["file"]).parent.as_posix()))}">frames</a>')
    if film:
        parts.append(f'<a href="{_href(film)}">film</a>')
    return "<br>".join(part for part in parts if part)


def _state(row: Row) -> str:
    said = row.record.get("error", {})
    error = row.error
    if row.state != FAILED or not (said or error):
        notes = "".join(f"<p>{escape(note)}</p>" for note in row.record.get("notes", ()))
        return f"{row.state}{f'<details><summary>notes</summary>{notes}</details>' if notes else ''}"
    return f"<b>failed</b><br><span class=soft>{escape(error.code if error else said['code'])}</span>"


def _pictures(row: Row) -> str:
    """The contact sheet; for a shot that failed, the reason in its place."""
    sheet = row.record.get("sheet")
    if not sheet:
        said = row.record.get("error", {})
        message = row.error.message if row.error else said.get("message", "")
        advice = row.error.advice if row.error else said.get("next_step", "")
        return f"<p>{escape(message)}</p><p class=soft>{escape(advice)}</p>" if message else ""
    alt = escape(f"Pictures of {row.shot}, first to last")
    return f'<a href="{_href(sheet)}"><img src="{_href(sheet)}" alt="{alt}" loading=lazy decoding=async></a>'


def _curve(steps: Sequence[float], shot: str) -> str:
    """How much of the way is behind each picture: an even pace is the straight line."""
    whole = sum(steps)
    if not whole:
        return ""
    share, points = 0.0, [f"0,{_HIGH}"]
    for number, step in enumerate(steps, start=1):
        share += step / whole
        points.append(f"{_WIDE * number / len(steps):.1f},{_HIGH * (1 - share):.1f}")
    title = escape(f"Pacing of {shot}")
    return (
        f'<svg class=pace viewBox="-2 -2 {_WIDE + 4} {_HIGH + 4}" role=img aria-label="{title}">'
        f"<line class=rule x1=0 y1={_HIGH} x2={_WIDE} y2=0 />"
        f'<polyline class=curve points="{" ".join(points)}" />'
        "</svg>"
    )


def _href(relative: str) -> str:
    """A link that no browser takes for a scheme, whatever the name holds."""
    if Path(relative).is_absolute():
        return escape(Path(relative).as_uri())
    return escape("./" + quote(relative))


def _seconds(seconds: float) -> str:
    if seconds >= 3600:
        return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
    if seconds >= 100:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{seconds:.2f} s"


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


_STYLE = """
main { max-width: none; }
#shots td { padding: .35rem .6rem; vertical-align: top; white-space: nowrap; text-align: right; }
#shots td:nth-child(-n+4), #shots th:nth-child(-n+4) { text-align: left; }
#shots td.shot { min-width: 9rem; max-width: 18rem; white-space: normal; overflow-wrap: anywhere; }
#shots td.state { min-width: 7rem; max-width: 20rem; white-space: normal; overflow-wrap: anywhere; }
#shots td.pictures { min-width: 20rem; white-space: normal; overflow-wrap: anywhere; }
#shots p { margin: 0 0 .25rem; max-width: 44rem; }
#shots td.state details { margin: .25rem 0 0; }
#shots td.state summary { font-weight: 400; color: var(--soft); }
#shots tbody tr { content-visibility: auto; contain-intrinsic-size: auto 80px; }
#shots thead th { position: sticky; top: 0; background: var(--ground); z-index: 1; }
#shots thead button { all: unset; cursor: pointer; }
#shots thead button:focus-visible, .filters button:focus-visible { outline: 2px solid var(--curve); }
#shots th[aria-sort=ascending] button::after { content: " ▲"; }
#shots th[aria-sort=descending] button::after { content: " ▼"; }
#shots img { max-height: 60px; width: auto; max-width: 38rem;  border-radius: 4px; }
#shots .pace { width: 150px; height: 48px; }
#shots tr.failed { background: color-mix(in srgb, #d1495b 14%, transparent); }
#shots tr.interrupted, #shots tr.waiting { background: color-mix(in srgb, var(--accent) 10%, transparent); }
.soft { color: var(--soft); }
.filters button { font: inherit; margin-right: .4rem; padding: .1rem .7rem; border-radius: 1rem;
  cursor: pointer; border: 1px solid var(--line); background: var(--card); color: var(--ink); }
.filters button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); }
"""

_SCRIPT = """
const table = document.getElementById("shots"), body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...body.rows].map(row => [row.cells[column].dataset.sort ?? "", row]);
  const order = new Intl.Collator(undefined, {numeric: true});
  const numbers = keyed.every(([key]) => key === "" || !isNaN(key));
  keyed.sort(([a], [b]) => a === "" || b === "" ? (a === "") - (b === "")
    : (up ? 1 : -1) * (numbers ? a - b : order.compare(a, b)));
  body.append(...keyed.map(([, row]) => row));
}));
const filters = [...document.querySelectorAll(".filters button")];
filters.forEach(button => button.addEventListener("click", () => {
  const only = button.getAttribute("aria-pressed") !== "true";
  filters.forEach(other => other.setAttribute("aria-pressed", only && other === button));
  for (const row of body.rows) row.hidden = only && !row.classList.contains(button.dataset.state);
}));
"""
