"""Motion through three or more keyframes: straight from each to the next, or along an arc."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keytween.engines.base import Frame, Progress
from keytween.engines.flow import Flow, arcs, matching, pairs
from keytween.engines.flow.arcs import Arc, Leg
from keytween.engines.flow.layers import UNMOVED, Layers
from keytween.images import Picture
from keytween_wire.messages import KeyframeImage, MorphRequest

SIDE, RADIUS = 96, 30.0
TURNS = (0, 40, 80, 120)
QUARTERS = (0.25, 0.5, 0.75)


def ball(turn: float) -> Picture:
    """A ball on a circle, before a still, flat ground with a post."""
    y, x = np.mgrid[:SIDE, :SIDE]
    across, down = (SIDE / 2 + RADIUS * f(np.radians(turn)) for f in (np.cos, np.sin))
    pixels = np.full((SIDE, SIDE, 3), (190, 215, 240), np.float64)
    pixels[10:30, 10:16] = (60, 90, 60)
    for radius, aside, colour in ((10, 0, (220, 60, 40)), (4, 3, (250, 220, 60))):
        inside = np.clip(radius + 0.5 - np.hypot(x - across - aside, y - down - aside), 0, 1)[..., None]
        pixels = pixels * (1 - inside) + np.array(colour) * inside
    return Picture(np.round(pixels).astype(np.uint8))


def place(picture: Picture) -> NDArray[Any]:
    """Where the ball is, from the circle's middle."""
    pixels = picture.pixels.astype(np.float64)
    weight = np.clip(pixels[..., 0] - pixels[..., 2], 0, None)
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() - SIDE / 2


def request(frames: Sequence[int], positions: Sequence[Sequence[float]], path: str) -> MorphRequest:
    keyframes = tuple(KeyframeImage(str(i), ".png", frame) for i, frame in enumerate(frames))
    return MorphRequest(keyframes, tuple(tuple(p) for p in positions), engine="flow", path=path)


def drawn(turns: Sequence[float], path: str, *positions: float, frames: Sequence[int] = ()) -> list[Picture]:
    keyframes = [ball(turn) for turn in turns]
    asked = request(frames or range(len(turns)), [positions] * (len(turns) - 1), path)
    return [e.picture for e in Flow().morph(asked, keyframes) if isinstance(e, Frame)]


