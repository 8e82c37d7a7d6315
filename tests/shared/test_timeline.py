"""Plans: which drawings are made, at which positions, and what each timeline frame shows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytween_wire.easing import LINEAR, Drawn, Easing, Interpolation, Mode
from keytween_wire.errors import BadSetting, NoRoomBetween, TooFewKeyframes
from keytween_wire.timeline import MOST_DRIFT, SAME_POSITION, Cel, Keyframe, Plan, plan, segments, spaced

EVERY = [Easing(interpolation, mode) for interpolation in Interpolation for mode in Mode]
STEADY = [
    e
    for e in EVERY
    if e.interpolation not in (Interpolation.BACK, Interpolation.BOUNCE, Interpolation.ELASTIC)
]


def shown(made: Plan) -> str:
    """What each frame shows, in a line: keyframes as A, B, C..., drawings as 0, 1, 2..."""
    return " ".join(
        chr(ord("A") + c.keyframe) if c.keyframe is not None else str(c.drawing) for c in made.cels
    )


def positions(made: Plan) -> list[float]:
    """The drawings' positions in order, through all segments."""
    return [drawing.position for drawing in made.drawings]


def test_on_ones_every_frame_between_two_keyframes_is_a_drawing() -> None:
    made = plan([Keyframe(1), Keyframe(6)])
    assert shown(made) == "A 0 1 2 3 B"
    assert positions(made) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert (made.first_frame, made.last_frame) == (1, 6)


@pytest.mark.parametrize(
    ("exposure", "frames", "steps"),
    [
        (2, "A A 0 0 1 1 2 2 3 3 B", [2, 4, 6, 8]),
        (3, "A A A 0 0 0 1 1 1 2 B", [3, 6, 9]),
        (4, "A A A A 0 0 0 0 1 1 B", [4, 8]),
        (9, "A A A A A A A A A 0 B", [9]),
        (10, "A A A A A A A A A A B", []),
        (99, "A A A A A A A A A A B", []),
    ],
)
def test_a_drawing_is_held_for_its_exposure_and_a_remainder_shortens_the_last(
    exposure: int, frames: str, steps: list[int]
) -> None:
    made = plan([Keyframe(100), Keyframe(110)], exposure=exposure)
    assert shown(made) == frames
    assert positions(made) == pytest.approx([step / 10 for step in steps])


def test_a_held_keyframe_changes_only_after_its_hold() -> None:
    made = plan([Keyframe(1, hold=4), Keyframe(8)])
    assert shown(made) == "A A A A 0 1 2 B"
    assert positions(made) == pytest.approx([0.25, 0.5, 0.75])


def test_exposure_counts_from_the_end_of_the_hold() -> None:
    assert shown(plan([Keyframe(1, hold=3), Keyframe(9)], exposure=2)) == "A A A A 0 0 1 1 B"


def test_a_segment_may_have_its_own_exposure() -> None:
    made = plan([Keyframe(0, exposure=2), Keyframe(4), Keyframe(8, exposure=4), Keyframe(12)], exposure=1)
    assert shown(made) == "A A 0 0 B 1 2 3 C C C C D"


def test_a_segment_may_have_its_own_easing() -> None:
    made = plan([Keyframe(0, easing=Easing.parse("quad-in")), Keyframe(4), Keyframe(8)])
    assert positions(made) == pytest.approx([1 / 16, 4 / 16, 9 / 16, 0.25, 0.5, 0.75])


def test_each_of_many_keyframes_is_shown_once_and_drawings_count_through() -> None:
    made = plan([Keyframe(1), Keyframe(4), Keyframe(6), Keyframe(10)])
    assert shown(made) == "A 0 1 B 2 C 3 4 5 D"
    assert [drawing.segment for drawing in made.drawings] == [0, 0, 1, 2, 2, 2]
    assert made.positions(3) == (
        pytest.approx((1 / 3, 2 / 3)),
        pytest.approx((0.5,)),
        pytest.approx((0.25, 0.5, 0.75)),
    )


def test_a_segment_without_drawings_still_has_its_place_in_the_positions() -> None:
    keyframes = [Keyframe(0), Keyframe(4, easing=Easing(Interpolation.CONSTANT)), Keyframe(8), Keyframe(10)]
    assert [len(p) for p in plan(keyframes).positions(3)] == [3, 0, 1]


def test_a_drawn_curve_is_an_easing() -> None:
    made = plan([Keyframe(0, easing=Drawn((0.0, 0.6, 0.8, 1.0))), Keyframe(6)])
    assert positions(made) == pytest.approx([0.3, 0.6, 0.7, 0.8, 0.9])


