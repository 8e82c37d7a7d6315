"""kill -9 of the daemon, of its worker and of its client, at random moments.

No accepted job is lost, no finished frame is computed twice, no half frame is ever seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from discs import draw_disc, request_for
from figures import Measured
from havoc import Havoc
from keytween.config import Config
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError
from keytween_wire.messages import FrameMade, JobState
from trust.jobs import computed

KILLS = int(os.environ.get("KEYTWEEN_TEST_KILLS", "90"))
"""With the ten of tests/diffusion these are the hundred."""


@pytest.mark.timeout(900)
def test_nothing_is_lost_whoever_is_killed(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path, measured: Measured
) -> None:
    large, small = [], []
    for i in range(2):
        large.append(draw_disc(tmp_path / f"large{i}.png", centre=(300 + 60 * i, 300), size=(1280, 720)))
        small.append(draw_disc(tmp_path / f"small{i}.png", centre=(30 + 20 * i, 30)))
    kinds = {
        "dissolve": request_for(large, in_betweens=12)[1:],
        "flow": request_for(small, in_betweens=6, engine="flow")[1:],
    }
    # Whoever kills here is not the job's fault: it must not be given up after three times.
    havoc = Havoc(replace(config, max_attempts=50), start_daemon, kinds, (["dissolve"] * 3 + ["flow"]))
    while len(havoc.kills) < KILLS:
        havoc.round()
    drawings = havoc.finish()
    found = {kill.doing for kill in havoc.kills}
    assert {doing.split(":")[0] for doing in found} == {"dissolve", "flow"}
    assert len(found) >= 4, found
    measured("1-kill", f"{havoc.tally()}: none of {len(havoc.accepted)} jobs lost")
    measured("2-twice", f"{drawings} drawings over {KILLS} kills: each computed once, and as undisturbed")


def test_a_job_that_kills_its_worker_every_time_fails_by_name(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(600, 500), size=(3840, 2160)) for i in range(2)]
    daemon = start_daemon()
    with Client(daemon.connection) as client:
        client.hello()
        job_id, request, blobs = request_for(files, in_betweens=3)
        client.submit(job_id, request, blobs)
        parent = psutil.Process(daemon.process.pid)
        while not (state := client.jobs(job_id)[0].state).ended:
            if state is JobState.RUNNING:
                for child in parent.children():
                    child.kill()
            time.sleep(0.02)
        job = client.jobs(job_id)[0]
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert (job.error.code, job.error.values["attempts"]) == ("KT-503", "3")
        following, request, blobs = request_for(files, in_betweens=1)
        client.submit(following, request, blobs)
        assert [r.message for r in client.events(following)][-1].state is JobState.DONE


def test_a_worker_that_hangs_is_replaced_and_the_job_goes_on(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1280, 720)) for i in range(2)]
    daemon = start_daemon(replace(config, hang_s=3.0))
    with Client(daemon.connection) as client:
        client.hello()
        job_id, request, blobs = request_for(files, in_betweens=60)
        client.submit(job_id, request, blobs)
        hung: list[int] = []
        for received in client.events(job_id):
            if isinstance(received.message, FrameMade) and not hung:
                (worker,) = psutil.Process(daemon.process.pid).children()
                worker.suspend()
                hung.append(worker.pid)
        assert received.message.state is JobState.DONE
        assert not psutil.pid_exists(hung[0])
    assert max(computed(config, job_id).values()) == 1


def test_a_dead_daemon_is_noticed_by_the_client_that_waits(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1920, 1080)) for i in range(2)]
    daemon = start_daemon()
    with Client(Connection.load()) as client:
        client.hello()
        job_id, request, blobs = request_for(files, in_betweens=200)
        client.submit(job_id, request, blobs)
        events = client.events(job_id, timeout=1.0)
        next(events)
        daemon.process.kill()
        with pytest.raises(DaemonError):
            list(events)
