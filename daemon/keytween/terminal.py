"""What every command prints with: sentences, one JSON value, and a bar with an estimate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], int | None]) -> Any:
    """A command's parser, with `--json`; `run` gets its options and returns the exit code."""
    added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(run=run)
    added.add_argument("--json", action="store_true", help="print one JSON value, for scripts")
    return added


def print_json(value: object) -> None:
    """Prints the one value of a command that was asked for JSON."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


def say(options: argparse.Namespace, text: str) -> None:
    """Prints a line, unless JSON was asked for."""
    if not options.json:
        sys.stdout.write(text + "\n")


@contextmanager
def progress(options: argparse.Namespace, total: int) -> Iterator[Callable[[Any, int], None]]:
    """A bar with the phase and the daemon's own estimate; nothing with --json."""
    if options.json:
        yield lambda step, frames: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=total, eta="")

        def advance(step: Any, frames: int) -> None:
            if step is None:
                bar.advance(task, frames)
            else:
                eta = f"about {step.eta_s:.0f} s left" if step.eta_s >= 0 else ""
                bar.update(task, description=step.phase, eta=eta)

        yield advance
