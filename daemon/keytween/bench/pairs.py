"""Pairs of keyframes to morph between: held-out toons, the rendered scenes, or the pictures in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from keytween.bench import own
from keytween.images import Picture
from keytween.toon.casting import animation_pair, metamorphosis_pair, stranger_pair
from keytween.toon.characters import Toon, between
from keytween.toon.painting import draw
from keytween_wire.errors import BadSetting, SequenceEmpty

SIZE = 128
"""The side in pixels of the bench's own pairs: that of the checkpoint `toon`."""
SIZES = 32, 2048
ANIMATION, METAMORPHOSIS, STRANGE, RENDERED = "animation", "metamorphosis", "strange", "rendered"
SETS = (ANIMATION, METAMORPHOSIS, STRANGE, RENDERED)
USUAL = (ANIMATION, METAMORPHOSIS)
MOST = 10_000


@dataclass(frozen=True)
class Pair:
    """Two keyframes, `draw(0)` and `draw(1)`, and what lies between them, where that is known.

    `draw` knows the truth at the positions in `known`, or `everywhere` between 0 and 1.
    """

    name: str
    group: str
    draw: Callable[[float], Picture]
    known: tuple[float, ...] = ()
    everywhere: bool = False

    def truth(self, position: float) -> Picture | None:
        """The true in-between at a position; None where nobody knows it."""
        if self.everywhere:
            return self.draw(position)
        near = next((known for known in self.known if abs(known - position) < 1e-6), None)
        return None if near is None else self.draw(near)


def chosen(names: tuple[str, ...], count: int, *, size: int = SIZE) -> tuple[Pair, ...]:
    """`count` pairs of each set named, of the usual ones where none is; all that there are of a small set.

    Raises BadSetting.
    """
    unknown = next((name for name in names if name not in SETS), None)
    if unknown is not None:
        raise BadSetting(name="set", value=unknown, detail=f"choose from {', '.join(SETS)}")
    for what, value, (low, high) in (("pairs", count, (1, MOST)), ("size", size, SIZES)):
        if not low <= value <= high:
            raise BadSetting(name=what, value=value, detail=f"it must lie between {low} and {high}")
    wanted = dict.fromkeys(names or USUAL)
    return tuple(pair for name in wanted for pair in _set(name, count, size))


def _set(name: str, count: int, size: int) -> list[Pair]:
    if name == RENDERED:
        scenes = own.rendered()[:count]
        return [Pair(scene.name.removeprefix("rendered-"), name, scene.draw, scene.known) for scene in scenes]
    cast = {ANIMATION: animation_pair, METAMORPHOSIS: metamorphosis_pair, STRANGE: stranger_pair}[name]
    return [_toons(f"{name}-{seed:02}", name, cast(seed), size) for seed in range(count)]


def _toons(name: str, group: str, toons: tuple[Toon, Toon], size: int) -> Pair:
    """Two toons as a pair; between two poses of one character everything is known."""
    one = (toons[0].kind, toons[0].style) == (toons[1].kind, toons[1].style)
    return Pair(name, group, partial(_drawn, toons, size), everywhere=one)


def _drawn(toons: tuple[Toon, Toon], size: int, position: float) -> Picture:
    ends = {0.0: toons[0], 1.0: toons[1]}
    toon = ends[position] if position in ends else between(*toons, position)
    return Picture(np.round(np.clip(draw(toon, size)[..., :3], 0, 1) * 255).astype(np.uint8))


# ---- a user's folder


def in_folder(folder: Path) -> tuple[Pair, ...]:
    """The pairs in a folder: sub-folders of two pictures each, or files NAME_0 and NAME_1 beside each other.

    Sub-folders that hold such pairs are groups with the sub-folder's name: MorphBench comes as `Animation`
    and `Metamorphosis`. Raises SequenceEmpty, BadSetting for a picture that has no partner,
    PictureSizesDiffer.
    """
    found = _pairs(folder, "own") if folder.is_dir() else []
    if not found:
        raise SequenceEmpty(name=folder)
    return tuple(found)


def _pairs(folder: Path, group: str, *, deep: bool = True) -> list[Pair]:
    files = own.pictures(folder)
    if _is_pair(folder, files):
        return [_still(folder.name, group, files)]
    found = [_still(name, group, both) for name, both in _partners(files).items()]
    for below in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if _is_pair(below, own.pictures(below)):
            found += _pairs(below, group, deep=False)
        elif deep:
            found += _pairs(below, below.name.lower(), deep=False)
    return found


def _is_pair(folder: Path, files: list[Path]) -> bool:
    """Whether the folder's two pictures are its pair: one of MorphBench's may hold a single pair by name."""
    return len(files) == 2 and folder.name.lower() not in USUAL


def _partners(files: list[Path]) -> dict[str, list[Path]]:
    """The files by what stands before their `_0` and `_1`."""
    found: dict[str, list[Path]] = {}
    for file in files:
        name, _, number = file.stem.rpartition("_")
        if not name or number not in ("0", "1"):
            raise BadSetting(name="folder", value=file, detail="it must be called NAME_0 or NAME_1")
        found.setdefault(name, []).append(file)
    for both in found.values():
        if len(both) != 2:
            raise BadSetting(name="folder", value=both[0], detail="it has no partner")
    return found


def _still(name: str, group: str, files: list[Path]) -> Pair:
    return Pair(name, group, own.stills(name, group, files).draw)
