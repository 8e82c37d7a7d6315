# SPDX-License-Identifier: Apache-2.0
"""Promise 8: nobody in. Peers without a key, in every way to knock: they get nothing, and cost nothing."""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest
import zmq

from figures import Measured
from keytween import doors
from keytween.config import Config
from keytween.keys import KeyPair
from keytween.porter import MOST_STRANGERS, PATIENCE_S
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.codec import encode
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError, KeyRefused
from keytween_wire.messages import Done, Ping

from . import proc

pytestmark = pytest.mark.skipif(not proc.THERE, reason="counts memory as Linux tells it")

MOST_MB = 8.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.1 with CURVE, as a client."""


def place(connection: Connection) -> tuple[str, int]:
    host, _, port = connection.endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


@contextmanager
def knocking(connection: Connection, said: bytes, count: int = 1) -> Iterator[list[socket.socket]]:
    """So many connections that say this and then stand there."""
    with ExitStack() as held:
        sockets = []
        for _ in range(count):
            with suppress(OSError):
                peer = held.enter_context(socket.create_connection(place(connection), timeout=5))
                sockets.append(peer)
                peer.sendall(said)
        yield sockets


def answers(connection: Connection, *, timeout: float = 10.0) -> float:
    """How long a client with a key waits for an answer, in seconds."""
    began = time.monotonic()
    with Client(connection) as client:
        client.hello(timeout=timeout)
        assert client.ask(Ping()) == Done()
    return time.monotonic() - began


def whole_frame(size: int) -> bytes:
    return b"\x06" + struct.pack(">Q", size)


KNOCKS = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,
    "noise": os.urandom(1 << 16),
    "null": GREETING[:12] + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x26\x05READY" + bytes(32),
    "plain": GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32) + b"\x04\x10\x05HELLO\x03abc\x03def",
    "greeting": GREETING,
    "cut hello": GREETING + b"\x04\xc8\x05HELLO\x01\x00" + bytes(40),
    "false hello": GREETING + b"\x04\xc8\x05HELLO\x01\x00" + os.urandom(192),
    "first frame of 200 MB": GREETING + whole_frame(200 << 20) + b"x" * (4 << 20),
    "first frame without end": GREETING + whole_frame((1 << 63) - 1) + b"x" * (4 << 20),
}


def test_strangers_are_hung_up_on_and_have_cost_next_to_nothing(
    daemon: DaemonProcess, measured: Measured
) -> None:
    answers(daemon.connection)
    before = proc.resident_mb(daemon.process.pid)
    proc.forget_peak(daemon.process.pid)
    began = time.monotonic()
    with ThreadPoolExecutor(len(KNOCKS)) as crowd:
        knocks = {name: crowd.submit(hung_up_after, daemon.connection, said) for name, said in KNOCKS.items()}
        assert answers(daemon.connection) < 2
        seconds = {name: knock.result() for name, knock in knocks.items()}
    assert max(seconds.values()) < PATIENCE_S + 1, seconds
    cost = proc.peak_mb(daemon.process.pid) - before
    assert cost < 4
    assert time.monotonic() - began < PATIENCE_S + 3
    assert answers(daemon.connection) < 2
    measured("8-strangers", f"{len(KNOCKS)} ways to knock, {cost:.1f} MB for all of them together")


def hung_up_after(connection: Connection, said: bytes) -> float:
    """Seconds until the daemon ends a connection that says this and waits."""
    with knocking(connection, b"") as (peer,):
        peer.settimeout(PATIENCE_S + 5)
        began = time.monotonic()
        with suppress(OSError):
            peer.sendall(said)
            while peer.recv(4096):
                pass
        return time.monotonic() - began


def flood(connection: Connection, said: bytes, count: int) -> None:
    """What one attacker does: opens as many connections as he can, says all of it, and waits."""
    with knocking(connection, said, count):
        time.sleep(1)


def test_a_flood_of_strangers_costs_little_and_keeps_nobody_with_a_key_out(
    daemon: DaemonProcess, measured: Measured
) -> None:
    pid = daemon.process.pid
    answers(daemon.connection)
    before, most, slowest = proc.resident_mb(pid), 0.0, 0.0
    files = proc.files(pid)
    spawn = multiprocessing.get_context("spawn")
    with Client(daemon.connection) as guest:
        guest.hello()
        for name in ("greeting", "first frame of 200 MB"):
            proc.forget_peak(pid)
            attackers = [
                spawn.Process(target=flood, args=(daemon.connection, KNOCKS[name][:65536], 400))
                for _ in range(3)
            ]
            for attacker in attackers:
                attacker.start()
            while any(attacker.is_alive() for attacker in attackers):
                slowest = max(slowest, answers(daemon.connection))
                assert guest.ask(Ping()) == Done()
            most = max(most, proc.peak_mb(pid) - before)
            assert proc.files(pid) < files + 2 * MOST_STRANGERS + 40
    assert most < MOST_MB
    time.sleep(PATIENCE_S + 0.5)
    assert proc.files(pid) <= files + 2
    assert answers(daemon.connection) < 1
    measured(
        "8-memory",
        f"2400 connections of three attackers at once: {most:.1f} MB more; "
        f"a client with a key waited {slowest:.1f} s at most",
    )


@pytest.mark.parametrize("mechanism", ["null", "plain"])
def test_a_peer_that_speaks_zeromq_without_curve_gets_nothing(daemon: DaemonProcess, mechanism: str) -> None:
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.linger = 0
    if mechanism == "plain":
        peer.plain_username, peer.plain_password = b"keytween", b"keytween"
    peer.connect(daemon.connection.endpoint)
    peer.send_multipart(encode(Ping(), number=1))
    assert not peer.poll(500)
    peer.close()


def test_no_key_and_another_key_are_refused_and_say_so(daemon: DaemonProcess) -> None:
    stranger = KeyPair.new()
    unlisted = replace(daemon.connection, client_key=stranger.public, client_secret=stranger.secret)
    with Client(unlisted) as client, pytest.raises(KeyRefused):
        client.hello(timeout=5)
    # The listed public key without its secret one.
    thief = replace(daemon.connection, client_secret=stranger.secret)
    with Client(thief) as client, pytest.raises(DaemonError):
        client.hello(timeout=1)


def test_when_nobody_answers_for_the_list_nobody_gets_in(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: the sockets are there, and whoever asks for the list gets no answer."""
    from keytween_wire.messages import Limits

    opened = doors.Doors(config, Limits())
    try:
        with Client(opened.connection) as client:
            client.post(Ping())
            assert not opened.clients.poll(1500)
        assert opened.zap.poll(0), "the question was asked"
    finally:
        opened.close()


