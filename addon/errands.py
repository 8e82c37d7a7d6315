# SPDX-License-Identifier: GPL-3.0-or-later
"""Errands: programs that run one after another beside Blender, and what they say. Never waited for.

There is at most one errand at a time. A timer of its own asks how it is; in background, where timers do
not fire, whoever started it calls `tick`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import bpy

from keytween_wire.errors import KeytweenError, SetUpFailed

EVERY_S = 0.2
LAST_BYTES = 4096
"""How much of the end of a log is read for its last line."""


class ErrandState(Enum):
    """Where an errand stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """One program: what it is for, its command when its turn comes, and whether it is needed at all."""

    label: str
    command: Callable[[], Sequence[str]]
    needed: Callable[[], bool] = _always
    output: Path | None = None
    """A file for what it says, instead of the errand's log."""
    codes: tuple[int, ...] | None = (0,)
    """The exit codes that are no failure; None for all, where what it said decides."""


class Errand:
    """Steps in their order; a failed one ends it, and a later errand of the same steps goes on there."""

    def __init__(
        self,
        title: str,
        steps: Sequence[Step],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        finish: Callable[[], None] = lambda: None,
        explain: Callable[[str, Path], KeytweenError] = lambda said, log: SetUpFailed(detail=said, log=log),
    ) -> None:
        self.title, self.steps, self.log = title, tuple(steps), log
        self.state = ErrandState.RUNNING
        self.error: KeytweenError | None = None
        self.number = -1
        self.said = ""
        """The last line that the step's program wrote, as of the last look."""
        self._before = 0
        """How long the log was when the step began."""
        self._environment = os.environ | dict(environment or {})
        self._finish, self._explain = finish, explain
        self._process: subprocess.Popen[bytes] | None = None
        log.write_bytes(b"")

    @property
    def label(self) -> str:
        """What the step that runs is for."""
        return self.steps[self.number].label if 0 <= self.number < len(self.steps) else ""

    @property
    def factor(self) -> float:
        """How many of the steps are done, 0..1."""
        return max(self.number, 0) / len(self.steps) if self.state is ErrandState.RUNNING else 1.0

    def go_on(self) -> bool:
        """Looks after the errand once; True when it moved on."""
        if self.state is not ErrandState.RUNNING:
            return False
        try:
            return self._go_on()
        except KeytweenError as error:
            self.state, self.error = ErrandState.FAILED, error
        except OSError as error:
            self._fail(f"{error.filename or 'a program'}: {error.strerror}")
        return True

    def _go_on(self) -> bool:
        if self._process is not None:
            self.said = last_line(self.log, nothing="", since=self._before)
            code = self._process.poll()
            if code is None:
                return False
            self._process = None
            accepted = self.steps[self.number].codes
            if accepted is not None and code not in accepted:
                self._fail(last_line(self.log))
                return True
        self._next()
        return True

    def _next(self) -> None:
        self.number += 1
        while self.number < len(self.steps) and not self.steps[self.number].needed():
            self.number += 1
        if self.number >= len(self.steps):
            self._finish()
            self.state = ErrandState.DONE
            return
        step = self.steps[self.number]
        self.said, self._before = "", self.log.stat().st_size
        mode = "ab" if step.output is None else "wb"
        self._process = spawn(step.command(), self._environment, step.output or self.log, mode=mode)

    def _fail(self, said: str) -> None:
        self.state, self.error = ErrandState.FAILED, self._explain(said, self.log)

    def stop(self) -> None:
        """Ends the program that runs; what earlier steps did stays."""
        if self.state is ErrandState.RUNNING:
            self.state = ErrandState.STOPPED
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


current: Errand | None = None
"""The errand that runs, or the last one that ran."""


def begin(errand: Errand) -> None:
    """Runs an errand; one that runs already is ended first."""
    global current
    if current is not None:
        current.stop()
    current = errand
    errand.go_on()
    if not bpy.app.background and not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=EVERY_S, persistent=True)


def refuse(title: str, error: KeytweenError) -> None:
    """Shows as failed what could not even be begun."""
    global current
    current = Errand(title, (), Path(os.devnull))
    current.state, current.error = ErrandState.FAILED, error


def running() -> bool:
    """Whether there is an errand that has not ended."""
    return current is not None and current.state is ErrandState.RUNNING


def tick() -> float | None:
    """One turn of the timer; None once there is nothing to look after."""
    if current is None:
        return None
    current.go_on()
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"SEQUENCE_EDITOR", "PREFERENCES"}:
                area.tag_redraw()
    return EVERY_S if running() else None


# ---- programs


def spawn(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, mode: str = "wb"
) -> subprocess.Popen[bytes]:
    """Starts a process of its own group, so that an interrupt meant for Blender does not reach it."""
    # Blender's own Python settings would send another interpreter to the wrong library.
    clean = {key: value for key, value in environment.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    detached: dict[str, object] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        detached = {"creationflags": flags}
    with log.open(mode) as stream:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=clean, **detached
        )


def last_line(log: Path | None, *, nothing: str = "it said nothing", since: int = 0) -> str:
    """The last thing that a program wrote into its log, from that byte on; else `nothing`."""
    lines: list[str] = []
    with suppress(OSError):
        if log is not None:
            with log.open("rb") as stream:
                stream.seek(max(since, log.stat().st_size - LAST_BYTES))
                text = stream.read().decode("utf-8", "replace").replace("\r", "\n")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else nothing


def register() -> None:
    """Nothing runs at first."""
    global current
    current = None


def unregister() -> None:
    """Ends what runs: it can be begun again and goes on where it was."""
    if current is not None:
        current.stop()
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
