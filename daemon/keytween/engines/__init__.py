"""The engines by name: listed without loading them, opened one at a time."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

from keytween_wire.errors import EngineUnavailable, UnknownEngine
from keytween_wire.messages import EngineInfo

if TYPE_CHECKING:
    from keytween.engines.base import Engine

AUTO = "auto"
GROUP = "keytween.engines"
"""Entry points of this group add engines: each names a class that is called without arguments."""

FLOW = EngineInfo("flow", "Moves the drawing with optical flow, on any processor.", overshoot=True)
DISSOLVE = EngineInfo("dissolve", "Fades one keyframe into the next; nothing moves.")

_CLASSES = {
    FLOW.name: ("keytween.engines.flow", "Flow"),
    DISSOLVE.name: ("keytween.engines.dissolve", "Dissolve"),
}
_NEEDS = {FLOW.name: "cv2"}


def engine_infos() -> tuple[EngineInfo, ...]:
    """Every engine there is, whether it can run here, and why not; loads none of them."""
    built_in = tuple(_with_availability(info) for info in (FLOW, DISSOLVE))
    added = (EngineInfo(point.name, f"Added by {point.value.partition(':')[0]}.") for point in _added())
    return built_in + tuple(added)


def choose(name: str) -> tuple[str, str]:
    """The engine that `name` means, and the reason in one sentence; `auto` picks.

    Raises UnknownEngine.
    """
    if name == AUTO:
        if not _with_availability(FLOW).available:
            return DISSOLVE.name, "Optical flow cannot run here, so the keyframes fade."
        return FLOW.name, "Optical flow runs on any machine and needs no download."
    _check(name)
    return name, "It was asked for by name."


def open_engine(name: str) -> Engine:
    """The engine of that name, ready to morph; imports its module and no other.

    Raises UnknownEngine, or EngineUnavailable where something it needs is missing.
    """
    chosen, _ = choose(name)
    try:
        if chosen in _CLASSES:
            module, cls = _CLASSES[chosen]
            return getattr(import_module(module), cls)()
        return next(point for point in _added() if point.name == chosen).load()()
    except ImportError as error:
        fix = "Install Keytween again, with everything it needs."
        raise EngineUnavailable(name=chosen, detail=str(error), fix=fix) from error


def _check(name: str) -> None:
    names = [*_CLASSES, *(point.name for point in _added())]
    if name not in names:
        raise UnknownEngine(name=name, choices=", ".join([AUTO, *names]))


def _with_availability(info: EngineInfo) -> EngineInfo:
    needed = _NEEDS.get(info.name)
    if needed is None or find_spec(needed) is not None:
        return info
    return EngineInfo(info.name, info.summary, available=False, reason=f"{needed} is not installed")


@cache
def _added() -> tuple[EntryPoint, ...]:
    """Engines from other packages; a built-in name cannot be taken over. Looked for once: it takes long."""
    return tuple(point for point in entry_points(group=GROUP) if point.name not in _CLASSES)
