# SPDX-License-Identifier: Apache-2.0
"""Promise 1: a wall clock that jumps by a day, either way, costs no job, no order and no worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ordeal
from figures import Measured
from keytween.config import Config
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import JobState, Progressed

from . import jobs

DAY = 86400.0
_SITE = """
import os, time
_real = time.time

def shifted():
    try:
        with open(os.environ["SHIFTED_BY"]) as file:
            return _real() + float(file.read() or 0)
    except (OSError, ValueError):
        return _real()

time.time = shifted
time.time_ns = lambda: int(shifted() * 1e9)
"""
"""Read by every process that Python starts: the clock is off by what a file says at the moment."""


@pytest.fixture
def shift(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of the daemon and its workers, so many seconds from the true one."""
    ordeal.install(tmp_path / "packages", monkeypatch)
    (tmp_path / "packages" / "sitecustomize.py").write_text(_SITE)
    monkeypatch.setenv("SHIFTED_BY", str(tmp_path / "shift"))

    def by(seconds: float) -> None:
        beside = tmp_path / "shift.new"
        beside.write_text(str(seconds))
        os.replace(beside, tmp_path / "shift")

    by(0.0)
    return by


def test_a_clock_that_jumps_by_a_day_costs_no_job_no_order_and_no_worker(
    shift: Callable[[float], None],
    start_daemon: Callable[..., DaemonProcess],
    config: Config,
    keyframe_files: list[Path],
    measured: Measured,
) -> None:
    daemon = start_daemon(config)
    with Client(daemon.connection) as client:
        client.hello()
        ids = list[str]()
        for offset in (0.0, DAY, -DAY, 0.0, 2 * DAY):
            shift(offset)
            ids.append(jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SLOW, in_betweens=12))
        created = [client.jobs(job_id)[0].created for job_id in ids]
        assert created[1] - created[0] > DAY / 2
        assert created[2] - created[1] < -DAY / 2
        jobs.until(lambda: client.jobs(ids[0])[0].frames_done > 0)
        (worker,) = jobs.workers(daemon.process.pid)
        estimates = list[float]()
        for number, job_id in enumerate(ids):
            events = client.events(job_id)
            for seen, received in enumerate(events):
                shift(DAY * ((seen + number) % 3 - 1))
                if isinstance(received.message, Progressed):
                    estimates.append(received.message.eta_s)
                # The queue's order is the order in which jobs were handed over.
                later = [client.jobs(other)[0].state for other in ids[number + 1 :]]
                assert received.number == 0
                assert not later or later.count(JobState.RUNNING) <= 1
            assert received.message.state is JobState.DONE
            assert [client.jobs(other)[0].state for other in ids[number + 2 :]] == [JobState.QUEUED] * len(
                ids[number + 2 :]
            )
        assert jobs.workers(daemon.process.pid) == [worker]
    # -1 is what a worker says that does not know yet.
    assert all(eta == -1 or 0 <= eta < 60 for eta in estimates), estimates
    assert max(estimates) > 0
    measured("1-clock", f"{len(ids)} jobs in order, one worker, none of {len(estimates)} estimates below 0")


def test_a_daemon_that_starts_a_day_earlier_than_it_ended_has_its_jobs_in_order(
    shift: Callable[[float], None],
    start_daemon: Callable[..., DaemonProcess],
    config: Config,
    keyframe_files: list[Path],
) -> None:
    shift(DAY)
    daemon = start_daemon(config)
    with Client(daemon.connection) as client:
        client.hello()
        ids = [
            jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SLOW, in_betweens=6)
            for _ in range(3)
        ]
        jobs.until(lambda: client.jobs(ids[0])[0].frames_done > 0)
    daemon.process.kill()
    daemon.process.wait()
    shift(-DAY)
    with Client(start_daemon(config).connection) as client:
        client.hello()
        assert [job.job_id for job in client.jobs()] == ids[::-1]
        for job_id in ids:
            assert jobs.finish(client, job_id)[1].state is JobState.DONE
            assert set(jobs.computed(config, job_id).values()) == {1}
