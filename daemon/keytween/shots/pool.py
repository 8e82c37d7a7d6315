"""Makes shots on this machine, in processes of their own that may die without taking the batch with them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

from keytween.config import load
from keytween.devices import cores
from keytween.shots.by_daemon import give_up
from keytween.shots.records import Record, Shelf
from keytween.shots.shot import Batch, Shot
from keytween.shots.unit import note_death
from keytween.shots.wishes import CANCEL, RETRY, take
from keytween_wire.errors import Cancelled, KeytweenError, ShotCrashed, ShotTooLarge, ShotTooSlow, from_wire

DONE, UNCHANGED, FAILED, BUSY, PROGRESS = "done", "unchanged", "failed", "busy", "progress"
PULSE = "pulse"
"""Nothing has happened; but whoever listens may want to do something now and then."""

LOOK_EVERY = 0.5
"""Seconds between two looks at deadlines and memory."""
BUSY_PAUSE = 2.0
"""Seconds until a shot that another process makes is tried again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far shots may go: how many at once, deaths of a process per shot, seconds, megabytes (0: any)."""

    jobs: int = 1
    attempts: int = 2
    deadline: float = 0.0
    memory_mb: float = 0.0
    overwrite: bool = False
    fresh: bool = False
    daemon: bool = False

    def seconds(self, shot: Shot) -> float:
        """The shot's deadline, its own or the batch's; 0 for none."""
        return shot.deadline or self.deadline


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a shot: `kind` is DONE, UNCHANGED, FAILED, BUSY (tried again later) or PROGRESS."""

    kind: str
    shot: str
    share: float = 0.0
    phase: str = ""
    record: Record | None = None
    error: KeytweenError | None = None


def run(batch: Batch, shots: Sequence[Shot], limits: Limits, *, gpus: Sequence[str] = ()) -> Iterator[Event]:
    """Makes these shots in this order, `limits.jobs` at a time; closing the generator ends the processes."""
    pool = _Pool(batch, list(shots), limits, gpus)
    try:
        yield from pool.events()
    finally:
        pool.end()


