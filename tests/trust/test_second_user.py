# SPDX-License-Identifier: Apache-2.0
"""Promise 8 on a machine with several users: another one can neither read, nor write, nor come in."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from figures import Measured
from keytween import doors
from keytween.authorised import AuthorisedKeys
from keytween.config import Config
from keytween.joining import client_key, server_key
from keytween.keys import KeyPair
from keytween.private import own_folder
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import ConnectionFileUnsafe, DaemonWouldNotStart, FileUnsafe, KeytweenError

from . import jobs

NOBODY = 65534
Start = Callable[..., DaemonProcess]
pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="rights of files as POSIX has them")


@pytest.fixture
def config(config: Config) -> Iterator[Config]:
    """Settings in a place that everybody may enter: pytest's own folders alone would keep others out."""
    place = Path(tempfile.mkdtemp(prefix="keytween-users-"))
    place.chmod(0o755)
    yield replace(config, state=place / "state", connection=place / "run" / "connection.json")
    shutil.rmtree(place)


@pytest.fixture
def other() -> Callable[..., object]:
    """Does something as another user; without root it cannot be tried."""
    if os.getuid() != 0:
        if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
            pytest.fail("only root can try it as another user")
        pytest.skip("only root can try it as another user")
    return as_nobody


def as_nobody(deed: Callable[..., object], *given: object) -> object:
    """What the deed returns when another user does it."""
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Queue()
    process = spawn.Process(target=_become_nobody, args=(said, deed, given))
    process.start()
    result = said.get(timeout=60)
    process.join()
    return result


def _become_nobody(said: object, deed: Callable[..., object], given: tuple[object, ...]) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    said.put(deed(*given))  # type: ignore[attr-defined]


def free_address() -> str:
    """A loopback address with a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def mask(bits: int) -> Iterator[None]:
    """A shell that gives rights away, or none."""
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


# ---- what lies there


def try_all(paths: list[str]) -> dict[str, str]:
    """Reads, writes, lists and fills everything; what could be done."""
    done: dict[str, str] = {}
    for path in paths:
        for name, flags in (("read", os.O_RDONLY), ("written", os.O_WRONLY)):
            try:
                os.close(os.open(path, flags))
                done[path] = name
            except OSError:
                pass
        for name, deed in (("listed", os.listdir), ("moved", _move), ("removed", os.unlink)):
            try:
                deed(path)
                done[path] = name
            except OSError:
                pass
    return done


def _move(path: str) -> None:
    os.rename(path, f"{path}.moved")


@pytest.mark.parametrize("bits", [0o000, 0o022, 0o002], ids=oct)
def test_nothing_of_a_daemon_can_be_read_or_changed(
    config: Config,
    start_daemon: Start,
    other: Callable[..., object],
    keyframe_files: list[Path],
    bits: int,
    measured: Measured,
) -> None:
    """Whatever the user's own mask, and although the state folder was open to all before."""
    with mask(bits):
        config.state.mkdir(parents=True)
        config.state.chmod(0o775)
        AuthorisedKeys(config.state).allow("anna", client_key(config).public)
        daemon = start_daemon(replace(config, bind=free_address()))
    with Client(daemon.connection) as client:
        client.hello()
        frames, _ = jobs.finish(client, jobs.submit(client, keyframe_files, engine="flow"))
        assert len(frames) == 5
        inside = doors._private_folder(config.state)
        places = [config.state, config.connection, config.connection.parent, inside]
        paths = sorted({*places, *(path for place in places for path in place.rglob("*"))})
        names = {path.name for path in paths}
        assert {"client_key", "server_key", "authorised_keys", "daemon.log", "jobs.sqlite"} <= names
        assert any(path.suffix == ".png" for path in paths)
        open_to_others = {
            str(path): oct(mode) for path in paths if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077
        }
        # A socket's own rights are ZeroMQ's; its folder keeps others out.
        assert {path for path in open_to_others if not Path(path).is_socket()} == set()
        assert other(try_all, [str(path) for path in paths]) == {}
    measured("8-second-user", f"{len(paths)} files and folders of a daemon: another user opens none of them")


# ---- coming in


def knock(endpoint: str, server: str, pids: list[int], sockets: list[str]) -> dict[str, str]:
    """All ways in without the files: a key of one's own, the inner sockets, signals, memory."""
    key = KeyPair.new()
    found: dict[str, str] = {}
    with Client(Connection(endpoint, server, key.public, key.secret)) as client:
        try:
            client.hello(timeout=5)
            found["own key"] = "came in"
        except KeytweenError as error:
            found["own key"] = error.code
    for path in sockets:
        found[path] = _of(lambda path=path: socket.socket(socket.AF_UNIX).connect(path))
    for pid in pids:
        found[f"signal {pid}"] = _of(lambda pid=pid: os.kill(pid, 9))
        for file in ("environ", "mem", "fd/0"):
            found[f"{file} {pid}"] = _of(lambda pid=pid, file=file: open(f"/proc/{pid}/{file}", "rb").close())
    return found


