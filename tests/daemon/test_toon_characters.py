"""Toons: drawn from named numbers, alike for a seed, with a truth between two poses."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from keytween.toon import casting
from keytween.toon.characters import (
    BACKDROPS,
    KINDS,
    LOOKS_RANGES,
    PATTERNS,
    POSE_RANGES,
    STRANGE_KINDS,
    STYLES,
    Pose,
    Toon,
    between,
)
from keytween.toon.painting import draw

SIDE = 64
SEEDS = range(40)


def flat(values: object) -> list[float]:
    """Every number of looks or a pose, colours one by one."""
    found: list[float] = []
    for value in values if isinstance(values, tuple) else astuple(values):  # pyright: ignore[reportArgumentType]
        found += flat(value) if isinstance(value, tuple) else [value]
    return found


def one_of_each() -> list[Toon]:
    """A toon of every kind in every style."""
    toon = casting.held_out_toon(0)
    known = [replace(toon, kind=kind, style=style) for kind in KINDS for style in STYLES.get(kind, PATTERNS)]
    return known + [replace(toon, kind=kind, style="plain") for kind in STRANGE_KINDS]


def test_a_seed_gives_the_same_drawing_again() -> None:
    for seed in range(8):
        assert casting.training_toon(seed) == casting.training_toon(seed)
        first, again = (draw(casting.held_out_toon(seed), SIDE) for _ in range(2))
        assert np.array_equal(first, again)


def test_held_out_toons_and_pairs_are_none_of_the_training_set() -> None:
    trained = {casting.training_toon(number) for number in range(2000)}
    apart = {casting.held_out_toon(number) for number in range(500)}
    for seed in range(100):
        apart |= {*casting.animation_pair(seed), *casting.metamorphosis_pair(seed)}
    assert not trained & apart


def test_every_kind_style_and_backdrop_comes_up() -> None:
    toons = [casting.training_toon(number) for number in range(1500)]
    expected = {(kind, style) for kind in KINDS for style in STYLES.get(kind, PATTERNS)}
    assert {(toon.kind, toon.style) for toon in toons} == expected
    assert {toon.backdrop for toon in toons} == set(BACKDROPS)


def test_every_number_is_in_its_range() -> None:
    for number in range(500):
        toon = casting.training_toon(number)
        for part, ranges in ((toon.looks, LOOKS_RANGES), (toon.pose, POSE_RANGES)):
            for name, (low, high) in ranges.items():
                assert low <= getattr(part, name) <= high, name
        assert all(0 <= value <= 1 for value in flat(toon.looks)[:18])


def test_a_pose_has_a_range_for_each_of_its_numbers() -> None:
    assert {field.name for field in fields(Pose)} == set(POSE_RANGES)


def test_the_in_betweens_at_the_ends_are_the_ends() -> None:
    for seed in SEEDS:
        first, second = casting.animation_pair(seed)
        assert (between(first, second, 0), between(first, second, 1)) == (first, second)


def test_every_number_lies_in_proportion_between_the_ends() -> None:
    first, second = casting.animation_pair(5)
    pose = between(first, second, 0.25).pose
    expected = 0.75 * np.array(flat(first.pose)) + 0.25 * np.array(flat(second.pose))
    assert flat(pose) == pytest.approx(expected.tolist())


def test_an_animation_pair_is_one_character_that_moves_moderately() -> None:
    for seed in SEEDS:
        first, second = casting.animation_pair(seed)
        assert replace(first, pose=second.pose) == second
        assert first.pose != second.pose
        assert abs(first.pose.x - second.pose.x) < 0.2
        assert abs(first.pose.tilt - second.pose.tilt) < 30


def test_a_metamorphosis_pair_is_two_characters_in_front_of_one_backdrop() -> None:
    for seed in SEEDS:
        first, second = casting.metamorphosis_pair(seed)
        assert (first.kind, first.style) != (second.kind, second.style)
        assert first.backdrop == second.backdrop
        assert first.looks.paper == second.looks.paper


def test_a_stranger_pair_is_one_character_in_a_style_that_training_never_drew() -> None:
    darkest = min(sum(casting.training_toon(number).looks.paper) for number in range(500))
    for seed in SEEDS:
        first, second = casting.stranger_pair(seed)
        assert replace(first, pose=second.pose) == second
        assert first.pose != second.pose
        at_night = first.looks.line == 0 and sum(first.looks.paper) < darkest
        assert at_night or (first.kind in STRANGE_KINDS and first.kind not in KINDS)


def test_nothing_is_said_to_be_known_between_two_characters() -> None:
    first, second = casting.metamorphosis_pair(0)
    with pytest.raises(ValueError, match="nothing is known between"):
        between(first, second, 0.5)


@pytest.mark.parametrize("toon", one_of_each(), ids=lambda toon: f"{toon.style} {toon.kind}")
def test_every_toon_shows_something_before_its_backdrop(toon: Toon) -> None:
    whole = draw(toon, SIDE)
    assert whole.shape == (SIDE, SIDE, 4)
    assert (whole.min(), whole.max()) >= (0, 0)
    assert whole.max() <= 1
    assert (whole[..., 3] == 1).all()
    matte = draw(toon, SIDE, backdrop=False)[..., 3]
    assert 0.04 < matte.mean() < 0.8
    # A matte has soft edges, and shows where the drawing differs from its backdrop.
    assert ((matte > 0) & (matte < 1)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pose_changes_the_drawing_and_a_small_change_changes_it_little(kind: str) -> None:
    toon = replace(casting.held_out_toon(3), kind=kind, style=STYLES.get(kind, PATTERNS)[0])
    near, far = (replace(toon, pose=replace(toon.pose, x=toon.pose.x + step)) for step in (0.002, 0.1))
    moved = [float(np.abs(draw(other, SIDE) - draw(toon, SIDE)).mean()) for other in (near, far)]
    assert 0 < moved[0] < 0.1 * moved[1]


def test_a_drawing_keeps_its_shapes_at_another_size() -> None:
    toon = casting.held_out_toon(2)
    large = draw(toon, 2 * SIDE).reshape(SIDE, 2, SIDE, 2, 4).mean((1, 3))
    assert float(np.abs(large - draw(toon, SIDE)).mean()) < 0.02


def test_captions_use_known_words_alone() -> None:
    words = {word for number in range(500) for word in casting.caption(casting.training_toon(number)).split()}
    assert words <= {*casting.WORDS, *casting.COLOUR_NAMES}
