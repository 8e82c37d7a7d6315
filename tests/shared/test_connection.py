"""The connection file: what is not one is refused by name before anything is sent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError, DaemonNotRunning

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
GOOD = Connection("tcp://127.0.0.1:40213", KEY, KEY, KEY, pid=7, boot_id="ab")


def written(folder: Path, data: bytes) -> Path:
    """A connection file that only its user may read."""
    file = folder / "connection.json"
    file.write_bytes(data)
    file.chmod(0o600)
    return file


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Connection.load(GOOD.save(tmp_path / "run" / "connection.json")) == GOOD


def test_keys_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    data = json.dumps({**asdict(GOOD), "weather": "fine"}).encode()
    assert Connection.load(written(tmp_path, data)) == GOOD


def test_without_a_file_no_daemon_runs(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunning):
        Connection.load(tmp_path / "connection.json")


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "7"},
        {"pid": True},
        {"protocol": None},
        {"endpoint": 5},
        {"endpoint": "ipc:///tmp/a"},
        {"endpoint": "tcp://\ud800:1"},
        {"boot_id": ["ab"]},
        {"server_key": ""},
        {"server_key": 1.5},
        {"client_key": KEY[:-1]},
        {"client_key": KEY[:-1] + "~"},
        {"client_secret": "#" * 40},
    ],
    ids=str,
)
def test_a_value_that_is_not_what_it_should_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DaemonError, match="makes no sense"):
        Connection.load(written(tmp_path, json.dumps({**asdict(GOOD), **change}).encode()))


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"{", b"9" * 5000], ids=range(5))
def test_what_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DaemonError, match="cannot be read"):
        Connection.load(written(tmp_path, data))


@pytest.mark.parametrize("data", [b"[]", b"{}", b"7", b"null"])
def test_what_lacks_its_parts_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DaemonError, match="not complete"):
        Connection.load(written(tmp_path, data))


def test_an_address_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(DaemonError, match="tcp://nowhere is no address"):
        Client(Connection("tcp://nowhere", KEY, KEY, KEY))
