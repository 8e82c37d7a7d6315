"""Dispatch: gives queued jobs to worker processes. Starts, watches, cancels, replaces them.

One seat for engines that need the processor alone, so that a quick tween never waits for a slow one, and one
for each device. A seat has one worker process at a time, and none while it has nothing to do for long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keytween.jobs.child import Child
from keytween.jobs.folder import FrameFile, JobFolder
from keytween.jobs.link import Abandon, Ended, Found, FrameReady, LinkKeys, Open, Ready, Run, Said, Working
from keytween.jobs.store import JobStore
from keytween.log_file import trim
from keytween.logs import OUTPUT, OUTPUT_BYTES, note, warn
from keytween_wire.errors import KeytweenError, UnknownJob, WorkerLost, from_wire
from keytween_wire.messages import JobState

CANCEL_GRACE_S = 8.0
START_GRACE_S = 30.0
RESTART_PAUSE_S = 0.5
MOST_LEAN = 2
"""How often a job that had too little memory is tried again, with less and in a new process."""
RECOVERY_S = 1.5
"""How long a driver may take to give back the memory of a process that has ended."""
LOST_AFTER_S = 3.0
"""A worker that says it is idle so long after it was given a job has not heard of it."""
TRIM_EVERY_S = 5.0
MOST_STARTS = 10
"""A worker that dies this often in a row before it is ready will not come up: the waiting job is told."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a job may lose its worker without a new frame, and for how long a worker may idle or hang."""

    max_attempts: int = 3
    idle_s: float = 300.0
    hang_s: float = 900.0


@dataclass(slots=True)
class Tally:
    """What has happened since the start: frames, the seconds that each took, workers started and lost."""

    frames: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque[float](maxlen=10_000))
    started: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Seat:
    """Where one worker sits. `device` is what its jobs compute on, None for the processor alone."""

    device: str | None
    child: Child | None = None
    not_before: float = 0.0
    failed_starts: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What its worker sees of the machine's devices; an unnamed one is whatever there is."""
        return {"CUDA_VISIBLE_DEVICES": self.device} if self.device else {}

    @property
    def name(self) -> str:
        """How the log calls it."""
        return "processor" if self.device is None else self.device or "device"