@dataclass(slots=True)
class _Worker:
    """A process, the shot that it is at, and since when."""

    process: subprocess.Popen[bytes]
    number: int
    shot: Shot | None = None
    began: float = 0.0
    started: float = 0.0
    given_up: KeytweenError | None = None

    def tell(self, values: object) -> None:
        """Sends a line; a process that is dead already will be noticed by its end."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(values).encode() + b"\n")
            self.process.stdin.flush()


@dataclass(slots=True)
class _Pool:
    batch: Batch
    waiting: list[Shot]
    limits: Limits
    gpus: Sequence[str]
    workers: dict[int, _Worker] = field(default_factory=dict)
    heard: queue.Queue[tuple[int, dict[str, Any] | None]] = field(default_factory=queue.Queue)
    deaths: dict[str, int] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)
    looked: float = 0.0

    def events(self) -> Iterator[Event]:
        while self.waiting or any(worker.shot for worker in self.workers.values()):
            self._hand_out()
            try:
                number, answer = self.heard.get(timeout=LOOK_EVERY)
            except queue.Empty:
                number, answer = -1, {}
            if number >= 0:
                yield from self._answered(self.workers[number], answer)
            yield from self._look()

    # ---- handing out

    def _hand_out(self) -> None:
        now = time.monotonic()
        for number in range(self.limits.jobs):
            worker = self.workers.get(number)
            if worker and worker.shot:
                continue
            shot = next((s for s in self.waiting if self.later.get(s.id, 0.0) <= now), None)
            if shot is None:
                return
            self.waiting.remove(shot)
            worker = worker or self._start(number)
            worker.shot, worker.began, worker.started = shot, now, time.time()
            worker.tell(shot.as_json())

    def _start(self, number: int) -> _Worker:
        log = self.batch.results / f".worker-{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "keytween.shots.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(number),
                # Ctrl-C is for the batch, which ends its processes itself.
                start_new_session=os.name != "nt",
            )
        worker = self.workers[number] = _Worker(process, number)
        worker.tell(
            {
                "results": str(self.batch.results),
                "overwrite": self.limits.overwrite,
                "fresh": self.limits.fresh,
                "daemon": self.limits.daemon,
            }
        )
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(number, process.stdout), daemon=True).start()
        return worker

    def _environment(self, number: int) -> dict[str, str]:
        """Cores are shared out between the processes, and each has one GPU where there are any."""
        share = str(max(1, cores() // self.limits.jobs))
        shares = dict.fromkeys(("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), share)
        chosen = {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]} if self.gpus else {}
        return {**shares, **os.environ, **chosen}

    def _listen(self, number: int, answers: IO[bytes]) -> None:
        with answers:
            for line in answers:
                if line.endswith(b"\n"):
                    self.heard.put((number, json.loads(line)))
        self.heard.put((number, None))

    # ---- what comes back

    def _answered(self, worker: _Worker, answer: dict[str, Any] | None) -> Iterator[Event]:
        if answer is None:
            yield from self._ended(worker)
            return
        shot, kind = worker.shot, answer["kind"]
        if shot is None or answer["shot"] != shot.id:
            return
        if kind == PROGRESS:
            yield Event(PROGRESS, shot.id, answer["share"], answer["phase"])
            return
        worker.shot = None
        if kind == BUSY:
            self.later[shot.id] = time.monotonic() + BUSY_PAUSE
            self.waiting.append(shot)
        error = from_wire(answer["code"], answer["values"]) if "code" in answer else None
        yield Event(kind, shot.id, 1.0, record=answer.get("record"), error=error)

    def _ended(self, worker: _Worker) -> Iterator[Event]:
        """A process is gone: its shot is tried again in a new one, unless it has taken too many with it."""
        del self.workers[worker.number]
        code, shot = worker.process.wait(), worker.shot
        if shot is None:
            return
        self.deaths[shot.id] = self.deaths.get(shot.id, 0) + 1
        error = worker.given_up
        if error is None and self.deaths[shot.id] >= self.limits.attempts:
            error = ShotCrashed(shot=shot.id, attempts=self.deaths[shot.id], detail=said_of(code))
        if error is None:
            self.waiting.insert(0, shot)
            return
        shelf = Shelf(self.batch.results, shot.id)
        note_death(shelf, shot.id, error, worker.started)
        self._free_daemon(shelf)
        yield Event(FAILED, shot.id, 1.0, error=error)

    def _free_daemon(self, shelf: Shelf) -> None:
        """Cancels the daemon's job for a shot that nobody makes any more."""
        if self.limits.daemon and (job := (shelf.load() or {}).get("job")):
            give_up(load(), job)

    # ---- limits

    def _look(self) -> Iterator[Event]:
        now = time.monotonic()
        if now - self.looked < LOOK_EVERY:
            return
        self.looked = now
        yield Event(PULSE, "")
        for shot, what in take(self.batch.results):
            yield from self._wished(shot, what)
        for worker in self.workers.values():
            if worker.shot and worker.given_up is None:
                worker.given_up = self._too_much(worker, worker.shot, now)
                if worker.given_up:
                    worker.process.kill()

    def _wished(self, name: str, what: str) -> Iterator[Event]:
        """Does what somebody who watches wants: ends a shot, or queues one again that has ended."""
        at_work = next((w for w in self.workers.values() if w.shot and w.shot.id == name), None)
        waiting = next((shot for shot in self.waiting if shot.id == name), None)
        if what == CANCEL and at_work and at_work.given_up is None:
            at_work.given_up = Cancelled()
            at_work.process.kill()
        elif what == CANCEL and waiting:
            self.waiting.remove(waiting)
            note_death(Shelf(self.batch.results, name), name, Cancelled(), time.time())
            yield Event(FAILED, name, 1.0, error=Cancelled())
        elif what == RETRY and not at_work and not waiting:
            self.deaths.pop(name, None)
            self.waiting += [shot for shot in self.batch.shots if shot.id == name]

    def _too_much(self, worker: _Worker, shot: Shot, now: float) -> KeytweenError | None:
        seconds = self.limits.seconds(shot)
        if seconds and now - worker.began > seconds:
            return ShotTooSlow(shot=shot.id, seconds=f"{seconds:g}")
        taken = _memory_mb(worker.process.pid) if self.limits.memory_mb else 0.0
        if taken > self.limits.memory_mb:
            return ShotTooLarge(shot=shot.id, taken=f"{taken:.0f}", limit=f"{self.limits.memory_mb:g}")
        return None

    def end(self) -> None:
        """Ends the processes; what they have placed stays, and the rest is made by a later run."""
        for worker in self.workers.values():
            worker.process.kill()
        for worker in self.workers.values():
            worker.process.wait()
            if worker.shot:
                self._free_daemon(Shelf(self.batch.results, worker.shot.id))


def _memory_mb(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / 1e6
    except psutil.Error:
        return 0.0


def said_of(code: int) -> str:
    """What a process's exit code says, in words."""
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    return f"it exited with code {code}"


def jobs_for(shots: Sequence[Shot], found: Sequence[str]) -> int:
    """How many at once: one for each GPU where `diffmorpher` may be needed, otherwise for each core."""
    if any(shot.may_diffuse for shot in shots):
        return max(1, len(found))
    return cores()
