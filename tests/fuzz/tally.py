# SPDX-License-Identifier: Apache-2.0
"""What a run of the fuzzer amounts to: `tally.py TARGET LOG SECONDS [--note]`; `scripts/fuzz` calls it.

Prints one line. With `--note` it also replaces the target's row in the table of docs/fuzzing.md.
"""

from __future__ import annotations

import fcntl
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fuzzing.md"
SEEDS = Path(__file__).resolve().parent / "seeds"
BEGIN, END = "<!-- scripts/fuzz --note writes from here -->\n", "<!-- to here -->"


@dataclass(frozen=True)
class Tally:
    """One run: what was tried, in how long (s), in how much memory at most (MB), and how it ended."""

    inputs: int
    seconds: int
    paths: int
    megabytes: int
    whole: bool


def read(log: str, seconds: int) -> Tally:
    """What libFuzzer says at the end of each round. A run that a finding ended is not whole."""
    done = [int(found) for found in re.findall(r"^Done \d+ runs in (\d+) second", log, re.M)]
    return Tally(
        inputs=sum(map(int, re.findall(r"number_of_executed_units: *(\d+)", log))),
        seconds=sum(done),
        paths=max(map(int, re.findall(r"cov: (\d+)", log)), default=0),
        megabytes=max(map(int, re.findall(r"peak_rss_mb: *(\d+)", log)), default=0),
        whole=sum(done) >= seconds,
    )


def row(target: str, tally: Tally) -> str:
    """The target's row of the table."""
    ended = "nothing" if tally.whole else "stopped at a finding"
    kept = len(list((SEEDS / target).glob("found-*")))
    day = datetime.now(UTC).date()
    cells = (f"`{target}`", f"{tally.inputs:,}", f"{tally.seconds / 60:.1f}", f"{tally.paths:,}")
    return "| " + " | ".join([*cells, f"{tally.megabytes}", ended, str(kept), str(day)]) + " |"


def note(target: str, line: str, page: Path = PAGE) -> None:
    """Replaces the target's row; two runs at once wait for each other."""
    with page.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        before, rest = text.split(BEGIN, 1)
        table, after = rest.split(END, 1)
        head, rule, *rows = table.splitlines()
        kept = [each for each in rows if not each.startswith(f"| `{target}` ")]
        file.seek(0)
        file.write(before + BEGIN + "\n".join([head, rule, *sorted([*kept, line])]) + "\n" + END + after)
        file.truncate()


def main() -> None:
    """Prints the run's figures, and notes them where asked to."""
    target, log, seconds = sys.argv[1:4]
    tally = read(Path(log).read_text("utf-8", "replace"), int(seconds))
    print(
        f"{target}: {tally.inputs} inputs in {tally.seconds} s, {tally.paths} ways through, "
        f"{tally.megabytes} MB, {'nothing found' if tally.whole else 'stopped early'}"
    )
    if "--note" in sys.argv:
        note(target, row(target, tally))


if __name__ == "__main__":
    main()
