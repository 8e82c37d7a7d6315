#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What 10,000 waiting jobs cost the next one: `python benchmarks/full_queue.py`. Budget: twice an empty one.

Submit to accepted, the list of one job, and the daemon's start, each with an empty queue and with a full one,
in one run on one machine, as ratios of medians. The worker is stopped at its first job, so that nothing else
is being computed in either case. Jobs are put into the store by the daemon's own code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from daemon import keyframe, request
from keytween.config import Config, load
from keytween.jobs.folder import JobFolder, Order
from keytween.jobs.store import JobStore
from keytween.starter import DaemonProcess, start
from keytween_wire.client import Client
from keytween_wire.messages import JobState

FIGURES = "KEYTWEEN_FIGURES"
Times = dict[str, float]


def fill(config: Config, count: int, blobs: list[bytes]) -> None:
    """So many jobs more in the queue; no daemon may be running."""
    store = JobStore(config.state / "jobs.sqlite")
    for number in range(count):
        job_id = uuid.uuid4().hex
        order = Order(request(blobs, (0.5,)), "dissolve", label=f"job {number}", created=time.time())
        JobFolder(config.state / "jobs", job_id).create(order, blobs)
        store.submit(job_id, order)
    store.close()


def held(config: Config, blobs: list[bytes]) -> tuple[DaemonProcess, psutil.Process]:
    """A daemon and its worker, which is stopped in the middle of a job."""
    daemon = start(config)
    with Client(daemon.connection) as client:
        client.hello()
        job_id = uuid.uuid4().hex
        client.submit(job_id, request(blobs, tuple(i / 200 for i in range(1, 200))), blobs)
        while not any(job.state is JobState.RUNNING for job in client.jobs()):
            time.sleep(0.01)
    (worker,) = psutil.Process(daemon.process.pid).children()
    worker.suspend()
    return daemon, worker


def measure(config: Config, blobs: list[bytes], rounds: int) -> Times:
    """Medians in milliseconds."""
    starts: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        daemon = start(config)
        starts.append(time.perf_counter() - began)
        daemon.stop()
    daemon, worker = held(config, blobs)
    with Client(daemon.connection) as client:
        client.hello()
        newest = [uuid.uuid4().hex for _ in range(rounds)]
        submits = timed([lambda i=i: client.submit(i, request(blobs, (0.5,)), blobs) for i in newest])
        lists = timed([lambda i=i: client.jobs(i) for i in newest])
    worker.kill()
    daemon.process.kill()
    daemon.process.wait()
    times = {"start-up": starts, "submit to accepted": submits, "one job's state": lists}
    return {name: statistics.median(found) * 1000 for name, found in times.items()}


def timed(calls: list[Callable[[], object]]) -> list[float]:
    """How long each call takes, in seconds."""
    found: list[float] = []
    for call in calls:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Measures with an empty queue, fills it, measures again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000, help="how many jobs wait in the full queue")
    parser.add_argument("--rounds", type=int, default=100, help="how many submissions are timed")
    arguments = parser.parse_args()
    blobs = [keyframe(64, 64, seed) for seed in (1, 2)]
    with tempfile.TemporaryDirectory(prefix="keytween-bench-") as name:
        folder = Path(name)
        config = replace(
            load(), state=folder / "state", connection=folder / "connection.json", queued_jobs=100_000
        )
        empty = measure(config, blobs, arguments.rounds)
        fill(config, arguments.jobs, blobs)
        full = measure(config, blobs, arguments.rounds)
    print(f"{'':24} {'empty':>10} {arguments.jobs:>10,}   ratio (budget 2)")
    ratios = {kind: full[kind] / empty[kind] for kind in empty}
    for kind, ratio in ratios.items():
        print(f"{kind:24} {empty[kind]:7.1f} ms {full[kind]:7.1f} ms   {ratio:.2f}")
    note(f"{arguments.jobs:,} waiting jobs: " + ", ".join(f"{k} {r:.2f} times" for k, r in ratios.items()))


def note(figure: str) -> None:
    """Leaves the figure for docs/reliability.md where a file for it is named."""
    if path := os.environ.get(FIGURES):
        line = {"promise": "6-queue", "figure": figure, "test": "benchmarks/full_queue.py"}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