def test_a_moving_hold_drifts_from_the_keyframe_and_the_change_goes_on_from_there() -> None:
    made = plan([Keyframe(1, hold=5, drift=0.2), Keyframe(9)])
    assert shown(made) == "A 0 1 2 3 4 5 6 B"
    assert positions(made) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.4, 0.6, 0.8])


def test_a_moving_hold_is_exposed_as_its_segment_is() -> None:
    made = plan([Keyframe(1, hold=5, drift=0.2, exposure=2), Keyframe(9)])
    assert shown(made) == "A A 0 0 1 1 2 2 B"
    assert positions(made) == pytest.approx([0.1, 0.2, 0.6])


def test_a_keyframe_that_is_not_held_cannot_drift() -> None:
    assert plan([Keyframe(1, drift=0.2), Keyframe(9)]) == plan([Keyframe(1), Keyframe(9)])


def test_frames_may_be_negative() -> None:
    made = plan([Keyframe(-3), Keyframe(1)])
    assert (made.first_frame, made.last_frame, shown(made)) == (-3, 1, "A 0 1 2 B")


@pytest.mark.parametrize(
    ("count", "frames"),
    [
        (0, "A A A A A A A A B"),
        (1, "A A A A 0 0 0 0 B"),
        (2, "A A A 0 0 0 1 1 B"),
        (3, "A A 0 0 1 1 2 2 B"),
        (7, "A 0 1 2 3 4 5 6 B"),
        (50, "A 0 1 2 3 4 5 6 B"),
    ],
)
def test_count_asks_for_so_many_drawings_spread_over_the_frames(count: int, frames: str) -> None:
    made = plan([Keyframe(1), Keyframe(9)], count=count)
    assert shown(made) == frames
    drawn = min(count, 7)
    assert positions(made) == pytest.approx([(i + 1) / (drawn + 1) for i in range(drawn)])


def test_count_is_for_each_segment_and_overrules_exposure() -> None:
    made = plan([Keyframe(0, exposure=3), Keyframe(6), Keyframe(10)], exposure=2, count=1)
    assert shown(made) == "A A A 0 0 0 B B 1 1 C"


def test_positions_follow_the_easing() -> None:
    easing = Easing.parse("bezier")
    made = plan([Keyframe(0, easing=easing), Keyframe(8)])
    assert positions(made) == pytest.approx([easing(step / 8) for step in range(1, 8)])


def test_elastic_knows_how_long_its_segment_is() -> None:
    easing = Easing.parse("elastic-out")
    made = plan([Keyframe(0, hold=3, easing=easing), Keyframe(12)])
    assert positions(made) == pytest.approx([easing(step / 10, duration=10) for step in range(1, 10)])


def test_constant_needs_no_drawings() -> None:
    made = plan([Keyframe(1, easing=Easing(Interpolation.CONSTANT)), Keyframe(5)])
    assert (made.drawings, shown(made)) == ((), "A A A A B")


def test_positions_that_come_back_share_a_drawing() -> None:
    made = plan([Keyframe(0, easing=Easing.parse("bounce-out")), Keyframe(2200)])
    visits = [cel.drawing for cel in made.cels if cel.drawing is not None]
    assert len(made.drawings) < len(visits)
    assert all(abs(a - b) >= SAME_POSITION for a, b in pairwise(sorted(positions(made))))


def test_a_position_that_reaches_a_keyframe_early_shows_the_keyframe() -> None:
    made = plan([Keyframe(0, easing=Easing.parse("bounce-out")), Keyframe(11)])
    assert made.cels[4] == Cel(keyframe=1)
    assert shown(made).split().count("B") == 4


def test_positions_that_no_eye_can_tell_from_a_keyframe_are_the_keyframe() -> None:
    made = plan([Keyframe(0, easing=Easing.parse("quint-in")), Keyframe(40)])
    assert shown(made).startswith("A A A 0 1")
    assert made.drawings[0].position == pytest.approx((3 / 40) ** 5)


def test_overshooting_positions_are_kept() -> None:
    made = plan([Keyframe(0, easing=Easing.parse("back-out")), Keyframe(10)])
    assert max(positions(made)) > 1.05


@pytest.mark.parametrize("number", [0, 1])
def test_one_keyframe_is_no_tween(number: int) -> None:
    with pytest.raises(TooFewKeyframes) as caught:
        plan([Keyframe(1)] * number)
    assert caught.value.values == {"count": str(number)}


