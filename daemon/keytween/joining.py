# SPDX-License-Identifier: Apache-2.0
"""The way to a daemon on another machine: this machine's key, and a connection file that names the daemon."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from keytween.address import Address
from keytween.config import Config, config_file
from keytween.keys import CLIENT_KEY, SERVER_KEY, KeyPair, check_key
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import BadSetting, DaemonNotRunning, KeytweenError
from keytween_wire.messages import Welcome

ANSWER_S = 5.0
"""How long a daemon may take to answer: longer than one on this machine."""


def client_key(config: Config) -> KeyPair:
    """This machine's key, made at first use; its secret stays here. Raises FileUnsafe."""
    return KeyPair.kept(config.state / CLIENT_KEY)


def server_key(config: Config) -> KeyPair:
    """The key of the daemon here while `bind` names a port, made at first use. Raises FileUnsafe."""
    return KeyPair.kept(config.state / SERVER_KEY)


def join(config: Config, place: str, key: str, file: Path | None = None) -> tuple[Path, Welcome]:
    """Asks the daemon at HOST:PORT for an answer and writes its connection file; where, and the answer.

    Nothing is written unless it answers: raises DaemonUnreachable, DaemonNotOurs, KeyRefused or BadSetting.
    """
    check_key(key)
    address = Address.parse(place, name="HOST:PORT")
    file = file or config_file().with_name(re.sub(r"[^\w.-]+", "-", str(address)).strip("-") + ".json")
    _refuse_own(file)
    ours = client_key(config)
    connection = Connection(address.endpoint, key, ours.public, ours.secret, boot_id=uuid.uuid4().hex)
    with Client(connection) as client:
        welcome = client.hello(timeout=ANSWER_S, name="keytween keys join")
    return connection.save(file), welcome


def leads_away(config: Config) -> bool:
    """Whether the connection in use leads to a daemon on another machine."""
    try:
        return Connection.load(config.connection).is_joined
    except KeytweenError:
        return False


def _refuse_own(file: Path) -> None:
    """Raises BadSetting for the connection file of a daemon that runs here."""
    try:
        running = not Connection.load(file).is_joined
    except DaemonNotRunning:
        return
    except KeytweenError:
        running = True
    if running:
        raise BadSetting(name="--output", value=file, detail="it is no file that `keys join` wrote")
