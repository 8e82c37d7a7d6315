"""Curves from [0,1] to about [0,1], named and shaped as Blender's F-curve interpolations.

The curves are Robert Penner's well-known easings, each written here as its ease-in; the other modes are
that curve mirrored. `tests/shared/blender_easing.json` holds Blender's own values, which they meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from keytween_wire.errors import BadSetting, UnknownEasing

BACK_OVERSHOOT = 1.70158
ELASTIC_AMPLITUDE = 0.8
ELASTIC_PERIOD = 4.1
"""What a new keyframe in Blender has; the period is in frames, the amplitude a share of the change."""

_BOUNCE_WIDTH = 2.75
_BOUNCE_ARCS = ((0.0, 0.0), (1.5, 0.75), (2.25, 0.9375), (2.625, 0.984375))
"""Penner's bounce: where each parabola has its foot, in a width of half the first arc, and how high."""


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
        """The eased position at a share `x` (0..1, clamped) of a segment of `duration` frames.

        0 at 0 and 1 at 1, exactly. BACK and ELASTIC leave 0..1 on the way; only ELASTIC depends on
        `duration`. CONSTANT stays 0 until the end.
        """
        if x <= 0.0 or x >= 1.0:
            return 0.0 if x <= 0.0 else 1.0
        whole = _WITHOUT_MODE.get(self.interpolation)
        if whole is not None:
            return whole(x)
        return _moded(self.interpolation, self.effective_mode, x, float(duration))

    @property
    def effective_mode(self) -> Mode:
        """The mode that AUTO stands for here; never AUTO."""
        if self.mode is not Mode.AUTO:
            return self.mode
        return Mode.EASE_OUT if self.interpolation in _AUTO_IS_OUT else Mode.EASE_IN

    @property
    def overshoots(self) -> bool:
        """Whether positions leave 0..1 on the way."""
        return self.interpolation in (Interpolation.BACK, Interpolation.ELASTIC)

    def __str__(self) -> str:
        """The name that `parse` reads back as an equal easing: `sine-in-out`, `linear`."""
        name, suffix = self.interpolation.value.lower(), _SUFFIXES[self.mode]
        return f"{name}-{suffix}" if suffix else name

    @classmethod
    def parse(cls, text: str) -> Easing:
        """The easing called `sine`, `sine-in`, `SINE_EASE_IN_OUT`, `bezier`...; upper or lower case.

        Raises UnknownEasing for any other name.
        """
        name = text.strip().lower().replace("_", "-").replace(" ", "-").replace("-ease-", "-")
        for easing in (cls(interpolation, mode) for interpolation in Interpolation for mode in Mode):
            if str(easing) == name:
                return easing
        raise UnknownEasing(name=text, choices=choices())


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve that was drawn by hand, as values at even steps from 0 to 1: call it as an Easing.

    `values` holds at least two; between them it is straight. It may leave 0..1. The two ends are 0 and 1
    whatever was drawn, because there a keyframe is shown. Raises BadSetting.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or not all(math.isfinite(value) for value in self.values):
            detail = "it needs two numbers or more"
            raise BadSetting(name="drawn easing", value=f"{len(self.values)} values", detail=detail)

    def __call__(self, x: float, *, duration: int = 1) -> float:
        """The position at a share `x` (0..1, clamped) of a segment; `duration` changes nothing."""
        if x <= 0.0 or x >= 1.0:
            return 0.0 if x <= 0.0 else 1.0
        place = x * (len(self.values) - 1)
        index = min(int(place), len(self.values) - 2)
        left, right = self.values[index : index + 2]
        return left + (right - left) * (place - index)

    @property
    def overshoots(self) -> bool:
        """Whether positions leave 0..1 on the way."""
        return any(not 0.0 <= value <= 1.0 for value in self.values[1:-1])


Curve = Easing | Drawn
"""How a segment's positions run: one of Blender's easings, or a drawn curve."""


