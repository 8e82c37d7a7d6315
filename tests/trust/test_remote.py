# SPDX-License-Identifier: Apache-2.0
"""Promise 8 beyond this machine: nobody comes in but by a key that is listed, and only while it is."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from discs import draw_disc
from figures import Measured
from keytween.authorised import AuthorisedKeys
from keytween.config import Config
from keytween.joining import client_key, join, server_key
from keytween.keys import KeyPair
from keytween.porter import PATIENCE_S
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.codec import encode
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError, DaemonNotOurs, DaemonUnreachable, KeyRefused
from keytween_wire.messages import FrameMade, JobState, Ping, Welcome

from . import jobs
from .cable import Cable
from .two_machines import DAEMON_ADDRESS, PORT, Machine, two_machines

PLACE = f"{DAEMON_ADDRESS}:{PORT}"
STEPS = Path(__file__).resolve().parents[2] / "docs" / "remote.md"
Start = Callable[..., DaemonProcess]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Machine, Machine]]:
    monkeypatch.setenv("KEYTWEEN_CONFIG", str(tmp_path / "none.toml"))
    with two_machines(tmp_path) as made:
        yield made


@pytest.fixture
def studio(machines: tuple[Machine, Machine]) -> Machine:
    """The daemon's machine."""
    return machines[0]


@pytest.fixture
def artist(machines: tuple[Machine, Machine]) -> Machine:
    return machines[1]


@pytest.fixture
def config(studio: Machine) -> Config:
    return studio.settings(bind=PLACE)


@pytest.fixture
def joined(studio: Machine, artist: Machine, config: Config, start_daemon: Start) -> Connection:
    """The artist's way to a daemon that runs on the other machine and lets him in."""
    AuthorisedKeys(config.state).allow("anna", client_key(artist.settings()).public)
    with studio.inside():
        start_daemon()
    return joining(artist, config)


def joining(machine: Machine, config: Config) -> Connection:
    with machine.inside():
        file, _ = join(machine.settings(), PLACE, server_key(config).public, machine.home / "studio.json")
    return Connection.load(file)


def knock(machine: Machine, connection: Connection, *, timeout: float = 5.0) -> Welcome:
    with machine.inside(), Client(connection) as client:
        return client.hello(timeout=timeout)


# ---- step by step


def test_the_documented_steps_do_what_the_page_says(studio: Machine, artist: Machine) -> None:
    """Every command of docs/remote.md on the machine it is for, and what it prints, but for the keys."""
    for index in range(2):
        draw_disc(artist.home / f"walk.000{index + 1}.png", centre=(30 + 20 * index, 32))
    walk = Steps({"daemon": studio, "artist": artist})
    try:
        for block in re.findall(r"^```(\w*)\n(.*?)^```$", STEPS.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            walk.take(*block)
    finally:
        walk.stop()
    assert len(walk.done) == 9
    assert len(list((artist.home / "out").glob("*.png"))) >= 5


class Steps:
    """Goes through the page: runs `artist$` and `daemon$` lines, and puts settings where they belong."""

    def __init__(self, machines: dict[str, Machine]) -> None:
        self.machines = machines
        self.keys: dict[str, str] = {}
        self.done: list[str] = []
        self._serving: subprocess.Popen[str] | None = None

    def take(self, language: str, text: str) -> None:
        where, _, settings = text.partition("\n")
        name, _, file = where.removeprefix("# ").partition(":")
        if language == "toml" and name in self.machines:
            self._home(name, file).parent.mkdir(parents=True, exist_ok=True)
            with self._home(name, file).open("a") as stream:
                stream.write(self._ours(settings))
        elif "$ keytween" in text:
            for name, command, said in re.findall(
                r"^(artist|daemon)\$ (keytween .*)\n((?:(?!artist\$|daemon\$).*\n)*)", text, re.MULTILINE
            ):
                self._run(name, command, said)

    def _run(self, name: str, command: str, said: str) -> None:
        command = self._ours(command)
        self.done.append(command)
        if command == "keytween serve":
            self._serving = self.machines[name].popen(f"exec {command} 2>serve.log")
            assert self._serving.stdout is not None
            printed = "".join(self._serving.stdout.readline() for _ in said.splitlines())
        else:
            _, printed = self.machines[name].sh(command)
        self._learn(said, printed)
        assert plain(printed) == plain(self._ours(said)), command

    def _learn(self, said: str, printed: str) -> None:
        """Keys are made anew: those of the page stand for those that were printed in their place."""
        found = re.compile(r"(?<!\S)[!-~]{40}(?!\S)")
        for key, real in zip(found.findall(said), found.findall(printed), strict=True):
            assert self.keys.setdefault(key, real) == real

    def _ours(self, text: str) -> str:
        for key, real in self.keys.items():
            text = text.replace(key, real)
        return text.replace("/people/anna", str(self.machines["artist"].home))

    def _home(self, name: str, file: str) -> Path:
        return self.machines[name].home / file.strip().removeprefix("~/")

    def stop(self) -> None:
        if self._serving is not None:
            self._serving.send_signal(signal.SIGTERM)
            self._serving.communicate(timeout=20)
            assert self._serving.returncode == 0


def plain(text: str) -> str:
    """What a command printed, without what is another at every run."""
    text = "".join(line for line in text.splitlines(keepends=True) if "\u2501" not in line)  # the bar
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"process \d+", "process PID", text)
    text = re.sub(r"\d+\.\d s", "N s", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "JOB", text)
    return re.sub(r" +", " ", text).strip()


