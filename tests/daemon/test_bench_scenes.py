# SPDX-License-Identifier: Apache-2.0
"""The scenes that engines are measured against."""

from __future__ import annotations

import numpy as np
import pytest

from keytween.bench.scenes import GROUPS, Scene, scenes
from keytween.bench.textures import noise
from keytween.images import Picture, as_float
from keytween.toon.canvas import Place

SMALL = 96
SCENES = {scene.name: scene for scene in scenes(SMALL)}


def far(first: Picture, second: Picture) -> float:
    """The mean difference of two pictures."""
    return float(np.abs(as_float(first) - as_float(second)).mean())


def test_scene_names_are_unique_and_their_groups_known() -> None:
    assert len(SCENES) == len(scenes(SMALL)) >= 20
    assert {scene.group for scene in SCENES.values()} <= set(GROUPS)


def test_flat_and_textured_scenes_come_in_pairs_with_the_same_motion() -> None:
    twins = [name for name in SCENES if name.endswith("-textured")]
    assert len(twins) >= 4
    for name in twins:
        assert SCENES[name].textured
        assert not SCENES[name.removesuffix("-textured")].textured


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_a_scene_is_drawn_the_same_each_time(scene: Scene) -> None:
    again = {other.name: other for other in scenes(SMALL)}[scene.name]
    assert np.array_equal(scene.draw(0.3).pixels, again.draw(0.3).pixels)


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_a_scene_has_eight_bits_at_the_size_asked_for(scene: Scene) -> None:
    drawn = scene.draw(0.5)
    assert drawn.pixels.dtype == np.uint8
    assert drawn.size == (SMALL, SMALL)
    assert drawn.has_matte == (scene.group == "matte")


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_keyframes_differ_and_the_middle_is_on_the_way(scene: Scene) -> None:
    first, middle, last = (scene.draw(position) for position in (0.0, 0.5, 1.0))
    assert far(first, last) > 0.004
    assert far(first, middle) > 0
    assert far(middle, last) > 0


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_a_small_step_changes_less_than_a_large_one(scene: Scene) -> None:
    still = scene.draw(0.5)
    assert far(still, scene.draw(0.52)) < far(still, scene.draw(0.75))


def test_noise_that_is_moved_by_whole_pixels_is_the_same_noise() -> None:
    still = noise(SMALL, Place(), 7)
    moved = noise(SMALL, Place(8 / SMALL, 5 / SMALL), 7)
    assert np.abs(moved[5:, 8:] - still[:-5, :-8]).max() < 1e-4
    assert np.abs(moved - still).mean() > 0.02


def test_a_place_takes_points_back_to_where_they_came_from() -> None:
    place = Place(3, -2, 37, 1.5, 0.5)
    points = np.array([(0.0, 0.0), (1.0, 2.0), (-4.0, 0.5)])
    assert np.allclose(place.back(place(points)), points)
    assert not np.allclose(place(points), points)
