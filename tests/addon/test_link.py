"""Starting, connecting and losing the daemon, as the panel's buttons do."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

import next_version  # noqa: E402

from .conftest import Daemon, the_tween, turn_until  # noqa: E402

Maker = Callable[..., object]


@pytest.fixture
def preferences(extension: SimpleNamespace) -> Iterator[object]:
    """The add-on's preferences, put back afterwards."""
    found = extension.preferences.get()
    names = ("command", "connection_file", "output_folder")
    before = {name: getattr(found, name) for name in names}
    yield found
    for name, value in before.items():
        setattr(found, name, value)


def state_is(extension: SimpleNamespace, name: str) -> Callable[[], bool]:
    """Whether the link stands there."""
    return lambda: extension.poller.STATUS.link.state.value == name


def failed(extension: SimpleNamespace, code: str) -> Callable[[], bool]:
    """Whether the link shows that error."""

    def check() -> bool:
        error = extension.poller.STATUS.link.error
        return error is not None and error.code == code

    return check


def tween_works(strip_at: Maker) -> bool:
    """Whether the next job is done."""
    strip_at(101, 1, 4)
    strip_at(104, 1, 40)
    return bpy.ops.keytween.tween() == {"FINISHED"} and the_tween()["keytween_state"] == "done"


def test_a_strangers_key_is_refused_and_the_next_job_works(
    scene: object,
    daemon: Daemon,
    strip_at: Maker,
    extension: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import zmq

    public, secret = zmq.curve_keypair()
    real = extension.link.load_connection
    stranger = dataclasses.replace(real(), client_key=public.decode(), client_secret=secret.decode())
    monkeypatch.setattr(extension.link, "load_connection", lambda: stranger)
    bpy.ops.keytween.connect()
    turn_until(extension, failed(extension, "KT-303"))
    assert extension.poller.STATUS.link.state is extension.link.LinkState.OFF
    monkeypatch.setattr(extension.link, "load_connection", real)
    assert tween_works(strip_at)


def test_another_protocol_is_refused_and_the_next_job_works(
    scene: object,
    daemon: Daemon,
    strip_at: Maker,
    extension: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hello = extension.link.Hello
    monkeypatch.setattr(extension.link, "Hello", lambda *_: hello(oldest=90, newest=91))
    bpy.ops.keytween.connect()
    turn_until(extension, failed(extension, "KT-304"))
    monkeypatch.setattr(extension.link, "Hello", hello)
    assert tween_works(strip_at)


def test_the_next_versions_daemon_makes_tweens_for_this_add_on(
    scene: object,
    daemon_command: list[str],
    strip_at: Maker,
    extension: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    next_version.install(tmp_path / "next", monkeypatch)
    (tmp_path / "daemon").mkdir()
    newer = Daemon(daemon_command, tmp_path / "daemon")
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(newer.connection))
    newer.start()
    try:
        bpy.ops.keytween.connect()
        turn_until(extension, state_is(extension, "ready"))
        assert extension.poller.STATUS.link.welcome.version == "9.9"
        assert tween_works(strip_at)
    finally:
        newer.stop()


def test_a_connection_file_open_to_others_is_refused(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path, preferences: object
) -> None:
    path = tmp_path / "connection.json"
    path.write_bytes(daemon.connection.read_bytes())
    path.chmod(0o644)
    preferences.connection_file = str(path)
    with pytest.raises(RuntimeError, match="KT-308"):
        bpy.ops.keytween.connect()


def test_another_machine_needs_online_access(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path, preferences: object
) -> None:
    connection = extension.link.Connection.load()
    path = dataclasses.replace(connection, endpoint="tcp://192.0.2.7:5555").save(tmp_path / "far.json")
    preferences.connection_file = str(path)
    assert not bpy.app.online_access
    with pytest.raises(RuntimeError, match=r"online access.*KT-310"):
        bpy.ops.keytween.connect()


def test_start_leaves_the_way_to_another_machine_alone(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path, preferences: object
) -> None:
    """A file of `keytween keys join`: to start a daemon here would write over it."""
    connection = extension.link.Connection.load()
    path = dataclasses.replace(connection, pid=0, boot_id="joined").save(tmp_path / "far.json")
    before = path.read_bytes()
    preferences.connection_file = str(path)
    with pytest.raises(RuntimeError, match=r"another machine.*KT-306"):
        bpy.ops.keytween.start()
    bpy.ops.keytween.connect()
    turn_until(extension, state_is(extension, "ready"))
    assert path.read_bytes() == before


def test_selected_keyframes_have_the_daemon_get_a_worker_ready(
    scene: object, own_daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    from keytween_wire.client import Client
    from keytween_wire.messages import FreeMemory

    bpy.ops.keytween.connect()
    turn_until(extension, state_is(extension, "ready"))
    with Client(extension.link.Connection.load()) as client:
        client.hello()

        def freed() -> bool:
            return client.ask(FreeMemory()).count == 1

        turn_until(extension, lambda: extension.poller.STATUS.tidied > 0)
        assert not freed()
        strip_at(1, 4, 4)
        strip_at(9, 4, 20)
        extension.poller.STATUS.tidied = 0.0
        turn_until(extension, freed)


def test_start_brings_up_a_daemon_and_stop_ends_it(
    scene: object,
    daemon_command: list[str],
    strip_at: Maker,
    extension: SimpleNamespace,
    preferences: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYTWEEN_STATE", str(tmp_path / "state"))
    preferences.connection_file = str(tmp_path / "own.json")
    preferences.command = shlex.join(daemon_command)
    before = time.monotonic()
    assert bpy.ops.keytween.start() == {"FINISHED"}
    assert time.monotonic() - before < 1.0
    turn_until(extension, state_is(extension, "ready"))
    process = extension.poller.STATUS.link._process
    assert tween_works(strip_at)
    assert bpy.ops.keytween.stop() == {"FINISHED"}
    turn_until(extension, lambda: process.poll() is not None)
    assert extension.poller.STATUS.link.state is extension.link.LinkState.OFF


def test_a_daemon_that_does_not_start_says_its_last_word(
    scene: object, extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("print('warming up')\nraise SystemExit('no room on this machine')\n")
    preferences.command = shlex.join([sys.executable, str(script)])
    preferences.connection_file = str(tmp_path / "own.json")
    bpy.ops.keytween.start()
    turn_until(extension, failed(extension, "KT-306"))
    assert "no room on this machine" in extension.poller.STATUS.link.error.message


def test_a_command_that_is_not_there_is_said_so(
    scene: object, extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    preferences.command = str(tmp_path / "no-such-program")
    with pytest.raises(RuntimeError, match=r"no-such-program.*KT-306"):
        bpy.ops.keytween.start()


def test_the_output_folder_of_the_preferences_is_used(
    scene: object, daemon: Daemon, strip_at: Maker, preferences: object, tmp_path: Path
) -> None:
    preferences.output_folder = str(tmp_path / "elsewhere")
    assert tween_works(strip_at)
    assert list((tmp_path / "elsewhere").glob("*/drawing_*.png"))


def test_an_unsaved_file_uses_the_extensions_own_folder(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.context.scene.sequence_editor_create()
    bpy.context.scene.keytween.engine = "dissolve"
    assert tween_works(strip_at)
    folder = extension.insert.folder_of(the_tween())
    assert folder.is_relative_to(bpy.utils.extension_path_user(extension.poller.__package__))


def test_missing_wheels_are_said_so(scene: object, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keytween_wire.client", raising=False)
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(RuntimeError, match=r"zmq.*is missing.*KT-300"):
        bpy.ops.keytween.connect()


def test_a_daemon_that_somebody_else_starts_is_found(
    scene: object, daemon: Daemon, extension: SimpleNamespace
) -> None:
    assert extension.poller.STATUS.link.state is extension.link.LinkState.OFF
    turn_until(extension, state_is(extension, "ready"))


def test_connecting_by_itself_can_be_turned_off(
    scene: object, daemon: Daemon, extension: SimpleNamespace, preferences: object
) -> None:
    preferences.auto_connect = False
    for _ in range(5):
        extension.poller.tick()
    preferences.auto_connect = True
    assert extension.poller.STATUS.link.state is extension.link.LinkState.OFF