def test_a_recording_of_a_conversation_is_worth_nothing(daemon: DaemonProcess) -> None:
    """Replayed, whole or from its middle or out of order: CURVE's keys are those of one connection."""
    recorded = record(daemon.connection)
    assert len(recorded) >= 3
    for sent in (recorded, recorded[::-1], recorded[2:], [*recorded[:2], recorded[-1], *recorded[2:]]):
        with knocking(daemon.connection, b"") as (peer,):
            peer.settimeout(PATIENCE_S + 3)
            got = b""
            with suppress(OSError):
                for piece in sent:
                    peer.sendall(piece)
                while piece := peer.recv(4096):
                    got += piece
            # The greeting and a WELCOME for the recorded short-lived key, which only its owner can open.
            assert len(got) <= 64 + 170
    assert answers(daemon.connection) < 2


def record(connection: Connection) -> list[bytes]:
    """What a client with a key says in a conversation, as somebody on the way would see it."""
    taken: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(5)
    there = replace(connection, endpoint=f"tcp://127.0.0.1:{listening.getsockname()[1]}")
    with listening, Client(there) as client, socket.create_connection(place(connection)) as daemon:
        number = client.post(Ping())
        near, _ = listening.accept()
        with near:
            near.setblocking(False)
            daemon.setblocking(False)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                for source, target in ((near, daemon), (daemon, near)):
                    with suppress(BlockingIOError):
                        if piece := source.recv(65536):
                            target.sendall(piece)
                            if source is near:
                                taken.append(piece)
                if any(received.number == number for received in client.poll()):
                    return taken
                time.sleep(0.005)
    raise AssertionError("the conversation did not take place")


def test_another_user_can_neither_read_the_keys_nor_enter_by_the_inner_doors(
    config: Config, start_daemon: Callable[..., DaemonProcess]
) -> None:
    """As root the test can become somebody else; everybody else is checked by the modes alone."""
    daemon = start_daemon()
    inside = doors._private_folder(config.state)
    for path, mode in ((config.connection, 0o600), (config.state, 0o700), (inside, 0o700)):
        assert path.stat().st_mode & 0o777 == mode, path
    if os.getuid() != 0:
        pytest.skip("only root can try it as somebody else")
    spawn = multiprocessing.get_context("spawn")
    tries = spawn.Queue()
    paths = [str(config.connection), *(str(p) for p in inside.iterdir()), str(config.state / "jobs.sqlite")]
    other = spawn.Process(target=try_as_nobody, args=(paths, tries))
    other.start()
    found = tries.get(timeout=30)
    other.join()
    assert found == dict.fromkeys(paths, "PermissionError")
    assert answers(daemon.connection) < 2


def try_as_nobody(paths: list[str], tries: object) -> None:
    """Opens files and sockets as another user; says what came of each."""
    os.setgid(65534)
    os.setuid(65534)
    found = {}
    for path in paths:
        try:
            if "keytween-" in os.path.basename(path):
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.connect(path)
            else:
                open(path, "rb").close()
            found[path] = "opened"
        except OSError as error:
            found[path] = type(error).__name__
    tries.put(found)  # type: ignore[attr-defined]
