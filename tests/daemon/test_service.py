# SPDX-License-Identifier: Apache-2.0
"""The systemd unit: it says what the command line understands, and names the places that clients look at."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keytween import cli, config
from keytween_wire.client import Client
from keytween_wire.connection import Connection

UNIT = Path(__file__).resolve().parents[2] / "packaging" / "systemd" / "keytween.service"
ANALYZE = shutil.which("systemd-analyze")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")


def values(name: str, *, home: str = "%h", runtime: str = "%t") -> list[str]:
    """What the unit says for a key, once for each line."""
    text = UNIT.read_text("utf-8").replace("%h", home).replace("%t", runtime)
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_its_command_is_one_that_the_program_has() -> None:
    (command,) = values("ExecStart")
    program, *arguments = shlex.split(command)
    assert program == "%h/.local/bin/keytween"
    assert cli.build_parser().parse_args(arguments).run is cli._serve


def test_its_places_are_those_where_clients_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a variable of ours, as in a user's shell: `keytween keys allow` and Blender find the daemon."""
    for name in [name for name in os.environ if name.startswith(("KEYTWEEN_", "XDG_"))]:
        monkeypatch.delenv(name)
    home, runtime = str(tmp_path / "home"), str(tmp_path / "run")
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    by_default = config.load()
    given = dict(one.split("=", 1) for one in values("Environment", home=home, runtime=runtime))
    assert config.load(given) == by_default
    places = [str(by_default.state), f"-{by_default.connection.parent}"]
    assert values("ReadWritePaths", home=home, runtime=runtime) == places
    assert runtime + "/" + values("RuntimeDirectory")[0] == str(by_default.connection.parent)


def test_it_runs_as_the_unit_says_and_stops_when_it_is_told(tmp_path: Path) -> None:
    """The unit's own command line, variables, mask and signal; without systemd's fences."""
    program = tmp_path / ".local" / "bin" / "keytween"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m keytween.cli "$@"\n')
    program.chmod(0o755)
    given = dict(
        one.split("=", 1) for one in values("Environment", home=str(tmp_path), runtime=str(tmp_path))
    )
    (command,) = values("ExecStart", home=str(tmp_path))
    process = subprocess.Popen(
        shlex.split(command),
        env={**os.environ, **given, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        umask=int(values("UMask")[0], 8),
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        with Client(Connection.load(given["KEYTWEEN_CONNECTION"])) as client:
            assert client.hello().pid == process.pid
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    unit = tmp_path / "keytween.service"
    unit.write_text(
        re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text("utf-8"), flags=re.MULTILINE)
    )
    checked = analyze("verify", str(unit))
    assert (checked.returncode, checked.stderr) == (0, "")
    rated = analyze("security", "--offline=true", "--no-pager", str(unit))
    exposure = re.search(r"Overall exposure level for keytween.service: ([\d.]+)", rated.stdout)
    assert exposure
    # It is rated as if root ran it; the network, the devices and a user's own files are what it is for.
    assert float(exposure[1]) < 6


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ANALYZE or "", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
