# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon in an environment of its own, made with uv: where it lies, and the steps that make it.

Nothing is installed into Blender's Python. Where there is no uv, Blender's Python makes an environment
for it and fetches it there. A step that was done is not done again, so an interrupted set-up goes on.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bpy

from keytween_wire import __version__
from keytween_wire.errors import KeytweenError, NetworkRefused, OnlineAccessOff, SetUpFailed

from . import preferences
from .errands import Errand, Step

PYTHON = ">=3.11,<3.14"
PACKAGE = "keytween"
TITLE = "Setting up the daemon"
BUNDLED = Path(__file__).parent / "daemon"
"""Where the extension's zip has the daemon's wheel."""
REFUSED = (
    "error sending request",
    "failed to fetch",
    "connection refused",
    "could not connect",
    "connection error",
    "connection broken",
    "tunnel connection failed",
    "failed to establish",
    "dns error",
    "name resolution",
    "proxyerror",
    "proxy error",
    "timed out",
    "network is unreachable",
    "certificate",
)
"""What uv and pip say when the network does not let them through."""
BROKEN = re.compile(r"connection broken by '(?:\w+\()?['\"]?(?:<.*?>[:,] )?(.*?)['\"]?\)?': \S+$")
"""Where pip names the reason, among figures that tell nobody anything."""
WITHOUT_PIP = ("ensurepip is not", "no module named ensurepip")
"""What a Python says that came without the part which fetches packages, as Debian's does."""
DISABLED = ("network connectivity is disabled", "network was disabled", "network access was disabled")


# ---- where things are


def home() -> Path:
    """The folder of everything that is set up; deleting it undoes the set-up."""
    return preferences.user_folder("daemon")


def _in(environment: Path, name: str) -> Path:
    folder, suffix = ("Scripts", ".exe") if sys.platform == "win32" else ("bin", "")
    return environment / folder / f"{name}{suffix}"


def program() -> Path | None:
    """The daemon's program, once it is set up and has been checked."""
    found = _in(home() / "environment", PACKAGE)
    return found if record() and found.is_file() else None


def record() -> Mapping[str, str]:
    """Which version was set up from what; empty while nothing is."""
    try:
        return dict(json.loads((home() / "ready.json").read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def is_current() -> bool:
    """Whether what is set up is what would be set up now."""
    return record() == _wanted()


def _wanted() -> dict[str, str]:
    return {"version": __version__, "requirement": requirement()}


def bundled() -> Path | None:
    """The daemon's wheel that came with the extension."""
    return next(iter(sorted(BUNDLED.glob(f"{PACKAGE}-*.whl"))), None)


def requirement() -> str:
    """What uv installs: the preferences' words, the wheel in the extension's zip, or the package by name."""
    chosen = preferences.get()
    text = chosen.requirement.strip()
    path = Path(bpy.path.abspath(text)) if text else bundled()
    if path is not None and path.is_file():
        extra = "[diffusion]" if chosen.with_diffusion else ""
        return f"{PACKAGE}{extra} @ {path.resolve().as_uri()}"
    if text:
        return text
    return f"{PACKAGE}[diffusion]" if chosen.with_diffusion else PACKAGE


def uv() -> Path | None:
    """The program uv: on the path, or our own."""
    if found := shutil.which("uv"):
        return Path(found)
    own = _in(home() / "uv", "uv")
    return own if own.is_file() else None


# ---- the steps


def set_up(finish: Callable[[], None] = lambda: None) -> Errand:
    """The errand that sets the daemon up, or goes on with it; `finish` is called once it is checked.

    Raises OnlineAccessOff where uv would have to be fetched first.
    """
    if uv() is None and not bpy.app.online_access:
        raise OnlineAccessOff(what="Fetching uv, which sets the daemon up,")
    folder = home()
    (folder / "ready.json").unlink(missing_ok=True)

    def done() -> None:
        _check(folder / "doctor.json")
        (folder / "ready.json").write_text(json.dumps(_wanted()), "utf-8")
        finish()

    return Errand(
        TITLE,
        tuple(_steps(folder)),
        preferences.user_folder("log") / "set-up.log",
        environment={"UV_NO_PROGRESS": "1"} | ({} if bpy.app.online_access else {"UV_OFFLINE": "1"}),
        finish=done,
        explain=explain,
    )


def _steps(folder: Path) -> Iterator[Step]:
    environment, tool = folder / "environment", folder / "uv"
    python = _in(environment, "python")

    def uv_command(*arguments: str) -> list[str]:
        return [str(uv() or "uv"), *arguments]

    def make_environment() -> list[str]:
        shutil.rmtree(environment, ignore_errors=True)
        return uv_command("venv", "--python", PYTHON, str(environment))

    yield Step(
        "Making room for uv",
        lambda: [sys.executable, "-m", "venv", "--clear", str(tool)],
        needed=lambda: uv() is None and not _in(tool, "pip").is_file(),
    )
    yield Step(
        "Fetching uv",
        lambda: [str(_in(tool, "python")), "-m", "pip", "install", "--disable-pip-version-check", "uv"],
        needed=lambda: uv() is None,
    )
    yield Step("Making an environment", make_environment, needed=lambda: not python.is_file())
    yield Step(
        "Installing the daemon",
        lambda: uv_command(
            "pip", "install", "--python", str(python), "--reinstall-package", PACKAGE, requirement()
        ),
    )
    yield Step(
        "Checking it",
        lambda: [str(_in(environment, PACKAGE)), "doctor", "--json"],
        output=folder / "doctor.json",
        codes=None,
    )


def _check(report: Path) -> None:
    """Reads what `keytween doctor` found in the new environment; raises SetUpFailed."""
    try:
        text = report.read_text("utf-8")
        # Whatever a library has to say comes before the list.
        findings: list[dict[str, Any]] = json.loads(text[text.index("[\n") :])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetUpFailed(detail="the installed program does not run", log=report) from error
    # That a daemon is running, or is not, and how full the disk is say nothing about the set-up.
    bad = [f for f in findings if not f["good"] and f["subject"] not in {"daemon", "strangers", "job folder"}]
    if bad:
        raise SetUpFailed(detail=f"{bad[0]['subject']}: {bad[0]['text']}", log=report)


def explain(said: str, log: Path) -> KeytweenError:
    """The error that a program's last words mean."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()[-60:]
    except OSError:
        lines = []
    text = "\n".join(lines).lower()
    if any(words in text for words in DISABLED):
        return OnlineAccessOff(what="Setting up the daemon")
    if any(words in text for words in WITHOUT_PIP):
        detail = "Blender's Python has no ensurepip to fetch uv with; install uv or the package python3-venv"
        return SetUpFailed(detail=detail, log=log)
    refusing = [line for line in lines if any(words in line.lower() for words in REFUSED)]
    if refusing:
        reason = BROKEN.search(refusing[-1])
        detail = reason[1] if reason else refusing[-1].strip(" ×╰─▶├│")
        return NetworkRefused(detail=detail[:160], log=log)
    return SetUpFailed(detail=said.strip(" ×╰─▶├│"), log=log)


def is_there() -> bool:
    """Whether anything was set up, or begun to be."""
    return any(preferences.user_folder("daemon").iterdir())


def remove() -> None:
    """Takes everything away that was set up; raises SetUpFailed."""
    try:
        shutil.rmtree(home())
    except OSError as error:
        raise SetUpFailed(detail=f"{error.filename}: {error.strerror}", log="-") from error
