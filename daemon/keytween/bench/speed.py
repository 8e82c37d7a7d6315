"""How fast an engine is from files to drawings, at the sizes that the budgets name."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keytween.bench.memory import peak
from keytween.bench.rivals import open_contender
from keytween.bench.scenes import Scene, scenes
from keytween.engines.base import Engine, Frame
from keytween.images import Picture, read, write
from keytween_wire.messages import KeyframeImage, MorphRequest


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of keyframes to be timed with: a scene, drawn `height` pixels high and padded to `width`.

    `deep` is with 16 bits in place of 8.
    """

    name: str
    scene: str
    width: int
    height: int
    deep: bool = False

    def load(self) -> Scene:
        """The scene at this size."""
        scene = next(found for found in scenes(self.height) if found.name == self.scene)
        left = (self.width - self.height) // 2
        margins = (0, 0), (left, self.width - self.height - left), (0, 0)

        def draw(position: float) -> Picture:
            pixels = np.pad(scene.draw(position).pixels, margins, mode="edge")
            return Picture(pixels.astype(np.uint16) * np.uint16(257) if self.deep else pixels)

        return replace(scene, draw=draw)


CASES = (
    Case("512 x 512", "turn-30", 512, 512),
    Case("512 x 512, matte", "sprite-turn", 512, 512),
    Case("1920 x 1080", "shift-quarter", 1920, 1080),
    Case("3840 x 2160, 16", "sprite-turn", 3840, 2160, deep=True),
)


@dataclass(frozen=True, slots=True)
class Pace:
    """What an engine took for one pair: in milliseconds, drawings a second, and MB.

    `matching` is the first drawing less a further one; `overall` counts reading, matching and drawing;
    `again` is one more position of the same pair, read anew and asked of the same engine.
    """

    decode: float
    matching: float
    drawing: float
    overall: float
    again: float
    peak: float | None


def pace(engine: str, case: Case, *, count: int = 24) -> Pace:
    """Times an engine on a case with so many in-betweens, from the files of two keyframes."""
    scene = case.load()
    positions = tuple((i + 1) / (count + 1) for i in range(count))
    contender = open_contender(engine)
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        files = [Path(folder) / "first.png", Path(folder) / "last.png"]
        for position, file in enumerate(files):
            write(scene.draw(position), file)
        begun = time.perf_counter()
        keyframes = [read(file) for file in files]
        decode = time.perf_counter() - begun
        spent = _spent(contender, keyframes, positions)
        again = _spent(contender, [read(file) for file in files], (0.4321,))
    drawing = statistics.median(spent[1:])
    return Pace(
        decode=decode * 1e3,
        matching=max(0.0, spent[0] - drawing) * 1e3,
        drawing=1 / drawing,
        overall=count / (decode + sum(spent)),
        again=again[0] * 1e3,
        peak=peak(engine, scene),
    )


def _spent(engine: Engine, keyframes: Sequence[Picture], positions: tuple[float, ...]) -> list[float]:
    """Seconds until each drawing since the one before."""
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    found: list[float] = []
    asked = time.perf_counter()
    with closing(engine.morph(MorphRequest(ends, (positions,)), keyframes)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Frame):
                found.append(time.perf_counter() - asked)
                asked = time.perf_counter()
    return found
