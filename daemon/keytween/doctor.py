"""What is installed, what can run here, whether the daemon answers and keeps strangers out."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from keytween.config import Config, config_file
from keytween.engines import choose, engine_infos
from keytween.keys import KeyPair
from keytween_wire import PROTOCOL, __version__
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonNotRunning, KeyRefused, KeytweenError

PACKAGES = ("numpy", "opencv-python-headless", "openimageio", "av", "pillow", "pyzmq", "msgpack")
ROOM_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `good` is false when something must be done about it."""

    subject: str
    text: str
    good: bool = True
    next_step: str = ""

    def __str__(self) -> str:
        line = f"{'ok ' if self.good else 'BAD'}  {self.subject}: {self.text}"
        return line if self.good or not self.next_step else f"{line}\n     {self.next_step}"

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"subject": self.subject, "text": self.text, "good": self.good, "next_step": self.next_step}


def examine(config: Config) -> list[Finding]:
    """Everything that `keytween doctor` tells; no secret is among it."""
    checks: tuple[Callable[[Config], Iterator[Finding]], ...] = (
        _versions,
        _engines,
        _folders,
        _daemon,
    )
    return [finding for check in checks for finding in check(config)]


def _versions(_config: Config) -> Iterator[Finding]:
    yield Finding("Keytween", f"{__version__}, protocol {PROTOCOL}")
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()} ({sys.executable})")
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", good=False, next_step="Install Keytween again.")


def _engines(_config: Config) -> Iterator[Finding]:
    for info in engine_infos():
        text = info.summary if info.available else f"cannot run here: {info.reason}"
        yield Finding(f"engine {info.name}", text)
    chosen, reason = choose("auto")
    yield Finding("engine auto", f"picks {chosen}. {reason}")


def _folders(config: Config) -> Iterator[Finding]:
    file = config_file()
    yield Finding("settings file", f"{file}{'' if file.exists() else ' (none, defaults are used)'}")
    existing = _existing(config.state)
    free = shutil.disk_usage(existing).free
    yield Finding(
        "job folder",
        f"{config.state}, {free / 1e9:.1f} GB free",
        good=free > ROOM_BYTES,
        next_step="Free some space, or set `state` to a folder on another disk.",
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _daemon(config: Config) -> Iterator[Finding]:
    try:
        connection = Connection.load(config.connection)
        with Client(connection) as client:
            welcome = client.hello(name="keytween doctor")
            waiting = sum(not job.state.ended for job in client.jobs())
    except DaemonNotRunning as error:
        yield Finding("daemon", f"{error.message} That is fine: `keytween morph` works without one.")
        return
    except KeytweenError as error:
        yield Finding("daemon", error.message, good=False, next_step=error.advice)
        return
    yield Finding(
        "daemon",
        f"{welcome.version} answers at {connection.endpoint} (process {welcome.pid}), {waiting} jobs to do",
    )
    yield _strangers(connection)


def _strangers(connection: Connection) -> Finding:
    """Knocks with a key that nobody listed: the door must stay shut."""
    key = KeyPair.new()
    with Client(replace(connection, client_key=key.public, client_secret=key.secret)) as client:
        try:
            client.hello(timeout=3.0)
        except KeyRefused:
            return Finding("strangers", "a key that is not on the list is refused")
        except KeytweenError as error:
            return Finding("strangers", f"a key that is not on the list got no answer ({error.code})")
    return Finding(
        "strangers",
        "a key that is not on the list was let in",
        good=False,
        next_step="Stop the daemon with `keytween stop` and report this.",
    )
