"""Starts a daemon as a process of its own and waits until it answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from keytween.config import PREFIX, Config
from keytween.private import opener, own_folder
from keytween_wire.client import Client
from keytween_wire.connection import ENVIRONMENT, Connection
from keytween_wire.errors import DaemonError, DaemonWouldNotStart
from keytween_wire.messages import Stop

READY_S = 20.0


@dataclass(slots=True)
class DaemonProcess:
    """A daemon that we started: its process, its connection and its log."""

    process: subprocess.Popen[bytes]
    connection: Connection
    log: Path

    def stop(self, *, timeout: float = 10.0) -> int:
        """Asks it to exit, kills it when it does not; returns its exit code."""
        with suppress(DaemonError), Client(self.connection) as client:
            client.ask(Stop(), timeout=timeout)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start(config: Config, *, parent: int = 0, arguments: tuple[str, ...] = ()) -> DaemonProcess:
    """A running daemon with these settings; raises DaemonWouldNotStart with the log's last line."""
    own_folder(config.state)
    log = config.state / "start.log"
    command = [sys.executable, "-m", "keytween.cli", "serve", *arguments]
    if parent:
        command += ["--parent", str(parent)]
    with open(log, "wb", opener=opener) as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(config),
            start_new_session=True,
        )
    return DaemonProcess(process, _wait(process, config, log), log)


def _environment(config: Config) -> dict[str, str]:
    names = {field.name for field in fields(config)} - {"state", "connection"}
    settings = {PREFIX + name.upper(): str(getattr(config, name)) for name in names}
    places = {PREFIX + "STATE": str(config.state), ENVIRONMENT: str(config.connection)}
    return {**os.environ, **settings, **places}


def _wait(process: subprocess.Popen[bytes], config: Config, log: Path) -> Connection:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DaemonWouldNotStart(detail=_last_line(log), log=log)
        with suppress(DaemonError):
            connection = Connection.load(config.connection)
            if connection.pid == process.pid:
                with Client(connection) as client:
                    client.hello()
                return connection
        time.sleep(0.02)
    process.kill()
    raise DaemonWouldNotStart(detail=f"it did not answer within {READY_S:.0f} s", log=log)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
