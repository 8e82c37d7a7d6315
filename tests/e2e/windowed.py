# SPDX-License-Identifier: Apache-2.0
"""Runs a real, windowed Blender on a virtual screen: what `packaging/setup_blender.sh` has set up.

Blender sees one folder of ours, at the same path as outside, and shares the network, so that it reaches
a daemon that was started outside. Needs root, for the chroot and its mounts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).with_name("windowed_inside.py")
SCREEN = (1600, 1020)
HOME = "/home/animator"

# Mounts live in this process tree's own namespace: nothing but empty folders is left behind, however it ends.
ENTER = """
set -eu
root=$1 work=$2 home=$3 python=$4; shift 4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/home"
mkdir -p "$root$work" "$root$home"
mount --bind "$work" "$root$work"
mount --bind "$work/home" "$root$home"
if [ -n "$python" ]; then
    mkdir -p "$root$python"
    mount -o bind,ro "$python" "$root$python"
fi
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Played:
    """How a scene went: `code` is None when Blender had to be killed, `ended` is the time of day,
    `notes` what the scene wrote down.
    """

    code: int | None
    seconds: float
    ended: float
    log: str
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds_to_leave(self) -> float:
        """How long Blender took from being told to quit until it was gone."""
        return self.ended - float(self.notes["quit_at"])

    def explain(self) -> str:
        """What a failed assertion should print."""
        notes = {key: value if key == "error" else str(value)[:400] for key, value in self.notes.items()}
        said = "\n".join(f"{key}: {value}" for key, value in notes.items())
        return f"exit code {self.code} after {self.seconds:.1f} s\n{said}\n{self.log[-6000:]}"


def default_folder() -> Path:
    """Where `setup_blender.sh` puts Blender when it is not told otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "keytween" / "blender-window"


def find_folder() -> tuple[Path | None, str]:
    """The windowed Blender's folder, or None and the reason why there is none that can be used."""
    folder = Path(os.environ.get("KEYTWEEN_BLENDER_WINDOW") or default_folder())
    if not (folder / "ready").is_file():
        return None, f"no windowed Blender in {folder}: run packaging/setup_blender.sh"
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return None, "the windowed Blender needs root and unshare"
    return folder, ""


class WindowedBlender:
    """Blender in `folder`, with `work` as the folder that both sides see and a home of its own inside it.

    `python` is a folder with a Python that Blender sees as well, at the same path; `~/bin` leads to it.
    """

    def __init__(
        self, folder: Path, work: Path, env: Mapping[str, str] | None = None, python: Path | None = None
    ) -> None:
        self.folder = folder
        self.root = folder.resolve() / "root"
        self.work = work.resolve()
        (self.work / "home").mkdir(exist_ok=True)
        self.env = dict(env or {})
        self.python = python
        if python is not None:
            self._lend(python)

    def _lend(self, python: Path) -> None:
        """Puts it on the path alone: what else lies beside it, such as uv, is not lent."""
        name = f"python3.{sys.version_info.minor}"
        (self.work / "home" / "bin").mkdir(exist_ok=True)
        (self.work / "home" / "bin" / name).symlink_to(python / "bin" / name)

    def command(self, *arguments: str, timeout: float = 120) -> Played:
        """Runs `blender` without a window, for `--command extension` and the like."""
        return self._run(["blender", *arguments], timeout)

    def play(
        self,
        scene: str,
        *options: str,
        script: str = INSIDE.name,
        file: Path | None = None,
        screen: tuple[int, int] = SCREEN,
        timeout: float = 240,
    ) -> Played:
        """Opens the window, on a file if there is one, and plays one of the script's scenes in it."""
        for path in INSIDE.parent.glob("windowed_*.py"):
            shutil.copy(path, self.work)
        notes = self.work / f"{scene}.json"
        notes.unlink(missing_ok=True)
        width, height = map(str, screen)
        display = ["xvfb-run", "-a", "-s", f"-screen 0 {width}x{height}x24 -nolisten tcp"]
        window = ["blender", "--gpu-backend", "opengl", "--window-geometry", "0", "0", width, height]
        opened = [str(file)] if file else []
        play = [
            "--python-exit-code",
            "3",
            "--python",
            str(self.work / script),
            "--",
            scene,
            str(notes),
            *options,
        ]
        played = self._run([*display, *window, *opened, *play], timeout)
        noted = json.loads(notes.read_text()) if notes.is_file() else {}
        return replace(played, notes=noted)

    def _run(self, command: Sequence[str], timeout: float) -> Played:
        settings = {
            "PATH": f"{HOME}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": HOME,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "PYTHONUNBUFFERED": "1",
            **self.env,
        }
        inside = ["env", "-i", *(f"{name}={value}" for name, value in settings.items()), *command]
        enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTER, "enter"]
        log = self.work / "blender.log"
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*enter, str(self.root), str(self.work), HOME, str(self.python or ""), *inside],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _wait(process, timeout)
        return Played(code, time.monotonic() - started, time.time(), log.read_text(errors="replace"))


@contextmanager
def serve(state: Path, within: float = 30) -> Iterator[dict[str, str]]:
    """A real daemon with a state folder of its own; gives the environment in which clients find it."""
    state.mkdir(parents=True, exist_ok=True)
    connection = state / "connection.json"
    environment = {"KEYTWEEN_STATE": str(state), "KEYTWEEN_CONNECTION": str(connection)}
    with (state / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "keytween.cli", "serve"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + within
        while not connection.is_file():
            said = (state / "serve.log").read_text(errors="replace")
            assert process.poll() is None, f"the daemon ended at once:\n{said}"
            assert time.monotonic() < end, f"the daemon did not become ready:\n{said}"
            time.sleep(0.05)
        yield environment
    finally:
        process.terminate()
        _wait(process, 10)


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The exit code; a process that is too late goes with all its children (one is the screen): None."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