# ---- where it does not listen


def refused(machine: Machine, bind: str) -> str:
    code, said = machine.sh("keytween serve", {**machine.environment, "KEYTWEEN_BIND": bind})
    assert code == 5
    assert "KT-313" in said
    assert bind in said
    return said


def test_it_listens_beyond_its_machine_only_for_keys_that_are_listed(studio: Machine) -> None:
    assert "no key" in refused(studio, PLACE)
    assert "no key" in refused(studio, "0.0.0.0:5570")


def test_an_address_that_is_not_there_and_a_port_that_is_taken_are_named(studio: Machine) -> None:
    studio.sh(f"keytween keys allow anna '{KeyPair.new().public}'")
    assert "does not have that address" in refused(studio, "192.168.1.77:5570")
    with studio.inside(), closing(socket.create_server((DAEMON_ADDRESS, PORT))):
        assert "another program has that port" in refused(studio, PLACE)


@pytest.mark.parametrize(
    "bind", ["here", "192.168.1.5", "192.168.1.5:0", "::1:5570", "studio:5570", "1.2.3.4:99999"]
)
def test_a_setting_that_is_no_address_is_refused(studio: Machine, bind: str) -> None:
    code, said = studio.sh("keytween serve", {**studio.environment, "KEYTWEEN_BIND": bind})
    assert (code, "KT-205" in said) == (4, True), said


def test_by_default_no_other_machine_reaches_it(
    studio: Machine, artist: Machine, start_daemon: Start
) -> None:
    with studio.inside():
        daemon = start_daemon(studio.settings())
    port = int(daemon.connection.endpoint.rpartition(":")[2])
    assert daemon.connection.endpoint.startswith("tcp://127.0.0.1:")
    with artist.inside(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((DAEMON_ADDRESS, port), timeout=3)


# ---- who comes in


def test_a_machine_that_is_allowed_has_a_whole_job_done(
    artist: Machine, joined: Connection, tmp_path: Path, measured: Measured
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + i, 300), size=(1920, 1080)) for i in range(2)]
    with artist.inside(), Client(joined) as client:
        client.hello()
        began = time.monotonic()
        frames, end = jobs.finish(client, jobs.submit(client, files, in_betweens=12))
    assert end.state is JobState.DONE
    assert len(frames) == 12
    measured("8-remote-job", f"12 drawings of 1920 x 1080 over a cable: {time.monotonic() - began:.1f} s")


def test_nobody_else_comes_in(
    artist: Machine, joined: Connection, config: Config, measured: Measured
) -> None:
    stranger = KeyPair.new()
    unlisted = replace(joined, client_key=stranger.public, client_secret=stranger.secret)
    with pytest.raises(KeyRefused):
        knock(artist, unlisted)
    # The public key that is listed, without its secret.
    with pytest.raises(DaemonError):
        knock(artist, replace(joined, client_secret=stranger.secret), timeout=2)
    with artist.inside():
        plain_peer = zmq.Context.instance().socket(zmq.DEALER)
        plain_peer.linger = 0
        plain_peer.connect(joined.endpoint)
        plain_peer.send_multipart(encode(Ping(), number=1))
        with closing(plain_peer):
            assert not plain_peer.poll(1000)
        with socket.create_connection((DAEMON_ADDRESS, PORT), timeout=5) as silent:
            silent.settimeout(PATIENCE_S + 3)
            assert len(silent.recv(4096)) <= 64
            assert silent.recv(4096) == b""
    assert knock(artist, joined).pid
    measured("8-remote", "no CURVE, an unlisted key, a key without its secret, silence: none comes in")