def choices() -> str:
    """What `Easing.parse` reads, in one phrase for help texts and error sentences."""
    plain = [i.value.lower() for i in Interpolation if i in _WITHOUT_MODE]
    moded = [i.value.lower() for i in Interpolation if i not in _WITHOUT_MODE]
    return f"{', '.join(plain)}, or {', '.join(moded)} with -in, -out, -in-out or nothing after it"


def _moded(interpolation: Interpolation, mode: Mode, x: float, duration: float) -> float:
    def ease_in(share: float) -> float:
        if interpolation is Interpolation.ELASTIC:
            return _elastic(share, duration)
        if interpolation is Interpolation.BACK:
            # Penner's factor: half the height needs more pull to look like as much overshoot.
            return _back(share, BACK_OVERSHOOT * (1.525 if mode is Mode.EASE_IN_OUT else 1.0))
        return _EASE_IN[interpolation](share)

    if mode is Mode.EASE_IN:
        return ease_in(x)
    if mode is Mode.EASE_OUT:
        return 1.0 - ease_in(1.0 - x)
    return ease_in(2.0 * x) / 2.0 if x < 0.5 else 1.0 - ease_in(2.0 - 2.0 * x) / 2.0


def _constant(_x: float) -> float:
    return 0.0


def _linear(x: float) -> float:
    return x


def _bezier(x: float) -> float:
    """Flat handles at a third of the duration make time the curve's own parameter: 3x^2 - 2x^3."""
    return x * x * (3.0 - 2.0 * x)


def _power(exponent: int) -> Callable[[float], float]:
    return lambda x: x**exponent


def _sine(x: float) -> float:
    return 1.0 - math.cos(x * math.pi / 2.0)


def _expo(x: float) -> float:
    """Scaled so that it starts at 0; Penner's own starts at 2^-10 and jumps."""
    floor = 2.0**-10
    return (2.0 ** (10.0 * (x - 1.0)) - floor) / (1.0 - floor)


def _circ(x: float) -> float:
    return 1.0 - math.sqrt(1.0 - x * x)


def _back(x: float, overshoot: float) -> float:
    return x * x * ((overshoot + 1.0) * x - overshoot)


def _bounce(x: float) -> float:
    """A ball that falls at the end: seen backwards, the lowest of parabolas of width 2, 1, 1/2 and 1/4."""
    fallen = (1.0 - x) * _BOUNCE_WIDTH
    return 1.0 - min((fallen - centre) ** 2 + height for centre, height in _BOUNCE_ARCS)


def _elastic(x: float, duration: float) -> float:
    """A sine that dies away from the end, 2^-10 over the segment, its period counted in frames.

    The amplitude is below 1, so the sine alone would miss the start of the swing: its factor goes from
    1 to the amplitude during the first quarter of a period.
    """
    left = 1.0 - x
    quarter = ELASTIC_PERIOD / 4.0
    blend = min(left * duration / quarter, 1.0)
    factor = 1.0 + (ELASTIC_AMPLITUDE - 1.0) * blend
    swing = math.cos(left * duration * 2.0 * math.pi / ELASTIC_PERIOD)
    return factor * 2.0 ** (-10.0 * left) * swing


_WITHOUT_MODE: dict[Interpolation, Callable[[float], float]] = {
    Interpolation.CONSTANT: _constant,
    Interpolation.LINEAR: _linear,
    Interpolation.BEZIER: _bezier,
}
_EASE_IN: dict[Interpolation, Callable[[float], float]] = {
    Interpolation.SINE: _sine,
    Interpolation.QUAD: _power(2),
    Interpolation.CUBIC: _power(3),
    Interpolation.QUART: _power(4),
    Interpolation.QUINT: _power(5),
    Interpolation.EXPO: _expo,
    Interpolation.CIRC: _circ,
    Interpolation.BOUNCE: _bounce,
}
_AUTO_IS_OUT = (Interpolation.BACK, Interpolation.BOUNCE, Interpolation.ELASTIC)
_SUFFIXES = {Mode.AUTO: "", Mode.EASE_IN: "in", Mode.EASE_OUT: "out", Mode.EASE_IN_OUT: "in-out"}

LINEAR = Easing()
