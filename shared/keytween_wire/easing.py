"""Curves from [0,1] to about [0,1], named and shaped as Blender's F-curve interpolations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Interpolation(Enum):
    """Blender's F-curve interpolation names."""

    CONSTANT = "CONSTANT"
    LINEAR = "LINEAR"
    BEZIER = "BEZIER"
    SINE = "SINE"
    QUAD = "QUAD"
    CUBIC = "CUBIC"
    QUART = "QUART"
    QUINT = "QUINT"
    EXPO = "EXPO"
    CIRC = "CIRC"
    BACK = "BACK"
    BOUNCE = "BOUNCE"
    ELASTIC = "ELASTIC"


class Mode(Enum):
    """Blender's easing modes; AUTO is ease-in, but ease-out for BACK, BOUNCE and ELASTIC."""

    AUTO = "AUTO"
    EASE_IN = "EASE_IN"
    EASE_OUT = "EASE_OUT"
    EASE_IN_OUT = "EASE_IN_OUT"


@dataclass(frozen=True, slots=True)
class Easing:
    """An interpolation with its mode: call it with a share of the segment."""

    interpolation: Interpolation = Interpolation.LINEAR
    mode: Mode = Mode.AUTO

    def __call__(self, x: float, *, duration: int = 1) -> float:
        raise NotImplementedError


LINEAR = Easing()
