"""What every test may use: small pictures, settings in a folder of their own, real daemons."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Blender's Python has the add-on alone, and installs its wire package later than this.
try:
    import numpy as np
    from PIL import Image

    from keytween.config import Config, load
    from keytween.starter import DaemonProcess, start
    from keytween_wire.messages import KeyframeImage, MorphRequest
except ImportError:
    pass


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings whose every file lies in the test's own folder."""
    for name in [n for n in os.environ if n.startswith("KEYTWEEN_") and n != "KEYTWEEN_TEST_ALL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KEYTWEEN_CONFIG", str(tmp_path / "keytween.toml"))
    monkeypatch.setenv("KEYTWEEN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(tmp_path / "run" / "connection.json"))
    return load()


@pytest.fixture
def start_daemon(config: Config) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts real daemons; whatever still runs at the end is killed."""
    started: list[DaemonProcess] = []

    def begin(settings: Config = config, **arguments: object) -> DaemonProcess:
        started.append(start(settings, **arguments))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.process.kill()
        daemon.process.wait()


@pytest.fixture
def daemon(start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A running daemon."""
    return start_daemon()


@pytest.fixture
def keyframe_files(tmp_path: Path) -> list[Path]:
    """Two small drawings: a disc that moves."""
    return [draw_disc(tmp_path / f"key{i}.png", centre=(30 + 12 * i, 32)) for i in range(2)]


def draw_disc(path: Path, *, centre: tuple[int, int], size: tuple[int, int] = (96, 64)) -> Path:
    """A red disc on a blue ground, 8-bit RGB."""
    y, x = np.mgrid[: size[1], : size[0]]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 14**2
    pixels = np.where(inside[..., None], (220, 60, 40), (190, 215, 240)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def request_for(
    paths: list[Path], *, in_betweens: int = 5, engine: str = "dissolve"
) -> tuple[str, MorphRequest, list[bytes]]:
    """A fresh job id, a request for these keyframes, and their blobs."""
    blobs = [path.read_bytes() for path in paths]
    images = tuple(
        KeyframeImage(MorphRequest.digest_of(blob), path.suffix, index, name=path.name)
        for index, (path, blob) in enumerate(zip(paths, blobs, strict=True))
    )
    steps = tuple((i + 1) / (in_betweens + 1) for i in range(in_betweens))
    request = MorphRequest(images, (steps,) * (len(paths) - 1), engine=engine)
    return uuid.uuid4().hex, request, blobs
