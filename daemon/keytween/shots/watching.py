"""What `keytween top` shows: machine, daemon and batch at one moment. Reads, and changes nothing."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from keytween.devices import gpus
from keytween.shots.records import FAILED, Record, Shelf
from keytween.shots.running import board_file
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError, KeytweenError, from_wire

if TYPE_CHECKING:
    from keytween.config import Config

STALE = 60.0
"""Seconds without a word after which a batch on another machine is taken for killed."""
PICTURES = 3
"""From how many shots a picture is taken while none is being made."""


@dataclass(frozen=True, slots=True)
class Device:
    """A processor or a GPU: how busy it is in percent, and its memory in MB."""

    name: str
    busy: float
    used_mb: float
    total_mb: float


@dataclass(frozen=True, slots=True)
class Job:
    """One of the daemon's jobs."""

    job_id: str
    name: str
    state: str
    engine: str
    done: int
    total: int
    phase: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class ShotNow:
    """A shot of the batch: its state, share and phase, the reason where it failed, and its newest picture."""

    shot: str
    state: str
    share: float = 0.0
    phase: str = ""
    error: str = ""
    newest: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it; `daemon` and `batch` are sentences on how these two are."""

    devices: tuple[Device, ...]
    daemon: str
    batch: str
    running: bool = False
    jobs: tuple[Job, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    shots: tuple[ShotNow, ...] = ()


def look(config: Config, output: Path | None) -> Seen:
    """The machine, the daemon where one runs, and the batch of that output where one is given."""
    daemon, jobs = _daemon(config)
    said, running, shots = _batch(output) if output else ("No batch is watched.", False, ())
    counts = Counter(shot.state for shot in shots)
    return Seen(tuple(devices()), daemon, said, running, jobs, dict(counts), shots)


def devices() -> Iterator[Device]:
    """The processor, then NVIDIA's GPUs."""
    memory = psutil.virtual_memory()
    name = f"processor, {psutil.cpu_count()} cores"
    yield Device(name, psutil.cpu_percent(), (memory.total - memory.available) / 1e6, memory.total / 1e6)
    for gpu in gpus():
        yield Device(gpu.name, gpu.busy, gpu.used_mb, gpu.total_mb)


# ---- the daemon


def _daemon(config: Config) -> tuple[str, tuple[Job, ...]]:
    try:
        with Client(Connection.load(config.connection)) as client:
            client.hello(name="keytween top")
            found = client.jobs()
    except DaemonError as error:
        return error.message, ()
    except KeytweenError as error:
        return f"The daemon cannot be watched: {error.message}", ()
    jobs = tuple(
        Job(
            job.job_id,
            job.label,
            job.state.value,
            job.engine,
            job.frames_done,
            job.frames_total,
            job.phase,
            from_wire(job.error.code, job.error.values).message if job.error else "",
        )
        for job in found
    )
    waiting = sum(not job.state.ended for job in found)
    return f"The daemon runs: {waiting} of {len(jobs)} jobs not ended.", jobs


def cancel_job(config: Config, job_id: str) -> None:
    """Cancels one of the daemon's jobs. Raises DaemonError."""
    with Client(Connection.load(config.connection)) as client:
        client.hello(name="keytween top")
        client.cancel(job_id)


# ---- the batch


def _batch(output: Path) -> tuple[str, bool, tuple[ShotNow, ...]]:
    try:
        board = json.loads(board_file(output).read_text("utf-8"))
        states, shares = dict(board["states"]), dict(board["running"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"No batch has run in {output}.", False, ()
    shots = [_shot(output, shot, state, shares.get(shot, {})) for shot, state in states.items()]
    order = {"running": 0, "busy": 1, FAILED: 2, "waiting": 3}
    shots.sort(key=lambda shot: order.get(shot.state, 4 + (shot.state == "left out")))
    if not any(shot.newest for shot in shots):
        shots = [_with_picture(output, shot) if n < PICTURES else shot for n, shot in enumerate(shots)]
    left = any(state in ("running", "waiting", "busy") for state in states.values())
    running = left and _lives(board)
    told = "is running" if running else ("was cut off: start it again" if left else "has ended")
    return f"{Path(board['source']).name}: the batch {told}.", running, tuple(shots)


def _lives(board: dict[str, Any]) -> bool:
    """Whether the batch's process is there; on another machine, whether it has said something lately."""
    if board.get("host") == platform.node():
        return psutil.pid_exists(int(board.get("pid", 0)))
    return time.time() - float(board.get("updated", 0.0)) < STALE


def _shot(output: Path, shot: str, state: str, share: dict[str, Any]) -> ShotNow:
    shelf = Shelf(output / "results", shot)
    record: Record = (shelf.load() or {}) if state == FAILED else {}
    return ShotNow(
        shot,
        state,
        share.get("share", 1.0 if state in ("done", "unchanged") else 0.0),
        share.get("phase", ""),
        record.get("error", {}).get("message", ""),
        newest(shelf) if state == "running" else "",
    )


def newest(shelf: Shelf) -> str:
    """The picture that was put in place last, by the journal; nothing where there is none."""
    try:
        lines = shelf.journal.read_text("utf-8").splitlines()
        return str(shelf.root / json.loads(lines[-1])["file"]) if len(lines) > 1 else ""
    except (OSError, ValueError, KeyError):
        return ""


def _with_picture(output: Path, shot: ShotNow) -> ShotNow:
    """The shot with a picture from its middle; records are long, so few are read."""
    frames: Sequence[Record] = (Shelf(output / "results", shot.shot).load() or {}).get("frames", ())
    return replace(shot, newest=str(output / frames[len(frames) // 2]["file"])) if frames else shot


# ---- as text


def lines(seen: Seen) -> Iterator[str]:
    """What was seen, for a script's log: the machine, the daemon's jobs, the batch's shots that matter."""
    for device in seen.devices:
        memory = f"{device.used_mb / 1e3:.1f} of {device.total_mb / 1e3:.1f} GB"
        yield f"{device.name}: {device.busy:.0f} % busy, {memory}"
    yield seen.daemon
    for job in seen.jobs:
        told = f"{job.state} {job.done}/{job.total} {job.phase} {job.error}".rstrip()
        yield f"  {job.job_id[:8]} {job.name} {told}"
    yield seen.batch
    if seen.counts:
        yield "  " + ", ".join(f"{count} {state}" for state, count in sorted(seen.counts.items()))
    for shot in seen.shots:
        if shot.state in ("running", "busy", FAILED):
            yield f"  {shot.shot} {shot.state} {100 * shot.share:.0f} % {shot.phase} {shot.error}".rstrip()
