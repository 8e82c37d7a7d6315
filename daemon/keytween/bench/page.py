"""The bench's report: one HTML file with tables and pictures inside it, nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from keytween.bench import tables
from keytween.bench.measures import MEMORY, Measure, difference
from keytween.bench.tables import Bench, Table
from keytween.bench.trial import BESIDE, Trial, Truth
from keytween.report import strip
from keytween.report_page import document


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A row of pictures of one scene: what it shows, as a caption, and the row as JPEG."""

    scene: str
    caption: str
    row: bytes


def truth_exhibit(truth: Truth) -> Exhibit:
    """The keyframes, and the truth between them."""
    pictures = [truth.pictures[position] for position in (0.0, *truth.compared, 1.0)]
    return Exhibit(truth.scene.name, "keyframe, truth, keyframe", strip([*pictures, None]))


def exhibit(trial: Trial) -> Exhibit | None:
    """What the engine drew just beside the keyframes and between them, and where it is wrong."""
    if not trial.made:
        return None
    positions = (BESIDE[0], *trial.truth.compared, BESIDE[1])
    middle = min(trial.truth.compared, key=lambda position: abs(position - 0.5))
    wrong = difference(trial.made[middle], trial.truth.pictures[middle])
    row = strip([*(trial.made.get(position) for position in positions), wrong])
    figure = trial.figures.get("psnr_mid")
    said = "" if figure is None else f": {figure:.1f} dB at the middle"
    return Exhibit(trial.truth.scene.name, f"{trial.engine}{said}", row)


def page(bench: Bench, exhibits: Sequence[Exhibit]) -> str:
    """The whole page; all texts are escaped."""
    shown = [tables.overall(bench), tables.gains(bench), tables.by_group(bench), tables.by_scene(bench)]
    body = [f"<header><p class=brand>Keytween bench</p><h1>{escape(bench.title)}</h1></header>"]
    notes = "".join(f"<p class=note>{escape(line)}</p>" for line in tables.troubles(bench))
    means = "".join(table_html(table) for table in shown if table)
    body.append(f"<section>{notes}{means}{legend(bench)}</section>")
    body.append(f"<p>{_ROWS}</p>")
    body += [_scene(bench, scene, exhibits) for scene in bench.scenes]
    body.append(f"<section>{table_html(tables.everything(bench), folded=True)}</section>")
    return document(bench.title, "\n".join(body) + SCRIPT, style=STYLE)


def table_html(table: Table, *, folded: bool = False) -> str:
    """A table of the page, with its caption to fold it by; its headings sort it."""
    heads = "".join(f"<th scope=col><button>{escape(head)}</button></th>" for head in table.heads)
    rows = "".join(_row(row) for row in table.rows)
    caption = escape(table.caption)
    return (
        f"<details{'' if folded else ' open'}><summary>{caption}</summary>"
        f'<div class=scroll tabindex=0 role=region aria-label="{caption}"><table class=named>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _row(row: Sequence[tables.Cell]) -> str:
    cells = "".join(
        f"<td{' class=best' if cell.best else ''}"
        f"{'' if cell.value is None else f' data-value={cell.value:.6g}'}>{escape(cell.text)}</td>"
        for cell in row[1:]
    )
    return f"<tr><th scope=row>{escape(row[0].text)}</th>{cells}</tr>"


def legend(bench: Bench) -> str:
    """What each figure means, and which way is better."""
    measures = [*bench.measures, *([] if bench.memory is None else [MEMORY])]
    better = {True: "higher is better", False: "lower is better"}
    texts = [f"{m.about}; {better[m.higher]}{_missing(bench, m)}" for m in measures]
    items = "".join(
        f"<li><b>{escape(tables.arrowed(m))}</b>: {escape(text)}</li>"
        for m, text in zip(measures, texts, strict=True)
    )
    return f"<details open><summary>What the figures mean</summary><ul>{items}</ul></details>"


def _missing(bench: Bench, measure: Measure) -> str:
    """A word on a measure of which there is no figure."""
    known = measure is MEMORY or any(bench.figures(engine, measure) for engine in bench.engines)
    return "" if known else "; not measured here"


def _scene(bench: Bench, scene: str, exhibits: Sequence[Exhibit]) -> str:
    figures = "".join(_figure(exhibit) for exhibit in exhibits if exhibit.scene == scene)
    records = [record for record in bench.records if record.scene == scene]
    kind = f"{records[0].group}, {'textured' if records[0].textured else 'flat'}"
    said = [f"{r.engine}: {text}" for r in records for text in (*r.notes, r.trouble) if text]
    notes = "".join(f"<p class=note>{escape(text)}</p>" for text in said)
    return f"<section><h2>{escape(scene)} <small>{escape(kind)}</small></h2>{figures}{notes}</section>"


def _figure(exhibit: Exhibit) -> str:
    data = base64.b64encode(exhibit.row).decode("ascii")
    caption, scene = escape(exhibit.caption), escape(exhibit.scene)
    image = f'<img loading=lazy alt="{scene}, {caption}" src="data:image/jpeg;base64,{data}">'
    return f"<figure><figcaption>{caption}</figcaption>{image}</figure>"


_ROWS = (
    "Of each scene: the keyframes and the truth at 1/4, 1/2 and 3/4 (or where it is known nearest); "
    "below them what each engine draws there and just beside the keyframes. On the right is the difference "
    "from the truth at the middle, three times as bright as it is."
)

STYLE = """
main { max-width: 78rem; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--curve); }
.best { font-weight: 700; color: var(--accent); }
small { font-weight: 400; color: var(--soft); }
section figure { margin: .6rem 0; }
section figure img { border-radius: 4px; }
"""

SCRIPT = """
<script>
// A click on a heading sorts its table; a second click turns the order round.
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const column = head.cellIndex, down = head.dataset.down = head.dataset.down === "1" ? "0" : "1";
  const key = row => { const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value); };
  const order = (a, b) => a === b ? 0
    : typeof a === typeof b ? (a < b ? -1 : 1) : typeof a === "number" ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => order(key(a), key(b)));
  body.append(...(down === "1" ? rows.reverse() : rows));
};
</script>
"""
