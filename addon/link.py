# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's end of the wire: starts the daemon, connects, keeps the connection. Never blocks."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from keytween_wire import OLDEST, PROTOCOL, __version__
from keytween_wire.connection import Connection, connection_path
from keytween_wire.errors import (
    DaemonError,
    DaemonNotRunning,
    DaemonUnreachable,
    DaemonWouldNotStart,
    KeytweenError,
    OnlineAccessOff,
    ProtocolMismatch,
    from_wire,
)
from keytween_wire.messages import Failed, Hello, Prepare, Request, Stop, Welcome

from . import preferences, setting_up
from .errands import last_line, spawn

if TYPE_CHECKING:
    from keytween_wire.client import Client, Received

START_WITHIN_S = 60.0
"""A first start may unpack and compile; only a process that ended is given up sooner."""
ANSWER_WITHIN_S = 4.0
LOOK_EVERY_S = 1.0
PREPARE_EVERY_S = 60.0
LOCAL = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:", "ipc://")


class LinkState(Enum):
    """Where the connection to the daemon stands."""

    OFF = "off"
    STARTING = "starting"
    CONNECTING = "connecting"
    READY = "ready"
    LOST = "lost"


def connection_file() -> Path:
    """The connection file in use: the preferences' or the user's own."""
    chosen = preferences.get().connection_file
    return Path(bpy.path.abspath(chosen)) if chosen else connection_path()


def load_connection() -> Connection:
    """The daemon's address and keys; raises DaemonNotRunning, ConnectionFileUnsafe or DaemonError."""
    connection = Connection.load(connection_file())
    if not connection.endpoint.startswith(LOCAL) and not bpy.app.online_access:
        raise OnlineAccessOff(what="A daemon on another machine")
    return connection


def open_client(connection: Connection) -> Client:
    """A client for the connection; says clearly when the wheels are missing."""
    # Late, because other extensions share these packages and Blender may lack them until they are used.
    try:
        from keytween_wire.client import Client
    except ImportError as error:
        raise DaemonError(
            detail=f"the package {error.name or error} is missing: install the extension again"
        ) from error
    return Client(connection)


