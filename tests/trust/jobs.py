"""Jobs for the attacks: handed over, awaited, and looked at from outside."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from discs import request_for
from keytween.config import Config
from keytween.jobs.folder import JobFolder
from keytween_wire.client import Client
from keytween_wire.messages import FrameMade, JobChanged, JobState


def submit(
    client: Client, files: Sequence[Path], *, in_betweens: int = 5, engine: str = "dissolve", seed: int = 0
) -> str:
    """Hands a job over; its id."""
    job_id, request, blobs = request_for(list(files), in_betweens=in_betweens, engine=engine)
    client.submit(job_id, replace(request, seed=seed), blobs)
    return job_id


def finish(client: Client, job_id: str) -> tuple[dict[int, bytes], JobChanged]:
    """A job's frames, each as its event says, and how it ended."""
    frames: dict[int, bytes] = {}
    for received in client.events(job_id):
        message = received.message
        if isinstance(message, FrameMade):
            assert hashlib.sha256(received.blobs[0]).hexdigest() == message.digest
            frames[message.index] = received.blobs[0]
    assert isinstance(message, JobChanged)
    return frames, message


def computed(config: Config, job_id: str) -> Counter[int]:
    """How often the worker says that it computed each drawing."""
    lines = JobFolder(config.state / "jobs", job_id).journal.read_text().splitlines()
    return Counter(int(line.split()[0]) for line in lines)


def workers(pid: int) -> list[psutil.Process]:
    """The daemon's worker processes."""
    return psutil.Process(pid).children()


def state(client: Client, job_id: str) -> JobState:
    return client.jobs(job_id)[0].state


def until(so: Callable[[], object], *, seconds: float = 60.0) -> float:
    """Waits until something is so; how long that took."""
    began = time.monotonic()
    while not so():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began
