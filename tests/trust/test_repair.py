# SPDX-License-Identifier: Apache-2.0
"""Promise 7: a list of jobs that the disk has harmed is made again, with every job and every drawing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgpack
import pytest

from discs import request_for
from figures import Measured
from keytween import cli
from keytween.config import Config
from keytween.doctor import examine
from keytween.jobs.folder import FrameFile, JobFolder, Order
from keytween.jobs.repair import ASIDE, PutBack, fault_of, repair
from keytween.jobs.store import DAMAGED, STORE, JobStore
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.errors import DaemonWouldNotStart, DiskFull, PictureMissing, StoreUnusable
from keytween_wire.messages import JobChanged, JobState

from . import jobs, stores

Start = Callable[..., DaemonProcess]


def lived_in(config: Config, start: Start, files: list[Path]) -> dict[str, dict[int, bytes]]:
    """The state folder of a daemon that was stopped: three jobs done, with their frames."""
    daemon = start(config)
    with Client(daemon.connection) as client:
        client.hello()
        ids = [jobs.submit(client, files, in_betweens=count) for count in (3, 4, 5)]
        made = {job_id: jobs.finish(client, job_id)[0] for job_id in ids}
    daemon.stop()
    stores.fold_in(config.state / STORE)
    return made


@pytest.mark.parametrize("harm", stores.HARM.values(), ids=stores.HARM)
def test_a_damaged_list_of_jobs_is_named_kept_and_made_again_with_every_drawing(
    config: Config,
    start_daemon: Start,
    keyframe_files: list[Path],
    harm: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    measured: Measured,
) -> None:
    made = lived_in(config, start_daemon, keyframe_files)
    store = config.state / STORE
    harm(store)
    harmed = store.read_bytes()
    with pytest.raises(DaemonWouldNotStart, match=r"KT-312"):
        start_daemon(config)
    findings = {finding.subject: finding for finding in examine(config)}
    assert not findings["list of jobs"].good
    assert "--repair" in findings["list of jobs"].next_step

    assert cli.main(["doctor", "--repair"]) == 0
    told = capsys.readouterr().out
    assert "was damaged" in told
    assert all(job_id[:8] in told for job_id in made)
    (kept,) = [path for path in config.state.glob(f"{STORE}.damaged-*") if not path.name.endswith("-wal")]
    assert kept.name in told
    assert kept.stat().st_size == len(harmed)

    with Client(start_daemon(config).connection) as client:
        client.hello()
        assert {job.job_id: job.state for job in client.jobs()} == dict.fromkeys(made, JobState.DONE)
        for job_id, frames in made.items():
            assert jobs.finish(client, job_id)[0] == frames
            assert set(jobs.computed(config, job_id).values()) == {1}
    measured("7-store", f"{len(stores.HARM)} kinds of harm: named, kept, made again with 3 of 3 jobs")


def test_repair_says_nothing_is_wrong_and_does_nothing_where_nothing_is(
    config: Config, start_daemon: Start, keyframe_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lived_in(config, start_daemon, keyframe_files)
    before = (config.state / STORE).read_bytes()
    assert cli.main(["doctor", "--repair"]) == 0
    assert "is whole. Nothing was done." in capsys.readouterr().out
    stores.fold_in(config.state / STORE)
    assert (config.state / STORE).read_bytes()[100:] == before[100:]
    stores.zeroed(config.state / STORE)
    first = repair(config.state)
    assert len(first.put_back) == 3
    assert (repair(config.state).fault, repair(config.state).put_back) == ("", ())
    assert len(list(config.state.glob(f"{STORE}.damaged-*"))) == 1


def test_a_value_that_can_be_read_and_is_not_what_was_written_is_found_by_the_doctor(
    config: Config, start_daemon: Start, keyframe_files: list[Path]
) -> None:
    """The daemon's start looks less closely, so that ten thousand jobs do not hold it up."""
    lived_in(config, start_daemon, keyframe_files)
    with closing(sqlite3.connect(config.state / STORE)) as db, db:
        db.execute("UPDATE jobs SET request = ? WHERE row = 2", (msgpack.packb({"keyframes": 5}),))
    JobStore(config.state / STORE).close()
    assert fault_of(config.state / STORE) is not None
    assert len(repair(config.state).put_back) == 3
    assert fault_of(config.state / STORE) is None


