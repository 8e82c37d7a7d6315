"""The report's HTML: one file, no scripts, nothing from the network. Results in, text out."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from keytween.images import Picture

Source = Picture | Path
"""A picture in memory, or the file it is in."""


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """One drawing or keyframe of a result, given once however long it is held.

    `frame` is the timeline frame where it is first shown, `held` for how many, `position` 0..1 (or
    beyond) within `segment`; a keyframe's segment is the one it leaves and its position is not used.
    `seconds` is what it took to make, None where that was not measured.
    """

    frame: int
    source: Source
    keyframe: bool = False
    segment: int = 0
    position: float = 0.0
    held: int = 1
    seconds: float | None = None

    @property
    def caption(self) -> str:
        """Two lines: which frames show it, and what it is."""
        last = f"-{self.frame + self.held - 1}" if self.held > 1 else ""
        shown = "keyframe" if self.keyframe else f"position {self.position:.3f}"
        return f"{'frames' if last else 'frame'} {self.frame}{last}\n{shown}"


@dataclass(frozen=True, slots=True)
class Result:
    """One tween to report on: its frames in timeline order, keyframes included.

    `seconds` is the whole run's; `peak_memory_bytes` None where it was not measured; `settings` are names
    and values worth showing (easing, exposure, prompts); `notes` whole sentences.
    """

    title: str
    engine: str
    frames: tuple[FrameEntry, ...]
    fps: float = 24.0
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    settings: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def drawings(self) -> int:
        """How many frames were made, keyframes not counted."""
        return sum(not entry.keyframe for entry in self.frames)


@dataclass(frozen=True, slots=True)
class Pacing:
    """The distances between neighbouring frames, under the name of the distance they were taken with."""

    distance: str
    steps: tuple[float, ...]

    @property
    def path(self) -> float:
        """The way from the first frame to the last: the sum of the distances."""
        return sum(self.steps)

    @property
    def evenness(self) -> float:
        """Standard deviation over mean of the distances: 0 is perfectly even, also where nothing moves."""
        mean = self.path / len(self.steps) if self.steps else 0.0
        return statistics.pstdev(self.steps) / mean if mean > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Section:
    """A result with what was measured and made of it; the file names are relative to the page."""

    result: Result
    pacing: Pacing
    film: str
    sheet: str


def page(sections: Sequence[Section], folder: Path) -> str:
    """The whole HTML page; links to frames' files are relative to `folder`. All texts are escaped."""
    title = sections[0].result.title if len(sections) == 1 else f"{len(sections)} tweens"
    body = [f"<header><p class=brand>Keytween report</p><h1>{escape(title)}</h1></header>"]
    if len(sections) > 1:
        body.append(_comparison(sections))
    body += [_section(number, s, folder, alone=len(sections) == 1) for number, s in enumerate(sections, 1)]
    return document(title, "\n".join(body))


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole page around a body that is HTML already; `style` is added to the house's own."""
    return _PAGE.format(title=escape(title), style=_STYLE + style, body=body)


def _section(number: int, section: Section, folder: Path, *, alone: bool) -> str:
    result = section.result
    heading = "" if alone else f"<h2>{escape(result.title)}</h2>"
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in result.notes)
    return "\n".join(
        [
            f'<section id="tween-{number}">{heading}',
            _figures(section),
            notes,
            _film(section),
            _sheet(section),
            _timing(number, result),
            _pacing(number, section),
            _frames(section, folder),
            "</section>",
        ]
    )


def _comparison(sections: Sequence[Section]) -> str:
    rows = [
        f'<tr class=named><th scope=row><a href="#tween-{number}">{escape(s.result.title)}</a></th>'
        + "".join(f"<td>{escape(value)}</td>" for _, value in _facts(s))
        + "</tr>"
        for number, s in enumerate(sections, start=1)
    ]
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name, _ in _facts(sections[0]))
    return _table("All tweens", f"<tr class=named><th scope=col>Tween</th>{heads}</tr>", rows, hidden=False)


def _facts(section: Section) -> list[tuple[str, str]]:
    result, pacing = section.result, section.pacing
    return [
        ("Engine", result.engine),
        ("In-betweens", str(result.drawings)),
        ("Time", _seconds(result.seconds)),
        ("Peak memory", _memory(result.peak_memory_bytes)),
        ("Path length", f"{pacing.path:.4f}"),
        ("Evenness", f"{pacing.evenness:.3f}"),
    ]


def _figures(section: Section) -> str:
    settings = [*_facts(section), ("Rate", f"{section.result.fps:g} fps"), *section.result.settings]
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in settings)
    return f"<dl class=tiles>{tiles}</dl>"


def _film(section: Section) -> str:
    title = escape(f"Film of {section.result.title}")
    return (
        f'<figure><video src="{_href(section.film)}" controls loop muted playsinline preload="auto" '
        f'aria-label="{title}"><a href="{_href(section.film)}">{title}</a></video></figure>'
    )


