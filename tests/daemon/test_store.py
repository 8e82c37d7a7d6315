"""The store: what is in it survives, moves by the table, and is a queue by query."""

from __future__ import annotations

import itertools
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytween.jobs.folder import FrameFile, Order
from keytween.jobs.job import MOVES, MoveRefused
from keytween.jobs.store import JobStore
from keytween_wire.errors import (
    BadSetting,
    JobIdTaken,
    PictureMissing,
    QueueFull,
    StoreUnusable,
    UnknownJob,
)
from keytween_wire.messages import FrameMade, JobChanged, JobState, KeyframeImage, MorphRequest, Progressed

IMAGES = (KeyframeImage("a" * 64, ".png"), KeyframeImage("b" * 64, ".png"), KeyframeImage("c" * 64, ".png"))
REQUEST = MorphRequest(IMAGES, ((0.25, 0.5), (0.75,)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def submit(store: JobStore, *, label: str = "", device: bool = False) -> str:
    job_id = uuid.uuid4().hex
    store.submit(job_id, Order(REQUEST, "flow", device, label))
    return job_id


def frame(index: int) -> FrameFile:
    return FrameFile(index, f"{index:064x}", ".png", 100)


def test_a_submitted_job_is_there_after_reopening(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, label="walk")
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    job = again.job(job_id)
    assert (job.state, job.label, job.frames_total) == (JobState.QUEUED, "walk", 3)
    assert again.request(job_id) == REQUEST
    again.close()


def test_a_store_of_an_older_version_goes_on_and_its_file_is_kept(tmp_path: Path) -> None:
    """The file was written by the version that had the first schema."""
    path = tmp_path / "jobs.sqlite"
    old = (Path(__file__).parent / "stores" / "schema-1.sqlite").read_bytes()
    path.write_bytes(old)
    store = JobStore(path)
    done, waits, runs = (digit * 32 for digit in "123")
    assert [store.job(j).state.value for j in (done, waits, runs)] == ["done", "queued", "running"]
    assert [m.index for m in store.events(done, 0, most=9) if isinstance(m, FrameMade)] == [0, 1]
    assert (store.job(runs).frames_done, store.job(runs).phase) == (1, "drawing")
    assert (store.next_queued(device=True), store.next_queued()) == (waits, None)
    assert store.requeue_running() == (runs,)
    assert store.next_queued() == runs
    later = submit(store)
    assert store.job(later).state is JobState.QUEUED
    store.close()
    kept = sqlite3.connect(tmp_path / "jobs.sqlite.schema-1")
    assert kept.execute("PRAGMA user_version").fetchone() == (1,)
    assert kept.execute("SELECT count(*), sum(state = 'running') FROM jobs").fetchone() == (3, 1)
    kept.close()


def test_a_job_for_a_device_waits_in_a_queue_of_its_own(store: JobStore) -> None:
    slow, quick = submit(store, device=True), submit(store)
    assert (store.next_queued(), store.next_queued(device=True)) == (quick, slow)


def test_the_queue_is_first_come_first_served(store: JobStore) -> None:
    first, second = submit(store), submit(store)
    assert store.next_queued() == first
    store.move(first, JobState.RUNNING)
    assert store.next_queued() == second
    store.move(first, JobState.QUEUED)
    assert store.next_queued() == first


def test_the_same_job_twice_is_known_and_another_under_its_id_is_refused(store: JobStore) -> None:
    job_id = submit(store)
    known = store.known(job_id, REQUEST)
    assert known is not None
    assert known.job_id == job_id
    with pytest.raises(JobIdTaken):
        store.known(job_id, MorphRequest(IMAGES, ((0.5,), ())))
    assert store.known(uuid.uuid4().hex, REQUEST) is None


@pytest.mark.parametrize("job_id", ["", "../../etc/passwd", "A" * 32, "a" * 31, "a" * 33])
def test_a_job_id_that_is_no_uuid_is_refused(store: JobStore, job_id: str) -> None:
    with pytest.raises(BadSetting):
        store.known(job_id, REQUEST)


def test_a_full_queue_says_so_and_when_to_come_again(store: JobStore) -> None:
    submit(store)
    store.check_room(2, retry_s=3.0)
    with pytest.raises(QueueFull) as caught:
        store.check_room(1, retry_s=42.0)
    assert "about 42 seconds" in caught.value.advice


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_jobs_move_only_by_the_table(store: JobStore, before: JobState, after: JobState) -> None:
    job_id = submit(store)
    path = {
        JobState.QUEUED: [],
        JobState.RUNNING: [JobState.RUNNING],
        JobState.DONE: [JobState.RUNNING, JobState.DONE],
        JobState.FAILED: [JobState.FAILED],
        JobState.CANCELLED: [JobState.CANCELLED],
    }[before]
    for state in path:
        store.move(job_id, state)
    if after in MOVES[before]:
        store.move(job_id, after)
        assert store.job(job_id).state is after
    else:
        with pytest.raises(MoveRefused):
            store.move(job_id, after)
        assert store.job(job_id).state is before


def test_events_are_numbered_without_repeats_and_replayed_since_n(store: JobStore) -> None:
    job_id = submit(store)
    store.move(job_id, JobState.RUNNING)
    for index in range(3):
        store.add_frame(job_id, frame(index))
    store.move(job_id, JobState.DONE)
    events = store.events(job_id, 0, most=100)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert store.events(job_id, 4, most=100) == events[4:]
    assert store.events(job_id, 0, most=2) == events[:2]
    assert isinstance(events[-1], JobChanged)


def test_only_the_newest_progress_is_kept_and_its_number_moves_on(store: JobStore) -> None:
    job_id = submit(store)
    store.move(job_id, JobState.RUNNING)
    for step in range(5):
        store.progress(job_id, phase="drawing", step=step, steps=5, eta_s=1.0)
    progress = [e for e in store.events(job_id, 0, most=100) if isinstance(e, Progressed)]
    assert [(p.step, p.number) for p in progress] == [(4, 7)]
    assert (store.job(job_id).phase, store.job(job_id).step) == ("drawing", 4)


def test_a_frame_names_its_segment_and_position(store: JobStore) -> None:
    job_id = submit(store)
    made = store.add_frame(job_id, frame(2))
    assert isinstance(made, FrameMade)
    assert (made.segment, made.position) == (1, 0.75)


def test_a_frames_note_is_told_with_it(store: JobStore) -> None:
    job_id = submit(store)
    store.add_frame(job_id, frame(0), note="Paced by eye.")
    store.add_frame(job_id, frame(1))
    notes = [e.note for e in store.events(job_id, 0, most=9) if isinstance(e, FrameMade)]
    assert notes == ["Paced by eye.", ""]


def test_a_frame_is_told_once(store: JobStore) -> None:
    job_id = submit(store)
    assert store.add_frame(job_id, frame(0)) is not None
    assert store.add_frame(job_id, frame(0)) is None
    assert store.job(job_id).frames_done == 1


def test_a_new_frame_forgives_the_workers_that_died_before(store: JobStore) -> None:
    job_id = submit(store)
    assert [store.count_attempt(job_id), store.count_attempt(job_id)] == [1, 2]
    store.add_frame(job_id, frame(0))
    assert store.count_attempt(job_id) == 1


def test_what_ran_when_the_daemon_died_waits_again(store: JobStore) -> None:
    first, second, third = submit(store), submit(store), submit(store)
    store.move(first, JobState.RUNNING)
    store.move(second, JobState.RUNNING)
    store.move(second, JobState.DONE)
    assert store.requeue_running() == (first,)
    assert [store.job(j).state for j in (first, second, third)] == [
        JobState.QUEUED,
        JobState.DONE,
        JobState.QUEUED,
    ]


def test_a_failure_keeps_its_reason(store: JobStore) -> None:
    job_id = submit(store)
    store.move(job_id, JobState.FAILED, error=PictureMissing(name="walk.png"))
    error = store.job(job_id).error
    assert error is not None
    assert (error.code, error.values) == ("KT-101", {"name": "walk.png"})


def test_clear_forgets_ended_jobs_only(store: JobStore) -> None:
    waiting, ended = submit(store), submit(store)
    store.add_frame(ended, frame(0))
    store.move(ended, JobState.CANCELLED)
    assert store.clear(waiting) == ()
    assert store.clear() == (ended,)
    assert store.job_ids() == {waiting}
    assert store.events(ended, 0, most=9) == ()
    with pytest.raises(UnknownJob):
        store.clear(ended)


def test_an_unknown_job_is_never_anything_else(store: JobStore) -> None:
    for ask in (store.job, store.request, store.count_attempt):
        with pytest.raises(UnknownJob):
            ask("f" * 32)


def test_a_store_from_a_newer_keytween_is_left_alone(tmp_path: Path) -> None:
    opened = JobStore(tmp_path / "jobs.sqlite")
    opened._db.execute("PRAGMA user_version=99")
    opened.close()
    with pytest.raises(StoreUnusable, match="newer"):
        JobStore(tmp_path / "jobs.sqlite")


@pytest.mark.parametrize(
    "data", [b"no store at all", b"SQLite format 3\0" + b"\xff" * 200], ids=["text", "torn"]
)
def test_a_file_that_is_no_store_is_named_and_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(data)
    with pytest.raises(StoreUnusable, match=r"jobs\.sqlite"):
        JobStore(file)
    assert file.read_bytes() == data