def test_repair_refuses_while_a_daemon_has_the_list(
    config: Config, daemon: DaemonProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--repair", "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["code"] == "KT-305"
    assert str(daemon.process.pid) in told["error"]["message"]
    assert fault_of(config.state / STORE) is None


def test_repair_leaves_alone_what_a_newer_keytween_wrote(config: Config) -> None:
    config.state.mkdir(parents=True)
    with closing(JobStore(config.state / STORE)) as store:
        store._db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreUnusable, match="newer"):
        repair(config.state)
    assert [p.name for p in config.state.iterdir() if ".damaged" in p.name or ".repair" in p.name] == []


def test_a_store_that_another_program_has_open_is_no_damaged_one(config: Config) -> None:
    config.state.mkdir(parents=True)
    with closing(JobStore(config.state / STORE)):
        with pytest.raises(StoreUnusable, match="another program has it open"):
            repair(config.state)
        with pytest.raises(StoreUnusable, match="another program has it open"):
            JobStore(config.state / STORE)


# ---- what a job's row alone knows


@pytest.fixture
def ended(config: Config, keyframe_files: list[Path]) -> tuple[Config, list[str]]:
    """A store with a job in each state, all of two drawings of which one is there."""
    state, ids = config.state, list[str]()
    (state / "jobs").mkdir(parents=True)
    with closing(JobStore(state / STORE)) as store:
        for move in ((), (JobState.RUNNING,), (JobState.CANCELLED,), (JobState.FAILED,)):
            job_id, request, blobs = request_for(keyframe_files, in_betweens=2)
            order = Order(request, "dissolve", label=f"job {len(ids)}", created=100.0 - len(ids))
            JobFolder(state / "jobs", job_id).create(order, blobs)
            store.submit(job_id, order)
            store.add_frame(job_id, frame(state, job_id), note="Paced by eye.")
            for step in move:
                store.move(job_id, step, error=PictureMissing(name="a") if step is JobState.FAILED else None)
            ids.append(job_id)
    return config, ids


def frame(state: Path, job_id: str) -> FrameFile:
    return JobFolder(state / "jobs", job_id).store(0, b"pixels", ".png")


STATES = [JobState.QUEUED, JobState.QUEUED, JobState.CANCELLED, JobState.FAILED]


def test_readable_rows_keep_how_jobs_ended_and_their_order(ended: tuple[Config, list[str]]) -> None:
    """The clock went backwards while they were handed over; their order stays."""
    config, ids = ended
    with closing(JobStore(config.state / STORE)) as store:
        store._db.execute("UPDATE jobs SET engine = 'x' WHERE row = 1")
        store._db.execute("UPDATE events SET body = x'c1' WHERE kind = 'job-changed' AND number = 1")
    mended = repair(config.state)
    assert mended.fault
    assert [job.job_id for job in mended.put_back] == ids
    assert all(job.by_row and (job.kept, job.lost, job.total) == (1, 0, 2) for job in mended.put_back)
    with closing(JobStore(config.state / STORE)) as store:
        assert [store.job(job_id).state for job_id in ids] == STATES
        assert store.next_queued() == ids[0]
        assert store.job(ids[3]).error is not None
        events = store.events(ids[2], 0, most=9)
        assert [getattr(event, "note", None) for event in events] == [None, "Paced by eye.", None]
        assert isinstance(events[-1], JobChanged)


def test_without_a_row_a_job_that_lacks_drawings_waits_again(ended: tuple[Config, list[str]]) -> None:
    config, ids = ended
    stores.zeroed(config.state / STORE)
    mended = repair(config.state)
    # Only the moment at which each was handed over is left to tell their order.
    assert [job.job_id for job in mended.put_back] == ids[::-1]
    assert {job.state for job in mended.put_back} == {JobState.QUEUED}
    assert not any(job.by_row for job in mended.put_back)


def test_what_a_client_has_seen_does_not_keep_later_events_from_it(ended: tuple[Config, list[str]]) -> None:
    config, ids = ended
    with closing(JobStore(config.state / STORE)) as store:
        seen = store.job(ids[0]).last_event
    stores.zeroed(config.state / STORE)
    repair(config.state)
    with closing(JobStore(config.state / STORE)) as store:
        assert len(store.events(ids[0], seen, most=9)) == 2


def test_a_drawing_that_is_gone_or_damaged_is_told_of_and_not_believed(
    ended: tuple[Config, list[str]],
) -> None:
    config, ids = ended
    folder = JobFolder(config.state / "jobs", ids[0])
    for path in folder.frames.iterdir():
        path.write_bytes(b"pixelz")
    stores.zeroed(config.state / STORE)
    told = {job.job_id: job for job in repair(config.state).put_back}[ids[0]]
    assert (told.kept, told.lost) == (0, 1)
    assert "lost and made again" in str(told)