@dataclass(slots=True)
class Dispatch:
    """Drives the store's queue through workers. Call `tick` often; it never blocks.

    `send(identity, message)` reaches a worker, `changed(job_id)` is called after every new event. `devices`
    names the GPUs as CUDA_VISIBLE_DEVICES does; an empty name is whatever device the engine finds.
    """

    store: JobStore
    jobs: Path
    keys: LinkKeys
    send: Callable[[bytes, Said], None]
    changed: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    devices: Sequence[str] = ("",)
    max_megapixels: float = 100.0
    log_file: Path | None = None
    _seats: list[_Seat] = field(init=False)
    tally: Tally = field(default_factory=Tally)
    _trimmed: float = 0.0
    _durations: deque[float] = field(default_factory=lambda: deque[float](maxlen=20))

    def __post_init__(self) -> None:
        self._seats = [_Seat(None), *(_Seat(device) for device in self.devices)]

    # ---- the daemon's side

    def tick(self) -> None:
        """Replaces dead workers, hands out the next jobs, ends what hangs or idles."""
        now = time.monotonic()
        for seat in self._seats:
            if seat.child is not None and seat.child.exit_code is not None:
                self._lost(seat, seat.child, f"exit code {seat.child.exit_code}")
            elif seat.child is not None:
                self._check_patience(seat, seat.child, now)
            self._hand_out(seat, now)
        if self.log_file is not None and now - self._trimmed > TRIM_EVERY_S:
            self._trimmed = now
            trim(self.log_file.with_name(OUTPUT), size=OUTPUT_BYTES)

    def cancel(self, job_id: str) -> bool:
        """Ends a job that waits or runs; false for one that has ended, which stays as it is."""
        if self.store.job(job_id).state.ended:
            return False
        self.store.move(job_id, JobState.CANCELLED)
        self.changed(job_id)
        note("job-cancelled", job=job_id)
        for _, child in self._children():
            if child.job_id == job_id:
                child.abandoned_at = time.monotonic()
                self.send(child.identity, Abandon(job_id))
        return True

    def stop(self) -> None:
        """Ends the workers; running jobs go on at the next start."""
        for seat, child in self._children():
            child.end()
            seat.child = None

    def rest(self) -> int:
        """Ends workers that have nothing to do, so that their memory is free; how many there were."""
        idle = [(seat, child) for seat, child in self._children() if child.idle]
        for seat, child in idle:
            child.end()
            seat.child = None
        return len(idle)

    def prepare(self, engine: str) -> bool:
        """Starts a worker that opens an engine of the processor's; false when one is there already."""
        seat = self._seats[0]
        if seat.child is not None or time.monotonic() < seat.not_before:
            return False
        seat.child = self._start(seat)
        seat.child.engine = engine
        return True

    def _children(self) -> Iterator[tuple[_Seat, Child]]:
        yield from ((seat, seat.child) for seat in self._seats if seat.child is not None)

    @property
    def processes(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(child.process.pid for _, child in self._children())

    # ---- what workers say

    def hear(self, identity: bytes, said: Said) -> None:
        """Takes a message from a worker; one from a worker that was given up is ignored."""
        for seat, child in self._children():
            if isinstance(said, Ready) and said.pid == child.process.pid:
                self._hear_ready(seat, child, identity)
            elif child.identity and identity == child.identity:
                child.heard = time.monotonic()
                self._hear_of_job(seat, child, said)

    def _hear_ready(self, seat: _Seat, child: Child, identity: bytes) -> None:
        now = time.monotonic()
        if not child.identity:
            child.idle_since, seat.failed_starts = now, 0
            note("worker-ready", device=seat.name, worker=child.process.pid, seconds=now - child.started)
            if child.engine:
                self.send(identity, Open(child.engine, str(self.jobs)))
        child.identity = identity
        if child.job_id and now - child.given_at > LOST_AFTER_S:
            warn("job-given-again", job=child.job_id, device=seat.name, worker=child.process.pid)
            if self._state(child.job_id) is JobState.RUNNING:
                self._give(child, child.job_id)
            else:
                child.job_id, child.abandoned_at, child.idle_since = "", 0.0, now
        self._hand_out(seat, now)

    def _hear_of_job(self, seat: _Seat, child: Child, said: Said) -> None:
        if isinstance(said, Ended):
            self._ended(seat, child, said)
        elif isinstance(said, FrameReady | Found | Working) and self._runs(child, said.job_id):
            self._note(child, said)

    def _runs(self, child: Child, job_id: str) -> bool:
        return job_id == child.job_id and self._state(job_id) is JobState.RUNNING

    def _state(self, job_id: str) -> JobState | None:
        """A job's state; None for one that was cleared while its worker was still at it."""
        try:
            return self.store.job(job_id).state
        except UnknownJob:
            return None

    def _note(self, child: Child, said: FrameReady | Found | Working) -> None:
        job_id = said.job_id
        match said:
            case FrameReady():
                frame = FrameFile(said.index, said.digest, said.suffix, said.size)
                if self.store.add_frame(job_id, frame, note=said.note) and said.computed:
                    self._count_frame(child)
            case Found():
                for index in self.store.frames(job_id).keys() - set(said.indices):
                    self.store.drop_frame(job_id, index)
            case Working():
                self.store.progress(
                    job_id, phase=said.phase, step=said.step, steps=said.steps, eta_s=said.eta_s
                )
        self.changed(job_id)

    def _count_frame(self, child: Child) -> None:
        now = time.monotonic()
        self.tally.frames += 1
        self.tally.seconds.append(now - child.frame_at)
        child.frame_at = now

    def _ended(self, seat: _Seat, child: Child, said: Ended) -> None:
        """Notes how the job ended. The store comes first: should it fail, the same is heard again."""
        if self._state(said.job_id) is JobState.RUNNING and not said.abandoned:
            self._conclude(child, said)
            self.changed(said.job_id)
        child.job_id, child.abandoned_at, child.idle_since = "", 0.0, time.monotonic()
        if said.starved:
            # What a process holds that has run out of memory is not to be trusted.
            child.end()
            seat.child, seat.not_before = None, time.monotonic() + RECOVERY_S
        self._hand_out(seat, time.monotonic())

    def _conclude(self, child: Child, said: Ended) -> None:
        job = self.store.job(said.job_id)
        if said.error is None and job.frames_done == job.frames_total:
            seconds = time.monotonic() - child.given_at
            self._durations.append(seconds)
            self.store.move(said.job_id, JobState.DONE)
            note("job-done", job=said.job_id, frames=job.frames_done, seconds=seconds)
        elif said.error is None:
            warn("job-not-whole", job=job.job_id, frames=job.frames_done, of=job.frames_total)
            self._blame(said.job_id, "it said that it was done, and was not")
        elif said.starved and self.store.make_lean(said.job_id) <= MOST_LEAN:
            self.store.move(said.job_id, JobState.QUEUED)
            note("job-waits-again", job=said.job_id, reason="memory ran out")
        else:
            self._failed(said.job_id, from_wire(said.error.code, said.error.values))

    @property
    def usual_s(self) -> float:
        """How long a job took lately, in seconds."""
        return sum(self._durations) / len(self._durations) if self._durations else 10.0

    # ---- a worker's life

    def _hand_out(self, seat: _Seat, now: float) -> None:
        child = seat.child
        if child is not None and not child.idle:
            return
        job_id = self.store.next_queued(device=seat.device is not None)
        if job_id is None:
            return
        if child is None:
            if now >= seat.not_before:
                seat.child = self._start(seat)
            return
        self.store.move(job_id, JobState.RUNNING)
        self.changed(job_id)
        note("job-started", job=job_id, device=seat.name, worker=child.process.pid)
        self._give(child, job_id)

    def _give(self, child: Child, job_id: str) -> None:
        child.job_id = job_id
        child.heard = child.given_at = child.frame_at = time.monotonic()
        folder = JobFolder(self.jobs, job_id).path
        lean = self.store.job(job_id).lean
        self.send(
            child.identity, Run(job_id, str(folder), self.store.request(job_id), self.max_megapixels, lean)
        )

    def _start(self, seat: _Seat) -> Child:
        child = Child.start(self.keys, environment=seat.environment, device=seat.name, log_file=self.log_file)
        self.tally.started += 1
        note("worker-started", device=seat.name, worker=child.process.pid)
        return child

    def _check_patience(self, seat: _Seat, child: Child, now: float) -> None:
        if child.abandoned_at and now - child.abandoned_at > CANCEL_GRACE_S:
            self._lost(seat, child, "it did not react to cancel")
        elif child.job_id and now - child.heard > self.patience.hang_s:
            self._lost(seat, child, f"it said nothing for {self.patience.hang_s:.0f} s")
        elif not child.identity and now - child.started > START_GRACE_S:
            self._lost(seat, child, "it did not start")
        elif child.idle and now - child.idle_since > self.patience.idle_s:
            note("worker-rests", device=seat.name, worker=child.process.pid, idle_s=now - child.idle_since)
            child.end()
            seat.child = None

    def _lost(self, seat: _Seat, child: Child, reason: str) -> None:
        """The child is gone or given up: its job waits again, or fails when it has lost too many."""
        child.end()
        self.tally.lost += 1
        seat.child, seat.not_before = None, time.monotonic() + RESTART_PAUSE_S
        warn("worker-lost", job=child.job_id, device=seat.name, worker=child.process.pid, reason=reason)
        if child.job_id:
            self._blame(child.job_id, reason)
        elif not child.identity:
            seat.failed_starts += 1
            waiting = self.store.next_queued(device=seat.device is not None)
            if waiting and seat.failed_starts >= MOST_STARTS:
                self._fail(waiting, seat.failed_starts, reason)

    def _blame(self, job_id: str, reason: str) -> None:
        """A job that was running when its worker died tries again, so often without a new frame."""
        if self._state(job_id) is not JobState.RUNNING:
            return
        attempts = self.store.count_attempt(job_id)
        if attempts >= self.patience.max_attempts:
            self._fail(job_id, attempts, reason)
        else:
            self.store.move(job_id, JobState.QUEUED)
            self.changed(job_id)
            note("job-waits-again", job=job_id, reason=reason, attempts=attempts)

    def _fail(self, job_id: str, attempts: int, reason: str) -> None:
        self._failed(job_id, WorkerLost(attempts=attempts, detail=reason))
        self.changed(job_id)

    def _failed(self, job_id: str, error: KeytweenError) -> None:
        """Notes the code alone: what an error says may name pictures, and its worker has told of it."""
        self.store.move(job_id, JobState.FAILED, error=error)
        warn("job-failed", job=job_id, error_code=error.code)
