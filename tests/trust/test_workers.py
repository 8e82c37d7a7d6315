# SPDX-License-Identifier: Apache-2.0
"""Promises 3, 4 and 5: cancel is felt, memory runs out in order, workers crash, hang, rest and come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import ordeal
from figures import Measured
from keytween.config import Config
from keytween.jobs.dispatch import CANCEL_GRACE_S, MOST_LEAN
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import JobState

from . import jobs, proc

WITHIN_S = 10.0


@pytest.fixture(autouse=True)
def misbehaving(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    ordeal.install(tmp_path / "packages", monkeypatch)


def fails_with(client: Client, files: list[Path], seed: int) -> str:
    """The code that a job with this seed fails with; whoever comes after it is not harmed."""
    _, ended = jobs.finish(client, jobs.submit(client, files, engine="ordeal", seed=seed))
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    _, following = jobs.finish(client, jobs.submit(client, files, engine="ordeal"))
    assert following.state is JobState.DONE
    return ended.error.code


# ---- cancel


def test_cancel_is_felt_at_the_next_drawing(
    client: Client, daemon: DaemonProcess, keyframe_files: list[Path], measured: Measured
) -> None:
    """The worker is free for the next job after the drawing that it was at, and lives."""
    slow = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SLOW, in_betweens=200)
    jobs.until(lambda: client.jobs(slow)[0].frames_done > 1)
    (worker,) = jobs.workers(daemon.process.pid)
    began = time.monotonic()
    client.cancel(slow)
    following = jobs.submit(client, keyframe_files, engine="ordeal", in_betweens=1)
    _, ended = jobs.finish(client, following)
    took = time.monotonic() - began
    assert ended.state is JobState.DONE
    assert jobs.workers(daemon.process.pid) == [worker]
    assert client.jobs(slow)[0].frames_done < 20
    measured("3-cancel", f"the next job was done {took:.1f} s after a cancel, with drawings of 0.15 s")


def test_cancel_ends_a_worker_that_does_not_listen(
    client: Client, daemon: DaemonProcess, keyframe_files: list[Path], measured: Measured
) -> None:
    hung = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.HANG)
    jobs.until(lambda: jobs.state(client, hung) is JobState.RUNNING)
    (worker,) = jobs.workers(daemon.process.pid)
    client.cancel(hung)
    assert jobs.state(client, hung) is JobState.CANCELLED
    took = jobs.until(lambda: not worker.is_running(), seconds=WITHIN_S + 5)
    assert CANCEL_GRACE_S - 1 < took < WITHIN_S
    _, ended = jobs.finish(client, jobs.submit(client, keyframe_files))
    assert ended.state is JobState.DONE
    measured("3-hang", f"a worker that hung was gone {took:.1f} s after the cancel")


# ---- memory


def test_a_job_that_runs_out_of_memory_is_tried_with_less_in_new_processes_and_then_refused(
    client: Client, daemon: DaemonProcess, keyframe_files: list[Path], measured: Measured
) -> None:
    seen: set[int] = set()
    job_id = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.STARVE)

    def over() -> bool:
        seen.update(worker.pid for worker in jobs.workers(daemon.process.pid))
        return jobs.state(client, job_id).ended

    jobs.until(over)
    job = client.jobs(job_id)[0]
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.lean) == ("KT-510", MOST_LEAN + 1)
    assert "GB were free" in job.error.values["detail"]
    assert len(seen) == MOST_LEAN + 1
    _, ended = jobs.finish(client, jobs.submit(client, keyframe_files, engine="ordeal"))
    assert ended.state is JobState.DONE
    measured("4-memory", f"refused with its numbers after {len(seen)} tries in {len(seen)} processes")


def test_a_job_that_fits_with_less_memory_is_done_and_says_how_often_it_was_short(
    client: Client, keyframe_files: list[Path]
) -> None:
    job_id = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.STARVE_ONCE)
    frames, ended = jobs.finish(client, job_id)
    assert (ended.state, len(frames), client.jobs(job_id)[0].lean) == (JobState.DONE, 5, 1)
    # The next job begins as usual.
    following = jobs.submit(client, keyframe_files, engine="ordeal")
    jobs.finish(client, following)
    assert client.jobs(following)[0].lean == 0


# ---- crash, mistake, hang


@pytest.mark.parametrize(
    ("seed", "code"), [(ordeal.SEGFAULT, "KT-503"), (ordeal.MISTAKE, "KT-507")], ids=["segfault", "mistake"]
)
def test_an_engine_that_breaks_costs_its_job_alone(
    client: Client, keyframe_files: list[Path], seed: int, code: str
) -> None:
    assert fails_with(client, keyframe_files, seed) == code


def test_a_worker_that_hangs_is_replaced_and_its_job_given_up_in_the_end(
    config: Config, start_daemon: Callable[..., DaemonProcess], keyframe_files: list[Path]
) -> None:
    daemon = start_daemon(replace(config, hang_s=1.0, max_attempts=2))
    with Client(daemon.connection) as client:
        client.hello()
        assert fails_with(client, keyframe_files, ordeal.HANG) == "KT-503"


# ---- rest


def test_an_idle_worker_exits_and_its_memory_is_free(
    config: Config, start_daemon: Callable[..., DaemonProcess], keyframe_files: list[Path], measured: Measured
) -> None:
    daemon = start_daemon(replace(config, idle_s=1.0))
    with Client(daemon.connection) as client:
        client.hello()
        jobs.finish(client, jobs.submit(client, keyframe_files, engine="flow"))
        (worker,) = jobs.workers(daemon.process.pid)
        held = worker.memory_info().rss / 1e6
        took = jobs.until(lambda: jobs.workers(daemon.process.pid) == [], seconds=10)
        _, ended = jobs.finish(client, jobs.submit(client, keyframe_files))
        assert ended.state is JobState.DONE
    measured("5-idle", f"{held:.0f} MB were free {took:.1f} s after the last job, with idle_s at 1")


@pytest.mark.skipif(not proc.THERE, reason="stops processes as Linux does")
def test_a_machine_that_slept_goes_on(
    client: Client, daemon: DaemonProcess, keyframe_files: list[Path], measured: Measured
) -> None:
    """The daemon, its worker and neither: stopped for longer than every heartbeat, then awake."""
    asleep = 18.0
    job_id = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SLOW, in_betweens=30)
    events = client.events(job_id, timeout=60)
    next(events)
    jobs.until(lambda: jobs.workers(daemon.process.pid) != [])
    (worker,) = jobs.workers(daemon.process.pid)
    for process in (psutil.Process(daemon.process.pid), worker):
        process.send_signal(signal.SIGSTOP)
        time.sleep(asleep / 2)
    daemon.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    worker.send_signal(signal.SIGCONT)
    *_, last = events
    assert last.message.state is JobState.DONE
    assert client.jobs(job_id)[0].frames_done == 30
    measured("5-sleep", f"asleep for {asleep:.0f} s in the middle of a job: done, with every event")


def test_a_job_that_is_cancelled_and_cleared_at_once_keeps_no_worker_busy(
    client: Client, daemon: DaemonProcess, config: Config, keyframe_files: list[Path]
) -> None:
    """What its worker still says of it is of no job any more, and the next job does not wait for it."""
    slow = jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SLOW, in_betweens=200)
    jobs.until(lambda: client.jobs(slow)[0].frames_done > 1)
    (worker,) = jobs.workers(daemon.process.pid)
    client.cancel(slow)
    assert client.clear(slow) == 1
    _, ended = jobs.finish(client, jobs.submit(client, keyframe_files, engine="ordeal", in_betweens=1))
    assert ended.state is JobState.DONE
    assert jobs.workers(daemon.process.pid) == [worker]
    assert "queue-stands" not in config.log.read_text("utf-8")
