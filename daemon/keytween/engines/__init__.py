"""The engines by name: listed without loading them, opened one at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
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
DIFFMORPHER = EngineInfo(
    "diffmorpher", "Morphs what the pictures show, with a diffusion checkpoint.", device=True
)

_BUILT_IN = (FLOW, DISSOLVE, DIFFMORPHER)
_CLASSES = {
    FLOW.name: ("keytween.engines.flow", "Flow"),
    DISSOLVE.name: ("keytween.engines.dissolve", "Dissolve"),
    DIFFMORPHER.name: ("keytween.engines.diffmorpher", "DiffMorpher"),
}
_NEEDS = {FLOW.name: ("cv2",), DIFFMORPHER.name: ("torch", "diffusers", "transformers", "safetensors")}


def engine_infos() -> tuple[EngineInfo, ...]:
    """Every engine there is, whether it can run here, and why not; loads none of them."""
    built_in = tuple(_with_availability(info) for info in _BUILT_IN)
    added = (EngineInfo(point.name, f"Added by {point.value.partition(':')[0]}.") for point in _added())
    return built_in + tuple(added)


def choose(name: str) -> tuple[str, str]:
    """The engine that `name` means, and the reason in one sentence; `auto` picks.

    Raises UnknownEngine.
    """
    if name == AUTO:
        if not _with_availability(FLOW).available:
            return DISSOLVE.name, "Optical flow cannot run here, so the keyframes fade."
        return FLOW.name, (
            "Optical flow runs on any machine and needs no download. Where a checkpoint is chosen, "
            "`diffmorpher` redraws what has too little in common to move."
        )
    _check(name)
    return name, "It was asked for by name."


def open_engine(name: str, *, fits: Path | None = None) -> Engine:
    """The engine of that name, ready to morph; imports its module and no other.

    `fits` is the folder where an engine that studies keyframes may keep what it learnt. Raises
    UnknownEngine, or EngineUnavailable where something it needs is missing.
    """
    chosen, _ = choose(name)
    try:
        if name == AUTO and chosen == FLOW.name:
            return import_module("keytween.engines.auto").Auto(fits=fits)
        if chosen not in _CLASSES:
            return next(point for point in _added() if point.name == chosen).load()()
        module, cls = _CLASSES[chosen]
        engine = getattr(import_module(module), cls)
        return engine(fits=fits) if chosen == DIFFMORPHER.name else engine()
    except ImportError as error:
        fix = "Install Keytween again, with everything it needs."
        if chosen == DIFFMORPHER.name:
            fix = "Install Keytween with its extra `diffusion`."
        raise EngineUnavailable(name=chosen, detail=str(error), fix=fix) from error


def reason_against(info: EngineInfo) -> str:
    """Why an engine cannot run here; empty where it can."""
    return _with_availability(info).reason


def _check(name: str) -> None:
    names = [*_CLASSES, *(point.name for point in _added())]
    if name not in names:
        raise UnknownEngine(name=name, choices=", ".join([AUTO, *names]))


def _with_availability(info: EngineInfo) -> EngineInfo:
    missing = [name for name in _NEEDS.get(info.name, ()) if find_spec(name) is None]
    if not missing:
        return info
    reason = f"{', '.join(missing)} not installed"
    if info is DIFFMORPHER:
        reason += "; install Keytween with its extra `diffusion`"
    return replace(info, available=False, reason=reason)


@cache
def _added() -> tuple[EntryPoint, ...]:
    """Engines from other packages; a built-in name cannot be taken over. Looked for once: it takes long."""
    return tuple(point for point in entry_points(group=GROUP) if point.name not in _CLASSES)
