"""The cross-fade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import Dissolve, dissolve
from keytween.images import Picture
from keytween_wire.messages import KeyframeImage, MorphRequest


def flat(*colour: float, dtype: Any = np.uint8) -> Picture:
    return Picture(np.broadcast_to(np.array(colour, dtype), (4, 6, len(colour))).copy())


def request(*positions: Sequence[float]) -> MorphRequest:
    keyframes = tuple(KeyframeImage(str(i), ".png") for i in range(len(positions) + 1))
    return MorphRequest(keyframes, tuple(tuple(p) for p in positions), engine="dissolve")


def colour_of(picture: Picture) -> NDArray[Any]:
    return picture.pixels[0, 0]


def test_halfway_is_the_mean_of_both_keyframes() -> None:
    assert colour_of(dissolve(flat(0, 100, 200), flat(100, 100, 100), 0.5)).tolist() == [50, 100, 150]


def test_the_ends_are_the_keyframes_themselves() -> None:
    first, second = flat(1, 2, 3), flat(4, 5, 6)
    assert dissolve(first, second, 0) is first
    assert dissolve(first, second, 1) is second


def test_positions_beyond_the_ends_show_the_keyframe() -> None:
    first, second = flat(1, 2, 3), flat(4, 5, 6)
    assert dissolve(first, second, -0.2) is first
    assert dissolve(first, second, 1.3) is second


def test_a_clear_keyframe_brings_no_colour_in() -> None:
    mixed = dissolve(flat(200, 100, 50, 255), flat(0, 0, 0, 0), 0.5)
    assert colour_of(mixed).tolist() == [200, 100, 50, 128]


def test_a_keyframe_without_matte_counts_as_opaque() -> None:
    mixed = dissolve(flat(200, 100, 50), flat(200, 100, 50, 0), 0.25)
    assert colour_of(mixed).tolist() == [200, 100, 50, 191]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_the_depth_of_the_keyframes_is_kept(dtype: Any) -> None:
    mixed = dissolve(flat(0, 1, 0, dtype=dtype), flat(1, 0, 0, dtype=dtype), 0.25)
    assert mixed.pixels.dtype == dtype


def test_sixteen_bits_are_not_rounded_to_eight() -> None:
    mixed = dissolve(flat(1000, 0, 0, dtype=np.uint16), flat(1001, 0, 0, dtype=np.uint16), 0.75)
    assert colour_of(mixed)[0] == 1001


def test_light_brighter_than_white_stays() -> None:
    mixed = dissolve(flat(8, 0, 0, dtype=np.float32), flat(4, 0, 0, dtype=np.float32), 0.5)
    assert colour_of(mixed)[0] == 6


def test_drawings_count_through_all_segments_and_skipped_ones_are_left_out() -> None:
    keyframes = [flat(0, 0, 0), flat(100, 100, 100), flat(200, 200, 200)]
    events = list(Dissolve().morph(request((0.25, 0.75), (0.5,)), keyframes, skip=frozenset({1})))
    assert [e.index for e in events if isinstance(e, Frame)] == [0, 2]
    assert [(e.step, e.steps) for e in events if isinstance(e, Progress)] == [(1, 3), (3, 3)]
    assert [int(colour_of(e.picture)[0]) for e in events if isinstance(e, Frame)] == [25, 150]