def test_something_else_at_the_address_is_not_taken_for_the_daemon(
    artist: Machine, joined: Connection, config: Config
) -> None:
    with pytest.raises(DaemonNotOurs):
        knock(artist, replace(joined, server_key=KeyPair.new().public), timeout=3)
    code, said = artist.sh(f"keytween keys join {PLACE} '{KeyPair.new().public}'")
    assert (code, "KT-318" in said) == (5, True), said
    with pytest.raises(DaemonUnreachable) as caught:
        knock(artist, replace(joined, endpoint=f"tcp://{DAEMON_ADDRESS}:1"), timeout=1)
    assert not isinstance(caught.value, DaemonNotOurs)


def test_a_refused_machine_gets_no_connection_file(
    studio: Machine, artist: Machine, joined: Connection
) -> None:
    environment = {**artist.environment, "KEYTWEEN_STATE": str(artist.home / "another")}
    code, said = artist.sh(f"keytween keys join {PLACE} '{joined.server_key}' -o b.json", environment)
    assert (code, "KT-303" in said) == (5, True), said
    assert not (artist.home / "b.json").exists()


def test_a_key_is_let_in_and_forgotten_while_the_daemon_runs(
    studio: Machine, artist: Machine, joined: Connection, config: Config, tmp_path: Path, measured: Measured
) -> None:
    """In the middle of jobs: the one that is forgotten is out at once, the other misses nothing."""
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + i, 300), size=(1280, 720)) for i in range(2)]
    ben = KeyPair.new()
    other = replace(joined, client_key=ben.public, client_secret=ben.secret)
    with pytest.raises(KeyRefused):
        knock(artist, other)
    assert studio.sh(f"keytween keys allow ben '{ben.public}'", on(studio))[0] == 0
    with artist.inside():
        anna, guest = Client(joined), Client(other)
    with anna, guest:
        anna.hello()
        guest.hello()
        job_id = jobs.submit(anna, files, in_betweens=60)
        frames = set()
        for received in anna.events(job_id):
            if isinstance(received.message, FrameMade):
                frames.add(received.message.index)
                if len(frames) == 10:
                    began = time.monotonic()
                    AuthorisedKeys(config.state).forget("ben")
                    jobs.until(lambda: isinstance(guest.trouble(), KeyRefused), seconds=10)
                    seconds = time.monotonic() - began
        assert received.message.state is JobState.DONE
        assert frames == set(range(60))
        with pytest.raises(DaemonError):
            guest.ask(Ping(), timeout=2)
    with pytest.raises(KeyRefused):
        knock(artist, other)
    measured("8-forgotten", f"a key that was forgotten in the middle of a job: out after {seconds:.2f} s")


def on(machine: Machine) -> dict[str, str]:
    """The environment of the daemon that the fixtures start."""
    return {**machine.environment, "KEYTWEEN_STATE": str(machine.settings().state)}


def test_a_list_that_others_may_change_lets_nobody_in(
    artist: Machine, joined: Connection, config: Config
) -> None:
    listed = config.state / "authorised_keys"
    listed.chmod(0o666)
    with pytest.raises(KeyRefused):
        knock(artist, joined)
    listed.chmod(0o600)
    assert knock(artist, joined).pid


def test_its_own_machine_still_comes_in_by_loopback(
    studio: Machine, artist: Machine, joined: Connection, config: Config
) -> None:
    own = Connection.load(config.connection)
    assert own.endpoint.startswith("tcp://127.0.0.1:")
    assert own.endpoint != f"tcp://127.0.0.1:{PORT}"
    assert knock(studio, own).pid == own.pid
    # A crowd outside stands at the other door.
    with artist.inside():
        crowd = []
        for _ in range(60):
            with suppress(OSError):
                crowd.append(socket.create_connection((DAEMON_ADDRESS, PORT), timeout=1))
    began = time.monotonic()
    assert knock(studio, own).pid == own.pid
    assert time.monotonic() - began < 1
    for peer in crowd:
        peer.close()


