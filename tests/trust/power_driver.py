# SPDX-License-Identifier: Apache-2.0
"""Drives a real store and real job folders through their lives; a file outside tells what was acknowledged.

`python power_driver.py STATE MARKS [without-fsync]`. Run under strace by test_power_loss.py.
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import closing
from pathlib import Path

from keytween.jobs.folder import JobFolder, Order, remove
from keytween.jobs.repair import tidy
from keytween.jobs.store import STORE, JobStore
from keytween_wire.messages import JobState, KeyframeImage, MorphRequest

JOBS, FRAMES = 4, 3


def main(state: Path, marks: Path) -> None:
    """Hands jobs over, draws them, ends some, clears one; restarts in between."""
    chance = random.Random(5)
    with marks.open("w", buffering=1) as told:
        (state / "jobs").mkdir()
        ids = [f"{number:x}" * 32 for number in range(1, JOBS + 1)]
        for number, job_id in enumerate(ids):
            with closing(JobStore(state / STORE)) as store:
                tidy(store, state)
                live(store, state, job_id, number, chance, told)
                if number == 2:
                    (gone,) = store.clear(ids[0])
                    told.write(f"clearing {gone}\n")
                    remove(state / "jobs", [gone])
                    told.write(f"cleared {gone}\n")


def live(store: JobStore, state: Path, job_id: str, number: int, chance: random.Random, told: object) -> None:
    """One job, as server, dispatch and worker do it: the last but one is cancelled, the last one runs."""
    write = told.write  # type: ignore[attr-defined]
    blobs = [chance.randbytes(900) for _ in range(2)]
    images = tuple(KeyframeImage(MorphRequest.digest_of(blob), ".png") for blob in blobs)
    request = MorphRequest(images, ((0.25, 0.5, 0.75),), engine="dissolve")
    order, folder = Order(request, "dissolve", label=f"job {number}"), JobFolder(state / "jobs", job_id)
    folder.create(order, blobs)
    store.submit(job_id, order)
    write(f"submitted {job_id}\n")
    event = store.move(job_id, JobState.RUNNING)
    write(f"event {job_id} {event.number}\n")
    for index in range(FRAMES if number < JOBS - 2 else 1):
        frame = folder.store(index, chance.randbytes(1200), ".png")
        write(f"drawn {job_id} {index}\n")
        made = store.add_frame(job_id, frame)
        assert made is not None
        write(f"event {job_id} {made.number}\n")
    if number < JOBS - 2:
        store.move(job_id, JobState.DONE)
        write(f"done {job_id}\n")
    elif number == JOBS - 2:
        store.move(job_id, JobState.CANCELLED)
        write(f"cancelled {job_id}\n")


if __name__ == "__main__":
    if "without-fsync" in sys.argv:
        os.fsync = lambda _handle: None
    main(Path(sys.argv[1]), Path(sys.argv[2]))
