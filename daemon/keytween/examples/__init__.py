"""The example keyframes that come with Keytween; packaging/draw_examples.py draws them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from keytween_wire.easing import LINEAR, Easing, Interpolation, Mode


@dataclass(frozen=True, slots=True)
class Example:
    """Keyframes, and how they look best: in-betweens per segment, exposure and easing."""

    name: str
    title: str
    keyframes: tuple[Traversable, ...]
    in_betweens: int = 7
    exposure: int = 1
    easing: Easing = LINEAR


def examples() -> tuple[Example, ...]:
    """Every bundled example; in an installed Keytween their keyframes are files (`pathlib.Path`)."""
    gentle = Easing(Interpolation.SINE, Mode.EASE_IN_OUT)
    return (
        Example(
            "wave", "A girl on a hill waves", _pictures("wave", 3), in_betweens=7, exposure=2, easing=gentle
        ),
        Example("leap", "A fox leaps, on nothing", _pictures("leap", 2), in_betweens=7),
    )


def toon_examples() -> tuple[Example, ...]:
    """Those that the checkpoint `toon` draws at its own size, for the engine that needs one."""
    return (
        Example("change", "A girl becomes a cat, and the cat a bear", _pictures("change", 3), in_betweens=7),
        Example("turn", "A boy turns his head", _pictures("turn", 2), in_betweens=7),
    )


def _pictures(name: str, count: int) -> tuple[Traversable, ...]:
    folder = files(__name__)
    return tuple(folder / f"{name}_{number}.png" for number in range(1, count + 1))
