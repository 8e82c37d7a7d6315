# SPDX-License-Identifier: Apache-2.0
"""Promise 2: no finished frame is computed twice, and none is seen that is not what its name says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from discs import draw_disc
from figures import Measured
from keytween.config import Config
from keytween.jobs.folder import JobFolder
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.errors import KeytweenError
from keytween_wire.messages import JobState

from . import jobs


def flipped(path: Path) -> None:
    """One bit of the file is another one."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


HARM = {"flipped": flipped, "cut": cut, "emptied": lambda path: path.write_bytes(b""), "deleted": Path.unlink}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_frame_that_is_not_what_its_name_says_is_made_again_and_no_other(
    client: Client, config: Config, keyframe_files: list[Path], harm: Callable[[Path], None]
) -> None:
    job_id = jobs.submit(client, keyframe_files)
    whole, _ = jobs.finish(client, job_id)
    folder = JobFolder(config.state / "jobs", job_id)
    harm(sorted(folder.frames.iterdir())[2])
    again, ended = jobs.finish(client, job_id)
    assert ended.state is JobState.DONE
    assert again == whole
    assert jobs.computed(config, job_id) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    assert jobs.state(client, job_id) is JobState.DONE


def test_all_of_a_jobs_frames_may_be_lost_but_its_keyframes_may_not(
    client: Client, config: Config, keyframe_files: list[Path], measured: Measured
) -> None:
    job_id = jobs.submit(client, keyframe_files)
    whole, _ = jobs.finish(client, job_id)
    folder = JobFolder(config.state / "jobs", job_id)
    for path in folder.frames.iterdir():
        path.unlink()
    assert jobs.finish(client, job_id)[0] == whole
    measured(
        "2-frames", "4 kinds of harm: the harmed drawing is made again, no other; 5 of 5 lost ones made again"
    )
    for path in [*folder.frames.iterdir(), folder.keyframe(1, ".png")]:
        flipped(path)
    _, ended = jobs.finish(client, job_id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code == "KT-511"


def test_a_worker_that_says_it_is_done_and_is_not_is_not_believed(
    client: Client, daemon: DaemonProcess, config: Config, tmp_path: Path
) -> None:
    """A finished frame disappears while the job goes on: in the end it is there."""
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1280, 720)) for i in range(2)]
    job_id = jobs.submit(client, files, in_betweens=30)
    folder = JobFolder(config.state / "jobs", job_id)
    jobs.until(lambda: folder.frames.is_dir() and len(list(folder.frames.iterdir())) > 3)
    next(folder.frames.iterdir()).unlink()
    frames, ended = jobs.finish(client, job_id)
    assert (ended.state, sorted(frames)) == (JobState.DONE, list(range(30)))


def test_a_failed_job_goes_on_with_its_frames_when_it_is_tried_again(
    client: Client, config: Config, tmp_path: Path
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1280, 720)) for i in range(2)]
    job_id = jobs.submit(client, files, in_betweens=60)
    jobs.until(lambda: client.jobs(job_id)[0].frames_done > 2)
    assert not client.retry(job_id)
    client.cancel(job_id)
    assert jobs.state(client, job_id) is JobState.CANCELLED
    assert client.retry(job_id)
    frames, ended = jobs.finish(client, job_id)
    assert (ended.state, len(frames)) == (JobState.DONE, 60)
    assert set(jobs.computed(config, job_id).values()) == {1}
    with pytest.raises(KeytweenError):
        client.retry("f" * 32)
