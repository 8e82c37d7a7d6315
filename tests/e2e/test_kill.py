"""kill -9 of the daemon, of its worker and of its client, at random moments.

No accepted job is lost, no finished frame is computed twice, no half frame is ever seen.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from discs import draw_disc, request_for
from keytween.config import Config
from keytween.images import read
from keytween.jobs.folder import JobFolder
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError
from keytween_wire.messages import FrameMade, JobChanged, JobState

KILLS = int(os.environ.get("KEYTWEEN_TEST_KILLS", "50"))
IN_BETWEENS = 12

CLIENT = """
import sys
from keytween_wire.client import Client
from keytween_wire.connection import Connection
with Client(Connection.load()) as client:
    client.hello()
    for received in client.events(sys.argv[1]):
        print(type(received.message).__name__, flush=True)
"""


class Ordeal:
    """Jobs, a daemon, and someone who kills."""

    def __init__(self, config: Config, begin: Callable[..., DaemonProcess], files: list[Path]) -> None:
        self.config, self.begin, self.files = config, begin, files
        self.random = random.Random(7)
        self.daemon = begin(config)
        self.accepted: list[str] = []
        self.killed: Counter[str] = Counter()

    def submit(self) -> None:
        """Hands over a job; only what was acknowledged counts."""
        job_id, request, blobs = request_for(self.files, in_betweens=IN_BETWEENS)
        with Client(self.daemon.connection) as client:
            client.hello()
            client.submit(job_id, request, blobs)
        self.accepted.append(job_id)

    def kill(self, victim: str) -> None:
        """One kill -9."""
        self.killed[victim] += {"daemon": self._daemon, "worker": self._worker, "client": self._client}[
            victim
        ]()

    def _daemon(self) -> bool:
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon = self.begin(self.config)
        return True

    def _worker(self) -> bool:
        children = psutil.Process(self.daemon.process.pid).children()
        for child in children:
            child.kill()
        return bool(children)

    def _client(self) -> bool:
        watching = subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.accepted[-1]],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with watching:
            assert watching.stdout is not None
            watching.stdout.readline()
            watching.send_signal(signal.SIGKILL)
        return True

    def finish(self) -> dict[str, list[FrameMade]]:
        """Waits for every job; the frames of each, as a client that asks from the beginning gets them."""
        found: dict[str, list[FrameMade]] = {}
        with Client(self.daemon.connection) as client:
            client.hello()
            for job_id in self.accepted:
                received = list(client.events(job_id))
                last = received[-1].message
                assert isinstance(last, JobChanged)
                assert last.state is JobState.DONE, last
                found[job_id] = [r.message for r in received if isinstance(r.message, FrameMade)]
                for r in received:
                    if isinstance(r.message, FrameMade):
                        assert hashlib.sha256(r.blobs[0]).hexdigest() == r.message.digest
                        assert read(r.blobs[0]).pixels.shape == (360, 640, 3)
        return found


@pytest.mark.timeout(600)
def test_nothing_is_lost_whoever_is_killed(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(100 + 60 * i, 150), size=(640, 360)) for i in range(2)]
    # Whoever kills here is not the job's fault: it must not be given up after three times.
    ordeal = Ordeal(replace(config, max_attempts=20), start_daemon, files)
    victims = ["daemon", "worker", "client"] * (KILLS // 3 + 1)
    while sum(ordeal.killed.values()) < KILLS:
        ordeal.submit()
        time.sleep(ordeal.random.uniform(0, 0.5))
        ordeal.kill(victims[len(ordeal.accepted) % 3])
        _no_half_frame_is_visible(config, ordeal.accepted)
    print(f"\nkilled: {dict(ordeal.killed)}, jobs: {len(ordeal.accepted)}")
    assert min(ordeal.killed.values()) >= KILLS // 6

    found = ordeal.finish()
    for job_id in ordeal.accepted:
        assert sorted(frame.index for frame in found[job_id]) == list(range(IN_BETWEENS))
    _nothing_was_computed_twice(config, ordeal.accepted)


def _no_half_frame_is_visible(config: Config, job_ids: list[str]) -> None:
    """Whatever has a frame's name is whole, at any moment."""
    for job_id in job_ids[-3:]:
        for path in JobFolder(config.state / "jobs", job_id).frames.glob("*"):
            digest = path.name.split("-")[1].split(".")[0]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _nothing_was_computed_twice(config: Config, job_ids: list[str]) -> None:
    """The worker's journal has a line for each frame it finished."""
    for job_id in job_ids:
        journal = JobFolder(config.state / "jobs", job_id).journal
        counts = Counter(int(line.split()[0]) for line in journal.read_text().splitlines())
        assert max(counts.values()) == 1, (job_id, counts)


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
    _nothing_was_computed_twice(config, [job_id])


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
