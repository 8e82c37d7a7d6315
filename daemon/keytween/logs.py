# SPDX-License-Identifier: Apache-2.0
"""The log: one JSON line an event, of the daemon and its workers, without an artist's words or pictures."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from keytween.cover import Cover
from keytween.log_file import Flood, SharedFile
from keytween.private import opener
from keytween_wire.errors import KeytweenError

Figure = str | int | float | bool | None
FIELDS = ("time", "level", "event", "process", "pid")
"""What every line has, in this order."""
LONGEST_TEXT, DEEPEST_TRACE, LONGEST_CHAIN = 500, 24, 4
OUTPUT = "output.log"
"""Beside the log: what libraries print, and where a process that crashed was at."""
OUTPUT_BYTES = 1 << 20
COVER = Cover()
"""What this process does not write down."""
_NAMING = ("name", "names", "first", "second", "value", "shot", "log", "what")
"""The values of errors that may be names of an artist's files."""
_log = logging.getLogger("keytween")


def note(
    event: str,
    *,
    level: int = logging.INFO,
    job: str = "",
    error: BaseException | None = None,
    **figures: Figure,
) -> None:
    """Writes an event down, with the job it belongs to, what went wrong, and figures that say more."""
    if _log.isEnabledFor(level):
        _log.log(level, event, exc_info=error, extra={"job": job, "figures": figures})


def warn(event: str, *, job: str = "", error: BaseException | None = None, **figures: Figure) -> None:
    """The same for what should not happen."""
    note(event, level=logging.WARNING, job=job, error=error, **figures)


def begin(path: Path, *, process: str, device: str | None = None) -> None:
    """From now on events of this process go to the log at `path`; to the terminal too, if there is one."""
    COVER.places.update(Cover.of_this_user().places)
    handlers: list[logging.Handler] = [SharedFile(path)]
    handlers[0].setFormatter(JsonLines(COVER, process=process, device=device))
    if sys.stderr is not None and sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
        handlers[1].setFormatter(Sentences(COVER, process=process, device=device))
    for handler in handlers:
        handler.addFilter(Flood())
    root = logging.getLogger()
    root.handlers[:] = handlers
    # Libraries are heard when they warn.
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)


def open_output(log: Path) -> BinaryIO:
    """The file beside the log, to add to its end what libraries print; for this user alone."""
    return open(log.with_name(OUTPUT), "ab", buffering=0, opener=opener)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, cover: Cover, *, process: str, device: str | None = None) -> None:
        super().__init__()
        self._cover, self._process, self._device = cover, process, device

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return json.dumps(self.as_json(record), ensure_ascii=True, separators=(",", ":"))

    def as_json(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record's fields: those of every line, then the job, the device, the figures and the error."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": self._event(record),
            "process": self._process,
            "pid": os.getpid(),
        }
        if job := getattr(record, "job", ""):
            line["job"] = self._short(job)
        if self._device is not None:
            line["device"] = self._device
        line.update(self._figures(record))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self._error(record.exc_info[1], record.exc_info[2])
        if left_out := getattr(record, "left_out", 0):
            line["left_out"] = left_out
        return line

    def _event(self, record: logging.LogRecord) -> str:
        return record.msg if hasattr(record, "figures") else "library"

    def _figures(self, record: logging.LogRecord) -> dict[str, Figure]:
        figures: Mapping[str, Figure] | None = getattr(record, "figures", None)
        if figures is None:
            figures = {"library": record.name, "said": record.getMessage()}
        return {name: self._figure(value) for name, value in figures.items() if value is not None}

    def _figure(self, value: Figure) -> Figure:
        if isinstance(value, str):
            return self._short(value)
        return round(value, 3) if isinstance(value, float) else value

    def _short(self, text: str) -> str:
        return self._cover(text)[:LONGEST_TEXT]

    def _error(
        self, error: BaseException, trace: TracebackType | None, depth: int = LONGEST_CHAIN
    ) -> dict[str, Any]:
        told: dict[str, Any] = {"type": type(error).__name__, "text": self._short(sentence(error))}
        if isinstance(error, KeytweenError):
            told["code"] = error.code
        if lines := list(_trace(trace)):
            told["at"] = lines[-DEEPEST_TRACE:]
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None and depth > 1:
            told["because"] = self._error(cause, cause.__traceback__, depth - 1)
        return told


class Sentences(JsonLines):
    """A record as a line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return readable(self.as_json(record))


def sentence(error: BaseException) -> str:
    """An error's text without the names that an artist gave."""
    if not isinstance(error, KeytweenError):
        return str(error)
    values = {k: "…" if k in _NAMING and not v.isdecimal() else v for k, v in error.values.items()}
    return type(error)(**values).message


def _trace(trace: TracebackType | None) -> list[str]:
    """Where it happened, innermost last: modules and lines, no folders of this machine."""
    lines: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_globals.get("__name__", "?")
        lines.append(f"{module}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return lines


def readable(line: Mapping[str, Any]) -> str:
    """A line of the log for people: time, level, who, event, job, figures, error."""
    rest = {k: v for k, v in line.items() if k not in (*FIELDS, "job", "device", "error", "left_out")}
    who = str(line.get("process", ""))
    if line.get("device") is not None:
        who += f" {line['device'] or 'device'}"
    words = [str(line.get("time", "")), f"{line.get('level', ''):7}", f"{who:12}", str(line.get("event", ""))]
    if job := line.get("job"):
        words.append(f"job {str(job)[:8]}")
    words += [f"{name}={value}" for name, value in rest.items()]
    if line.get("left_out"):
        words.append(f"(and {line['left_out']} more like it)")
    if isinstance(line.get("error"), Mapping):
        words.append(_error_text(line["error"]))
    return "  ".join(words)


def _error_text(error: Mapping[str, Any]) -> str:
    code = f" [{error['code']}]" if "code" in error else ""
    where = f" at {error['at'][-1]}" if error.get("at") else ""
    return f"{error.get('type')}: {error.get('text')}{code}{where}"