@pytest.mark.parametrize(
    "keyframes",
    [
        [Keyframe(1), Keyframe(3), Keyframe(4)],
        [Keyframe(1), Keyframe(3), Keyframe(3)],
        [Keyframe(1), Keyframe(9), Keyframe(5)],
        [Keyframe(1), Keyframe(3, hold=4), Keyframe(7)],
        [Keyframe(1), Keyframe(3, hold=40), Keyframe(7)],
    ],
    ids=["neighbours", "same frame", "backwards", "hold up to the next", "hold past the next"],
)
def test_keyframes_without_a_frame_between_them_are_named(keyframes: list[Keyframe]) -> None:
    with pytest.raises(NoRoomBetween) as caught:
        plan(keyframes)
    assert caught.value.values == {"first": "2", "second": "3"}


@pytest.mark.parametrize(
    ("keyframes", "settings", "name"),
    [
        ([Keyframe(1), Keyframe(9)], {"exposure": 0}, "exposure"),
        ([Keyframe(1), Keyframe(9)], {"exposure": -2}, "exposure"),
        ([Keyframe(1), Keyframe(9)], {"count": -1}, "in-betweens"),
        ([Keyframe(1, hold=0), Keyframe(9)], {}, "hold"),
        ([Keyframe(1, exposure=0), Keyframe(9)], {}, "exposure"),
        ([Keyframe(1), Keyframe(9, hold=-1)], {}, "hold"),
        ([Keyframe(1), Keyframe(9, exposure=-1)], {}, "exposure"),
        ([Keyframe(1, hold=3, drift=-0.1), Keyframe(9)], {}, "moving hold"),
        ([Keyframe(1, hold=3, drift=0.6), Keyframe(9)], {}, "moving hold"),
        ([Keyframe(1, hold=3, drift=float("nan")), Keyframe(9)], {}, "moving hold"),
    ],
)
def test_values_out_of_range_are_refused_by_name(
    keyframes: list[Keyframe], settings: dict[str, int], name: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        plan(keyframes, **settings)
    assert caught.value.values["name"] == name


def test_two_keyframes_and_five_in_betweens_give_seven_cels() -> None:
    made = plan(spaced(2, in_betweens=5))
    assert (len(made.cels), len(made.drawings)) == (7, 5)
    assert (made.first_frame, made.last_frame) == (1, 7)


@given(st.integers(2, 6), st.integers(1, 20), st.integers(1, 5), st.integers(-50, 50))
def test_spaced_keyframes_have_exactly_the_drawings_asked_for(
    number: int, in_betweens: int, exposure: int, first: int
) -> None:
    keyframes = spaced(number, in_betweens=in_betweens, exposure=exposure, first=first)
    made = plan(keyframes, exposure=exposure)
    assert made.first_frame == first
    assert [len(p) for p in made.positions(number - 1)] == [in_betweens] * (number - 1)
    assert all(shown(made).split().count(str(i)) == exposure for i in range(len(made.drawings)))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"in_betweens": 0}, "in-betweens"),
        ({"in_betweens": -3}, "in-betweens"),
        ({"in_betweens": 5, "exposure": 0}, "exposure"),
    ],
)
def test_spaced_refuses_what_leaves_nothing_to_draw(settings: dict[str, int], name: str) -> None:
    with pytest.raises(BadSetting) as caught:
        spaced(2, **settings)
    assert caught.value.values["name"] == name


@st.composite
def keyframe_lists(draw: st.DrawFn, easings: list[Easing]) -> list[Keyframe]:
    """2..5 keyframes in time order with room between them, any holds, easings and exposures."""
    frame, made = draw(st.integers(-100, 100)), []
    for _ in range(draw(st.integers(2, 5))):
        hold = draw(st.integers(1, 6))
        easing, exposure = draw(st.sampled_from(easings)), draw(st.none() | st.integers(1, 7))
        made.append(Keyframe(frame, hold, easing, exposure))
        frame += hold + draw(st.integers(1, 40))
    return made


counts = st.none() | st.integers(0, 50)
exposures = st.integers(1, 9)


@given(keyframe_lists(EVERY), exposures, counts)
def test_every_timeline_frame_shows_exactly_one_thing(
    keyframes: list[Keyframe], exposure: int, count: int | None
) -> None:
    made = plan(keyframes, exposure=exposure, count=count)
    assert made.first_frame == keyframes[0].frame
    assert made.last_frame == keyframes[-1].frame
    assert len(made.cels) == keyframes[-1].frame - keyframes[0].frame + 1
    assert all((cel.keyframe is None) != (cel.drawing is None) for cel in made.cels)


