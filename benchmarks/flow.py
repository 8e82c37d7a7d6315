"""Measures the flow engine: matching, drawing, and drawing against a cross-fade in the same run.

Run it with `python benchmarks/flow.py`. The budget: once matched, 30 in-betweens a second at 512 x 512 and
6 at 1920 x 1080 on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from keytween.engines import open_engine
from keytween.engines.base import Frame, Progress
from keytween.examples import examples
from keytween.images import Picture, read
from keytween_wire.messages import KeyframeImage, MorphRequest

SIZES = ((512, 512), (1920, 1080))


def keyframes(width: int, height: int) -> list[Picture]:
    """The first two keyframes of the first example, at a size."""
    found: list[Picture] = []
    for path in examples()[0].keyframes[:2]:
        pixels = read(path.read_bytes(), suffix=".png").pixels
        rows = np.arange(height) * pixels.shape[0] // height
        columns = np.arange(width) * pixels.shape[1] // width
        found.append(Picture(pixels[rows][:, columns]))
    return found


def timed(engine: str, pictures: Sequence[Picture], count: int) -> tuple[float, float]:
    """Seconds before the first drawing begins, and the median seconds that a drawing takes."""
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    positions = tuple((i + 1) / (count + 1) for i in range(count))
    drawings: list[float] = []
    begun = asked = time.perf_counter()
    matched = begun
    for event in open_engine(engine).morph(MorphRequest(ends, (positions,)), pictures):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.phase == "drawing" and not drawings:
            matched = now
        if isinstance(event, Frame):
            drawings.append(now - asked)
        asked = time.perf_counter()
    return matched - begun, statistics.median(drawings)


def main(say: Callable[[str], object]) -> None:
    """Prints one line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=24, help="in-betweens per size")
    count = parser.parse_args().count
    say(f"{'size':>12} {'matching ms':>12} {'in-betweens/s':>14} {'flow/dissolve':>14}")
    for width, height in SIZES:
        pictures = keyframes(width, height)
        matching, drawing = timed("flow", pictures, count)
        _, fading = timed("dissolve", pictures, count)
        figures = f"{matching * 1e3:12.0f} {1 / drawing:14.1f} {drawing / fading:14.1f}"
        say(f"{width:>7}x{height:<4} {figures}")


if __name__ == "__main__":
    main(print)
