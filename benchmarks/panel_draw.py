#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long our code takes to draw the panels. Budget: 1 ms for all of them together.

Run with a Python that has `bpy` and the built zip:

    python benchmarks/panel_draw.py dist/keytween-0.1.0-linux_x64.zip

Background Blender has no region to draw in, so the layout is one that takes every call and does nothing:
what is measured is the extension's Python and what it asks of Blender's data. In a window, the same draw
functions write down their slowest time, Blender's own layout work included: `panels.DRAWN_MS`.
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
from types import SimpleNamespace
from typing import Any

import addon_tick

BUDGET_MS = 1.0
ROUNDS = 300
JOBS = 8
PANELS = ("main", "options", "prompts", "jobs")
TWEEN_PANELS = ("tween", "tween_engine")


class Nothing:
    """A layout that takes every call."""

    def __getattr__(self, _name: str) -> Any:
        return self._nothing

    def _nothing(self, *_: object, **__: object) -> Nothing:
        return self


def main() -> int:
    """Measures, prints one JSON line, and fails when the budget is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extension", help="the built zip")
    parser.add_argument("--strips", type=int, default=200, help="other strips in the sequencer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keytween-draw-") as name:
        figures = measure(options, Path(name))
    sys.stdout.write(json.dumps(figures) + "\n")
    return int(figures["all_median_ms"] > BUDGET_MS)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of a full panel: two keyframes, jobs with pictures, the engine with most settings."""
    os.environ["BLENDER_USER_RESOURCES"] = str(folder / "blender")
    (folder / "blender").mkdir()
    import bpy

    bpy.ops.extensions.package_install_files(
        filepath=options.extension, repo="user_default", enable_on_install=True
    )
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "shot.blend"))
    poller, panels, timing_panel, status, tween = (
        importlib.import_module(f"{addon_tick.PACKAGE}.{name}")
        for name in ("poller", "panels", "timing_panel", "status", "tween")
    )
    scene = bpy.context.scene
    addon_tick.lay_keyframes(scene, folder, options.strips)
    scene.keytween.engine = "dissolve"
    for _ in range(JOBS):
        view = tween.place(scene, tween.order(scene))
        view.state, view.phase, view.eta_s = status.JobState.RUNNING, "drawing", 75.0
        view.files = {0: "drawing_0000.png"}
        (view.folder / "drawing_0000.png").write_bytes((folder / "key_0.png").read_bytes())
        poller.STATUS.jobs[view.job_id] = view
    scene.keytween.engine = "diffmorpher"
    figures = {name: times(getattr(panels, f"KEYTWEEN_PT_{name}")) for name in PANELS}
    # The strip that was made last is the active one; its own engine is dissolve.
    figures |= {name: times(getattr(timing_panel, f"KEYTWEEN_PT_{name}")) for name in TWEEN_PANELS}
    bpy.ops.preferences.addon_disable(module=addon_tick.PACKAGE)
    return {
        "blender": bpy.app.version_string,
        "jobs": JOBS,
        "other_strips": options.strips,
        **{f"{name}_ms": round(statistics.median(ms), 3) for name, ms in figures.items()},
        "all_median_ms": round(sum(statistics.median(ms) for ms in figures.values()), 3),
        "all_worst_ms": round(sum(max(ms) for ms in figures.values()), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def times(panel: Any) -> list[float]:
    """How many milliseconds each drawing of a panel took."""
    import bpy

    taken: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        panel.draw(SimpleNamespace(layout=Nothing()), bpy.context)
        taken.append((time.perf_counter() - started) * 1000)
    return taken[ROUNDS // 10 :]


if __name__ == "__main__":
    raise SystemExit(main())
