"""The timing chart: what it says of a tween, and where its pixels are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, the_tween  # noqa: E402
from .test_registration import Recorder  # noqa: E402
from .test_retiming import tweened  # noqa: E402

Maker = Callable[..., object]


def test_the_chart_says_where_each_drawing_stands_and_for_how_long(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 11, 17, 23)
    strip.keytween_own.segments[1].own_exposure = "3"
    bpy.ops.keytween.retime()
    first, second = extension.timing_chart.lines_of(extension.retiming.tween_of(strip))
    assert (first.first, first.last, second.first, second.last) == (11, 17, 17, 23)
    assert first.ticks == ((0.0, 1), *((pytest.approx(step / 6), 1) for step in range(1, 6)))
    assert second.ticks == ((0.0, 3), (0.5, 3))


def test_ticks_are_where_their_positions_are(extension: SimpleNamespace) -> None:
    chart = extension.timing_chart
    sheet = chart.draw((chart.Line(1, 9, ((0.0, 1), (0.25, 2), (0.5, 1))),), 0)
    left = chart.SIZE // 2 - 20
    rows = [row for row in range(chart.SIZE) if sheet.pixels[row * chart.SIZE + left]]
    top, bottom = max(rows) - 1, min(rows) + 2
    height = top - bottom
    ticks = [row for row in rows if bottom + 3 < row < top - 3]
    assert [round((top - tick) / height, 2) for tick in ticks[1::3]] == pytest.approx([0.5, 0.25], abs=0.02)


def test_overshoot_reaches_beyond_the_keyframes_and_stays_on_the_sheet(extension: SimpleNamespace) -> None:
    chart = extension.timing_chart
    sheet = chart.draw((chart.Line(1, 9, ((0.0, 1), (-0.3, 1), (1.4, 1))),), 0)
    lit = [i // chart.SIZE for i, pixel in enumerate(sheet.pixels) if pixel]
    assert min(lit) >= 8
    assert max(lit) < chart.SIZE - 8


@pytest.mark.parametrize(
    ("count", "chosen", "shown"), [(2, 0, [0, 1]), (9, 0, range(6)), (9, 4, range(1, 7)), (9, 8, range(3, 9))]
)
def test_of_many_segments_those_around_the_chosen_one_are_shown(
    extension: SimpleNamespace, count: int, chosen: int, shown: list[int]
) -> None:
    assert list(extension.timing_chart.window(count, chosen)) == list(shown)


def test_the_panel_of_the_active_tween_draws(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip = tweened(scene, strip_at, 1, 5, 9)
    strip.keytween_own.segments[0].interpolation = "CURVE"
    said: list[str] = []
    panel = extension.timing_panel.KEYTWEEN_PT_tween
    assert panel.poll(bpy.context)
    panel.draw(SimpleNamespace(layout=Recorder(said)), bpy.context)
    assert {"keytween.retime", "keytween.regenerate", "drift"} <= set(said)
    assert the_tween().name in said
    scene.sequence_editor.active_strip = None
    assert not panel.poll(bpy.context)
