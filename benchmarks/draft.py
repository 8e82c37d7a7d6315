#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How soon a tween of `diffmorpher` shows its draft, and then its own drawings. Goal: a draft in a second.

Run with a Python that has `bpy`, the zip, the command of a daemon with the extra `diffusion`, a checkpoint:

    python benchmarks/draft.py ZIP "python -m keytween.cli" daemon/keytween/toon/checkpoint

The first tween starts the worker of `diffmorpher` and loads its libraries; the second one finds both there.
The worker that draws drafts gets ready once keyframes are selected, and nobody presses the button sooner than
THINKING_S after that. Times are from the press of the button until the strip shows the drawings.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from addon_tick import PACKAGE, measure, turn

THINKING_S = 2.0
EXAMPLES = Path(__file__).resolve().parents[1] / "daemon" / "keytween" / "examples"


def main() -> int:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extension", help="the built zip")
    parser.add_argument("daemon", help="the command that runs the daemon's program")
    parser.add_argument("checkpoint", help="a checkpoint's folder")
    parser.add_argument("--in-betweens", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keytween-draft-") as name:
        figures = measure(options, Path(name), run)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def run(bpy: Any, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two tweens, one after the other: of 128 x 128 and of 384 x 384 pixels."""
    modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in ("poller", "operators", "link")]
    poller, _, link = modules
    poller.STATUS.link.connect()
    turn(poller, lambda: poller.STATUS.link.state is link.LinkState.READY)
    settings = bpy.context.scene.keytween
    settings.engine, settings.preset = "diffmorpher", "draft"
    settings.checkpoint = str(Path(options.checkpoint).resolve())
    settings.in_betweens = options.in_betweens
    return {
        "blender": bpy.app.version_string,
        "in_betweens": options.in_betweens,
        "first_tween": tween(bpy, modules, folder, "change_1.png", "change_2.png"),
        "second_tween": tween(bpy, modules, folder, "leap_1.png", "leap_2.png"),
        "load": round(os.getloadavg()[0], 1),
    }


def tween(bpy: Any, modules: list[Any], folder: Path, *names: str) -> dict[str, float]:
    """Lays two keyframes on an empty timeline, presses the button, and notes when what is there."""
    poller, operators, _ = modules
    scene = bpy.context.scene
    strips = scene.sequence_editor_create().strips
    for strip in list(strips):
        strips.remove(strip)
    for name, start in zip(names, (1, 26), strict=True):
        path = shutil.copy(EXAMPLES / name, folder / name)
        strips.new_image(name, str(path), 1, start).select = True
    selected = time.monotonic()
    turn(poller, lambda: time.monotonic() > selected + THINKING_S)
    started = time.perf_counter()
    final = operators.begin(scene)
    draft = next(v for v in poller.STATUS.jobs.values() if v.draft and v.strip_id == final.strip_id)
    found: dict[str, float] = {}
    for name, ready in (
        ("first_draft_s", lambda: draft.files),
        ("whole_draft_s", lambda: draft.state.ended),
        ("first_drawing_s", lambda: final.files or final.state.ended),
        ("all_drawings_s", lambda: final.state.ended),
    ):
        turn(poller, ready)
        found[name] = round(time.perf_counter() - started, 2)
    if final.error is not None:
        raise SystemExit(str(final.error))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
