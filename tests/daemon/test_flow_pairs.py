"""What the flow engine keeps and says of a pair of keyframes, and pairs that have nothing in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import dissolve, straight
from keytween.engines.flow import Flow, drawing, looks, pairs
from keytween.engines.flow.keeping import Kept, size_of
from keytween.engines.flow.likeness import Likeness
from keytween.engines.flow.looks import look
from keytween.images import Picture
from keytween_wire.messages import Colour, KeyframeImage, MorphRequest

SIZE = 96
POSITIONS = tuple(k / 12 for k in range(1, 12))


def request(*positions: Sequence[float]) -> MorphRequest:
    keyframes = tuple(KeyframeImage(str(i), ".png", 10 * i) for i in range(len(positions) + 1))
    return MorphRequest(keyframes, tuple(tuple(p) for p in positions), engine="flow")


def events(engine: Flow, asked: MorphRequest, *keyframes: Picture) -> list[Progress | Frame]:
    return list(engine.morph(asked, keyframes))


def frames(made: Sequence[Progress | Frame]) -> list[Frame]:
    return [e for e in made if isinstance(e, Frame)]


def matches(made: Sequence[Progress | Frame]) -> list[int]:
    return [e.step for e in made if isinstance(e, Progress) and e.phase == "matching"]


def notes(*keyframes: Picture) -> list[str]:
    """What is said of each drawing, two for each pair of keyframes."""
    made = frames(events(Flow(), request(*[(0.3, 0.6)] * (len(keyframes) - 1)), *keyframes))
    return [f.note for f in made]


# ---- drawings


def plain(value: int, channels: int = 3) -> Picture:
    return Picture(np.full((SIZE, SIZE, channels), value, np.uint8))


def noise(seed: int, channels: int = 3, size: tuple[int, int] = (SIZE, SIZE)) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8))


def photo(seed: int) -> Picture:
    """Soft and fine blots on each other, as in a photo that is out of focus."""
    generator = np.random.default_rng(seed)
    total = np.zeros((SIZE, SIZE, 3))
    for count in (3, 6, 12, 24, 48):
        blots = generator.standard_normal((count, count, 3)) / count**0.7
        total += cv2.resize(blots, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    low, high = total.min(), total.max()
    return Picture(np.round((total - low) / (high - low) * 255).astype(np.uint8))


def strokes(seed: int) -> Picture:
    """Lines, one pixel wide, on white."""
    generator = np.random.default_rng(seed)
    sheet = np.full((SIZE, SIZE, 3), 255, np.uint8)
    for _ in range(7):
        x, y, to_x, to_y = (int(v) for v in generator.integers(4, SIZE - 4, 4))
        cv2.line(sheet, (x, y), (to_x, to_y), (0, 0, 0), 1)
    return Picture(sheet)


def blocks(seed: int, x: int = 0) -> Picture:
    """Flat shapes with outlines; `x` moves them."""
    generator = np.random.default_rng(seed)
    sheet = np.full((SIZE, SIZE, 3), 240, np.uint8)
    for turn in range(4):
        colour = tuple(int(v) for v in generator.integers(0, 256, 3))
        left, top = (int(v) for v in generator.integers(18, SIZE - 18, 2))
        wide, tall = (int(v) for v in generator.integers(7, 16, 2))
        for shade, how in ((colour, -1), ((20, 20, 20), 1)):
            if turn % 2:
                cv2.circle(sheet, (left + x, top), wide, shade, how)
            else:
                cv2.rectangle(sheet, (left - wide + x, top - tall), (left + wide + x, top + tall), shade, how)
    return Picture(sheet)


def cut_out(seed: int, x: int = 0) -> Picture:
    """The shapes on nothing."""
    drawn = blocks(seed, x).pixels
    matte = np.where((drawn != 240).any(2, keepdims=True), np.uint8(255), np.uint8(0))
    return Picture(np.concatenate([drawn, matte], axis=2))


UNLIKE: dict[str, Callable[[], tuple[Picture, Picture]]] = {
    "two drawings": lambda: (blocks(1), blocks(2)),
    "two cut-outs": lambda: (cut_out(3), cut_out(4)),
    "noise": lambda: (noise(1), noise(2)),
    "noise with a matte": lambda: (noise(1, 4), noise(2, 4)),
    "photos": lambda: (photo(1), photo(2)),
    "a photo and a drawing": lambda: (photo(3), blocks(1)),
    "noise and a drawing": lambda: (blocks(5), noise(3)),
    "lines": lambda: (strokes(1), strokes(2)),
    "lines and a drawing": lambda: (strokes(3), blocks(6)),
    "a negative": lambda: (blocks(1), Picture(255 - np.asarray(blocks(1).pixels, np.uint8))),
    "black": lambda: (blocks(1), plain(0)),
    "white": lambda: (plain(255), blocks(2)),
    "lines and paper": lambda: (strokes(4), plain(255)),
    "black and white": lambda: (plain(0), plain(255)),
    "nothing": lambda: (cut_out(1), plain(0, 4)),
    "nothing at first": lambda: (plain(0, 4), cut_out(2)),
    "nothing twice": lambda: (plain(0, 4), Picture(np.dstack([noise(1).pixels, plain(0, 1).pixels]))),
}


def over_grey(picture: Picture) -> NDArray[np.float64]:
    pixels = picture.pixels.astype(np.float64)
    if not picture.has_matte:
        return pixels
    matte = pixels[..., 3:] / 255
    return pixels[..., :3] * matte + 127.5 * (1 - matte)


@cache
def tweened(name: str) -> list[Frame]:
    return frames(events(Flow(), request(POSITIONS), *UNLIKE[name]()))


@pytest.mark.parametrize("name", UNLIKE)
def test_what_has_nothing_in_common_fades_without_a_tear_or_a_flicker(name: str) -> None:
    first, second = UNLIKE[name]()
    made = tweened(name)
    faded = [dissolve(first, second, p) for p in POSITIONS]
    off = [np.abs(over_grey(m.picture) - over_grey(f)) for m, f in zip(made, faded, strict=True)]
    assert max(float(o.mean()) for o in off) < 0.5
    assert max(float(o.max()) for o in off) < 16
    film = np.stack([over_grey(p) for p in (first, *(m.picture for m in made), second)])
    usual = np.stack([over_grey(p) for p in (first, *faded, second)])
    jolts, fair = (np.abs(f[2:] - 2 * f[1:-1] + f[:-2]).mean((1, 2, 3)).max() for f in (film, usual))
    assert jolts < fair + 0.25


@pytest.mark.parametrize("name", UNLIKE)
def test_the_note_says_why_unlike_keyframes_fade(name: str) -> None:
    said, *more = (frame.note for frame in tweened(name))
    assert "fade" in said
    assert "found again" not in said
    assert set(more) == {""}


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (11, 11), (40, 7)])
def test_tiny_keyframes_fade_and_the_note_says_so(size: tuple[int, int]) -> None:
    first, second = noise(1, 3, size), noise(2, 3, size)
    (made,) = frames(events(Flow(), request((0.5,)), first, second))
    assert np.array_equal(made.picture.pixels, dissolve(first, second, 0.5).pixels)
    assert "so they fade" in made.note or "nothing that could move" in made.note


# ---- what is said


def test_a_drawing_that_moves_was_found_again() -> None:
    said = notes(blocks(1), blocks(1, x=9))[0]
    assert said.startswith("Between keyframes 1 and 2, ")
    assert int(said.split(", ")[1].split(" %")[0]) >= 85


def test_a_drawing_with_half_of_it_replaced_was_found_again_in_part() -> None:
    first, second = blocks(1), Picture(blocks(1, x=4).pixels.copy())
    second.pixels[SIZE // 2 :] = noise(7).pixels[SIZE // 2 :]
    share = int(notes(first, second)[0].split(", ")[1].split(" %")[0])
    assert 5 <= share <= 65


def test_each_pair_is_spoken_of_once_by_its_keyframes_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "match", lambda first, second, quick: None)
    said = notes(blocks(1), Picture(blocks(1).pixels.copy()), plain(0), blocks(2), noise(4))
    assert said[::2] == [
        "Keyframes 1 and 2 are the same.",
        "Keyframe 3 is one plain colour, so keyframe 2 fades out.",
        "Keyframe 3 is one plain colour, so keyframe 4 fades in.",
        "Keyframes 4 and 5 have too little in common, so they fade.",
    ]
    assert said[1::2] == [""] * 4


def test_a_clear_keyframe_is_called_empty() -> None:
    assert notes(cut_out(1), plain(0, 4))[0] == "Keyframe 2 is empty, so keyframe 1 fades out."


def test_little_found_again_is_said_to_fade_for_the_rest() -> None:
    assert Likeness(0.3).note(4) == (
        "Between keyframes 4 and 5, 30 % of the drawing was found again; the rest fades."
    )
    assert Likeness(0.934).note(1) == "Between keyframes 1 and 2, 93 % of the drawing was found again."


def test_only_the_first_drawing_that_was_missing_has_the_note() -> None:
    asked = request((0.2, 0.4, 0.6))
    made = frames(list(Flow().morph(asked, [plain(0), plain(255)], skip=frozenset({0}))))
    assert [bool(f.note) for f in made] == [True, False]


# ---- what is remembered


def test_a_pair_met_before_is_not_matched_again() -> None:
    engine = Flow()
    before = events(engine, request((0.5,)), blocks(1), blocks(1, x=9))
    again = events(engine, request((0.25, 0.5)), blocks(1), blocks(1, x=9))
    assert matches(before) == [1]
    assert matches(again) == []
    assert np.array_equal(frames(again)[1].picture.pixels, frames(before)[0].picture.pixels)
    assert frames(again)[0].note == frames(before)[0].note


@pytest.mark.parametrize("what", ["a pixel", "the colour space", "the order", "the depth"])
def test_a_pair_that_differs_is_matched_anew(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(pairs, "match", lambda first, second, quick: None)
    engine = Flow()
    first, second = blocks(1), blocks(1, x=9)
    events(engine, request((0.5,)), first, second)
    changed = Picture(second.pixels.copy())
    changed.pixels[0, 0, 0] ^= 1  # pyright: ignore
    other = {
        "a pixel": (first, changed),
        "the colour space": (first, replace(second, colour=Colour.SCENE_LINEAR)),
        "the order": (second, first),
        "the depth": (first, Picture(second.pixels.astype(np.uint16) * np.uint16(257))),
    }
    assert matches(events(engine, request((0.5,)), *other[what])) == [1]


def test_an_arc_timed_anew_is_not_matched_again() -> None:
    engine = Flow()
    keyframes = [blocks(1), blocks(1, x=6), blocks(1, x=9)]
    asked = replace(request((0.5,), (0.5,)), path="arc")
    images = [replace(k, frame=f) for k, f in zip(asked.keyframes, (0, 10, 40), strict=True)]
    assert matches(events(engine, asked, *keyframes)) == [1, 2]
    evenly = frames(events(engine, asked, *keyframes))
    unevenly = events(engine, replace(asked, keyframes=tuple(images)), *keyframes)
    assert matches(unevenly) == []
    assert not np.array_equal(evenly[0].picture.pixels, frames(unevenly)[0].picture.pixels)


def test_a_drawing_is_the_same_after_other_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "match", lambda first, second, quick: None)
    engine = Flow()
    events(engine, request((0.5,)), blocks(1), blocks(2))
    for seed in range(3, 8):
        assert matches(events(engine, request((0.5,)), blocks(seed), blocks(seed + 1))) == [1]
    # By now the first pair is forgotten: only a few are kept.
    assert matches(events(engine, request((0.5,)), blocks(1), blocks(2))) == [1]
    assert matches(events(engine, request((0.5,)), blocks(7), blocks(8))) == []


def test_what_was_used_least_lately_is_forgotten_first() -> None:
    kept = Kept(most=2)
    for key in "ab":
        kept.put(key, key)
    assert kept.get("a") == "a"
    kept.put("c", "c")
    assert [kept.get(key) for key in "abc"] == ["a", None, "c"]


def test_what_takes_too_much_memory_is_not_kept() -> None:
    kept = Kept(size=1000)
    kept.put("small", np.zeros(600, np.uint8))
    kept.put("other", np.zeros(600, np.uint8))
    assert kept.get("small") is None
    assert kept.get("other") is not None
    kept.put("large", np.zeros(1001, np.uint8))
    assert kept.get("large") is None


def test_an_array_counts_once_however_often_it_is_held() -> None:
    array = np.zeros((10, 10), np.float32)
    assert size_of([array, (array[2:], {"not": "looked into"}), Likeness()]) == 400


# ---- bands


def test_large_keyframes_are_seen_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Picture(blocks(1).pixels.repeat(3, axis=0).repeat(14, axis=1))
    whole = look(wide)
    assert whole.shape == (219, 1024, 4)
    monkeypatch.setattr(looks, "BAND", 5000)
    assert np.allclose(look(wide), whole, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_drawing_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    make = blocks if channels == 3 else cut_out
    first, second = make(1), make(1, x=9)
    (whole,) = frames(events(Flow(), request((0.4,)), first, second))
    monkeypatch.setattr(drawing, "BAND", 700)
    (bands,) = frames(events(Flow(), request((0.4,)), first, second))
    assert np.array_equal(bands.picture.pixels, whole.picture.pixels)


def test_a_clear_pixel_becomes_black_and_others_keep_their_colour() -> None:
    pixels: Any = np.array([[[0.2, 0.1, 0.05, 0.5], [0, 0, 0, 0], [0.3, 0.2, 0.1, 1]]], np.float32)
    expected = [[[0.4, 0.2, 0.1, 0.5], [0, 0, 0, 0], [0.3, 0.2, 0.1, 1]]]
    assert straight(pixels) == pytest.approx(np.array(expected), abs=1e-6)