def test_a_folder_that_says_nothing_is_kept_aside(ended: tuple[Config, list[str]]) -> None:
    config, ids = ended
    JobFolder(config.state / "jobs", ids[1]).path.joinpath("order.msgpack").write_bytes(b"\xc1")
    stores.zeroed(config.state / STORE)
    mended = repair(config.state)
    (kept,) = mended.aside
    assert kept.parent == config.state / ASIDE
    assert (kept / "frames").is_dir()
    assert len(mended.put_back) == 3
    assert ids[1] in "".join(mended.lines())


def test_a_row_tells_what_was_asked_for_where_the_folder_does_not(ended: tuple[Config, list[str]]) -> None:
    config, ids = ended
    JobFolder(config.state / "jobs", ids[1]).path.joinpath("order.msgpack").unlink()
    with closing(JobStore(config.state / STORE)) as store:
        store._db.execute("UPDATE events SET body = x'c1' WHERE kind = 'job-changed'")
    mended = repair(config.state)
    assert mended.aside == ()
    assert [job.job_id for job in mended.put_back] == ids


# ---- a repair that is cut off


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_repair_that_was_cut_off_is_finished_by_the_next(
    ended: tuple[Config, list[str]], moved: int
) -> None:
    """The power failed after so many of the renames that put the new store in the old one's place."""
    config, ids = ended
    store = config.state / STORE
    stores.zeroed(store)
    other = config.state.with_name("other")
    shutil.copytree(config.state, other)
    repair(other)
    shutil.copy(other / STORE, config.state / f"{STORE}.repaired-2026-01-02")
    (config.state / f"{STORE}-wal").write_bytes(b"of the damaged one")
    for end in ("", "-wal")[:moved]:
        Path(f"{store}{end}").rename(config.state / f"{STORE}.damaged-2026-01-02{end}")
    repair(config.state)
    assert {path.name for path in config.state.glob(f"{STORE}*")} == {
        STORE,
        f"{STORE}.damaged-2026-01-02",
        f"{STORE}.damaged-2026-01-02-wal",
    }
    with closing(JobStore(store)) as opened:
        assert opened.job_ids() == set(ids)


def test_a_repair_that_has_no_room_changes_nothing(
    ended: tuple[Config, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = ended
    stores.zeroed(config.state / STORE)
    before = sorted(path.name for path in config.state.iterdir())

    def full(_store: JobStore, _job_id: str, _rebuilt: object) -> None:
        raise DiskFull(name="here")

    monkeypatch.setattr(JobStore, "restore", full)
    with pytest.raises(DiskFull):
        repair(config.state)
    assert sorted(path.name for path in config.state.iterdir()) == before
    monkeypatch.undo()
    assert len(repair(config.state).put_back) == 4


# ---- a daemon's own start


@pytest.mark.parametrize("how", ["deleted", "emptied", "journal"])
def test_jobs_that_the_list_has_lost_go_on_at_the_next_start(
    config: Config, start_daemon: Start, keyframe_files: list[Path], how: str
) -> None:
    """SQLite takes a missing or empty file for a new one, and of a damaged journal what comes before."""
    daemon = start_daemon(config)
    with Client(daemon.connection) as client:
        client.hello()
        job_id = jobs.submit(client, keyframe_files)
        frames, _ = jobs.finish(client, job_id)
    daemon.process.kill()
    daemon.process.wait()
    store, journal = config.state / STORE, config.state / f"{STORE}-wal"
    if how == "journal":
        data = bytearray(journal.read_bytes())
        data[len(data) // 3] ^= 255
        journal.write_bytes(bytes(data))
    else:
        journal.unlink()
        store.unlink() if how == "deleted" else store.write_bytes(b"")
    with Client(start_daemon(config).connection) as client:
        client.hello()
        # A client that knows of later events than the list does misses nothing all the same.
        received = list(client.events(job_id, since=1000))
        assert received[-1].message.state is JobState.DONE
        assert len(received) > len(frames)
        assert jobs.finish(client, job_id)[0] == frames
    assert set(jobs.computed(config, job_id).values()) == {1}


def test_each_put_back_job_is_one_line_in_the_artists_words() -> None:
    job = PutBack("a" * 32, "walk", JobState.QUEUED, kept=3, lost=1, total=5, by_row=False)
    assert str(job) == (
        "  aaaaaaaa walk: queued, 3 of 5 drawings, 1 of them lost and made again, known by its folder alone"
    )
    assert DAMAGED == "damaged"
