# SPDX-License-Identifier: Apache-2.0
"""Promise 7: a disk that is full, read-only or emptied under the daemon is named, and costs no job."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from discs import request_for
from figures import Measured
from keytween.config import Config
from keytween.images import Picture, write
from keytween.jobs.folder import JobFolder
from keytween.jobs.store import STORE, JobStore
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.errors import DaemonWouldNotStart, DiskFull, KeytweenError
from keytween_wire.messages import JobInfo, JobState

from . import jobs, stores
from .disks import Disk, mounted

Start = Callable[..., DaemonProcess]
SERVE = [sys.executable, "-m", "keytween.cli", "serve", "--json"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", size="6m") as made:
        yield made


@pytest.fixture
def settings(config: Config, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A state folder on the small disk."""
    monkeypatch.setenv("KEYTWEEN_STATE", str(disk.path / "state"))
    return replace(config, state=disk.path / "state")


@pytest.fixture
def grainy(tmp_path: Path) -> list[Path]:
    """Two keyframes of noise, of some 200 kB each, as are their frames."""
    files = [tmp_path / f"grain{index}.png" for index in range(2)]
    for index, file in enumerate(files):
        pixels = np.random.default_rng(index).integers(0, 255, (256, 256, 3)).astype(np.uint8)
        write(Picture(pixels), file)
    return files


def connected(daemon: DaemonProcess) -> Client:
    client = Client(daemon.connection)
    client.hello()
    return client


def ended(client: Client, job_id: str, *, seconds: float = 60.0) -> JobInfo:
    jobs.until(lambda: jobs.state(client, job_id).ended, seconds=seconds)
    return client.jobs(job_id)[0]


# ---- full


def test_a_full_disk_refuses_a_job_with_what_it_needs_and_takes_it_once_there_is_room(
    settings: Config, disk: Disk, start_daemon: Start, grainy: list[Path], measured: Measured
) -> None:
    job_id, request, blobs = request_for(grainy, in_betweens=1)
    with connected(start_daemon(settings)) as client:
        earlier = jobs.submit(client, grainy, in_betweens=1)
        jobs.finish(client, earlier)
        for but in (0, 100_000):
            disk.fill(but=but)
            with pytest.raises(DiskFull) as caught:
                client.submit(job_id, request, blobs)
            assert "at least 0.5 MB" in caught.value.advice
            assert [path.name for path in (settings.state / "jobs").iterdir()] == [earlier]
            assert [job.job_id for job in client.jobs()] == [earlier]
            disk.make_room()
        client.submit(job_id, request, blobs)
        frames, last = jobs.finish(client, job_id)
    assert (last.state, len(frames)) == (JobState.DONE, 1)
    measured(
        "7-full", f"a job is refused with {caught.value.advice.split(',')[0].lower()}; nothing half is left"
    )


def test_a_list_of_jobs_that_has_no_room_refuses_the_job_whole(
    settings: Config, disk: Disk, start_daemon: Start, keyframe_files: list[Path]
) -> None:
    """Small jobs until the disk is full to the last page: each is taken or refused, nothing between."""
    taken, refused = list[str](), list[KeytweenError]()
    daemon = start_daemon(settings)
    with connected(daemon) as client:
        disk.fill(but=400_000)
        for _ in range(200):
            job_id, request, blobs = request_for(keyframe_files, in_betweens=0)
            try:
                client.submit(job_id, request, blobs)
            except KeytweenError as error:
                refused.append(error)
                assert not (settings.state / "jobs" / job_id).exists()
                if len(refused) > 3:
                    break
            else:
                taken.append(job_id)
        assert {error.code for error in refused} == {"KT-505"}
        assert {job.job_id for job in client.jobs()} == set(taken)
        daemon.process.kill()
        daemon.process.wait()
    disk.make_room()
    with connected(start_daemon(settings)) as client:
        for job_id in taken:
            assert ended(client, job_id).state is JobState.DONE


def test_a_disk_that_fills_up_while_frames_are_written_costs_none_that_was_finished(
    settings: Config, disk: Disk, start_daemon: Start, grainy: list[Path], measured: Measured
) -> None:
    with connected(start_daemon(settings)) as client:
        disk.fill(but=2_000_000)
        job_id = jobs.submit(client, grainy, in_betweens=12)
        job = jobs.until(lambda: _stands_still(client, job_id)) and client.jobs(job_id)[0]
        kept = job.frames_done
        assert 0 < kept < 12
        folder = JobFolder(settings.state / "jobs", job_id)
        before = {path.name for path in folder.frames.iterdir()}
        assert not list(folder.path.glob("unfinished-*"))
        disk.make_room()
        job = ended(client, job_id)
        assert (job.state, job.error and job.error.code) == (JobState.FAILED, "KT-505")
        assert client.retry(job_id)
        frames, last = jobs.finish(client, job_id)
        assert (last.state, len(frames)) == (JobState.DONE, 12)
        assert before <= {path.name for path in folder.frames.iterdir()}
    counts = jobs.computed(settings, job_id)
    assert {index for index, count in counts.items() if count > 1} == set()
    measured(
        "7-frames", f"full after {kept} of 12 drawings: named, and after a retry the other {12 - kept} made"
    )


def _stands_still(client: Client, job_id: str) -> bool:
    """Whether it has failed, or the disk is too full to write down that it has."""
    job = client.jobs(job_id)[0]
    time.sleep(0.7)
    return job.frames_done > 0 and client.jobs(job_id)[0] == job


