# SPDX-License-Identifier: Apache-2.0
"""Promise 1: whatever was acknowledged is there after a power loss, at whichever write the power failed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from figures import Measured
from keytween.jobs.folder import JobFolder
from keytween.jobs.repair import ASIDE, tidy
from keytween.jobs.store import STORE, JobStore
from keytween_wire.errors import KeytweenError
from keytween_wire.messages import JobState

from . import power
from .power import Step

DRIVER = Path(__file__).parent / "power_driver.py"
MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def needs_strace() -> None:
    if shutil.which("strace") is None:
        if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
            pytest.fail("strace is not installed, and KEYTWEEN_TEST_ALL is set")
        pytest.skip("strace is not installed")


@contextmanager
def recorded(*arguments: str) -> Iterator[tuple[list[Step], str]]:
    """What the driver did to its state folder, and where that was: in memory, where a sync is quick."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name).resolve()
        state, marks = folder / "state", folder / "marks"
        state.mkdir()
        command = [sys.executable, str(DRIVER), str(state), str(marks), *arguments]
        yield power.record(command, folder / "trace", state, marks), str(state)


def nobody(_step: Step) -> bool:
    return False


def problems(
    steps: list[Step], root: str, *, ignoring: Callable[[Step], bool] = nobody, enough: int = 10**9
) -> tuple[int, list[str]]:
    """How many disks were looked at, and what acknowledged things are not on one of them."""
    looked, found = 0, list[str]()
    for number, loss, tree in power.losses(steps, root, ignoring=ignoring):
        told = [step.data.decode().split() for step in steps[:number] if step.kind == "told"]
        begun = [step.data.decode().split() for step in steps[: number + 1] if step.kind == "told"]
        looked += 1
        # A path of its own: nothing of the disk before is there.
        state = Path(root).parent / f"disk-{looked}"
        power.lay_out(tree, state)
        try:
            found += [f"after {number} steps, losing {loss}: {text}" for text in missing(state, told, begun)]
        except KeytweenError as error:
            found.append(f"after {number} steps, losing {loss}: {error}")
        shutil.rmtree(state)
        if len(found) >= enough:
            break
    return looked, found


def missing(state: Path, told: list[list[str]], begun: list[list[str]]) -> Iterator[str]:
    """What was told, and is not so when a daemon starts on this disk."""
    (state / "jobs").mkdir(exist_ok=True)
    cleared = {words[1] for words in begun if words[0] == "clearing"}
    with closing(JobStore(state / STORE)) as store:
        tidy(store, state)
        known = store.job_ids()
        for word, job_id, *rest in told:
            if word == "cleared" and (job_id in known or JobFolder(state / "jobs", job_id).path.exists()):
                yield f"{job_id} was cleared and is there"
            # One that is being cleared may be there or not.
            if job_id in known or job_id not in cleared:
                yield from untrue(store, state, word, job_id, rest)
        for job_id in known - cleared:
            for index, frame in store.frames(job_id).items():
                if JobFolder(state / "jobs", job_id).read(frame) is None:
                    yield f"drawing {index} of {job_id} counts as finished and is not whole"
    if (state / ASIDE).exists():
        yield "a job's folder says nothing"


ENDS = {"done": JobState.DONE, "cancelled": JobState.CANCELLED}


def untrue(store: JobStore, state: Path, word: str, job_id: str, rest: list[str]) -> Iterator[str]:
    """Whether one thing that was told of a job is so no more; raises UnknownJob or KeyframeLost."""
    folder, job = JobFolder(state / "jobs", job_id), store.job(job_id)
    if word == "submitted":
        folder.keyframes(store.request(job_id))
    elif word == "event" and job.last_event < int(rest[0]):
        yield f"event {rest[0]} of {job_id} was told and will be told otherwise"
    elif word == "drawn" and int(rest[0]) not in folder.whole_frames():
        yield f"drawing {rest[0]} of {job_id} was finished and is gone"
    elif word in ENDS and job.state is not ENDS[word]:
        yield f"{job_id} was {word} and is {job.state.value}"


def test_nothing_acknowledged_is_lost_at_whichever_write_the_power_fails(measured: Measured) -> None:
    with recorded() as (steps, root):
        looked, found = problems(steps, root)
    assert found == []
    writes = sum(step.kind not in ("told", "sync") for step in steps)
    syncs = sum(step.kind == "sync" for step in steps)
    assert writes > 150
    assert syncs > 40
    measured(
        "1-power",
        f"power lost after each of {writes} writes and {syncs} syncs, with {looked} different disks left: "
        "nothing acknowledged is gone, no frame is half",
    )


def test_an_fsync_that_does_nothing_is_noticed() -> None:
    """The same run with `os.fsync` doing nothing: what this file tests can fail."""
    with recorded("without-fsync") as (steps, root):
        _, found = problems(steps, root, enough=3)
    assert found


def is_file(step: Step) -> bool:
    return step.path.rpartition("/")[2].startswith(("keyframe-", "order.", "unfinished-0"))


@pytest.mark.parametrize(
    "careless",
    [
        lambda step: "jobs.sqlite" in step.path,
        is_file,
        lambda step: step.path.endswith("/frames"),
        lambda step: step.path.endswith("/jobs"),
        lambda step: "/unfinished-" in step.path and not is_file(step),
    ],
    ids=["the list's own", "a file's", "a frame's name", "a job's name", "a keyframe's name"],
)
def test_every_kind_of_sync_is_needed(careless: Callable[[Step], bool]) -> None:
    with recorded() as (steps, root):
        _, found = problems(
            steps, root, ignoring=lambda step: step.kind == "sync" and careless(step), enough=1
        )
    assert found
