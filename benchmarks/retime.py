#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long Blender is held when a finished tween of 48 frames is timed anew. Budget: 200 ms.

Run with a Python that has `bpy`, the built zip and a command that runs the daemon:

    python benchmarks/retime.py dist/keytween-0.1.0-linux_x64.zip "python -m keytween.cli"

Measured are the button Retime to positions that are there, from the press until the strip shows them, and
the button's own part of a retime to positions that are not: the drawings come later, by the timer.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from addon_tick import PACKAGE, measure, turn

BUDGET_MS = 200.0
FRAMES = 48
REPEATS = 20


def main() -> int:
    """Measures, prints one JSON line, and fails when the budget is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extension", help="the built zip")
    parser.add_argument("daemon", help="the command that runs the daemon's program")
    parser.add_argument("--frames", type=int, default=FRAMES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keytween-retime-") as name:
        figures = measure(options, Path(name), run)
    sys.stdout.write(json.dumps(figures) + "\n")
    return int(figures["retime_max_ms"] > BUDGET_MS or figures["computed_again"] > 0)


def run(bpy: Any, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Makes the tween, then times it anew by turns."""
    frames = options.frames
    poller, retiming, link = (
        importlib.import_module(f"{PACKAGE}.{n}") for n in ("poller", "retiming", "link")
    )
    scene = bpy.context.scene
    lay_keyframes(bpy, scene, folder, frames)
    scene.keytween.engine = "dissolve"
    bpy.ops.keytween.tween()
    strip = next(s for s in scene.sequence_editor.strips if "keytween_job" in s)
    scene.sequence_editor.active_strip = strip
    poller.STATUS.link.connect()
    turn(poller, lambda: poller.STATUS.link.state is link.LinkState.READY)
    files = len(list(retiming.insert.folder_of(strip).glob("drawing_*")))
    taken = []
    for repeat in range(REPEATS):
        strip.keytween_own.settings.exposure = "2" if repeat % 2 == 0 else "1"
        started = time.perf_counter()
        bpy.ops.keytween.retime()
        taken.append((time.perf_counter() - started) * 1000)
    again = len(list(retiming.insert.folder_of(strip).glob("drawing_*"))) - files
    strip.keytween_own.settings.interpolation = "SINE"
    started = time.perf_counter()
    job = retiming.retime(scene, strip)
    poller.submit(job)
    pressed = (time.perf_counter() - started) * 1000
    return {
        "blender": bpy.app.version_string,
        "frames": frames,
        "retime_median_ms": round(statistics.median(taken), 1),
        "retime_max_ms": round(max(taken), 1),
        "computed_again": again,
        "press_with_new_positions_ms": round(pressed, 1),
        "new_positions": job.total,
        "load": round(os.getloadavg()[0], 1),
    }


def lay_keyframes(bpy: Any, scene: Any, folder: Path, frames: int) -> None:
    """Two pictures, so far apart that the tween has so many frames."""
    strips = scene.sequence_editor_create().strips
    for index, start in enumerate((1, frames)):
        image = bpy.data.images.new(f"key {index}", 640, 360)
        image.pixels = [0.2 + 0.5 * index, 0.4, 0.6, 1.0] * (640 * 360)
        image.file_format, image.filepath_raw = "PNG", str(folder / f"key_{index}.png")
        image.save()
        strips.new_image(f"key {index}", image.filepath_raw, 1, start).select = True


if __name__ == "__main__":
    raise SystemExit(main())
