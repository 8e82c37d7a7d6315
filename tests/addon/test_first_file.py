"""The blend file that the first tween begins with."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, the_tween, turn_until  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "daemon" / "keytween" / "examples"


def test_the_bundled_file_is_one_press_away_from_a_tween(
    scene: object, daemon: Daemon, extension: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("first_tween.blend", "wave_1.png", "wave_2.png"):
        shutil.copy(EXAMPLES / name, tmp_path)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "first_tween.blend"))
    opened = bpy.context.scene
    strips = extension.tween.keyframe_strips(opened)
    assert [strip.name for strip in strips] == ["wave_1", "wave_2"]
    assert [extension.capture.source_path(strip).is_file() for strip in strips] == [True, True]
    assert opened.view_settings.view_transform == "Standard"
    assert (opened.render.resolution_x, opened.render.resolution_y) == (640, 360)
    opened.keytween.engine = "dissolve"
    if extension.poller.STATUS.link.state is extension.link.LinkState.OFF:
        extension.poller.STATUS.link.connect()
    view = extension.tween.place(opened, extension.tween.order(opened))
    extension.poller.submit(view)
    turn_until(extension, lambda: extension.poller.STATUS.jobs[view.job_id].state.ended)
    assert the_tween()["keytween_state"] == "done"
    assert (tmp_path / "keytween").is_dir()
