"""Blender as a Python module, with the built extension installed in it, and the real daemon beside it.

Run with a Python that has `bpy`: KEYTWEEN_EXTENSION_ZIP names the built zip, KEYTWEEN_DAEMON the command
of the program (`python -m keytween.cli`). Without them, or without `bpy`, the tests skip.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

PACKAGE = "bl_ext.user_default.keytween"
MODULES = (
    "breakdowns",
    "capture",
    "drawings",
    "hiding",
    "insert",
    "errands",
    "link",
    "menus",
    "memory",
    "operators",
    "origins",
    "panels",
    "poller",
    "preferences",
    "properties",
    "remedies",
    "scene_keys",
    "setting_up",
    "thumbnails",
    "words",
    "retiming",
    "stale",
    "status",
    "timing_chart",
    "timing_panel",
    "tween",
    "tween_operators",
    "vse_compat",
)

ZIP = os.environ.get("KEYTWEEN_EXTENSION_ZIP", "")


def _install() -> None:
    """Installs the extension as Blender would; its wheels are then what tests import as well."""
    # Blender reads these while it is imported, so no test module may have imported it before.
    os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp(prefix="keytween-blender-")
    os.environ.setdefault("KEYTWEEN_CONNECTION", os.environ["BLENDER_USER_RESOURCES"] + "/none.json")
    import bpy

    if ZIP:
        bpy.ops.extensions.package_install_files(filepath=ZIP, repo="user_default", enable_on_install=True)
    else:
        sys.path.append(str(Path(__file__).parents[2] / "shared"))


if importlib.util.find_spec("bpy") is not None:
    _install()


@pytest.fixture(scope="session")
def extension() -> Iterator[SimpleNamespace]:
    """The installed extension's modules by name."""
    bpy = pytest.importorskip("bpy")
    if not ZIP:
        pytest.skip("KEYTWEEN_EXTENSION_ZIP is not set: build one with packaging/build_extension.py")
    yield SimpleNamespace(**{name: importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES})
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    shutil.rmtree(os.environ["BLENDER_USER_RESOURCES"], ignore_errors=True)


class Daemon:
    """The real program in a process of its own, with its state in a folder of the test's."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command = command
        self.folder = folder
        self.connection = folder / "connection.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it has written its connection file."""
        self.connection.unlink(missing_ok=True)
        log = (self.folder / "daemon.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*self.command, "serve", "--state", str(self.folder / "state")],
                env=os.environ | {"KEYTWEEN_CONNECTION": str(self.connection)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_file()

    def _await_file(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 30
        while not self.connection.is_file():
            said = (self.folder / "daemon.log").read_text()
            assert self.process.poll() is None, f"the daemon ended: {said}"
            assert time.monotonic() < deadline, f"the daemon did not start: {said}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def stop(self) -> None:
        """Ends it politely, and then less so."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None


@pytest.fixture(scope="session")
def daemon_command() -> list[str]:
    """The command that runs the program."""
    command = os.environ.get("KEYTWEEN_DAEMON")
    if not command:
        pytest.skip("KEYTWEEN_DAEMON is not set: name a Python that has the daemon, `python -m keytween.cli`")
    return shlex.split(command)


@pytest.fixture(scope="session")
def shared_daemon(daemon_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that do it no harm."""
    daemon = Daemon(daemon_command, tmp_path_factory.mktemp("daemon"))
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def daemon(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The shared daemon, found by the extension."""
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(shared_daemon.connection))
    return shared_daemon


@pytest.fixture
def own_daemon(
    daemon_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    """A daemon that the test may kill."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    daemon = Daemon(daemon_command, folder)
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(daemon.connection))
    daemon.start()
    yield daemon
    daemon.stop()


def png(width: int, height: int, left: int, *, matte: int = 255) -> bytes:
    """A PNG with a red square on blue, `left` pixels from the left."""
    row_of = {
        inside: bytes([0])
        + b"".join(
            bytes((230, 60, 40, matte))
            if inside and left <= x < left + width // 4
            else bytes((30, 60, 120, matte))
            for x in range(width)
        )
        for inside in (True, False)
    }
    rows = b"".join(row_of[height // 4 <= y < height * 3 // 4] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.fixture
def scene(extension: SimpleNamespace, tmp_path: Path) -> Iterator[ModuleType]:
    """A new, saved blend file; its scene is as large as the test pictures and quick to tween."""
    import bpy

    bpy.ops.wm.read_homefile(use_empty=True)
    extension.poller.unregister()
    extension.poller.register()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    scene = bpy.context.scene
    scene.sequence_editor_create()
    scene.render.resolution_x, scene.render.resolution_y = 64, 48
    scene.keytween.engine = "dissolve"
    yield scene
    extension.poller.STATUS.link.close()


@pytest.fixture
def strip_at(tmp_path: Path) -> Callable[..., object]:
    """Makes a selected image strip: start, length, and how far right its square is."""
    import bpy

    def make(
        start: int, length: int, left: int, *, channel: int = 1, size: tuple[int, int] = (64, 48)
    ) -> object:
        path = tmp_path / f"key at {start} é.png"
        path.write_bytes(png(*size, left))
        editor = bpy.context.scene.sequence_editor
        strip = editor.strips.new_image(f"key {start}", str(path), channel, start)
        if hasattr(strip, "right_handle"):
            strip.right_handle = start + length
        else:
            strip.frame_final_duration = length
        strip.select = True
        return strip

    return make


def elements(strip: object) -> list[str]:
    """The file name of each frame."""
    return [element.filename for element in strip.elements]  # type: ignore[attr-defined]


def shown(strip: object) -> str:
    """What each frame shows, in a line: keyframes as A, B, C, drawings by their position: `A 0.25 0.50 B`."""
    keys = remembered(strip)["keys"]
    positions = {name: name.split("_")[-1].rpartition(".")[0] for name in elements(strip)}
    return " ".join(
        chr(ord("A") + keys.index(name)) if name in keys else f"{float(positions[name]):.2f}"
        for name in elements(strip)
    )


def the_tween() -> object:
    """The only strip that Keytween made."""
    import bpy

    found = [s for s in bpy.context.scene.sequence_editor.strips_all if "keytween_job" in s]
    assert len(found) == 1
    return found[0]


def frames_computed(daemon: Daemon) -> int:
    """How many drawings the daemon has made so far, by its own count of all its jobs."""
    from keytween_wire.client import Client
    from keytween_wire.connection import Connection

    with Client(Connection.load(daemon.connection)) as client:
        client.hello()
        return sum(job.frames_done for job in client.jobs())


def remembered(strip: object) -> dict[str, object]:
    """What the strip remembers of its making."""
    return json.loads(strip["keytween"])  # type: ignore[index]


def turn_until(extension: SimpleNamespace, done: Callable[[], bool], seconds: float = 30.0) -> None:
    """Turns the timer by hand until something is so; in background Blender does not."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, (
            extension.poller.STATUS.link.state,
            extension.poller.STATUS.link.error,
            extension.poller.STATUS.jobs,
        )
        time.sleep(min(extension.poller.tick() or 0.01, 0.02))
