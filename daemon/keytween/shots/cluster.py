"""Makes shots on a Ray cluster: one task for each, its files on a disk that all nodes share.

Nothing but a shot's settings and its record's short summary goes through Ray. What is done is known from the
records on disk, so that a driver that dies loses nothing: the next one does what is missing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from keytween.shots.pool import BUSY, DONE, FAILED, PULSE, UNCHANGED, Event, Limits
from keytween.shots.records import Shelf
from keytween.shots.shot import Batch, Shot
from keytween.shots.unit import failure, note_death
from keytween.shots.wishes import CANCEL, RETRY, take
from keytween_wire.errors import (
    Cancelled,
    ClusterUnusable,
    ExtraMissing,
    KeytweenError,
    ShotCrashed,
    ShotTooLarge,
    ShotTooSlow,
    from_wire,
)

LOOK_EVERY = 1.0
"""Seconds between two looks at deadlines."""
GRACE = 15.0
"""Seconds beyond its deadline after which a shot is ended from outside, if it could not end itself."""
CLOCKS = 60.0
"""Seconds by which the nodes' clocks may differ."""
NODES = 5
"""How many nodes may die under a shot before it is taken for the reason."""
BUSY_PAUSE = 5.0
"""Seconds until a shot that another process makes is tried again."""

_MAKERS: dict[tuple[str, bool, bool], Any] = {}
"""In a cluster's process: its maker, whose engines stay open from shot to shot."""


def run(batch: Batch, shots: Sequence[Shot], limits: Limits, *, address: str) -> Iterator[Event]:
    """Makes these shots on the cluster; closing the generator ends what is under way.

    Raises ClusterUnusable without a token, or where nobody answers at the address.
    """
    # Ray prints what it likes; standard output is the command's own.
    with redirect_stdout(sys.stderr):
        ray = connect(address)
        driver = _Driver(ray, batch, list(shots), limits)
        try:
            yield from driver.events()
        finally:
            driver.end()
            ray.shutdown()


def connect(address: str) -> Any:
    """Ray, connected. A cluster without a token would run anybody's code, so none is used."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        detail = "it must be started, and used, with RAY_AUTH_MODE=token"
        raise ClusterUnusable(name=address, detail=detail)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ExtraMissing(name="Ray", detail=error, extra="ray") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = str(error).splitlines()
        raise ClusterUnusable(name=address, detail=said[0] if said else error) from error
    return ray


def make_shot(values: dict[str, Any], results: str, limits: Limits) -> dict[str, Any]:
    """In a process of the cluster: one shot, and how it ended. Frames stay on the disk."""
    from keytween.config import load
    from keytween.shots.unit import Maker
    from keytween_wire.errors import ShotBusy

    shot, key = Shot.from_json(values), (results, limits.overwrite, limits.fresh)
    if key not in _MAKERS:
        _MAKERS[key] = Maker(load(), Path(results), overwrite=limits.overwrite, fresh=limits.fresh)
    over = threading.Event()
    threading.Thread(target=_guard, args=(shot, Path(results), limits, over), daemon=True).start()
    try:
        record, made = _MAKERS[key].make(shot, lambda share, phase: None)
        short = {name: record[name] for name in ("drawn", "seconds", "attempts")}
        return {"kind": DONE if made else UNCHANGED, "record": short}
    except ShotBusy as error:
        return {"kind": BUSY, "code": error.code, "values": error.values}
    except KeytweenError as error:
        return {"kind": FAILED, "code": error.code, "values": error.values}
    finally:
        over.set()


def _guard(shot: Shot, results: Path, limits: Limits, over: threading.Event) -> None:
    """Ends the process when its shot takes too long or too much, and says so in the shot's record."""
    began, seconds = time.time(), limits.seconds(shot)
    while not over.wait(0.5):
        error: KeytweenError | None = None
        taken = psutil.Process().memory_info().rss / 1e6
        if seconds and time.time() - began > seconds:
            error = ShotTooSlow(shot=shot.id, seconds=f"{seconds:g}")
        elif limits.memory_mb and taken > limits.memory_mb:
            error = ShotTooLarge(shot=shot.id, taken=f"{taken:.0f}", limit=f"{limits.memory_mb:g}")
        if error is not None:
            shelf = Shelf(results, shot.id)
            with suppress(OSError):
                # Under the lock that this process holds for the shot.
                shelf.save(failure(shelf.load() or {}, shot.id, error, began))
            os._exit(1)


@dataclass(slots=True)
class _Task:
    """A shot that was handed to the cluster; `running` is since when it was seen at work, 0 for not yet."""

    shot: Shot
    handed: float
    running: float = 0.0
    given_up: KeytweenError | None = None


