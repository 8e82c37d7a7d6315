# SPDX-License-Identifier: Apache-2.0
"""Batches that a running daemon draws: the same frames, through its queue, also when one of the two dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import ordeal
from discs import draw_disc
from keytween.config import Config
from keytween.jobs.folder import JobFolder
from keytween.shots.records import Shelf
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import JobState


@pytest.fixture
def show(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two keyframes, and an engine that can be slow or hang."""
    for index in range(2):
        draw_disc(tmp_path / f"key{index}.png", centre=(30 + 20 * index, 32))
    ordeal.install(tmp_path / "packages", monkeypatch)
    return tmp_path


def shots(show: Path, *rows: str) -> Path:
    """A shots file with a shot for each row."""
    top = '[defaults]\nengine = "ordeal"\nin_betweens = 4\nkeyframes = "key*.png"\n'
    path = show / "shots.toml"
    path.write_text(top + "".join(f'[[shot]]\nid = "s{n}"\n{row}\n' for n, row in enumerate(rows)))
    return path


def start(source: Path, output: str, *more: str) -> subprocess.Popen[str]:
    """A batch as a process."""
    command = [sys.executable, "-m", "keytween.cli", "batch", str(source), "--json"]
    return subprocess.Popen(
        [*command, "-o", str(source.parent / output), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def batch(source: Path, output: str, *more: str) -> dict:
    """The summary of a batch, with its exit code."""
    running = start(source, output, *more)
    said, complaint = running.communicate(timeout=120)
    assert said, complaint
    return {**json.loads(said), "exit": running.returncode}


def record(show: Path, output: str, shot: str = "s0") -> dict:
    """A shot's record."""
    return Shelf(show / output / "results", shot).load() or {}


def until(so: Callable[[], object]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_daemon_draws_the_very_frames_that_the_batch_would_draw(
    show: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    source = shots(show, "", "exposure = 2", "in_betweens = 1")
    daemon = psutil.Process(start_daemon().process.pid)
    assert daemon.children() == []
    found = batch(source, "by_daemon", "--daemon")
    assert (found["done"], found["failed"], found["exit"]) == (3, 0, 0)
    assert len(daemon.children()) == 1
    assert batch(source, "own")["done"] == 3
    for shot in ("s0", "s1", "s2"):
        ours, theirs = ([f["sha256"] for f in record(show, o, shot)["frames"]] for o in ("own", "by_daemon"))
        assert ours == theirs
    # What is done is the batch's: the daemon has nothing to keep, and there is nothing to do again.
    assert list((show / "state" / "jobs").iterdir()) == []
    assert batch(source, "by_daemon", "--daemon")["unchanged"] == 3


def test_without_a_daemon_nothing_is_begun(show: Path) -> None:
    running = start(shots(show, ""), "out", "--daemon")
    said, complaint = running.communicate(timeout=60)
    assert running.returncode == 5
    assert "KT-301" in said + complaint
    assert not (show / "out").exists()


def test_a_cluster_and_the_daemon_cannot_both_draw(show: Path) -> None:
    running = start(shots(show, ""), "out", "--daemon", "--ray", "auto")
    assert "--ray" in "".join(running.communicate(timeout=60))
    assert running.returncode == 4


def test_a_daemon_that_is_killed_and_started_again_goes_on_with_the_batch(
    show: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    source = shots(show, f"seed = {ordeal.SLOW}\nin_betweens = 12", "")
    daemon = start_daemon()
    running = start(source, "out", "--daemon")
    frames = show / "out" / "frames" / "s0"
    until(lambda: len(list(frames.glob("*.png"))) >= 2)
    daemon.process.kill()
    daemon.process.wait()
    start_daemon()
    said, complaint = running.communicate(timeout=120)
    assert json.loads(said)["done"] == 2, complaint
    assert (record(show, "out")["drawn"], record(show, "out")["attempts"]) == (12, 1)


def test_a_batch_that_is_killed_finds_what_the_daemon_has_drawn_since(
    show: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    source = shots(show, f"seed = {ordeal.SLOW}\nin_betweens = 12")
    daemon = start_daemon()
    running = start(source, "out", "--daemon")
    until(lambda: len(list((show / "out" / "frames" / "s0").glob("*.png"))) >= 2)
    running.kill()
    running.communicate()
    (job,) = (show / "state" / "jobs").iterdir()
    journal = JobFolder(job.parent, job.name).journal
    with Client(daemon.connection) as client:
        client.hello()
        until(lambda: client.jobs()[0].state is JobState.DONE)
    assert len(journal.read_text().splitlines()) == 12
    # Nothing can draw any more: what comes now was there.
    for worker in psutil.Process(daemon.process.pid).children():
        worker.suspend()
    assert batch(source, "out", "--daemon")["done"] == 1
    assert len(record(show, "out")["frames"]) == 14


def test_a_job_that_somebody_cancels_fails_its_shot_and_is_drawn_when_it_is_tried_again(
    show: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    source = shots(show, f"seed = {ordeal.SLOW}\nin_betweens = 12")
    daemon = start_daemon()
    running = start(source, "out", "--daemon")
    with Client(daemon.connection) as client:
        client.hello()
        until(client.jobs)
        client.cancel(client.jobs()[0].job_id)
    said, _ = running.communicate(timeout=60)
    assert [failure["code"] for failure in json.loads(said)["failures"]] == ["KT-506"]
    assert batch(source, "out", "--daemon", "--retry-failed")["done"] == 1


def test_a_shot_that_is_given_up_frees_the_daemon(
    show: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    source = shots(show, f"seed = {ordeal.SLOW}\nin_betweens = 200\ndeadline = 2", "")
    daemon = start_daemon()
    found = batch(source, "out", "--daemon")
    assert [failure["code"] for failure in found["failures"]] == ["KT-606"]
    assert found["done"] == 1
    with Client(daemon.connection) as client:
        client.hello()
        assert [job.state for job in client.jobs()] == [JobState.CANCELLED]
