# SPDX-License-Identifier: Apache-2.0
"""Promise 1: no acknowledged job is lost. The store against a model of it, in sequences made by chance."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from figures import Measured
from keytween.jobs.folder import FrameFile, Order
from keytween.jobs.job import MOVES, MoveRefused
from keytween.jobs.store import JobStore
from keytween_wire.errors import JobIdTaken, KeytweenError, PictureMissing, QueueFull, UnknownJob
from keytween_wire.messages import FrameMade, JobChanged, JobState, KeyframeImage, MorphRequest, Progressed

from .chance import play

IMAGES = tuple(KeyframeImage(letter * 64, ".png") for letter in "abc")
REQUESTS = (MorphRequest(IMAGES, ((0.25, 0.5), (0.75,))), MorphRequest(IMAGES[:2], ((0.5,),), seed=7))
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
PLAYED: Counter[str] = Counter()


@dataclass
class Job:
    """What the store must know of a job."""

    request: MorphRequest
    device: bool
    state: JobState = JobState.QUEUED
    frames: set[int] = field(default_factory=set)
    attempts: int = 0
    lean: int = 0
    error: str = ""
    number: int = 1
    working: bool = False


class Machine(RuleBasedStateMachine):
    """Everything that the daemon does with its store, and what may happen to it in between."""

    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="keytween-machine-"))
        self.path = self.folder / "jobs.sqlite"
        self.store = JobStore(self.path)
        self.jobs: dict[str, Job] = {}
        self.count = 0
        PLAYED["sequences"] += 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def told(self, job: Job, *events: object) -> None:
        """Each event has a number of its own, one above the one before."""
        for event in events:
            job.number += 1
            assert getattr(event, "number", job.number) == job.number

    # ---- coming in

    @rule(target=ids, which=st.sampled_from([0, 1]), device=st.booleans(), label=st.text(max_size=5))
    def submit(self, which: int, device: bool, label: str) -> str:
        self.count += 1
        job_id = f"{self.count:032x}"
        order = Order(REQUESTS[which], "flow", device, label.encode("utf-8", "replace").decode(), 1.0)
        info = self.store.submit(job_id, order)
        assert (info.job_id, info.state, info.frames_total) == (
            job_id,
            JobState.QUEUED,
            REQUESTS[which].total,
        )
        self.jobs[job_id] = Job(REQUESTS[which], device)
        PLAYED["jobs"] += 1
        return job_id

    @rule(job_id=ids, which=st.sampled_from([0, 1]))
    def submit_again(self, job_id: str, which: int) -> None:
        """A client that heard no answer asks again; another one that has the same id is refused."""
        job = self.jobs.get(job_id)
        if job is None:
            assert self.store.known(job_id, REQUESTS[which]) is None
        elif job.request == REQUESTS[which]:
            known = self.store.known(job_id, REQUESTS[which])
            assert known is not None
            assert known.state is job.state
        else:
            with pytest.raises(JobIdTaken):
                self.store.known(job_id, REQUESTS[which])

    @rule(job_id=ids)
    def submit_what_is_there(self, job_id: str) -> None:
        """Not even a mistake of the daemon's own puts another job in the place of one."""
        if job_id in self.jobs:
            with pytest.raises(KeytweenError):
                self.store.submit(job_id, Order(REQUESTS[0], "flow"))

    @rule(limit=st.integers(0, 6))
    def check_room(self, limit: int) -> None:
        waiting = sum(job.state is JobState.QUEUED for job in self.jobs.values())
        if waiting >= limit:
            with pytest.raises(QueueFull):
                self.store.check_room(limit, retry_s=1)
        else:
            self.store.check_room(limit, retry_s=1)

    # ---- moving on

    @rule(device=st.booleans())
    def start_next(self, device: bool) -> None:
        job_id = self.store.next_queued(device=device)
        assert job_id == self.oldest(device)
        if job_id is not None:
            self.move(job_id, JobState.RUNNING)

    @rule(job_id=ids, state=st.sampled_from(JobState))
    def move(self, job_id: str, state: JobState) -> None:
        job = self.jobs.get(job_id)
        error = PictureMissing(name="a.png") if state is JobState.FAILED else None
        if job is None:
            with pytest.raises(UnknownJob):
                self.store.move(job_id, state, error=error)
        elif state not in MOVES[job.state]:
            with pytest.raises(MoveRefused):
                self.store.move(job_id, state, error=error)
        else:
            self.told(job, self.store.move(job_id, state, error=error))
            job.state, job.error = state, error.code if error else ""
            job.working = job.working and state not in ENDED

    @rule(job_id=ids, index=st.integers(0, 3))
    def add_frame(self, job_id: str, index: int) -> None:
        job = self.jobs.get(job_id)
        frame = FrameFile(index, f"{index:064x}", ".png", 100)
        if job is None or (index >= job.request.total and index not in job.frames):
            with pytest.raises(UnknownJob):
                self.store.add_frame(job_id, frame)
        elif index in job.frames:
            assert self.store.add_frame(job_id, frame) is None
        else:
            self.told(job, self.store.add_frame(job_id, frame))
            job.frames.add(index)
            job.attempts = 0

    @rule(job_id=ids, index=st.integers(0, 3))
    def lose_frame(self, job_id: str, index: int) -> None:
        self.store.drop_frame(job_id, index)
        if job_id in self.jobs:
            self.jobs[job_id].frames.discard(index)

    @rule(job_id=ids, index=st.integers(0, 3))
    def make_again(self, job_id: str, index: int) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            with pytest.raises(UnknownJob):
                self.store.make_again(job_id, index)
            return
        self.store.make_again(job_id, index)
        job.frames.discard(index)
        if job.state is JobState.DONE:
            self.requeued(job)

    @rule(job_id=ids)
    def retry(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            with pytest.raises(UnknownJob):
                self.store.retry(job_id)
        elif self.store.retry(job_id):
            assert job.state in (JobState.FAILED, JobState.CANCELLED)
            job.attempts = job.lean = 0
            self.requeued(job)
        else:
            assert job.state not in (JobState.FAILED, JobState.CANCELLED)

    def requeued(self, job: Job) -> None:
        job.state, job.error = JobState.QUEUED, ""
        job.number += 1

    @rule(job_id=ids, step=st.integers(0, 9))
    def progress(self, job_id: str, step: int) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            with pytest.raises(UnknownJob):
                self.store.progress(job_id, phase="drawing", step=step, steps=9, eta_s=1)
        elif job.state is JobState.RUNNING:
            event = self.store.progress(job_id, phase="drawing", step=step, steps=9, eta_s=1)
            self.told(job, event)
            assert (event.frames_done, event.frames_total) == (len(job.frames), job.request.total)
            job.working = True

    @rule(job_id=ids, lean=st.booleans())
    def lose_worker(self, job_id: str, lean: bool) -> None:
        job = self.jobs.get(job_id)
        count = self.store.make_lean if lean else self.store.count_attempt
        if job is None:
            with pytest.raises(UnknownJob):
                count(job_id)
        else:
            job.lean, job.attempts = job.lean + lean, job.attempts + (not lean)
            assert count(job_id) == (job.lean if lean else job.attempts)

    @rule(job_id=ids, everything=st.booleans())
    def clear(self, job_id: str, everything: bool) -> None:
        if not everything and job_id not in self.jobs:
            with pytest.raises(UnknownJob):
                self.store.clear(job_id)
            return
        asked = set(self.jobs) if everything else {job_id}
        gone = {each for each in asked if self.jobs[each].state in ENDED}
        assert set(self.store.clear("" if everything else job_id)) == gone
        for each in gone:
            del self.jobs[each]

    # ---- what may happen

    @rule()
    def close_and_open(self) -> None:
        self.store.close()
        self.store = JobStore(self.path)

    @rule(restart=st.booleans())
    def kill(self, restart: bool) -> None:
        """The files as they are at this moment, which is all that a killed daemon leaves."""
        PLAYED["kills"] += 1
        folder = self.folder / f"killed-{PLAYED['kills']}"
        folder.mkdir()
        for file in self.path.parent.glob("jobs.sqlite*"):
            shutil.copy(file, folder)
        self.store.close()
        self.path = folder / "jobs.sqlite"
        self.store = JobStore(self.path)
        if restart:
            running = [job_id for job_id, job in self.jobs.items() if job.state is JobState.RUNNING]
            assert list(self.store.requeue_running()) == running
            for job_id in running:
                self.jobs[job_id].state = JobState.QUEUED
                self.jobs[job_id].number += 1

    # ---- what is always so

    def oldest(self, device: bool) -> str | None:
        waiting = (i for i, j in self.jobs.items() if j.state is JobState.QUEUED and j.device is device)
        return next(waiting, None)

    @invariant()
    def no_job_is_lost_and_the_order_is_kept(self) -> None:
        if not hasattr(self, "store"):
            return
        PLAYED["steps"] += 1
        assert [info.job_id for info in self.store.jobs()] == list(reversed(self.jobs))
        assert self.store.job_ids() == frozenset(self.jobs)
        assert [self.store.next_queued(device=device) for device in (False, True)] == [
            self.oldest(device) for device in (False, True)
        ]
        assert self.store.busy() == any(job.state not in ENDED for job in self.jobs.values())

    @invariant()
    def every_job_is_as_it_was_left(self) -> None:
        for job_id, job in getattr(self, "jobs", {}).items():
            info = self.store.job(job_id)
            assert (info.state, info.attempts, info.lean) == (job.state, job.attempts, job.lean)
            assert (info.frames_done, info.frames_total) == (len(job.frames), job.request.total)
            assert (info.error.code if info.error else "") == job.error
            assert self.store.request(job_id) == job.request
            assert set(self.store.frames(job_id)) == job.frames

    @invariant()
    def events_tell_what_is_so(self) -> None:
        for job_id, job in getattr(self, "jobs", {}).items():
            events = self.store.events(job_id, 0, most=1000)
            numbers = [event.number for event in events]
            assert numbers == sorted(set(numbers))
            assert self.store.job(job_id).last_event == job.number >= (numbers or [0])[-1]
            assert {e.index for e in events if isinstance(e, FrameMade)} == job.frames
            assert sum(isinstance(e, Progressed) for e in events) == job.working
            changes = [e for e in events if isinstance(e, JobChanged)]
            assert changes[-1].state is job.state
            assert [e.state for e in changes if e.state.ended] == ([job.state] if job.state in ENDED else [])


def test_a_store_keeps_what_it_acknowledged_whatever_happens(measured: Measured) -> None:
    PLAYED.clear()
    run_state_machine_as_test(Machine, settings=play(examples=60, steps=40))
    assert PLAYED["kills"] > 10
    measured(
        "1-store",
        f"{PLAYED['sequences']} sequences by chance, {PLAYED['steps']} steps with {PLAYED['jobs']} jobs and "
        f"{PLAYED['kills']} kills: no job lost, none out of order",
    )
