# SPDX-License-Identifier: GPL-3.0-or-later
"""Keytween: makes the drawings between keyframes, in Blender's Video Sequencer. Registration only."""

from __future__ import annotations

import importlib
from types import ModuleType

MODULES = (
    "properties",
    "prompts",
    "preferences",
    "thumbnails",
    "errands",
    "operators",
    "remedies",
    "scene_operators",
    "import_tweens",
    "menus",
    "panels",
    "tween_operators",
    "timing_chart",
    "timing_panel",
    "poller",
    "stale",
    "hiding",
)


def _load() -> list[ModuleType]:
    """The modules that register something; a source checkout has no wheels, and says so."""
    try:
        return [importlib.import_module(f".{name}", __package__) for name in MODULES]
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "keytween_wire":
            raise
        raise ImportError(
            "Keytween was installed without its wheels, as from a source folder: "
            "install the extension's zip for this platform instead"
        ) from error


def register() -> None:
    """Registers every module, in order."""
    for module in _load():
        module.register()


def unregister() -> None:
    """Unregisters in reverse, so that nothing is used after it is gone."""
    for module in reversed(_load()):
        module.unregister()
