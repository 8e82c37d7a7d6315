"""What every test may use: small pictures, settings in a folder of their own, real daemons."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from figures import measured as measured

# Blender's Python has the add-on alone, and installs its wire package later than this.
try:
    from discs import draw_disc
    from keytween.config import Config, load
    from keytween.starter import DaemonProcess, start
    from keytween_wire.client import Client
except ImportError:
    pass


def pytest_configure() -> None:
    """Programs that a shell put into the background ignore Ctrl-C, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings whose every file lies in the test's own folder."""
    for name in [n for n in os.environ if n.startswith("KEYTWEEN_") and n != "KEYTWEEN_TEST_ALL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KEYTWEEN_CONFIG", str(tmp_path / "keytween.toml"))
    monkeypatch.setenv("KEYTWEEN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(tmp_path / "run" / "connection.json"))
    return load()


@pytest.fixture
def start_daemon(config: Config) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts real daemons; whatever still runs at the end is killed."""
    started: list[DaemonProcess] = []

    def begin(settings: Config = config, **arguments: object) -> DaemonProcess:
        started.append(start(settings, **arguments))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.process.kill()
        daemon.process.wait()


@pytest.fixture
def daemon(start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A running daemon."""
    return start_daemon()


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    """A client of that daemon."""
    with Client(daemon.connection) as opened:
        opened.hello()
        yield opened


@pytest.fixture
def keyframe_files(tmp_path: Path) -> list[Path]:
    """Two small drawings: a disc that moves."""
    return [draw_disc(tmp_path / f"key{i}.png", centre=(30 + 12 * i, 32)) for i in range(2)]
