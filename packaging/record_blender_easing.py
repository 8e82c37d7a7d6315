"""Writes the values of Blender's own F-curve easings, which our easings are tested against.

Run it with a Python that has Blender as a module, or in Blender itself:

    python packaging/record_blender_easing.py tests/shared/blender_easing.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import bpy

DURATIONS = (2, 4, 10, 24, 100)
SAMPLES = 16
"""Values per segment and duration, besides its start: enough to meet every bounce and half frames."""


def main(path: Path) -> None:
    """Writes one value list per interpolation, mode and duration, rounded to 7 digits."""
    record = {
        "blender": bpy.app.version_string,
        "shares": [sample / SAMPLES for sample in range(SAMPLES + 1)],
        "values": {
            interpolation: {mode: by_duration(interpolation, mode) for mode in choices("easing")}
            for interpolation in choices("interpolation")
        },
    }
    path.write_text(as_json(record), encoding="utf-8")


def choices(setting: str) -> list[str]:
    """The names Blender offers for a keyframe's `interpolation` or `easing`."""
    return [item.identifier for item in bpy.types.Keyframe.bl_rna.properties[setting].enum_items]


def by_duration(interpolation: str, mode: str) -> dict[str, list[float]]:
    """The values at even shares of each duration."""
    return {str(d): values(interpolation, mode, duration=d) for d in DURATIONS}


def values(interpolation: str, mode: str, *, duration: int) -> list[float]:
    """What Blender evaluates between a new key of 0 at frame 0 and one of 1 at frame `duration`."""
    action = bpy.data.actions.new("easing")
    try:
        curve = new_curve(action)
        curve.keyframe_points.insert(0, 0.0)
        curve.keyframe_points.insert(duration, 1.0)
        first = curve.keyframe_points[0]
        first.interpolation, first.easing = interpolation, mode
        curve.update()
        return [round(curve.evaluate(duration * s / SAMPLES), 7) for s in range(SAMPLES + 1)]
    finally:
        bpy.data.actions.remove(action)


def new_curve(action: bpy.types.Action) -> bpy.types.FCurve:
    """An empty F-curve in an action; layered actions keep their curves in a slot's channel bag."""
    if hasattr(action, "fcurves"):
        return action.fcurves.new("location", index=0)
    slot = action.slots.new("OBJECT", "easing")
    strip = action.layers.new("easing").strips.new(type="KEYFRAME")
    return strip.channelbag(slot, ensure=True).fcurves.new("location", index=0)


def as_json(record: dict[str, object]) -> str:
    """JSON with one list of numbers a line, so that a changed curve is a change of few lines."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[([^][]*)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
