"""Dispatch: gives queued jobs to a device's worker process. Starts, watches, cancels, replaces it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from keytween.jobs.folder import FrameFile, JobFolder
from keytween.jobs.link import Abandon, Ended, Found, FrameReady, LinkKeys, Ready, Run, Said, Working
from keytween.jobs.store import JobStore
from keytween_wire.errors import WorkerLost, from_wire
from keytween_wire.messages import JobState

log = logging.getLogger(__name__)
CANCEL_GRACE_S = 10.0
START_GRACE_S = 30.0
RESTART_PAUSE_S = 0.5
MOST_STARTS = 10
"""A worker that dies this often in a row before it is ready will not come up: the waiting job is told."""


@dataclass(slots=True)
class _Child:
    """A worker process: what it was given, and since when it is told to leave it."""

    process: subprocess.Popen[bytes]
    started: float
    identity: bytes = b""
    job_id: str = ""
    abandoned_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)


class Dispatch:
    """Drives the store's queue through one worker. Call `tick` often; it never blocks.

    `send(identity, message)` reaches a worker, `changed(job_id)` is called after every new event.
    """

    def __init__(
        self,
        store: JobStore,
        jobs: Path,
        keys: LinkKeys,
        *,
        send: Callable[[bytes, Said], None],
        changed: Callable[[str], None],
        max_attempts: int = 3,
        idle_s: float = 300.0,
        hang_s: float = 900.0,
        max_megapixels: float = 100.0,
        log_file: Path | None = None,
    ) -> None:
        self._store, self._jobs, self._keys = store, jobs, keys
        self._send, self._changed = send, changed
        self._max_attempts, self._idle_s, self._max_megapixels = max_attempts, idle_s, max_megapixels
        self._hang_s, self._log_file = hang_s, log_file
        self._child: _Child | None = None
        self._not_before = 0.0
        self._failed_starts = 0

    # ---- the daemon's side

    def tick(self) -> None:
        """Replaces a dead worker, hands out the next job, ends what hangs or idles."""
        child = self._child
        now = time.monotonic()
        if child is not None and child.process.poll() is not None:
            self._lost(child, f"exit code {child.process.returncode}")
        elif child is not None:
            self._check_patience(child, now)
        self._hand_out(now)

    def cancel(self, job_id: str) -> bool:
        """Ends a job that waits or runs; false for one that has ended, which stays as it is."""
        if self._store.job(job_id).state.ended:
            return False
        self._store.move(job_id, JobState.CANCELLED)
        self._changed(job_id)
        if self._child is not None and self._child.job_id == job_id:
            self._child.abandoned_at = time.monotonic()
            self._send(self._child.identity, Abandon(job_id))
        return True

    def stop(self) -> None:
        """Ends the worker; a running job goes on at the next start."""
        if self._child is not None:
            _end(self._child.process)
            self._child = None

    def rest(self) -> bool:
        """Ends a worker that has nothing to do, so that its memory is free; false when there is none."""
        if self._child is None or self._child.job_id or not self._child.identity:
            return False
        self.stop()
        return True

    @property
    def worker_pid(self) -> int:
        """The worker's process id, 0 when there is none."""
        return self._child.process.pid if self._child else 0

    # ---- what the worker says

    def hear(self, identity: bytes, said: Said) -> None:
        """Takes a message from a worker; one from a worker that was given up is ignored."""
        child = self._child
        if child is None:
            return
        if isinstance(said, Ready):
            if said.pid == child.process.pid:
                child.identity, child.idle_since = identity, time.monotonic()
                self._failed_starts = 0
                self._hand_out(time.monotonic())
        elif identity == child.identity:
            child.heard = time.monotonic()
            self._hear_of_job(child, said)

    def _hear_of_job(self, child: _Child, said: Said) -> None:
        if isinstance(said, Ended):
            self._ended(child, said)
        elif isinstance(said, FrameReady | Found | Working) and self._runs(child, said.job_id):
            self._note(said)

    def _runs(self, child: _Child, job_id: str) -> bool:
        return job_id == child.job_id and self._store.job(job_id).state is JobState.RUNNING

    def _note(self, said: FrameReady | Found | Working) -> None:
        job_id = said.job_id
        match said:
            case FrameReady():
                frame = FrameFile(said.index, said.digest, said.suffix, said.size)
                self._store.add_frame(job_id, frame, note=said.note)
            case Found():
                for index in self._store.frames(job_id).keys() - set(said.indices):
                    self._store.drop_frame(job_id, index)
            case Working():
                self._store.progress(
                    job_id, phase=said.phase, step=said.step, steps=said.steps, eta_s=said.eta_s
                )
        self._changed(job_id)

    def _ended(self, child: _Child, said: Ended) -> None:
        child.job_id, child.abandoned_at, child.idle_since = "", 0.0, time.monotonic()
        if self._store.job(said.job_id).state is JobState.RUNNING and not said.abandoned:
            if said.error is None:
                self._store.move(said.job_id, JobState.DONE)
            else:
                error = from_wire(said.error.code, said.error.values)
                self._store.move(said.job_id, JobState.FAILED, error=error)
            self._changed(said.job_id)
        self._hand_out(time.monotonic())

    # ---- the worker's life

    def _hand_out(self, now: float) -> None:
        child = self._child
        if child is not None and (child.job_id or not child.identity):
            return
        job_id = self._store.next_queued()
        if job_id is None:
            return
        if child is None:
            if now >= self._not_before:
                self._child = self._start()
            return
        child.job_id, child.heard = job_id, now
        self._store.move(job_id, JobState.RUNNING)
        self._changed(job_id)
        folder = JobFolder(self._jobs, job_id)
        self._send(
            child.identity, Run(job_id, str(folder.path), self._store.request(job_id), self._max_megapixels)
        )

    def _start(self) -> _Child:
        output = self._log_file.open("ab") if self._log_file else None
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "keytween.jobs.worker"],
                stdin=subprocess.PIPE,
                stdout=output or subprocess.DEVNULL,
                stderr=output,
            )
        finally:
            if output:
                output.close()
        assert process.stdin is not None
        with suppress(OSError):  # it may be dead already: the next tick notices
            process.stdin.write(json.dumps(self._keys.as_json()).encode() + b"\n")
            process.stdin.flush()
        return _Child(process, time.monotonic())

    def _check_patience(self, child: _Child, now: float) -> None:
        if child.abandoned_at and now - child.abandoned_at > CANCEL_GRACE_S:
            log.warning("the worker did not leave a cancelled job within %s s", CANCEL_GRACE_S)
            self._lost(child, "it did not react to cancel")
        elif child.job_id and now - child.heard > self._hang_s:
            self._lost(child, f"it said nothing for {self._hang_s:.0f} s")
        elif not child.identity and now - child.started > START_GRACE_S:
            self._lost(child, "it did not start")
        elif not child.job_id and child.identity and now - child.idle_since > self._idle_s:
            log.info("the worker was idle for %s s; it exits and frees its memory", self._idle_s)
            self.stop()

    def _lost(self, child: _Child, reason: str) -> None:
        """The child is gone or given up: its job waits again, or fails when it has lost too many."""
        _end(child.process)
        self._child, self._not_before = None, time.monotonic() + RESTART_PAUSE_S
        log.warning("the worker was lost on job %s: %s", child.job_id or "-", reason)
        if child.job_id:
            self._blame(child.job_id, reason)
        elif not child.identity:
            self._failed_starts += 1
            waiting = self._store.next_queued()
            if waiting and self._failed_starts >= MOST_STARTS:
                self._fail(waiting, self._failed_starts, reason)

    def _blame(self, job_id: str, reason: str) -> None:
        """A job that was running when its worker died tries again, so often without a new frame."""
        if self._store.job(job_id).state.ended:
            return
        attempts = self._store.count_attempt(job_id)
        if attempts >= self._max_attempts:
            self._fail(job_id, attempts, reason)
        else:
            self._store.move(job_id, JobState.QUEUED)
            self._changed(job_id)

    def _fail(self, job_id: str, attempts: int, reason: str) -> None:
        self._store.move(job_id, JobState.FAILED, error=WorkerLost(attempts=attempts, detail=reason))
        self._changed(job_id)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills at once: a worker's files are whole or not there, so there is nothing to wait for."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
