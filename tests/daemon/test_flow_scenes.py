"""Flow on scenes whose in-betweens are known: far moves, turns, growth, limbs, cameras."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from keytween.bench.measures import Seen, psnr
from keytween.bench.scenes import Scene, scenes
from keytween.engines.base import Frame
from keytween.engines.dissolve import dissolve
from keytween.engines.flow import Flow
from keytween.engines.flow.bending import bend
from keytween.engines.flow.layers import STILL, backwards, find_layers, in_parts, in_pixels
from keytween.engines.flow.posing import Poses
from keytween.images import Picture
from keytween_wire.messages import KeyframeImage, MorphRequest

SIZE = 256
MARGINS = {
    "shift-quarter": 12,
    "turn-60": 8,
    "turn-60-textured": 8,
    "scale-1.5": 2.5,
    "sprite-turn": 10,
    "noise-sheet": 12,
    "pan": 10,
    "lines-turn": 8,
    "squash-ball": 2.5,
    "arm-swing": -0.2,
    "face-turn": -0.2,
    "walk": 1.5,
}
"""How many decibels closer to the truth than a cross-fade the middle must be; about half of what was
measured at 384 pixels, where the limbs gain two to four."""


@cache
def scene(name: str) -> Scene:
    return next(s for s in scenes(SIZE) if s.name == name)


def middle(first: Picture, second: Picture) -> Picture:
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    request = MorphRequest(ends, ((0.5,),), engine="flow")
    (made,) = (e.picture for e in Flow().morph(request, [first, second]) if isinstance(e, Frame))
    return made


def near(picture: Picture, truth: Picture) -> float:
    """In decibels."""
    return psnr(Seen.of(picture), Seen.of(truth))


@pytest.mark.parametrize("name", MARGINS)
def test_the_middle_is_closer_to_the_truth_than_a_cross_fade(name: str) -> None:
    first, truth, second = (scene(name).draw(p) for p in (0.0, 0.5, 1.0))
    gain = near(middle(first, second), truth) - near(dissolve(first, second, 0.5), truth)
    assert gain > MARGINS[name]


def test_a_turned_shape_is_found_with_its_turn_and_lies_in_front_of_the_ground() -> None:
    yy, xx = np.mgrid[:120, :160].astype(np.float32)

    def picture(turn: float) -> np.ndarray:
        angle = np.radians(turn)
        x, y = xx - 80, yy - 60
        u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
        inside = (np.abs(u) < 40) & (np.abs(v) < 14)
        out = np.full((120, 160, 4), 0.9, np.float32)
        out[inside] = (0.8, 0.2, 0.1, 1)
        out[inside & (u > 20)] = (0.1, 0.3, 0.8, 1)
        return out

    pair = picture(0), picture(50)
    none = np.zeros((120, 160, 2), np.float32)
    angle = np.radians(50)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    middle_of = np.float32([80, 60])
    model = np.concatenate([linear, (middle_of - linear @ middle_of)[:, None]], axis=1)
    colours = np.float32([(0.9, 0.9, 0.9, 0.9), (0.8, 0.2, 0.1, 1), (0.1, 0.3, 0.8, 1)])
    layers = find_layers(pair, (none, none), [in_parts(model, 160)], colours)
    assert len(layers.models) == 2
    turned = layers.labels[0] == STILL + 1
    assert turned[60, 50]
    assert turned[60, 110]
    assert not turned[10, 10]
    assert layers.front[STILL + 1] > layers.front[STILL]
    halfway = Poses(layers).to_side(0.5)[STILL][0]
    assert np.degrees(np.arctan2(halfway[1, 0], halfway[0, 0])) == pytest.approx(-25, abs=2)
    assert np.linalg.det(halfway[:, :2]) == pytest.approx(1, abs=0.03)


def test_motions_in_parts_and_pixels_and_back_are_the_same() -> None:
    model = np.float32([[0.9, -0.3, 12], [0.3, 0.9, -5]])
    assert np.allclose(in_pixels(in_parts(model, 200), 200), model, atol=1e-4)
    again = backwards(backwards(model))
    assert np.allclose(again, model, atol=1e-4)


def test_what_turns_keeps_its_size_halfway() -> None:
    yy, xx = np.mgrid[:64, :64].astype(np.float32)
    x, y = xx - 30, yy - 36
    inside = np.hypot(x, y) < 18
    angle = np.radians(60)
    turned = np.stack(
        [np.cos(angle) * x - np.sin(angle) * y - x, np.sin(angle) * x + np.cos(angle) * y - y], 2
    )
    motion = np.where(inside[..., None], turned, 0).astype(np.float32)
    found = bend(motion, np.ones((64, 64), np.float32), np.stack([inside, ~inside], 2).astype(np.float32))
    way = 0.5 * motion + found.at(0.5)
    reach = np.hypot(x + way[..., 0], y + way[..., 1])
    assert np.abs(reach - np.hypot(x, y))[inside].max() < 0.3
    assert np.abs(np.hypot(x + motion[..., 0] / 2, y + motion[..., 1] / 2) - np.hypot(x, y))[inside].max() > 2
    assert np.abs(way[~inside]).max() < 0.1
