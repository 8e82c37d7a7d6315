"""The named numbers that a toon is drawn from: who it is, how it stands, and what lies between two poses."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from keytween.toon.canvas import Colour

CHILD, ANIMAL, FIGURE = "child", "animal", "figure"
BALL, BOX, STAR, LEAF, FISH, CUP, HOUSE = "ball", "box", "star", "leaf", "fish", "cup", "house"
KINDS = (CHILD, ANIMAL, FIGURE, BALL, BOX, STAR, LEAF, FISH, CUP, HOUSE)
CAR, TREE, ROCKET = "car", "tree", "rocket"
STRANGE_KINDS = (CAR, TREE, ROCKET)
"""Kinds that no training set holds."""
HAIR = ("short", "bob", "long", "buns", "spiky", "tail")
EARS = ("cat", "bear", "rabbit")
PATTERNS = ("plain", "striped", "spotted")
BACKDROPS = ("paper", "ground", "sun")

STYLES = {CHILD: HAIR, FIGURE: HAIR, ANIMAL: EARS}
"""What a kind's `style` may be; that of all others is one of PATTERNS."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Who it is: colours in sRGB 0..1, proportions around 1. The same in every drawing of one character."""

    skin: Colour
    hair: Colour
    coat: Colour
    trim: Colour
    paper: Colour
    ground: Colour
    wide: float
    tall: float
    eyes: float
    apart: float
    blush: float
    line: float
    horizon: float


@dataclass(frozen=True, slots=True)
class Pose:
    """How it stands: place and scale in parts of the sheet, angles in degrees, the rest in 0..1 or -1..1."""

    x: float = 0.5
    y: float = 0.5
    scale: float = 0.3
    tilt: float = 0.0
    turn: float = 0.0
    squash: float = 0.0
    mouth: float = 0.0
    smile: float = 0.5
    brows: float = 0.0
    lids: float = 0.0
    gaze: float = 0.0
    left_arm: float = 30.0
    right_arm: float = -30.0
    left_leg: float = 12.0
    right_leg: float = -12.0
    bend: float = 0.0


@dataclass(frozen=True, slots=True)
class Toon:
    """One drawing: kind, style and backdrop are whole choices, looks and pose are numbers."""

    kind: str
    style: str
    backdrop: str
    looks: Looks
    pose: Pose


LOOKS_RANGES: dict[str, tuple[float, float]] = {
    "wide": (0.86, 1.12),
    "tall": (0.9, 1.1),
    "eyes": (0.8, 1.3),
    "apart": (0.85, 1.15),
    "blush": (0.0, 1.0),
    "line": (0.8, 1.3),
    "horizon": (0.62, 0.86),
}
POSE_RANGES: dict[str, tuple[float, float]] = {
    "x": (0.36, 0.64),
    "y": (0.4, 0.62),
    "scale": (0.2, 0.34),
    "tilt": (-25.0, 25.0),
    "turn": (-1.0, 1.0),
    "squash": (-1.0, 1.0),
    "mouth": (0.0, 1.0),
    "smile": (-1.0, 1.0),
    "brows": (-1.0, 1.0),
    "lids": (0.0, 1.0),
    "gaze": (-1.0, 1.0),
    "left_arm": (0.0, 160.0),
    "right_arm": (-160.0, 0.0),
    "left_leg": (-45.0, 45.0),
    "right_leg": (-45.0, 45.0),
    "bend": (0.0, 1.0),
}
"""What casting draws numbers from; a drawing between two others stays inside."""

T = TypeVar("T", Looks, Pose)


def between(first: Toon, second: Toon, position: float) -> Toon:
    """The true in-between at `position` in 0..1: every number in proportion.

    Raises ValueError where kind, style or backdrop differ: between those there is no truth.
    """
    whole = [(toon.kind, toon.style, toon.backdrop) for toon in (first, second)]
    if whole[0] != whole[1]:
        raise ValueError(f"nothing is known between {whole[0]} and {whole[1]}")
    looks = _mixed(first.looks, second.looks, position)
    pose = _mixed(first.pose, second.pose, position)
    return replace(first, looks=looks, pose=pose)


def _mixed(first: T, second: T, position: float) -> T:
    names = [field.name for field in fields(first)]
    return type(first)(**{n: _between(getattr(first, n), getattr(second, n), position) for n in names})


def _between(first: Any, second: Any, position: float) -> Any:
    if isinstance(first, tuple):
        return tuple(_between(a, b, position) for a, b in zip(first, second, strict=True))
    # In this form both ends come out exactly.
    return (1 - position) * first + position * second