@dataclass(slots=True)
class _Driver:
    ray: Any
    batch: Batch
    waiting: list[Shot]
    limits: Limits
    under_way: dict[Any, _Task] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        remote = self._remote()
        while self.waiting or self.under_way:
            self._hand_out(remote)
            if not self.under_way:
                time.sleep(LOOK_EVERY)
                continue
            ready, _ = self.ray.wait(list(self.under_way), num_returns=1, timeout=LOOK_EVERY)
            for reference in ready:
                yield from self._ended(reference, self.under_way.pop(reference))
            self._look()
            for shot, what in take(self.batch.results):
                yield from self._wished(shot, what)
            yield Event(PULSE, "")

    def _remote(self) -> Any:
        """The task: on a GPU where the cluster has any, its process kept for the next shot.

        Ray itself tries nothing again: a shot that kills its process is counted here, by name.
        """
        gpus = self.ray.cluster_resources().get("GPU", 0) >= 1
        needs = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        options = {"max_calls": 0, "max_retries": 0, "scheduling_strategy": "SPREAD", **needs}
        return self.ray.remote(**options)(make_shot)

    def _hand_out(self, remote: Any) -> None:
        """Keeps somewhat more in the cluster's queue than it can run at once."""
        now, total = time.monotonic(), self.ray.cluster_resources()
        room = int(2 * max(1, total.get("GPU", 0) or total.get("CPU", 1))) - len(self.under_way)
        due = [shot for shot in self.waiting if self.later.get(shot.id, 0.0) <= now]
        for shot in due[: max(0, room)]:
            self.waiting.remove(shot)
            reference = remote.remote(shot.as_json(), str(self.batch.results), self.limits)
            self.under_way[reference] = _Task(shot, time.time())

    def _ended(self, reference: Any, task: _Task) -> Iterator[Event]:
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            yield from self._lost(task, error)
            return
        shot, error = task.shot, None
        if "code" in answer:
            error = from_wire(answer["code"], answer["values"])
        if answer["kind"] == BUSY:
            self.later[shot.id] = time.monotonic() + BUSY_PAUSE
            self.waiting.append(shot)
        yield Event(answer["kind"], shot.id, 1.0, record=answer.get("record"), error=error)

    def _lost(self, task: _Task, error: Exception) -> Iterator[Event]:
        """A process or its node is gone: the shot is tried again, unless it was at fault too often."""
        shot, errors = task.shot, self.ray.exceptions
        failed = task.given_up or self._said_itself(task)
        if failed is None and isinstance(error, errors.RayTaskError):
            failed = KeytweenError(detail=str(error).strip().splitlines()[-1])
        if failed is None:
            node = isinstance(error, errors.NodeDiedError)
            counts, most = (self.nodes, NODES) if node else (self.deaths, self.limits.attempts)
            counts[shot.id] = counts.get(shot.id, 0) + 1
            failed = self._reason(shot, error, counts[shot.id]) if counts[shot.id] >= most else None
        if failed is None:
            self.waiting.insert(0, shot)
            return
        note_death(Shelf(self.batch.results, shot.id), shot.id, failed, task.running or task.handed)
        yield Event(FAILED, shot.id, 1.0, error=failed)

    def _said_itself(self, task: _Task) -> KeytweenError | None:
        """What the shot's own guard has left in its record before it ended the process."""
        record = Shelf(self.batch.results, task.shot.id).load() or {}
        said = record.get("error", {})
        if record.get("state") != FAILED or record.get("ended", 0.0) < task.handed - CLOCKS:
            return None
        kinds = {ShotTooSlow.code: ShotTooSlow, ShotTooLarge.code: ShotTooLarge}
        kind = kinds.get(said.get("code", ""))
        return kind(**said.get("values", {})) if kind else None

    def _reason(self, shot: Shot, error: Exception, count: int) -> KeytweenError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = (lines[0] if lines else type(error).__name__).rstrip(".")
        return ShotCrashed(shot=shot.id, attempts=count, detail=detail)

    def _look(self) -> None:
        """Gives up what runs far beyond its deadline; a shot runs from when its record says so."""
        for reference, task in self.under_way.items():
            seconds = self.limits.seconds(task.shot)
            if not seconds or task.given_up:
                continue
            record = Shelf(self.batch.results, task.shot.id).load() or {}
            if record.get("state") == "running" and record.get("started", 0.0) >= task.handed - CLOCKS:
                task.running = task.running or time.time()
            if task.running and time.time() - task.running > seconds + GRACE:
                task.given_up = ShotTooSlow(shot=task.shot.id, seconds=f"{seconds:g}")
                self.ray.cancel(reference, force=True)

    def _wished(self, name: str, what: str) -> Iterator[Event]:
        """Does what somebody who watches wants, as the processes of one machine do."""
        handed = next((r for r, task in self.under_way.items() if task.shot.id == name), None)
        waiting = next((shot for shot in self.waiting if shot.id == name), None)
        if what == CANCEL and handed is not None:
            self.under_way[handed].given_up = Cancelled()
            self.ray.cancel(handed, force=True)
        elif what == CANCEL and waiting:
            self.waiting.remove(waiting)
            note_death(Shelf(self.batch.results, name), name, Cancelled(), time.time())
            yield Event(FAILED, name, 1.0, error=Cancelled())
        elif what == RETRY and handed is None and not waiting:
            self.deaths.pop(name, None)
            self.waiting += [shot for shot in self.batch.shots if shot.id == name]

    def end(self) -> None:
        """Ends what is under way; what it has placed stays."""
        for reference in self.under_way:
            with suppress(Exception):
                self.ray.cancel(reference, force=True)
