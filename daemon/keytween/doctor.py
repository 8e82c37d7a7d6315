"""What is installed, what can run here, whether checkpoints are there and the daemon keeps strangers out."""

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
from keytween.devices import gpus
from keytween.engines import choose, engine_infos
from keytween.jobs.repair import Repair, fault_of, repair
from keytween.jobs.store import STORE
from keytween.keys import KeyPair
from keytween.models import registered
from keytween.server import sole_daemon
from keytween_wire import PROTOCOL, __version__
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.errors import (
    DaemonAlreadyRunning,
    DaemonNotRunning,
    KeyRefused,
    KeytweenError,
    StateUnwritable,
)

PACKAGES = ("numpy", "opencv-python-headless", "openimageio", "av", "pillow", "pyzmq", "msgpack")
DIFFUSION_PACKAGES = ("torch", "diffusers", "transformers", "safetensors")
ROOM_BYTES = 1 << 30
NO_GPU = "no GPU found: diffmorpher will be slow"


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
        _diffusion,
        _devices,
        _checkpoints,
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


def _diffusion(_config: Config) -> Iterator[Finding]:
    """The extra: which versions, or how to get it; nothing of it is imported."""
    found, missing = [], []
    for name in DIFFUSION_PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(found)
    if missing:
        how = "`pip install '.[diffusion]'` in Keytween's folder adds it"
        text = f"not installed ({', '.join(missing)} missing); {how}"
    yield Finding("extra diffusion", text)


def _devices(_config: Config) -> Iterator[Finding]:
    """GPUs with driver, memory and what fits, by the driver's own program."""
    found = gpus()
    for gpu in found:
        size = gpu.total_mb / 1024
        yield Finding("device", f"{gpu.name}, driver {gpu.driver}, {size:.1f} GiB: {fits(size)}")
    if not found and (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        yield Finding("device", "Apple GPU, which shares the machine's memory")
    elif not found:
        yield Finding("device", NO_GPU)


def fits(gibibytes: float) -> str:
    """What a GPU of that memory takes, as a rule of thumb."""
    if gibibytes < 4:
        return "Stable Diffusion 1.x with a small --size"
    if gibibytes < 8:
        return "Stable Diffusion 1.x and 2.x; SDXL with a small --size at best"
    return "every checkpoint that can be used"


def _checkpoints(config: Config) -> Iterator[Finding]:
    try:
        models = registered(config)
    except KeytweenError as error:
        yield Finding("checkpoints", error.message, good=False, next_step=error.advice)
        return
    if not models:
        yield Finding("checkpoints", "none has a name yet; `keytween models` adds and pulls them")
    for model in models.values():
        yield Finding(
            f"checkpoint {model.name}",
            f"{model.folder}{'' if model.there else ' is gone'}",
            good=model.there,
            next_step=f"Bring the folder back, or forget it with `keytween models remove {model.name}`.",
        )


def _folders(config: Config) -> Iterator[Finding]:
    file = config_file()
    yield Finding("settings file", f"{file}{'' if file.exists() else ' (none, defaults are used)'}")
    existing = _existing(config.state)
    yield from _store(config)
    free = shutil.disk_usage(existing).free
    yield Finding(
        "job folder",
        f"{config.state}, {free / 1e9:.1f} GB free",
        good=free > ROOM_BYTES,
        next_step="Free some space, or set `state` to a folder on another disk.",
    )


def _store(config: Config) -> Iterator[Finding]:
    """Whether the list of jobs is whole; while a daemon has it open, that daemon knows."""
    if not (config.state / STORE).exists():
        return
    try:
        with sole_daemon(config):
            fault = fault_of(config.state / STORE)
    except DaemonAlreadyRunning:
        return
    except StateUnwritable as error:
        fault = error
    if fault is None:
        yield Finding("list of jobs", "whole")
    else:
        yield Finding("list of jobs", fault.message, good=False, next_step=fault.advice)


def mend(config: Config) -> Repair:
    """Makes the list of jobs usable again; raises DaemonAlreadyRunning while a daemon has it."""
    with sole_daemon(config):
        return repair(config.state)


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