class Link:
    """One connection, and the daemon process if we started it. `step` is called by the timer."""

    def __init__(self) -> None:
        self.state = LinkState.OFF
        self.error: KeytweenError | None = None
        self.client: Client | None = None
        self.welcome: Welcome | None = None
        self.log: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._hello = 0
        self._deadline = 0.0
        self._look_at = 0.0
        self._prepare_at = 0.0
        self._boot = ""

    # ---- what the buttons do

    def connect(self) -> None:
        """Opens the socket and introduces us; the answer comes through `heard`."""
        self.close()
        connection = load_connection()
        self.client = open_client(connection)
        self._boot = connection.boot_id
        self._hello = self.client.post(
            Hello(OLDEST, PROTOCOL, f"Blender {bpy.app.version_string}", __version__)
        )
        self._deadline = time.monotonic() + ANSWER_WITHIN_S
        self._move(LinkState.CONNECTING)

    def start(self) -> None:
        """Starts a daemon that ends with Blender; raises DaemonWouldNotStart."""
        self.close()
        self.log = preferences.user_folder("log") / "daemon.log"
        if _leads_away():
            detail = "the connection file leads to one on another machine, which is started there"
            raise DaemonWouldNotStart(detail=detail, log=self.log)
        self._boot = _boot_id()
        environment = os.environ | {"KEYTWEEN_CONNECTION": str(connection_file())}
        command = [*daemon_command(self.log), "serve", "--parent", str(os.getpid())]
        try:
            self._process = spawn(command, environment, self.log)
        except OSError as error:
            raise DaemonWouldNotStart(detail=f"{command[0]}: {error.strerror}", log=self.log) from error
        self._deadline = time.monotonic() + START_WITHIN_S
        self._move(LinkState.STARTING)

    def stop(self) -> None:
        """Asks the daemon to exit and lets go of it."""
        if self.client is not None:
            self.client.post(Stop())
            # The message leaves with the I/O thread; the next step closes the socket.
            self._deadline = time.monotonic() + 0.5
        self._move(LinkState.OFF)

    def post(self, message: Request, blobs: Sequence[bytes] = ()) -> int:
        """Queues a message; raises DaemonNotRunning when there is no connection."""
        if self.client is None or self.state is not LinkState.READY:
            raise DaemonNotRunning()
        return self.client.post(message, blobs)

    def prepare(self) -> None:
        """Asks now and then for a worker that has its libraries loaded; an older daemon may refuse."""
        now = time.monotonic()
        if self.state is LinkState.READY and now >= self._prepare_at:
            self._prepare_at = now + PREPARE_EVERY_S
            self.post(Prepare())

    def close(self) -> None:
        """Closes the socket at once; the daemon, if ours, goes on until its queue is empty."""
        if self.client is not None:
            self.client.close()
        self.client = None
        self._move(LinkState.OFF)

    # ---- what the timer does

    def step(self) -> bool:
        """Moves on without blocking; True when there is reason to draw anew."""
        before = (self.state, self.error)
        try:
            self._step(time.monotonic())
        except KeytweenError as error:
            self.fail(error)
        return before != (self.state, self.error)

    def _step(self, now: float) -> None:
        if self.state is LinkState.STARTING:
            self._await_start(now)
        elif self.state is LinkState.CONNECTING:
            self._await_welcome(now)
        elif self.state is LinkState.READY:
            self._check_health(now)
        elif self.state is LinkState.LOST and now >= self._look_at:
            self._look_again(now)
        elif self.client is not None and now >= self._deadline:
            self.close()
        elif self.client is None and now >= self._look_at:
            self._look_out(now)

    def _await_start(self, now: float) -> None:
        assert self._process is not None
        if _boot_id() not in ("", self._boot):
            self.connect()
        elif self._process.poll() is not None or now > self._deadline:
            self._move(LinkState.OFF)
            raise DaemonWouldNotStart(detail=last_line(self.log), log=self.log)

    def _await_welcome(self, now: float) -> None:
        assert self.client is not None
        trouble = self.client.trouble()
        if now > self._deadline or (trouble is not None and not isinstance(trouble, DaemonUnreachable)):
            raise trouble or DaemonUnreachable(endpoint=self.client.connection.endpoint)

    def _check_health(self, now: float) -> None:
        assert self.client is not None
        trouble = self.client.trouble()
        if trouble is None and now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            if _boot_id() not in ("", self._boot):
                trouble = DaemonUnreachable(endpoint=self.client.connection.endpoint)
        if trouble is not None:
            self._lose(trouble)

    def _lose(self, error: KeytweenError) -> None:
        """Lets go of a daemon that is gone; `step` looks for its successor."""
        self.close()
        self.error = error
        self._move(LinkState.LOST)
        self._look_at = 0.0

    def _look_again(self, now: float) -> None:
        """Connects once a successor has written its connection file; the old address is tried as well."""
        self._look_at = now + LOOK_EVERY_S
        error = self.error
        try:
            self.connect()
        except DaemonNotRunning:
            self._move(LinkState.LOST)
        self.error = error

    def _look_out(self, now: float) -> None:
        """Connects to a daemon that somebody else has started; one that refused us is not asked twice."""
        self._look_at = now + 2 * LOOK_EVERY_S
        if preferences.get().auto_connect and _boot_id() not in ("", self._boot):
            self.connect()

    def heard(self, received: Received) -> bool:
        """Takes the answer to our hello; False for any other message."""
        if not self._hello or received.reply_to != self._hello:
            return False
        self._hello = 0
        if isinstance(received.message, Failed):
            raise from_wire(received.message.error.code, received.message.error.values)
        if not isinstance(received.message, Welcome):
            raise ProtocolMismatch(ours=PROTOCOL, theirs="?")
        self.welcome = received.message
        if self.client is not None:
            self.client.heed(self.welcome)
        self.error = None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._prepare_at = 0.0
        self._move(LinkState.READY)
        return True

    def fail(self, error: KeytweenError) -> None:
        """Closes the connection and keeps the reason; a daemon that was there before is looked for again."""
        lost = self.error is not None and isinstance(error, DaemonUnreachable)
        self.close()
        self.error = error
        if lost:
            self._move(LinkState.LOST)

    def _move(self, state: LinkState) -> None:
        self.state = state
        if state is not LinkState.LOST and state is not LinkState.OFF:
            self.error = None


def daemon_command(log: Path | None = None) -> list[str]:
    """The command that runs the daemon's program: the preferences', or one that is found."""
    chosen = preferences.get().command
    if chosen:
        return shlex.split(chosen, posix=sys.platform != "win32")
    if found := setting_up.program() or shutil.which("keytween"):
        return [str(found)]
    raise DaemonWouldNotStart(
        detail="the program `keytween` is not there yet; set it up, or set its path in the preferences",
        log=log or "-",
    )


def has_program() -> bool:
    """Whether there is a program that Start could start."""
    return bool(preferences.get().command or setting_up.program() or shutil.which("keytween"))


def _leads_away() -> bool:
    """Whether the connection file in use is that of a daemon on another machine."""
    try:
        return Connection.load(connection_file()).is_joined
    except KeytweenError:
        return False


def _boot_id() -> str:
    """Which start of the daemon wrote the connection file; empty when there is none that can be read."""
    try:
        connection = Connection.load(connection_file())
    except KeytweenError:
        return ""
    return connection.boot_id or str(connection.pid)
