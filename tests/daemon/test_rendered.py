"""The bench's Blender-rendered scenes are there, whole, small and in motion."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keytween import bench, images

FOLDER = Path(bench.__file__).parent / "rendered"
SCENES = {"head": 3, "walk": 3, "ball": 4}
"""The scenes, and how many channels each has: the ball has a matte."""
FRAMES = 9
LARGEST = 1_200_000


def frames(scene: str) -> list[NDArray[np.generic]]:
    """A scene's pictures in their order."""
    return [images.read(path).pixels for path in sorted((FOLDER / scene).glob("*.png"))]


def distance(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """How far two pictures are apart: the mean absolute difference, in levels of 255."""
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


def test_the_scenes_are_those_that_are_known() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCENES)


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_nine_numbered_frames_of_one_size(scene: str) -> None:
    names = [path.name for path in sorted((FOLDER / scene).iterdir())]
    assert names == [f"{number:04d}.png" for number in range(FRAMES)]
    assert {(picture.shape, picture.dtype.name) for picture in frames(scene)} == {
        ((320, 320, SCENES[scene]), "uint8")
    }


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_moves_with_every_frame_and_ends_far_from_where_it_began(scene: str) -> None:
    pictures = frames(scene)
    steps = [distance(*pair) for pair in itertools.pairwise(pictures)]
    assert min(steps) > 0.5
    assert max(steps) < 3 * min(steps)
    assert distance(pictures[0], pictures[-1]) > 1.5 * max(steps)


def test_the_ball_has_clear_half_clear_and_full_places() -> None:
    for picture in frames("ball"):
        matte = picture[..., 3].astype(int)
        assert (matte == 0).mean() > 0.5
        assert ((matte > 90) & (matte < 115)).any()
        assert (matte == 255).mean() > 0.05


def test_all_scenes_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.png")) < LARGEST
