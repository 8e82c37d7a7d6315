"""DiffMorpher in the real daemon: through the wire, and on after its worker was killed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from PIL import Image

from keytween import cli
from keytween.config import Config
from keytween.images import read
from keytween.jobs.folder import JobFolder
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import (
    Diffusion,
    FrameMade,
    JobChanged,
    JobState,
    KeyframeImage,
    MorphRequest,
    Progressed,
)

pytestmark = pytest.mark.timeout(300)
STUDY = "studying the keyframes"


@pytest.fixture
def asked(
    tiny_sd: Path, tmp_path: Path, drawings: tuple[np.ndarray, np.ndarray]
) -> tuple[MorphRequest, list[bytes]]:
    """Three keyframes, two in-betweens each, quick settings."""
    blobs = []
    for index, image in enumerate([*drawings, np.ascontiguousarray(drawings[0][:, ::-1])]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        blobs.append((tmp_path / f"{index}.png").read_bytes())
    images = tuple(KeyframeImage(MorphRequest.digest_of(b), ".png") for b in blobs)
    settings = Diffusion(str(tiny_sd), steps=8, lora_steps=20, lora_rank=2)
    return MorphRequest(images, ((0.3, 0.6), (0.3, 0.6)), engine="diffmorpher", diffusion=settings), blobs


Asked = tuple[MorphRequest, list[bytes]]


def test_a_killed_worker_is_replaced_and_nothing_is_made_twice(
    start_daemon: Callable[..., DaemonProcess], config: Config, asked: Asked
) -> None:
    daemon = start_daemon()
    job_id, killed, phases, frames = uuid.uuid4().hex, False, [], {}
    with Client(daemon.connection) as client:
        assert "diffmorpher" in [e.name for e in client.hello().engines if e.available]
        client.submit(job_id, *asked)
        for received in client.events(job_id):
            message = received.message
            if isinstance(message, FrameMade):
                frames[message.index] = read(received.blobs[0]).pixels
                assert message.note.startswith("The pace was evened out, measured by ")
                if not killed:
                    for child in psutil.Process(daemon.process.pid).children():
                        child.kill()
                    killed = True
            elif isinstance(message, Progressed):
                phases.append((killed, message.phase))
        assert isinstance(message, JobChanged)
        assert message.state is JobState.DONE, message
    assert sorted(frames) == [0, 1, 2, 3]
    assert all(pixels.shape == (64, 64, 3) for pixels in frames.values())
    assert (False, STUDY) in phases
    assert (True, STUDY) not in phases
    journal = JobFolder(config.state / "jobs", job_id).journal.read_text().splitlines()
    assert max(Counter(line.split()[0] for line in journal).values()) == 1


def test_the_report_says_what_the_pace_was_measured_by(
    config: Config, tiny_sd: Path, asked: Asked, tmp_path: Path
) -> None:
    """On the command line, from two pictures to the page."""
    quick = [
        "--checkpoint",
        str(tiny_sd),
        "--steps",
        "3",
        "--lora-steps",
        "2",
        "-n",
        "1",
        "--engine",
        "diffmorpher",
    ]
    keys = [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    assert cli.main(["morph", *keys, *quick, "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "The pace was evened out, measured by " in page
    assert (tmp_path / "out" / "0001.png").read_bytes() == asked[1][0]


def test_a_cancel_is_felt_within_a_step(start_daemon: Callable[..., DaemonProcess], asked: Asked) -> None:
    request, blobs = asked
    slow = replace(request, diffusion=replace(request.diffusion, lora_steps=100_000))
    with Client(start_daemon().connection) as client:
        client.hello()
        job_id, following = uuid.uuid4().hex, uuid.uuid4().hex
        client.submit(job_id, slow, blobs)
        for received in client.events(job_id):
            if isinstance(received.message, Progressed) and received.message.phase == STUDY:
                client.cancel(job_id)
        assert client.jobs(job_id)[0].state is JobState.CANCELLED
        client.submit(following, request, blobs)
        assert [r.message for r in client.events(following)][-1].state is JobState.DONE


def test_a_wrong_checkpoint_fails_by_name(
    start_daemon: Callable[..., DaemonProcess], asked: Asked, tmp_path: Path
) -> None:
    request, blobs = asked
    wrong = replace(request, diffusion=Diffusion(str(tmp_path / "nothing")))
    with Client(start_daemon().connection) as client:
        client.hello()
        job_id = uuid.uuid4().hex
        client.submit(job_id, wrong, blobs)
        last = [r.message for r in client.events(job_id)][-1]
        assert last.state is JobState.FAILED
        assert last.error.code == "KT-210"
