"""Easings: their ends, their symmetry, Blender's own values, and their names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytween_wire.easing import LINEAR, Drawn, Easing, Interpolation, Mode, choices
from keytween_wire.errors import BadSetting, UnknownEasing

EVERY = [Easing(interpolation, mode) for interpolation in Interpolation for mode in Mode]
MODELESS = (Interpolation.CONSTANT, Interpolation.LINEAR, Interpolation.BEZIER)
MODED = [i for i in Interpolation if i not in MODELESS]
WAVERING = (Interpolation.BACK, Interpolation.BOUNCE, Interpolation.ELASTIC)
BLENDER = json.loads((Path(__file__).parent / "blender_easing.json").read_text(encoding="utf-8"))

shares = st.floats(0.0, 1.0)
easings = st.sampled_from(EVERY)
durations = st.integers(1, 1000)


@pytest.mark.parametrize("easing", EVERY, ids=str)
def test_blenders_own_values_are_met(easing: Easing) -> None:
    table = BLENDER["values"][easing.interpolation.value][easing.mode.value]
    assert set(table) == {"2", "4", "10", "24", "100"}
    for duration, values in table.items():
        ours = [easing(x, duration=int(duration)) for x in BLENDER["shares"]]
        assert ours == pytest.approx(values, abs=1e-5)


def test_blender_has_no_interpolation_or_mode_that_we_lack() -> None:
    assert set(BLENDER["values"]) == {i.value for i in Interpolation}
    assert all(set(by_mode) == {m.value for m in Mode} for by_mode in BLENDER["values"].values())


@given(easings, durations)
def test_every_easing_starts_at_0_and_ends_at_1_exactly(easing: Easing, duration: int) -> None:
    assert easing(0.0, duration=duration) == 0.0
    assert easing(1.0, duration=duration) == 1.0


@given(easings, durations, st.floats(allow_nan=False))
def test_outside_the_segment_an_easing_stays_at_its_ends(easing: Easing, duration: int, x: float) -> None:
    if x <= 0.0:
        assert easing(x, duration=duration) == 0.0
    if x >= 1.0:
        assert easing(x, duration=duration) == 1.0


@pytest.mark.parametrize("easing", EVERY, ids=str)
@pytest.mark.parametrize("duration", [1, 2, 7, 48])
def test_every_easing_but_constant_meets_its_ends_without_a_visible_jump(
    easing: Easing, duration: int
) -> None:
    if easing.interpolation is Interpolation.CONSTANT:
        assert easing(math.nextafter(1.0, 0.0), duration=duration) == 0.0
        return
    assert easing(1e-9, duration=duration) == pytest.approx(0.0, abs=2.0**-9)
    assert easing(1.0 - 1e-9, duration=duration) == pytest.approx(1.0, abs=2.0**-9)


@given(st.sampled_from(MODED), shares, durations)
def test_ease_out_is_ease_in_turned_round(interpolation: Interpolation, x: float, duration: int) -> None:
    eased_in = Easing(interpolation, Mode.EASE_IN)(1.0 - x, duration=duration)
    eased_out = Easing(interpolation, Mode.EASE_OUT)(x, duration=duration)
    assert eased_in + eased_out == pytest.approx(1.0, abs=1e-9)


@given(st.sampled_from(MODED), st.floats(1e-6, 1.0 - 1e-6), durations)
def test_ease_in_out_is_its_own_mirror_image(interpolation: Interpolation, x: float, duration: int) -> None:
    easing = Easing(interpolation, Mode.EASE_IN_OUT)
    both = easing(x, duration=duration) + easing(1.0 - x, duration=duration)
    assert both == pytest.approx(1.0, abs=1e-6)


@given(easings, st.tuples(shares, shares), durations)
def test_easings_that_do_not_waver_never_go_back(
    easing: Easing, pair: tuple[float, float], duration: int
) -> None:
    if easing.interpolation not in WAVERING:
        earlier, later = sorted(pair)
        rise = easing(later, duration=duration) - easing(earlier, duration=duration)
        assert rise >= -1e-12


@given(easings, shares, durations)
def test_only_back_and_elastic_leave_0_to_1(easing: Easing, x: float, duration: int) -> None:
    position = easing(x, duration=duration)
    assert -1.0 <= position <= 2.0
    if not easing.overshoots:
        assert 0.0 <= position <= 1.0


@pytest.mark.parametrize("name", ["back-in", "back-out", "elastic-out", "elastic-in"])
def test_back_and_elastic_do_overshoot(name: str) -> None:
    easing = Easing.parse(name)
    values = [easing(x / 100, duration=24) for x in range(101)]
    assert easing.overshoots
    assert min(values) < -0.05 or max(values) > 1.05


@given(easings, shares, durations)
def test_only_elastic_depends_on_the_duration(easing: Easing, x: float, duration: int) -> None:
    if easing.interpolation is not Interpolation.ELASTIC:
        assert easing(x, duration=duration) == easing(x, duration=1)


@pytest.mark.parametrize("interpolation", MODELESS)
@pytest.mark.parametrize("mode", Mode)
def test_constant_linear_and_bezier_ignore_the_mode(interpolation: Interpolation, mode: Mode) -> None:
    values = [Easing(interpolation, mode)(x / 8) for x in range(9)]
    assert values == [Easing(interpolation)(x / 8) for x in range(9)]


@pytest.mark.parametrize("interpolation", MODED)
def test_auto_eases_out_where_the_overshoot_belongs_at_the_end(interpolation: Interpolation) -> None:
    expected = Mode.EASE_OUT if interpolation in WAVERING else Mode.EASE_IN
    assert Easing(interpolation).effective_mode is expected
    values = [Easing(interpolation)(x / 8, duration=24) for x in range(9)]
    assert values == [Easing(interpolation, expected)(x / 8, duration=24) for x in range(9)]


@pytest.mark.parametrize(
    ("name", "x", "position"),
    [
        ("linear", 0.3, 0.3),
        ("constant", 0.999, 0.0),
        ("bezier", 0.5, 0.5),
        ("bezier", 0.25, 0.15625),
        ("quad-in", 0.5, 0.25),
        ("cubic-out", 0.5, 0.875),
        ("quint-in-out", 0.25, 0.015625),
        ("sine-in-out", 0.5, 0.5),
        ("sine-out", 0.5, math.sqrt(0.5)),
        ("circ-in", 0.6, 0.2),
        ("bounce-out", 1 / 2.75, 1.0),
        ("bounce-out", 1.5 / 2.75, 0.75),
    ],
)
def test_known_values(name: str, x: float, position: float) -> None:
    assert Easing.parse(name)(x) == pytest.approx(position, abs=1e-12)


@pytest.mark.parametrize("easing", EVERY, ids=str)
def test_the_name_reads_back_as_the_same_easing(easing: Easing) -> None:
    assert Easing.parse(str(easing)) == easing
    assert Easing.parse(str(easing).upper()) == easing


@pytest.mark.parametrize(
    ("text", "easing"),
    [
        ("linear", LINEAR),
        (" SINE ", Easing(Interpolation.SINE)),
        ("sine-in-out", Easing(Interpolation.SINE, Mode.EASE_IN_OUT)),
        ("SINE_EASE_IN_OUT", Easing(Interpolation.SINE, Mode.EASE_IN_OUT)),
        ("Back Out", Easing(Interpolation.BACK, Mode.EASE_OUT)),
    ],
)
def test_names_are_read_as_people_and_blender_write_them(text: str, easing: Easing) -> None:
    assert Easing.parse(text) == easing


@pytest.mark.parametrize(
    "text", ["", "-", "swing", "sine-", "in-out", "sine-out-in", "sinein", "line\u0000ar"]
)
def test_an_unknown_name_is_refused_with_the_names_there_are(text: str) -> None:
    with pytest.raises(UnknownEasing) as caught:
        Easing.parse(text)
    assert caught.value.values == {"name": text.replace("\0", r"\u0000"), "choices": choices()}
    assert "elastic" in caught.value.advice


def test_the_default_is_linear() -> None:
    assert Easing() == LINEAR
    assert LINEAR(0.1234) == 0.1234


# ---- drawn curves


def test_a_drawn_curve_is_straight_between_its_values() -> None:
    drawn = Drawn((0.0, 0.8, 1.0))
    assert [drawn(x) for x in (0.25, 0.5, 0.75)] == pytest.approx([0.4, 0.8, 0.9])


def test_a_drawn_curve_begins_and_ends_at_the_keyframes_whatever_was_drawn() -> None:
    drawn = Drawn((0.3, 0.5, 0.7))
    assert [drawn(x) for x in (-1.0, 0.0, 1.0, 2.0)] == [0.0, 0.0, 1.0, 1.0]
    assert drawn(0.001) == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize(("values", "over"), [((0.0, 0.5, 1.0), False), ((0.0, 1.2, 1.0), True)])
def test_a_drawn_curve_knows_whether_it_overshoots(values: tuple[float, ...], over: bool) -> None:
    assert Drawn(values).overshoots is over


@pytest.mark.parametrize("values", [(), (1.0,), (0.0, float("nan"), 1.0)])
def test_a_drawn_curve_without_numbers_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(BadSetting):
        Drawn(values)
