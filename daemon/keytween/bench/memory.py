"""How much memory an engine takes: measured in a process of its own, which this file is as well."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from keytween.images import Picture, read, write
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest

SCENE = "shift-quarter"
"""The scene whose keyframes are tweened."""


class Drawn(Protocol):
    """What can be drawn at 0 and at 1."""

    @property
    def draw(self) -> Callable[[float], Picture]:
        """Its picture at a position."""
        ...


def peak(engine: str, scene: Drawn, *, diffusion: Diffusion | None = None) -> float | None:
    """The most memory in MB that a process takes for three in-betweens; None where it cannot be measured.

    It holds Python, the libraries, the pictures and all that the engine needs.
    """
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        files = [Path(folder) / "first.png", Path(folder) / "last.png"]
        for position, file in enumerate(files):
            write(scene.draw(position), file)
        settings = json.dumps(asdict(diffusion or Diffusion()))
        command = [sys.executable, "-m", "keytween.bench.memory", engine, *map(str, files), settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout)) if done.returncode == 0 else None


def main() -> None:
    """Tweens two files with the engine named, and prints what this process took at most."""
    from keytween.bench.rivals import open_contender

    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("files", nargs=2, type=Path)
    parser.add_argument("settings", type=json.loads)
    options = parser.parse_args()
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    diffusion = Diffusion(**{name: _frozen(value) for name, value in options.settings.items()})
    positions = ((0.25, 0.5, 0.75),)
    request = MorphRequest(ends, positions, engine=options.engine, diffusion=diffusion)
    for _ in open_contender(options.engine).morph(request, [read(file) for file in options.files]):
        pass
    sys.stdout.write(json.dumps(_taken()))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _taken() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux it begins with what the process that started this one held.
        most = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(most.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(getattr(psutil.Process().memory_info(), "peak_wset", 0)) / 1e6
    most_held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most_held / 1e6 if sys.platform == "darwin" else most_held * 1024 / 1e6


if __name__ == "__main__":
    main()
