"""`keytween top` on a terminal, with Textual: what `watching` sees, and keys to cancel and retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from rich.style import Style
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, Static

from keytween.shots import watching
from keytween.shots.watching import Seen
from keytween.shots.wishes import CANCEL, RETRY, wish
from keytween_wire.errors import KeytweenError

if TYPE_CHECKING:
    from keytween.config import Config

EVERY = 1.0
"""Seconds between two looks."""
ROWS = 300
"""How many shots are listed: those at work first, then what failed, what waits and what is done."""
THUMBNAILS, COLUMNS = 3, 40
"""How many of the newest pictures are shown, and how wide each is in characters."""
_COLOURS = {"running": "cyan", "failed": "red", "done": "green", "unchanged": "green", "busy": "yellow"}


class Top(App[None]):
    """The monitor: machine and pictures above, shots and jobs below."""

    CSS = """
    #above { height: auto; max-height: 50%; }
    #machine { width: 1fr; padding: 0 1; height: auto; }
    #pictures { width: auto; padding: 0 1; height: auto; }
    DataTable { height: 1fr; }
    #said { padding: 0 1; height: auto; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("c", "cancel", "Cancel"),
        ("r", "retry", "Retry"),
        ("q", "quit", "Quit"),
    ]
    TITLE = "Keytween"

    def __init__(self, config: Config, output: Path | None) -> None:
        super().__init__()
        self._config, self._output = config, output
        self.seen: Seen | None = None

    def compose(self) -> ComposeResult:
        """The widgets; nothing is known yet."""
        with Horizontal(id="above"):
            yield Static("Looking ...", id="machine")
            yield Static("", id="pictures")
        with Vertical():
            yield DataTable[Text](id="shots", cursor_type="row", zebra_stripes=True)
            yield DataTable[Text](id="jobs", cursor_type="row", zebra_stripes=True)
        yield Static("", id="said")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self.query_one("#shots", DataTable).add_columns("shot", "state", "progress", "phase", "reason")
        self.query_one("#jobs", DataTable).add_columns("job", "name", "state", "engine", "drawings", "phase")
        self.set_interval(EVERY, self._look)
        self._look()

    @work(thread=True, exclusive=True)
    def _look(self) -> None:
        """Looks in a thread, since a daemon that hangs must not stop the keys."""
        seen = watching.look(self._config, self._output)
        newest = [shot.newest for shot in seen.shots if shot.newest][:THUMBNAILS]
        pictures = [thumbnail(Path(path)) for path in newest]
        self.call_from_thread(self._show, seen, [picture for picture in pictures if picture])

    # A table of thousands of rows, filled anew every second, would leave no time for keys.
    def _show(self, seen: Seen, pictures: list[Text]) -> None:
        self.seen = seen
        self.query_one("#machine", Static).update(_machine(seen))
        self.query_one("#pictures", Static).update(_beside(pictures))
        shots = self.query_one("#shots", DataTable)
        _fill(shots, [[s.shot, s.state, _bar(s.share), s.phase, s.error] for s in seen.shots[:ROWS]])
        jobs = self.query_one("#jobs", DataTable)
        rows = [[j.job_id[:8], j.name, j.state, j.engine, f"{j.done}/{j.total}", j.phase] for j in seen.jobs]
        _fill(jobs, rows)
        jobs.display = bool(rows)

    # ---- keys

    def action_cancel(self) -> None:
        """Cancels the shot or the job under the cursor."""
        if self.seen is None:
            return
        jobs = self.query_one("#jobs", DataTable)
        if self.focused is jobs and self.seen.jobs:
            job = self.seen.jobs[jobs.cursor_row]
            try:
                watching.cancel_job(self._config, job.job_id)
                self._say(f"{job.name or job.job_id[:8]} is cancelled.")
            except KeytweenError as error:
                self._say(error.message)
        else:
            self._wish(CANCEL, ("running", "waiting", "busy"))

    def action_retry(self) -> None:
        """Asks the batch to try the failed shot under the cursor again."""
        self._wish(RETRY, ("failed",))

    def _wish(self, what: str, states: tuple[str, ...]) -> None:
        seen, row = self.seen, self.query_one("#shots", DataTable).cursor_row
        if seen is None or self._output is None or not 0 <= row < len(seen.shots):
            return
        shot = seen.shots[row]
        if not seen.running:
            self._say("No batch is running here. Start it again: `--retry-failed` makes what failed.")
        elif shot.state not in states:
            self._say(f"{shot.shot} is {shot.state}: nothing to {what}.")
        else:
            wish(self._output / "results", shot.shot, what)
            self._say(f"{what.capitalize()} {shot.shot}: the batch has been told.")

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(text)


def _fill(table: DataTable[Text], rows: list[list[str]]) -> None:
    """The rows anew, with the cursor where it was."""
    row, top = table.cursor_row, table.scroll_y
    table.clear()
    for cells in rows:
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in cells))
    if rows:
        table.move_cursor(row=min(row, len(rows) - 1), animate=False)
        table.scroll_to(y=top, animate=False)


def _bar(share: float, width: int = 16) -> str:
    full = round(share * width)
    return "█" * full + "░" * (width - full) + f" {100 * share:3.0f} %"


def _machine(seen: Seen) -> Text:
    told = Text()
    for device in seen.devices:
        memory = f"{device.used_mb / 1e3:.1f} of {device.total_mb / 1e3:.1f} GB"
        told.append(f"{device.name}\n", "bold").append(f"  {_bar(device.busy / 100)}   {memory}\n")
    told.append(f"\n{seen.daemon}\n{seen.batch}\n")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(seen.counts.items()))
    return told.append(counts, "bold")


def thumbnail(path: Path) -> Text | None:
    """The picture in characters of two pixels, one above the other; None where it cannot be read now."""
    from keytween.images import read
    from keytween.report import display

    try:
        values = display(read(path))
    except KeytweenError:
        return None
    height, width = values.shape[:2]
    rows = max(2, round(COLUMNS * height / width / 2) * 2)
    down, across = (
        np.linspace(0, n - 1, m).round().astype(int) for n, m in ((height, rows), (width, COLUMNS))
    )
    small = values[down][:, across]
    bytes_ = np.rint(small[..., :3] * small[..., 3:] * 255).astype(int)
    told = Text(f"{path.parent.name[-COLUMNS:]}\n", "dim")
    for above, below in zip(bytes_[::2], bytes_[1::2], strict=True):
        for upper, lower in zip(above, below, strict=True):
            told.append("▀", Style.parse(f"{_hex(upper)} on {_hex(lower)}"))
        told.append("\n")
    return told


def _hex(pixel: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pixel)


def _beside(pictures: list[Text]) -> Text:
    """The pictures in a row: their lines joined."""
    split = [picture.split("\n") for picture in pictures]
    told = Text()
    for number in range(max((len(lines) for lines in split), default=0)):
        for lines in split:
            line = lines[number].copy() if number < len(lines) else Text("")
            line.pad_right(COLUMNS + 2 - len(line))
            told.append_text(line)
        told.append("\n")
    return told
