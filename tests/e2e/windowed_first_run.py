# SPDX-License-Identifier: Apache-2.0
"""The first run, in a window: nothing but the extension is there, and nobody opens a terminal.

Run by `windowed.py` as `windowed_inside.py` is. The network is what a file says: see `network.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))

from windowed_inside import (
    MODULE,
    SETTLE,
    Stage,
    Steps,
    describe,
    furnish,
    lay_keyframes,
    main,
    press_tween,
    show_middle,
    state_of,
    status,
    tween_strip,
    until,
)


def module(name: str) -> Any:
    """One of the extension's modules."""
    return sys.modules[f"{MODULE}.{name}"]


def errand() -> Any:
    """What is being set up, or was last."""
    return module("errands").current


def network(stage: Stage, state: str) -> None:
    """Makes the network refused, slow or open."""
    Path(stage.options["network"]).write_text(state)


def set_up(stage: Stage) -> Steps:
    """Finds the button with the mouse and presses it."""
    yield from stage.find_button("keytween.set_up")
    yield from stage.click()


def trouble() -> dict[str, Any]:
    """What the set-up's box in the panel says."""
    found = errand().error
    return {"code": found.code, "text": f"{found} {found.advice}", "state": errand().state.value}


def reach(condition: Callable[[], object], what: str) -> Steps:
    """Waits for something that the set-up leads to, as long as it does not fail."""
    yield from until(lambda: condition() or errand().error, 90, what)
    if errand().error is not None:
        raise RuntimeError(f"{what} did not come: {trouble()}")


def first_run(stage: Stage) -> Steps:
    """From the extension alone to the first tween; what can come between comes between."""
    yield from furnish(stage)
    yield from lay_keyframes(stage)
    bpy.ops.wm.save_as_mainfile(filepath=stage.options["save"])
    stage.note(has_program=module("link").has_program(), online=bpy.app.online_access)
    yield from go_online(stage)
    yield from meet_refusal(stage)
    yield from interrupt(stage)
    yield from go_on(stage)
    yield from press_tween(stage)
    yield from until(lambda: state_of(stage) in {"done", "failed", "cancelled"}, 60, "the job's end")
    yield SETTLE
    stage.note(made=describe(tween_strip(stage)), tick_max_ms=status().tick_max_ms)
    show_middle(stage)
    yield from stage.rest_mouse()
    # Long enough for a look at whether the strip is still what it should be.
    yield 2.0
    stage.note(stale=tween_strip(stage)["keytween_stale"])
    yield from stage.shoot("first-tween")


def go_online(stage: Stage) -> Steps:
    """Online access is off: the panel says so and leads to the preferences, where it is allowed."""
    yield from set_up(stage)
    # The error pops up as well; the panel goes on showing it.
    yield from stage.robot("key", "Escape")
    yield from stage.rest_mouse()
    yield from stage.shoot("offline")
    stage.note(offline=trouble())
    yield from stage.find_button("screen.userpref_show")
    yield from stage.click()
    yield from until(lambda: len(bpy.context.window_manager.windows) == 2, 10, "the preferences' window")
    yield 1.0
    yield from tick_box(stage, "use_online_access")
    yield from stage.shoot("allowed")
    stage.note(allowed=bpy.app.online_access)
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[1]):
        bpy.ops.wm.window_close()
    yield SETTLE


def tick_box(stage: Stage, name: str) -> Steps:
    """Moves the mouse down the preferences until it is over that box, and presses it."""
    window = bpy.context.window_manager.windows[1]
    area = window.screen.areas[0]
    region = next(region for region in area.regions if region.type == "WINDOW")
    left, bottom = window.x + region.x, window.y + region.y
    # Without a window manager it may reach beyond the screen.
    top = min(bottom + region.height, stage.window.height)
    for down in range(10, int(top - bottom), 12):
        yield from stage.point_at(left + region.width * 0.55, top - down)
        yield 0.1
        with bpy.context.temp_override(window=window, area=area, region=region):
            hovered = bpy.context.property
        if hovered and hovered[1] == name:
            yield from stage.click()
            return
    raise LookupError(f"no {name} in the preferences")


def meet_refusal(stage: Stage) -> Steps:
    """The network lets nothing through: the panel says so and offers the log and another try."""
    network(stage, "refused")
    yield from set_up(stage)
    yield from until(lambda: errand().state.value != "running", 60, "the end of the refused set-up")
    yield from stage.find_button("keytween.open_log", across=0.7)
    yield from stage.rest_mouse()
    yield from stage.shoot("refused")
    stage.note(refused=trouble())


def interrupt(stage: Stage) -> Steps:
    """The set-up is interrupted while it downloads what the daemon needs."""
    network(stage, "slow")
    yield from set_up(stage)
    stage.note(first=errand().label)
    yield from stage.find_button("keytween.interrupt", across=0.86)
    place = stage.mouse
    yield from stage.rest_mouse()
    yield from reach(lambda: errand().label == "Installing the daemon", "the installation")
    yield from reach(lambda: errand().said.startswith("Download"), "the first download")
    yield from stage.shoot("blender-set-up")
    stage.note(label=errand().label, said=errand().said, factor=errand().factor)
    yield from stage.point_at(*place)
    yield from stage.click()
    stage.note(interrupted=errand().state.value, half_made=module("link").has_program())


def go_on(stage: Stage) -> Steps:
    """The same button again: it goes on where it was, the daemon is started and answers."""
    network(stage, "open")
    yield from set_up(stage)
    stage.note(resumed=errand().label)
    yield from reach(lambda: status().link.state.value == "ready", "the daemon")
    stage.note(set_up=errand().state.value)
    stage.note(command=module("link").daemon_command(), home=str(module("setting_up").home()))
    stage.note(connection=str(module("link").connection_file()))


SCENES = {first_run.__name__: first_run}

if __name__ == "__main__":
    main(SCENES)
