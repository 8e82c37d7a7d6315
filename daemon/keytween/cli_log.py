# SPDX-License-Identifier: Apache-2.0
"""The `log` command: what the daemon and its workers wrote down, for people. Parses, reads, prints."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keytween.terminal import command

LINES = 40
LOOK_EVERY_S = 0.25
LEVELS = ("info", "warning", "error")
_STYLES = {"warning": "yellow", "error": "bold red", "critical": "bold red"}


def add(commands: Any) -> None:
    """Adds `log` to the command line."""
    log = command(commands, "log", "show what the daemon and its workers wrote down", _log)
    log.add_argument(
        "-n", "--lines", type=int, default=LINES, help="how many of the last lines (default: 40)"
    )
    log.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    log.add_argument("--job", metavar="JOB", default="", help="one job's lines: its id, or its first digits")
    log.add_argument("--level", choices=LEVELS, default="info", help="nothing below this (default: info)")


def _log(options: argparse.Namespace) -> int:
    from keytween.config import load

    path = load().log
    show = _printer(options)

    def wanted(line: str) -> bool:
        return _is_wanted(_parse(line), options)

    where = _End(path)
    for line in deque(filter(wanted, _all_lines(path)), maxlen=max(0, options.lines)):
        show(line)
    while options.follow:
        for line in filter(wanted, where.news()):
            show(line)
        sys.stdout.flush()
        time.sleep(LOOK_EVERY_S)
    return 0


def _is_wanted(line: dict[str, Any], options: argparse.Namespace) -> bool:
    level = line.get("level", "info")
    loud = LEVELS.index(level) if level in LEVELS else len(LEVELS)
    return loud >= LEVELS.index(options.level) and str(line.get("job", "")).startswith(options.job)


def _parse(line: str) -> dict[str, Any]:
    """The line's fields; a line of an older Keytween is an event without any."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"event": line}


def _printer(options: argparse.Namespace) -> Callable[[str], None]:
    """Prints a line: as it is with --json, else for people, in colours on a terminal."""
    if options.json:
        return lambda line: print(line)  # noqa: T201
    from rich.console import Console
    from rich.text import Text

    from keytween.logs import readable

    console = Console(soft_wrap=True, highlight=False)

    def show(line: str) -> None:
        fields = _parse(line)
        console.print(Text(readable(fields), style=_STYLES.get(str(fields.get("level")), "")))

    return show


def _all_lines(path: Path) -> Iterator[str]:
    from keytween.log_file import files_of

    for file in files_of(path):
        yield from file.read_text("utf-8", errors="replace").splitlines()


class _End:
    """The end of a log: what has come since, also when the file was renamed in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._at = _state(path)

    def news(self) -> Iterator[str]:
        """The whole lines since last time."""
        from keytween.log_file import older

        file, size = _state(self._path)
        if file != self._file:
            yield from self._read(older(self._path, 1))
            self._file, self._at = file, 0
        if size > self._at:
            yield from self._read(self._path)

    def _read(self, path: Path) -> Iterator[str]:
        try:
            with path.open("rb") as stream:
                stream.seek(self._at)
                data = stream.read()
        except OSError:
            return
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        yield from data.decode("utf-8", "replace").splitlines()


def _state(path: Path) -> tuple[int, int]:
    """Which file it is, and how large; zeros while there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size
