"""The extension comes and goes without a trace, and draws its panels in every state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import PACKAGE  # noqa: E402


def handler_count() -> int:
    """How many handlers are hooked in, whoever's they are."""
    kinds = ("undo_post", "redo_post", "load_post", "render_init", "render_complete", "render_cancel")
    return sum(len(getattr(bpy.app.handlers, kind)) for kind in kinds)


def test_disabling_leaves_nothing_behind(extension: SimpleNamespace) -> None:
    before = handler_count()
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    try:
        assert not hasattr(bpy.types.Scene, "keytween")
        assert not [name for name in dir(bpy.types) if name.startswith("KEYTWEEN_")]
        assert handler_count() == before - 6
        assert not bpy.app.timers.is_registered(extension.poller.tick)
    finally:
        bpy.ops.preferences.addon_enable(module=PACKAGE)
    assert handler_count() == before
    assert bpy.context.scene.keytween.exposure == "1"


def test_background_registers_no_timer(extension: SimpleNamespace) -> None:
    extension.poller.wake()
    assert bpy.app.background
    assert not bpy.app.timers.is_registered(extension.poller.tick)


def test_engines_keep_their_numbers_in_any_order(extension: SimpleNamespace, scene: object) -> None:
    scene.keytween.engine = "dissolve"
    extension.poller.STATUS.engines = tuple(reversed(extension.status.ENGINES))
    assert scene.keytween.engine == "dissolve"
    extension.poller.STATUS.engines = extension.status.ENGINES


def test_flow_is_the_engine_of_a_new_scene(extension: SimpleNamespace) -> None:
    assert bpy.data.scenes.new("new").keytween.engine == "flow"


def test_remaining_time_reads_as_people_say_it(extension: SimpleNamespace) -> None:
    said = [extension.panels.remaining(seconds) for seconds in (0.4, 59, 61, 3725)]
    assert said == ["0 s left", "59 s left", "1 min 01 s left", "1 h 02 min left"]


class Recorder:
    """Stands in for a layout: background Blender has no region to draw in."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object, text: str = "", **_: object) -> Recorder:
            self.said.append(text or " ".join(str(a) for a in arguments if isinstance(a, str)))
            return self

        return call


@pytest.mark.parametrize("state", ["OFF", "STARTING", "CONNECTING", "READY", "LOST"])
def test_the_panel_draws_in_every_state(extension: SimpleNamespace, scene: object, state: str) -> None:
    link = extension.poller.STATUS.link
    link.state = extension.link.LinkState[state]
    said: list[str] = []
    panel = SimpleNamespace(layout=Recorder(said))
    extension.panels.KEYTWEEN_PT_main.draw(panel, bpy.context)
    assert extension.panels.DAEMON_LINES[link.state][0] in said
    assert "Tween" in said


def test_an_error_is_drawn_with_its_code_and_next_step(extension: SimpleNamespace, scene: object) -> None:
    from keytween_wire.errors import DaemonNotRunning

    extension.poller.STATUS.link.error = DaemonNotRunning()
    said: list[str] = []
    extension.panels.KEYTWEEN_PT_main.draw(SimpleNamespace(layout=Recorder(said)), bpy.context)
    text = " ".join(said)
    assert "KT-301" in text
    assert "press Start" in text
    assert "keytween.copy_diagnostics" in text