@pytest.fixture(autouse=True)
def matched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few pairs are asked for again and again."""
    monkeypatch.setattr(
        pairs, "match", lambda first, second, quick: _match(first.tobytes(), second.tobytes())
    )


@cache
def _match(first: bytes, second: bytes) -> matching.Motion | None:
    pair = [np.frombuffer(p, np.float32).reshape(SIDE, SIDE, 4) for p in (first, second)]
    return matching.match(pair[0], pair[1])


def test_an_arc_keeps_to_the_circle_that_its_keyframes_lie_on() -> None:
    off = {
        path: [abs(float(np.hypot(*place(p))) - RADIUS) for p in drawn(TURNS, path, 0.5)]
        for path in ("straight", "arc")
    }
    assert min(off["straight"]) > 1.5
    assert max(off["arc"]) < 0.5


def test_the_keyframes_stay_as_they_are() -> None:
    made = drawn(TURNS, "arc", 0.0, 1.0)
    for index, picture in enumerate(made):
        assert np.array_equal(picture.pixels, ball(TURNS[(index + 1) // 2]).pixels)


def test_between_two_keyframes_an_arc_is_straight_to_the_bit() -> None:
    for arc, straight in zip(
        *(drawn(TURNS[:2], path, *QUARTERS) for path in ("arc", "straight")), strict=True
    ):
        assert np.array_equal(arc.pixels, straight.pixels)


def test_the_ground_stays_where_it_is() -> None:
    for picture in drawn(TURNS, "arc", *QUARTERS):
        assert np.array_equal(picture.pixels[5:35, 5:21], ball(0).pixels[5:35, 5:21])


def steps(pictures: Sequence[Picture]) -> NDArray[Any]:
    places = np.stack([place(p) for p in pictures])
    return np.diff(places, axis=0)


def test_the_ball_passes_a_keyframe_without_a_corner() -> None:
    near: dict[str, float] = {}
    for path in ("straight", "arc"):
        made = drawn(TURNS[:3], path, 0.9, 0.1)
        before, after = steps([made[0], ball(TURNS[1]), made[3]])
        near[path] = float(np.hypot(*(after - before)) / np.hypot(*before))
    assert near["straight"] > 0.5
    assert near["arc"] < 0.2


def test_keyframes_that_lie_unevenly_in_time_are_passed_at_one_speed() -> None:
    # 20 degrees in 4 frames, then 60 in 12; drawn one frame before the keyframe between, and one after.
    turns = (0, 20, 80)
    near: list[float] = []
    for frames in ((1, 5, 17), (1, 9, 17)):
        made = drawn(turns, "arc", 3 / 4, 1 / 12, frames=frames)
        before, after = steps([made[0], ball(20), made[3]])
        near.append(float(np.hypot(*(after - before)) / np.hypot(*before)))
    assert near[0] < 0.2
    assert near[1] > 0.4


def test_what_rests_in_one_segment_does_not_stir_before_it_leaves() -> None:
    made = drawn((0, 0, 40), "arc", *QUARTERS)
    for picture in made[:3]:
        assert np.array_equal(picture.pixels, ball(0).pixels)
    sizes = np.hypot(*steps([ball(0), *made[3:], ball(40)]).T)
    assert sizes[0] < sizes[-1]


# ---- what is matched when


def events(skip: frozenset[int], path: str = "arc") -> list[Progress | Frame]:
    keyframes = [ball(turn) for turn in TURNS]
    return list(Flow().morph(request(range(4), [(0.5,)] * 3, path), keyframes, skip=skip))


def matches(made: Sequence[Progress | Frame]) -> list[int]:
    return [e.step for e in made if isinstance(e, Progress) and e.phase == "matching"]


def test_every_pair_is_matched_once() -> None:
    assert matches(events(frozenset())) == [1, 2, 3]


def test_a_segment_with_nothing_to_draw_is_matched_only_for_its_neighbours() -> None:
    assert matches(events(frozenset({1, 2}))) == [1, 2]
    assert matches(events(frozenset({1, 2}), "straight")) == [1]


def test_a_skipped_segment_changes_no_drawing() -> None:
    whole = [e for e in events(frozenset()) if isinstance(e, Frame)]
    (alone,) = (e for e in events(frozenset({0, 2})) if isinstance(e, Frame))
    assert np.array_equal(alone.picture.pixels, whole[1].picture.pixels)


def test_closing_between_two_matches_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []
    monkeypatch.setattr(pairs, "match", lambda first, second, quick: made.append(None))
    keyframes = [ball(turn) for turn in TURNS]
    morph = Flow().morph(request(range(4), [(0.5,)] * 3, "arc"), keyframes)
    next(morph)
    next(morph)
    morph.close()  # pyright: ignore
    assert len(made) == 1


# ---- searched motion, by its numbers

STILL_LAYER = Layers(UNMOVED[None], (np.zeros((8, 8), np.uint8),) * 2, np.zeros(2, np.float32))


def leg(x: float, y: float, *, frames: float = 1.0, known: float = 1.0) -> Leg:
    """A segment in which all of a small picture moves alike."""
    there = np.full((8, 8, 2), (x, y), np.float32)
    flat = np.ones((8, 8, 1), np.float32)
    trust = np.full((8, 8), known, np.float32)
    return Leg((there, -there), (there, -there), (trust, trust), (flat, flat), frames)


def led(before: Leg | None, own: Leg, after: Leg | None) -> Arc:
    found = arcs.arc(before, own, after, STILL_LAYER)
    assert found is not None
    return found


def test_both_pictures_agree_where_the_arc_leads() -> None:
    found = led(leg(1, 3), leg(3, 1), leg(3, -1))
    for position in QUARTERS:
        first, second = found.bends[0].at(position), found.bends[1].at(1 - position)
        assert np.allclose(first, second, atol=1e-5)
        assert np.abs(first).max() > 0.1


def test_even_motion_is_straight_whatever_the_path() -> None:
    found = led(leg(2, 1, frames=2), leg(4, 2, frames=4), leg(1, 0.5))
    assert np.abs(found.bends[0].at(0.5)).max() < 1e-5


def test_what_cannot_be_followed_beyond_a_keyframe_goes_straight() -> None:
    found = led(leg(1, 3, known=0), leg(3, 1), leg(3, -1, known=0))
    assert not found.bends[0].at(0.3).any()


def test_a_sudden_start_never_steps_back() -> None:
    found = led(leg(0.01, 0), leg(6, 0), leg(40, 0))
    way = [p * 6 + float(found.bends[0].at(p)[4, 4, 0]) for p in np.linspace(0, 1, 21)]
    assert min(np.diff(way)) >= -1e-3


def test_durations_are_alike_where_frames_do_not_rise() -> None:
    assert arcs.durations((1, 5, 17)) == [4, 12]
    assert arcs.durations((0, 0, 0)) == [1, 1]
    assert arcs.durations((1, 9, 5)) == [1, 1]
