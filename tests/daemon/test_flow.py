"""The optical flow engine: it moves drawings, and fades what cannot be moved."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import dissolve
from keytween.engines.flow import Flow, pairs
from keytween.images import Picture
from keytween_wire.messages import Colour, KeyframeImage, MorphRequest

SCRIPT = Path(__file__).parents[2] / "packaging" / "draw_examples.py"
MARGIN = 10.0
"""In decibels; the worst of the motions below measures 15 better than the cross-fade, the best 25."""


@cache
def drawings() -> ModuleType:
    """The script that draws the examples: it knows the true drawing at any position."""
    spec = importlib.util.spec_from_file_location("draw_examples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["draw_examples"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def fox(**change: float) -> Picture:
    """A fox on nothing, 192 x 192; changed in place, turn or size."""
    leap = replace(drawings().LEAP[0], x=96 * 2, y=100 * 2, turn=0)
    large = np.asarray(drawings().fox(replace(leap, **change)), np.float32)
    matte = large[..., 3:] / 255
    small = (
        np.concatenate([large[..., :3] * matte, large[..., 3:]], 2).reshape(192, 2, 192, 2, 4).mean((1, 3))
    )
    small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-6)
    return Picture(np.round(small).astype(np.uint8))


def request(*positions: Sequence[float]) -> MorphRequest:
    keyframes = tuple(KeyframeImage(str(i), ".png") for i in range(len(positions) + 1))
    return MorphRequest(keyframes, tuple(tuple(p) for p in positions), engine="flow")


def drawn(first: Picture, second: Picture, *positions: float) -> list[Picture]:
    return [e.picture for e in Flow().morph(request(positions), [first, second]) if isinstance(e, Frame)]


def over_grey(picture: Picture) -> NDArray[Any]:
    pixels = picture.pixels.astype(np.float64) / 255
    return pixels[..., :3] * pixels[..., 3:] + 0.5 * (1 - pixels[..., 3:])


def psnr(picture: Picture, truth: Picture) -> float:
    return float(-10 * np.log10(np.square(over_grey(picture) - over_grey(truth)).mean()))


def of_dtype(picture: Picture, dtype: Any, colour: Colour = Colour.SRGB) -> Picture:
    scale = np.iinfo(dtype).max / 255 if np.dtype(dtype).kind == "u" else 1 / 255
    return Picture((picture.pixels * scale).astype(dtype), colour)


def noise(seed: int, *shape: int) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def centre(picture: Picture) -> float:
    """Where the drawing is, from left to right."""
    weight = picture.pixels[..., 3].astype(np.float64).sum(0)
    return float((weight * np.arange(len(weight))).sum() / weight.sum())


@pytest.mark.parametrize(
    ("change", "half"),
    [
        ({"x": 232.0, "y": 184.0}, {"x": 212.0, "y": 192.0}),
        ({"turn": 10.0}, {"turn": 5.0}),
        ({"wide": 1.2, "tall": 1.08}, {"wide": 1.13, "tall": 1.0}),
    ],
    ids=["translation", "rotation", "scale"],
)
def test_halfway_is_much_closer_to_the_truth_than_a_cross_fade(
    change: dict[str, float], half: dict[str, float]
) -> None:
    first, second, truth = fox(), fox(**change), fox(**half)
    (made,) = drawn(first, second, 0.5)
    assert psnr(made, truth) > psnr(dissolve(first, second, 0.5), truth) + MARGIN


def test_the_bundled_girl_moves_rather_than_fades() -> None:
    script = drawings()
    poses = script.WAVE[:2]
    first, second = (Picture(np.asarray(script.girl(pose))) for pose in poses)
    truth = np.asarray(script.girl(script.between(*poses, 0.5)), np.float64)
    (made,) = drawn(first, second, 0.5)
    errors = [np.square(p.pixels - truth).mean() for p in (made, dissolve(first, second, 0.5))]
    assert errors[0] * 6 < errors[1]


def test_positions_0_and_1_are_the_keyframes_to_the_bit() -> None:
    first, second = fox(), fox(x=220)
    made = drawn(first, second, 0.0, 0.5, 1.0)
    assert np.array_equal(made[0].pixels, first.pixels)
    assert np.array_equal(made[2].pixels, second.pixels)


def test_the_matte_leaves_no_fringe() -> None:
    red = np.zeros((96, 96, 4), np.uint8)
    yy, xx = np.mgrid[:96, :96]
    discs = []
    for x in (36, 50):
        edge = np.clip(20.5 - np.hypot(xx - x, yy - 48), 0, 1)
        disc = red.copy()
        disc[..., 3] = np.round(edge * 255)
        disc[edge > 0, 0] = 220
        discs.append(Picture(disc))
    (made,) = drawn(*discs, 0.5)
    edge = (made.pixels[..., 3] > 24) & (made.pixels[..., 3] < 240)
    assert edge.sum() > 20
    assert made.pixels[edge][:, 0].min() >= 216
    assert made.pixels[edge][:, 1:3].max() <= 4


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32])
def test_deeper_keyframes_give_the_same_drawing_with_more_steps(dtype: Any) -> None:
    first, second = fox(), fox(x=212)
    # At 0.45 the drawing lies between pixels: moved by whole ones it would have no new values.
    (plain,) = drawn(first, second, 0.45)
    (deep,) = drawn(of_dtype(first, dtype), of_dtype(second, dtype), 0.45)
    full = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    assert deep.pixels.dtype == dtype
    solid = (plain.pixels[..., 3] > 250)[..., None]
    off = np.where(solid, deep.pixels.astype(np.float64) / full - plain.pixels / 255, 0)
    assert np.abs(off).mean() < 0.004
    assert len(np.unique(deep.pixels[..., 0])) > 256


def test_scene_linear_light_beyond_white_moves_along() -> None:
    first, second = (of_dtype(p, np.float32, Colour.SCENE_LINEAR) for p in (fox(), fox(x=212)))
    for picture in (first, second):
        picture.pixels[..., :3] *= 6  # pyright: ignore
    (made,) = drawn(first, second, 0.5)
    assert 4 < made.pixels[..., 0].max() <= 6.001


def test_unlike_pictures_fade() -> None:
    script = drawings()
    girl = Picture(np.asarray(script.girl(script.WAVE[0]))[::2, ::2][:180, :180].copy())
    other = Picture(np.asarray(script.fox(script.LEAP[0]).convert("RGB"))[::2, ::2][:180, :180].copy())
    (made,) = drawn(girl, other, 0.5)
    faded = dissolve(girl, other, 0.5).pixels.astype(int)
    assert np.abs(made.pixels - faded).mean() < 3


def test_a_black_keyframe_fades() -> None:
    first = Picture(fox().pixels[..., :3].copy())
    black = Picture(np.zeros_like(first.pixels))
    (made,) = drawn(first, black, 0.5)
    assert np.abs(made.pixels - dissolve(first, black, 0.5).pixels.astype(int)).max() <= 2


def test_a_clear_keyframe_fades_without_changing_colour() -> None:
    clear = Picture(np.zeros_like(fox().pixels))
    (made,) = drawn(fox(), clear, 0.5)
    solid = fox().pixels[..., 3] == 255
    assert np.abs(made.pixels[solid][:, :3].astype(int) - fox().pixels[solid][:, :3]).mean() < 1


def test_identical_keyframes_stay_as_they_are() -> None:
    (made,) = drawn(fox(), Picture(fox().pixels.copy()), 0.4)
    assert np.array_equal(made.pixels[..., 3], fox().pixels[..., 3])


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 40), (13, 90), (37, 53), (12, 12)])
@pytest.mark.parametrize("channels", [3, 4])
def test_any_size_is_drawn(size: tuple[int, int], channels: int) -> None:
    made = drawn(noise(1, *size, channels), noise(2, *size, channels), -0.2, 0.5, 1.2)
    assert [p.pixels.shape for p in made] == [(*size, channels)] * 3


def test_only_one_keyframe_with_a_matte_gives_drawings_with_a_matte() -> None:
    first = Picture(fox().pixels[..., :3].copy())
    assert drawn(first, fox(x=200), 0.5)[0].has_matte


def test_overshoot_carries_the_motion_on() -> None:
    first, second = fox(), fox(x=212)
    step = centre(second) - centre(first)
    before, after = drawn(first, second, -0.3, 1.3)
    assert centre(before) == pytest.approx(centre(first) - 0.3 * step, abs=0.12 * step)
    assert centre(after) == pytest.approx(centre(second) + 0.3 * step, abs=0.12 * step)


def test_the_same_keyframes_give_the_same_drawing() -> None:
    first, second = fox(), fox(x=212)
    one, two = (drawn(first, second, 0.3)[0] for _ in range(2))
    assert np.array_equal(one.pixels, two.pixels)


def test_a_pair_is_matched_once_for_all_its_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_matches(monkeypatch)
    drawn(fox(), fox(x=212), 0.2, 0.4, 0.6, 0.8)
    assert len(calls) == 1


def test_skipped_drawings_are_not_made_and_a_skipped_segment_is_not_matched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = count_matches(monkeypatch)
    keyframes = [fox(), fox(x=212), fox(x=232)]
    events = list(Flow().morph(request((0.3, 0.6), (0.5, 0.7)), keyframes, skip=frozenset({0, 1, 3})))
    assert [e.index for e in events if isinstance(e, Frame)] == [2]
    assert len(calls) == 1


def test_progress_names_matching_then_drawing() -> None:
    events = list(Flow().morph(request((0.3, 0.6)), [fox(), fox(x=212)]))
    steps = [(e.phase, e.step, e.steps) for e in events if isinstance(e, Progress)]
    assert steps == [("matching", 1, 1), ("drawing", 1, 2), ("drawing", 2, 2)]


def test_closing_the_generator_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_matches(monkeypatch)
    morph = Flow().morph(request((0.3,), (0.5,)), [fox(), fox(x=212), fox(x=232)])
    while not isinstance(next(morph), Frame):
        pass
    morph.close()  # pyright: ignore
    assert next(morph, None) is None
    assert len(calls) == 1


def count_matches(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []

    def match(first: Any, second: Any, *, quick: bool) -> None:
        calls.append(None)

    monkeypatch.setattr(pairs, "match", match)
    return calls