def _of(deed: Callable[[], object]) -> str:
    try:
        deed()
    except OSError as error:
        return type(error).__name__
    return "done"


def test_another_user_does_not_come_in(
    config: Config, start_daemon: Start, other: Callable[..., object], keyframe_files: list[Path]
) -> None:
    """He knows the address, and even the public key of the daemon."""
    daemon = start_daemon(config)
    with Client(daemon.connection) as client:
        client.hello()
        jobs.finish(client, jobs.submit(client, keyframe_files))
    pids = [daemon.process.pid, *(worker.pid for worker in jobs.workers(daemon.process.pid))]
    assert len(pids) > 1
    sockets = [str(path) for path in doors._private_folder(config.state).iterdir()]
    assert len(sockets) == 2
    found = other(knock, daemon.connection.endpoint, daemon.connection.server_key, pids, sockets)
    assert isinstance(found, dict)
    assert found.pop("own key") == "KT-303"
    assert set(found.values()) == {"PermissionError"}
    told = [word for pid in pids for word in psutil.Process(pid).cmdline()]
    secrets = (daemon.connection.client_secret, daemon.connection.client_key)
    assert not any(secret in word for secret in secrets for word in told)


def squat(name: str) -> None:
    """Takes the name that the daemon's inner sockets would have."""
    os.mkdir(name, 0o777)


def test_who_takes_the_name_of_the_inner_door_before_gets_nothing(
    config: Config, start_daemon: Start, other: Callable[..., object]
) -> None:
    wanted = doors._private_folder(config.state)
    wanted.rmdir()
    other(squat, str(wanted))
    try:
        assert wanted.stat().st_uid == NOBODY
        daemon = start_daemon(config)
        with Client(daemon.connection) as client:
            client.hello()
        assert list(wanted.iterdir()) == []
        used = [
            path
            for path in Path(tempfile.gettempdir()).glob("keytween-*/keytween-clients")
            if path.stat().st_ctime > time.time() - 60 and path.parent.stat().st_uid == os.getuid()
        ]
        assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in used)
        assert used
        assert daemon.stop() == 0
    finally:
        wanted.rmdir()


# ---- what is refused


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o602, 0o611], ids=oct)
def test_a_connection_file_that_others_have_a_hand_in_is_refused(config: Config, mode: int) -> None:
    key = KeyPair.new()
    file = Connection("tcp://127.0.0.1:1", key.public, key.public, key.secret, pid=1).save(config.connection)
    assert Connection.load(file).client_secret == key.secret
    file.chmod(mode)
    with pytest.raises(ConnectionFileUnsafe):
        Connection.load(file)


def plant(path: str, text: str) -> None:
    """Lays a connection file of his own where the user's would be."""
    Path(path).write_text(text)
    os.chmod(path, 0o600)


def test_a_connection_file_that_somebody_else_laid_there_is_refused(
    config: Config, other: Callable[..., object]
) -> None:
    """It would lead to a daemon of his, which would see every picture."""
    folder = config.connection.parent
    folder.mkdir()
    folder.chmod(0o777)
    other(plant, str(config.connection), '{"endpoint": "tcp://127.0.0.1:9"}')
    with pytest.raises(ConnectionFileUnsafe):
        Connection.load(config.connection)
    link = config.state.with_name("link.json")
    link.symlink_to(config.connection)
    with pytest.raises(ConnectionFileUnsafe):
        Connection.load(link)


def test_a_state_folder_of_another_user_or_of_everybody_is_refused(
    config: Config, other: Callable[..., object]
) -> None:
    config.state.mkdir()
    config.state.chmod(0o1777)
    with pytest.raises(FileUnsafe):
        own_folder(config.state)
    assert refuses(config)
    assert stat.S_IMODE(config.state.stat().st_mode) == 0o1777
    config.state.chmod(0o700)
    os.chown(config.state, NOBODY, NOBODY)
    assert refuses(config)


def refuses(config: Config) -> bool:
    """Whether the daemon's own program says so, and leaves the folder as it was."""
    before = list(config.state.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "keytween.cli", "serve", "--state", str(config.state)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode == 5 and "KT-317" in done.stderr and list(config.state.iterdir()) == before


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o622], ids=oct)
def test_a_key_that_others_could_read_is_not_used(config: Config, start_daemon: Start, mode: int) -> None:
    server_key(config)
    (config.state / "server_key").chmod(mode)
    with pytest.raises(FileUnsafe):
        server_key(config)
    with pytest.raises(DaemonWouldNotStart):
        start_daemon(replace(config, bind=free_address()))


def test_a_list_of_keys_that_others_may_change_is_not_heeded(config: Config, start_daemon: Start) -> None:
    listed = AuthorisedKeys(config.state)
    listed.allow("anna", KeyPair.new().public)
    listed.path.chmod(0o644)
    assert len(listed.keys()) == 1
    listed.path.chmod(0o664)
    with pytest.raises(FileUnsafe):
        listed.allow("ben", KeyPair.new().public)
    with pytest.raises(DaemonWouldNotStart):
        start_daemon(config)