def test_a_long_line_works(artist: Machine, joined: Connection, tmp_path: Path, measured: Measured) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + i, 300), size=(1280, 720)) for i in range(2)]
    with artist.inside():
        line = Cable(joined, delay_s=0.25)
        client = Client(line.connection)
    with closing(line), client:
        client.hello(timeout=10)
        began = time.monotonic()
        frames, end = jobs.finish(client, jobs.submit(client, files, in_betweens=40))
        seconds = time.monotonic() - began
    assert (len(frames), end.state, line.plugged) == (40, JobState.DONE, 1)
    measured("8-remote-far", f"0.25 s each way: a job of 40 drawings in {seconds:.1f} s")


def test_a_tunnel_leads_to_a_daemon_that_listens_to_its_own_machine(
    studio: Machine, artist: Machine, start_daemon: Start
) -> None:
    """As `ssh -L` does: one end on the artist's loopback address, the other on the daemon's."""
    config = studio.settings(bind=f"127.0.0.1:{PORT}")
    AuthorisedKeys(config.state).allow("anna", client_key(artist.settings()).public)
    with studio.inside():
        daemon = start_daemon(config)
    assert daemon.connection.endpoint == f"tcp://127.0.0.1:{PORT}"
    with artist.inside(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((DAEMON_ADDRESS, PORT), timeout=3)
    with artist.inside(), closing(Cable(daemon.connection, far_end=studio.inside)) as tunnel:
        near = tunnel.connection.endpoint.removeprefix("tcp://")
        file, welcome = join(artist.settings(), near, server_key(config).public, artist.home / "tunnel.json")
        assert welcome.pid == daemon.process.pid
        knock(artist, Connection.load(file))
    daemon.stop()
    with studio.inside():
        assert start_daemon(config).connection.server_key == daemon.connection.server_key


# ---- again


def test_a_daemon_that_is_killed_and_started_again_goes_on_under_the_same_key(
    studio: Machine, artist: Machine, config: Config, start_daemon: Start, tmp_path: Path, measured: Measured
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + i, 300), size=(1280, 720)) for i in range(2)]
    AuthorisedKeys(config.state).allow("anna", client_key(artist.settings()).public)
    with studio.inside():
        daemon = start_daemon()
    joined = joining(artist, config)
    with artist.inside():
        client = Client(joined)
    with client:
        client.hello()
        job_id = jobs.submit(client, files, in_betweens=60)
        frames: list[int] = []
        for received in client.events(job_id, timeout=60):
            if isinstance(received.message, FrameMade):
                frames.append(received.message.index)
                if len(frames) == 10:
                    os.kill(daemon.process.pid, signal.SIGKILL)
                    daemon.process.wait()
                    with studio.inside():
                        again = start_daemon()
    assert received.message.state is JobState.DONE
    assert set(frames) == set(range(60))
    assert again.connection.server_key == daemon.connection.server_key
    assert again.connection.client_key != daemon.connection.client_key
    assert set(jobs.computed(config, job_id).values()) == {1}
    measured("5-remote", "daemon killed and started again under a client on another machine: all events came")


def test_on_loopback_its_key_is_another_at_every_start(studio: Machine, start_daemon: Start) -> None:
    with studio.inside():
        first = start_daemon(studio.settings())
        first.stop()
        second = start_daemon(studio.settings())
    assert first.connection.server_key != second.connection.server_key
    assert not (studio.settings().state / "server_key").exists()


# ---- secrets


def test_no_secret_leaves_its_machine(
    studio: Machine, artist: Machine, joined: Connection, config: Config
) -> None:
    for secret, elsewhere in (
        (client_key(artist.settings()).secret, studio.home),
        (server_key(config).secret, artist.home),
    ):
        files = [path for path in elsewhere.rglob("*") if path.is_file()]
        assert len(files) >= 3
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
    for file in (config.state / "server_key", artist.settings().state / "client_key"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert (artist.home / "studio.json").stat().st_mode & 0o777 == 0o600
    assert joined.client_secret not in repr(joined)


def test_a_daemon_here_does_not_write_over_the_way_to_another(artist: Machine, joined: Connection) -> None:
    file = artist.home / "studio.json"
    before = file.read_bytes()
    code, said = artist.sh("keytween serve", {**artist.environment, "KEYTWEEN_CONNECTION": str(file)})
    assert (code, "another machine" in said) == (4, True), said
    assert file.read_bytes() == before