def _sheet(section: Section) -> str:
    result = section.result
    keys = len(result.frames) - result.drawings
    alt = f"Contact sheet of {result.title}: {keys} keyframes framed in orange, {result.drawings} in-betweens"
    return (
        f'<h3>Contact sheet</h3><figure><a href="{_href(section.sheet)}">'
        f'<img src="{_href(section.sheet)}" alt="{escape(alt)}"></a>'
        f"<figcaption>Keyframes are framed in orange.</figcaption></figure>"
    )


_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _FOOT = 760, 240, 52, 14, 14, 38
"""The charts' sizes in their own units, and the margins that their labels need."""


def _timing(number: int, result: Result) -> str:
    """Position against frame: steps where drawings are held, a dot for each, a square for a keyframe."""
    first, last = result.frames[0].frame, result.frames[-1].frame
    top = max(1.0, *(_height(entry) for entry in result.frames))
    low = min(0.0, *(_height(entry) for entry in result.frames))
    across, up = (
        _scale(first, last + result.frames[-1].held, _LEFT, _WIDE - _RIGHT),
        _scale(low, top, _HIGH - _FOOT, _TOP),
    )
    line, marks = [], []
    for entry in result.frames:
        x, y = across(entry.frame), up(_height(entry))
        line += [f"{x:.1f},{y:.1f}", f"{across(entry.frame + entry.held):.1f},{y:.1f}"]
        marks.append(_mark(entry, x, y))
    grid = "".join(_rule(up(level), f"{level}") for level in range(int(top) + 1))
    ticks = "".join(_tick(across(n), str(n)) for n in _ticks(first, last))
    drawn = f'{grid}{ticks}<polyline class=curve points="{" ".join(line)}"/>{"".join(marks)}'
    about = f"{result.drawings} in-betweens over frames {first} to {last}"
    return "<h3>Timing</h3>" + _chart(
        f"timing-{number}", f"Position by frame: {about}", drawn, "frame", "Squares are keyframes."
    )


