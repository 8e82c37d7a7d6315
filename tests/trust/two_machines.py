# SPDX-License-Identifier: Apache-2.0
"""Two machines with a cable between them: network namespaces of Linux, each with addresses of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import keytween
import keytween_wire
from keytween.config import Config, load

DAEMON_ADDRESS, ARTIST_ADDRESS = "192.168.1.5", "192.168.1.9"
PORT = 5570
CLONE_NEWNET = 0x40000000
SOURCES = [str(Path(package.__file__ or "").parents[1]) for package in (keytween_wire, keytween)]


@dataclass(frozen=True)
class Machine:
    """A namespace, and the home of the user who works there."""

    namespace: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a shell there has: no variable of ours, and `keytween` on the path."""
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        return {"HOME": str(self.home), "PATH": path, "PYTHONPATH": ":".join(SOURCES)}

    def settings(self, **given: object) -> Config:
        """Settings of a user there."""
        state, run = self.home / "state", self.home / "run" / "connection.json"
        return load({}, state=state, connection=run, **given)

    def popen(self, command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Begins a command in a shell there."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "sh", "-c", command],
            env=environment or self.environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sh(self, command: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Runs a command in a shell there: its exit code and what it said."""
        process = self.popen(command, environment)
        try:
            said, _ = process.communicate(timeout=90)
        finally:
            process.kill()
        return process.returncode, said

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens or starts meanwhile is on that machine, and stays there."""
        with (
            open("/proc/thread-self/ns/net") as here,
            open(f"/run/netns/{self.namespace}") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """The daemon's machine and the artist's. Without the right to make them the test is left out."""
    if missing := _missing():
        if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    made = []
    cable = f"kt{os.getpid()}"
    try:
        for name, address in (("daemon", DAEMON_ADDRESS), ("artist", ARTIST_ADDRESS)):
            namespace, plug = f"{cable}{name}", f"{cable}{name[0]}"
            _ip(f"netns add {namespace}")
            made.append(Machine(namespace, _home(folder / name)))
            if name == "daemon":
                _ip(f"link add {plug} type veth peer name {cable}a")
            _ip(f"link set {plug} netns {namespace}")
            _ip(f"-n {namespace} addr add {address}/24 dev {plug}")
            _ip(f"-n {namespace} link set {plug} up")
            _ip(f"-n {namespace} link set lo up")
        yield made[0], made[1]
    finally:
        for machine in made:
            _ip(f"netns del {machine.namespace}")


def _missing() -> str:
    if not sys.platform.startswith("linux") or not hasattr(os, "getuid") or os.getuid() != 0:
        return "network namespaces need Linux and root"
    return "" if shutil.which("ip") else "network namespaces need iproute2 (apt-get install iproute2)"


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True)


def _home(folder: Path) -> Path:
    """A user's home, with `keytween` as a command."""
    program = folder / "bin" / "keytween"
    program.parent.mkdir(parents=True, mode=0o700)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m keytween.cli "$@"\n')
    program.chmod(0o700)
    return folder


Machines = tuple[Machine, Machine]
Starter = Callable[..., object]