@given(keyframe_lists(EVERY), exposures, counts)
def test_every_keyframe_is_shown_on_its_own_frame_and_through_its_hold(
    keyframes: list[Keyframe], exposure: int, count: int | None
) -> None:
    made = plan(keyframes, exposure=exposure, count=count)
    for index, keyframe in enumerate(keyframes[:-1]):
        start = keyframe.frame - made.first_frame
        assert made.cels[start : start + keyframe.hold] == (Cel(keyframe=index),) * keyframe.hold
    assert made.cels[-1] == Cel(keyframe=len(keyframes) - 1)


@given(keyframe_lists(EVERY), exposures, counts)
def test_every_drawing_is_shown_in_its_segment_and_first_shown_in_order(
    keyframes: list[Keyframe], exposure: int, count: int | None
) -> None:
    made = plan(keyframes, exposure=exposure, count=count)
    first_shown = list(dict.fromkeys(cel.drawing for cel in made.cels if cel.drawing is not None))
    assert first_shown == list(range(len(made.drawings)))
    for segment in segments(keyframes, exposure=exposure):
        cels = made.cels[segment.start - made.first_frame : segment.end - made.first_frame]
        assert all(made.drawings[c.drawing].segment == segment.index for c in cels if c.drawing is not None)


@given(keyframe_lists(EVERY), exposures, counts)
def test_positions_flatten_to_the_drawings_in_order(
    keyframes: list[Keyframe], exposure: int, count: int | None
) -> None:
    made = plan(keyframes, exposure=exposure, count=count)
    by_segment = made.positions(len(keyframes) - 1)
    assert len(by_segment) == len(keyframes) - 1
    assert [position for segment in by_segment for position in segment] == positions(made)


@given(keyframe_lists(STEADY), exposures, counts)
def test_an_easing_that_never_goes_back_never_shows_an_earlier_drawing_again(
    keyframes: list[Keyframe], exposure: int, count: int | None
) -> None:
    made = plan(keyframes, exposure=exposure, count=count)
    order = [float(c.keyframe) if c.keyframe is not None else _place(made, c.drawing) for c in made.cels]
    assert order == sorted(order)


def _place(made: Plan, drawing: int | None) -> float:
    assert drawing is not None
    return made.drawings[drawing].segment + made.drawings[drawing].position


@given(keyframe_lists(STEADY), exposures, st.floats(0.001, MOST_DRIFT))
def test_a_moving_hold_goes_steadily_from_its_keyframe_to_its_drift(
    keyframes: list[Keyframe], exposure: int, drift: float
) -> None:
    moving = [replace(keyframe, drift=drift) for keyframe in keyframes]
    made = plan(moving, exposure=exposure)
    assert len(made.cels) == len(plan(keyframes, exposure=exposure).cels)
    for segment, left in zip(segments(moving, exposure=exposure), moving, strict=False):
        first = left.frame - made.first_frame
        held = [_within(made, segment.index, cel) for cel in made.cels[first : first + left.hold]]
        assert held[0] == 0.0
        assert held == sorted(held)
        assert held[-1] == pytest.approx(drift if left.hold > 1 else 0.0)
        # Each frame of the hold stands where an even drift would be, or up to an exposure behind it.
        step = drift / max(1, left.hold - 1)
        for frame, position in enumerate(held):
            assert -SAME_POSITION <= frame * step - position <= (segment.exposure - 1) * step + SAME_POSITION


def _within(made: Plan, segment: int, cel: Cel) -> float:
    """The position that a cel shows, counted in this segment."""
    if cel.keyframe is not None:
        return float(cel.keyframe - segment)
    assert cel.drawing is not None
    return made.drawings[cel.drawing].position


@given(keyframe_lists([LINEAR]), exposures)
def test_linear_drawings_are_shown_for_their_exposure_and_the_last_keyframe_once(
    keyframes: list[Keyframe], exposure: int
) -> None:
    made = plan(keyframes, exposure=exposure)
    assert made.cels.count(made.cels[-1]) == 1
    for segment in segments(keyframes, exposure=exposure):
        cels = made.cels[segment.start - made.first_frame : segment.end - made.first_frame]
        runs = [cels.count(cel) for cel in dict.fromkeys(cels)]
        assert all(run == segment.exposure for run in runs[:-1])
        assert runs[-1] <= segment.exposure