def _pacing(number: int, section: Section) -> str:
    """A bar for each step between neighbours, and the mean that even steps would all have."""
    pacing, entries = section.pacing, section.result.frames
    if not pacing.steps:
        return ""
    top = max(pacing.steps) or 1.0
    count = len(pacing.steps)
    across, up = _scale(0, count, _LEFT, _WIDE - _RIGHT), _scale(0, top, _HIGH - _FOOT, _TOP)
    gap = min(2.0, 0.15 * (across(1) - across(0)))
    bars = "".join(
        f'<rect class=bar x="{across(i) + gap:.1f}" y="{up(step):.1f}" '
        f'width="{across(i + 1) - across(i) - 2 * gap:.1f}" height="{_HIGH - _FOOT - up(step):.1f}">'
        f"<title>{entries[i].frame} to {entries[i + 1].frame}: {step:.5f}</title></rect>"
        for i, step in enumerate(pacing.steps)
    )
    mean = up(pacing.path / count)
    wanted = [i for i in range(count) if i % max(1, -(-count // 12)) == 0]
    ticks = "".join(_tick((across(i) + across(i + 1)) / 2, str(entries[i].frame)) for i in wanted)
    rules = _rule(up(0), "0") + _rule(up(top), f"{top:.3g}")
    drawn = f"{rules}{ticks}{bars}{_line('mean', mean)}"
    note = (
        f"The distance is the {pacing.distance}. The dashed line is the mean: with linear timing, bars that "
        "all reach it are a perfectly even change (evenness 0). Easing makes them uneven on purpose."
    )
    return "<h3>Pacing</h3>" + _chart(
        f"pacing-{number}",
        f"Distance between neighbouring frames: evenness {pacing.evenness:.3f}",
        drawn,
        "step that leaves frame",
        note,
    )


def _height(entry: FrameEntry) -> float:
    """How far through all the segments an entry is."""
    return entry.segment + (0.0 if entry.keyframe else entry.position)


def _mark(entry: FrameEntry, x: float, y: float) -> str:
    text = escape(entry.caption.replace("\n", ": "))
    if entry.keyframe:
        return (
            f'<rect class=key x="{x - 5:.1f}" y="{y - 5:.1f}" width=10 height=10><title>{text}</title></rect>'
        )
    return f'<circle class=dot cx="{x:.1f}" cy="{y:.1f}" r=3.5><title>{text}</title></circle>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(first: int, last: int) -> range:
    """Up to about a dozen round frame numbers."""
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    step = next((s for s in steps if (last - first) / s <= 12), 10_000)
    return range(-(-first // step) * step, last + 1, step)


def _rule(y: float, label: str) -> str:
    return f'{_line("rule", y)}<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor=end>{label}</text>'


def _line(kind: str, y: float) -> str:
    return f'<line class={kind} x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _tick(x: float, label: str) -> str:
    return f'<text x="{x:.1f}" y="{_HIGH - _FOOT + 17}" text-anchor=middle>{label}</text>'


def _chart(name: str, title: str, drawn: str, axis: str, note: str) -> str:
    label = f'<text x="{(_LEFT + _WIDE - _RIGHT) / 2}" y="{_HIGH - 4}" text-anchor=middle>{axis}</text>'
    return (
        f'<figure><svg viewBox="0 0 {_WIDE} {_HIGH}" role=img aria-labelledby="{name}">'
        f'<title id="{name}">{escape(title)}</title>{drawn}{label}</svg>'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def _frames(section: Section, folder: Path) -> str:
    entries = section.result.frames
    steps = [f"{step:.5f}" for step in section.pacing.steps] + ["–"]
    timed = any(entry.seconds is not None for entry in entries)
    heads = ["Frame", "Held", "Shows", "Segment", "Position", "Distance to the next"] + ["Time"] * timed
    head = "".join(f"<th scope=col>{name}</th>" for name in heads)
    rows = [_row(entry, step, folder, timed=timed) for entry, step in zip(entries, steps, strict=True)]
    return _table(f"{len(entries)} frames", f"<tr>{head}</tr>", rows, hidden=len(entries) > 40)


def _row(entry: FrameEntry, step: str, folder: Path, *, timed: bool) -> str:
    shows = "keyframe" if entry.keyframe else "in-between"
    cells = [
        str(entry.held),
        _linked(shows, entry.source, folder),
        "–" if entry.keyframe else f"{entry.segment + 1}",
        "–" if entry.keyframe else f"{entry.position:.4f}",
        step,
        *([_seconds(entry.seconds)] if timed else []),
    ]
    kind = " class=keyed" if entry.keyframe else ""
    return f"<tr{kind}><th scope=row>{entry.frame}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(caption: str, head: str, rows: Sequence[str], *, hidden: bool) -> str:
    """A table that scrolls by itself on a narrow screen; `hidden` folds it up."""
    opened = "" if hidden else " open"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return (
        f"<details{opened}><summary>{escape(caption)}</summary>"
        f'<div class=scroll tabindex=0 role=region aria-label="{escape(caption)}">{table}</div></details>'
    )


def _linked(text: str, source: Source, folder: Path) -> str:
    """The text, linked to the frame's file where there is one and a relative path leads to it."""
    if not isinstance(source, Path):
        return escape(text)
    try:
        relative = os.path.relpath(source.absolute(), folder.absolute())
    except ValueError:
        return escape(text)
    name = escape(source.name)
    return f'<a href="{_href(relative)}" title="{name}">{escape(text)}</a>'


def _href(relative: str) -> str:
    """A relative link that no browser takes for a scheme, whatever bytes the file's name has."""
    return escape("./" + quote(os.fsencode(relative.replace(os.sep, "/"))))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds >= 100:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _memory(size: int | None) -> str:
    if size is None:
        return "–"
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – Keytween</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ground: #f6f6f4; --card: #fff; --ink: #1d1f23; --soft: #5c616b; --line: #dcdcd8;
  --accent: #b45f06; --curve: #2563a8; --bar: #7ba3cc; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181b; --card: #202226; --ink: #eceef1;
  --soft: #a3a9b4; --line: #383b42; --accent: #ff9f1c; --curve: #7db4ee; --bar: #47729e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; margin: 0 0 1.25rem; }
h2 { font-size: 1.4rem; margin: 0 0 1rem; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
a { color: var(--curve); }
.brand { margin: 0; color: var(--accent); font-weight: 600; font-size: .85rem; letter-spacing: .04em; }
section { margin: 0 0 2rem; padding: 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
  gap: .75rem 1.25rem; margin: 0 0 1.5rem; }
.tiles dt { color: var(--soft); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.note { margin: 0 0 1rem; padding: .6rem .9rem; border-left: 4px solid var(--accent);
  background: var(--ground); }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; max-width: 46rem; }
video { display: block; min-width: min(100%, 32rem); max-width: 100%; max-height: 70vh; margin: 0 auto;
  background: #111; border-radius: 8px; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; }
.rule { stroke: var(--line); }
.curve { fill: none; stroke: var(--curve); stroke-width: 2; }
.dot { fill: var(--curve); }
.key { fill: var(--accent); }
.bar { fill: var(--bar); }
.mean { stroke: var(--accent); stroke-width: 2; stroke-dasharray: 6 4; }
details { margin: 2rem 0; }
section details { margin-bottom: 0; }
summary { font-weight: 600; cursor: pointer; }
.scroll { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
.named th:first-child { min-width: 11rem; max-width: 22rem; text-align: left;
  white-space: normal; overflow-wrap: anywhere; }
.keyed { background: color-mix(in srgb, var(--accent) 12%, transparent); }
@media print { section { break-inside: avoid; } video { display: none; } }
"""