def test_a_daemon_starts_on_a_full_disk_with_the_jobs_that_it_has(
    settings: Config, disk: Disk, start_daemon: Start, keyframe_files: list[Path]
) -> None:
    daemon = start_daemon(settings)
    with connected(daemon) as client:
        job_id = jobs.submit(client, keyframe_files)
        frames, _ = jobs.finish(client, job_id)
    daemon.process.kill()
    daemon.process.wait()
    disk.fill()
    with connected(start_daemon(settings)) as client:
        assert jobs.finish(client, job_id)[0] == frames


# ---- read-only


def test_a_state_folder_that_may_only_be_read_is_named_with_its_exit_code(
    settings: Config, disk: Disk, start_daemon: Start, keyframe_files: list[Path]
) -> None:
    daemon = start_daemon(settings)
    with connected(daemon) as client:
        job_id = jobs.submit(client, keyframe_files)
        frames, _ = jobs.finish(client, job_id)
    daemon.stop()
    disk.remount("ro")
    done = subprocess.run(SERVE, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 5
    told = json.loads(done.stdout)["error"]
    assert told["code"] == "KT-316"
    assert str(settings.state) in told["message"]
    assert "Read-only" in told["message"]
    assert "Traceback" not in done.stderr
    disk.remount("rw")
    with connected(start_daemon(settings)) as client:
        assert jobs.finish(client, job_id)[0] == frames


# ---- deleted


def deleted(folder: Path) -> None:
    """At once: a worker that writes into it would keep half of it."""
    gone = folder.with_name("gone")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def test_a_jobs_folder_that_is_deleted_while_it_runs_fails_that_job_by_name(
    config: Config, daemon: DaemonProcess, grainy: list[Path]
) -> None:
    with connected(daemon) as client:
        job_id = jobs.submit(client, grainy, in_betweens=150)
        following = jobs.submit(client, grainy, in_betweens=1)
        jobs.until(lambda: client.jobs(job_id)[0].frames_done > 1)
        deleted(JobFolder(config.state / "jobs", job_id).path)
        job = ended(client, job_id)
        assert (job.state, job.error and job.error.code) == (JobState.FAILED, "KT-511")
        assert jobs.finish(client, following)[1].state is JobState.DONE
        # Another try ends in the same words, and not in another way.
        assert client.retry(job_id)
        job = ended(client, job_id)
        assert (job.state, job.error and job.error.code) == (JobState.FAILED, "KT-511")
        again = jobs.submit(client, grainy, in_betweens=2)
        assert jobs.finish(client, again)[1].state is JobState.DONE


def test_frames_that_are_deleted_while_their_job_runs_are_made_again(
    config: Config, daemon: DaemonProcess, grainy: list[Path]
) -> None:
    with connected(daemon) as client:
        job_id = jobs.submit(client, grainy, in_betweens=60)
        jobs.until(lambda: client.jobs(job_id)[0].frames_done > 1)
        deleted(JobFolder(config.state / "jobs", job_id).frames)
        ended(client, job_id)
        client.retry(job_id)  # for the case that the worker met the folder half gone
        frames, last = jobs.finish(client, job_id)
    assert (last.state, sorted(frames)) == (JobState.DONE, list(range(60)))


def test_a_done_jobs_folder_that_is_deleted_is_told_to_whoever_asks_for_its_frames(
    config: Config, daemon: DaemonProcess, keyframe_files: list[Path]
) -> None:
    with connected(daemon) as client:
        job_id = jobs.submit(client, keyframe_files)
        jobs.finish(client, job_id)
        shutil.rmtree(JobFolder(config.state / "jobs", job_id).path)
        _, last = jobs.finish(client, job_id)
        assert last.error is not None
        assert (last.state, last.error.code) == (JobState.FAILED, "KT-511")
        assert client.clear(job_id) == 1


# ---- the list of jobs under a running daemon


def test_a_list_of_jobs_that_another_program_holds_is_named(config: Config, start_daemon: Start) -> None:
    config.state.mkdir(parents=True)
    store = JobStore(config.state / STORE)
    with pytest.raises(DaemonWouldNotStart, match="KT-312"):
        start_daemon(config)
    assert "another program has it open" in (config.state / "start.log").read_text()
    store.close()
    start_daemon(config)


def test_a_list_of_jobs_that_is_harmed_under_a_running_daemon_is_named_and_its_jobs_are_saved(
    config: Config, start_daemon: Start, keyframe_files: list[Path]
) -> None:
    daemon = start_daemon(config)
    with connected(daemon) as client:
        job_id = jobs.submit(client, keyframe_files)
        frames, _ = jobs.finish(client, job_id)
    daemon.stop()
    daemon = start_daemon(config)
    stores.zeroed(config.state / STORE)
    with connected(daemon) as client:
        try:
            told = client.jobs()
        except KeytweenError as error:
            assert error.code == "KT-312"  # noqa: PT017  either it still remembers, or it says so
        else:
            assert [job.job_id for job in told] == [job_id]
    daemon.process.kill()
    daemon.process.wait()
    done = subprocess.run([*SERVE[:3], "doctor", "--repair"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with connected(start_daemon(config)) as client:
        assert jobs.finish(client, job_id)[0] == frames
