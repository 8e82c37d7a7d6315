# SPDX-License-Identifier: Apache-2.0
"""Promise 10: old and new. A daemon or a client of the next version, and one that is too old."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import next_version
from discs import request_for
from figures import Measured
from keytween.starter import DaemonProcess
from keytween_wire import OLDEST, PROTOCOL
from keytween_wire.client import Client
from keytween_wire.codec import decode, encode
from keytween_wire.errors import ProtocolMismatch
from keytween_wire.messages import FrameMade, Hello, JobState, Ping, Welcome


@pytest.fixture
def newer_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_daemon: Callable[..., DaemonProcess]
) -> DaemonProcess:
    next_version.install(tmp_path / "next", monkeypatch)
    return start_daemon()


def test_a_client_works_with_the_next_versions_daemon(
    newer_daemon: DaemonProcess, keyframe_files: list[Path], measured: Measured
) -> None:
    with Client(newer_daemon.connection) as client:
        welcome = client.hello()
        assert (welcome.protocol, welcome.version) == (PROTOCOL, "9.9")
        job_id, request, blobs = request_for(keyframe_files)
        client.submit(job_id, request, blobs)
        made = [r.message for r in client.events(job_id)]
    assert len([m for m in made if isinstance(m, FrameMade)]) == 5
    assert made[-1].state is JobState.DONE
    measured("10-versions", "a client with the next version's daemon, and the other way round: jobs done")


def test_the_next_versions_client_is_spoken_to_in_what_both_know(daemon: DaemonProcess) -> None:
    with Client(daemon.connection) as client:
        client._protocol = PROTOCOL + 1
        reply = client.ask(Hello(OLDEST, PROTOCOL + 1, version="9.9"))
        assert isinstance(reply, Welcome)
        assert reply.protocol == PROTOCOL
        # Whoever goes on in his own version is told so.
        with pytest.raises(ProtocolMismatch):
            client.ask(Ping())
        client.heed(reply)
        client.ask(Ping())


@pytest.mark.parametrize(("oldest", "newest"), [(OLDEST - 1, OLDEST - 1), (PROTOCOL + 1, PROTOCOL + 2)])
def test_a_client_that_is_too_old_or_too_new_is_told_what_to_update(
    daemon: DaemonProcess, oldest: int, newest: int
) -> None:
    with Client(daemon.connection) as client, pytest.raises(ProtocolMismatch) as caught:
        client.ask(Hello(oldest, newest, version="7.7"))
    assert "7.7" in caught.value.advice
    assert "Update the older" in caught.value.advice


def test_an_answer_is_in_the_version_of_its_question() -> None:
    frames = encode(Ping(), number=3, protocol=OLDEST)
    assert decode(frames).protocol == OLDEST
