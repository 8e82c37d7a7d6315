# SPDX-License-Identifier: Apache-2.0
"""What the bench measures drawings by."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from keytween.bench.measures import (
    PSNR_LIMIT,
    QUALITY,
    Drawn,
    Seen,
    difference,
    edge_faults,
    flicker,
    psnr,
    quality,
    rms,
    ssim,
    unevenness,
)
from keytween.images import Picture

SIDE = 48


def plain(value: int, *, matte: int | None = None) -> Picture:
    """A picture of one grey."""
    channels = 3 if matte is None else 4
    pixels = np.full((SIDE, SIDE, channels), value, np.uint8)
    if matte is not None:
        pixels[..., 3] = matte
    return Picture(pixels)


def line(at: int, *, strength: float = 1.0) -> NDArray[np.uint8]:
    """A dark upright line on white, two pixels wide."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[:, at : at + 2] = round(255 * (1 - strength))
    return pixels


def seen(pixels: NDArray[np.uint8]) -> Seen:
    """A picture as it is compared."""
    return Seen.of(Picture(pixels))


def test_psnr_is_that_of_the_textbook() -> None:
    assert psnr(Seen.of(plain(100)), Seen.of(plain(110))) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


def test_pictures_that_are_the_same_count_as_the_limit() -> None:
    assert psnr(Seen.of(plain(3)), Seen.of(plain(3))) == PSNR_LIMIT
    assert ssim(seen(line(20)), seen(line(20))) == pytest.approx(1)
    assert edge_faults(seen(line(20)), seen(line(20))) == (0, 0)


def test_colours_under_a_clear_matte_do_not_count_and_the_matte_does() -> None:
    assert psnr(Seen.of(plain(0, matte=0)), Seen.of(plain(200, matte=0))) == PSNR_LIMIT
    grey = 127.5
    half = psnr(Seen.of(plain(128, matte=255)), Seen.of(plain(128, matte=0)))
    assert half == pytest.approx(-10 * np.log10((1 + 3 * ((128 - grey) / 255) ** 2) / 4), abs=1e-2)


def test_an_opaque_picture_is_the_same_with_and_without_its_matte() -> None:
    assert psnr(Seen.of(plain(90)), Seen.of(plain(90, matte=255))) == PSNR_LIMIT
    assert rms(Seen.of(plain(90)), Seen.of(plain(93))) == pytest.approx(3, abs=1e-3)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    first = random.random((64, 80), np.float32)
    second = np.clip(first + random.normal(0, 0.2, first.shape), 0, 1).astype(np.float32)
    theirs = metrics.structural_similarity(
        first, second, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    grey = [Seen(np.zeros(()), plane, None) for plane in (first, second)]  # type: ignore[arg-type]
    assert ssim(*grey) == pytest.approx(theirs, abs=1e-4)


def test_a_line_that_a_cross_fade_shows_twice_is_doubled_and_missing() -> None:
    fade = (line(10).astype(int) + line(30).astype(int)) // 2
    doubled, missing = edge_faults(seen(fade.astype(np.uint8)), seen(line(20)))
    assert doubled == pytest.approx(100, abs=2)
    assert missing == pytest.approx(100, abs=2)


def test_a_line_that_is_a_pixel_off_is_neither_doubled_nor_missing() -> None:
    assert edge_faults(seen(line(21)), seen(line(20))) == pytest.approx((0, 0), abs=1e-6)
    assert edge_faults(seen(line(26)), seen(line(20)))[0] > 50


def test_a_faint_line_is_missing_in_part_and_not_doubled() -> None:
    doubled, missing = edge_faults(seen(line(20, strength=0.5)), seen(line(20)))
    assert doubled == 0
    assert missing == pytest.approx(50, abs=2)


def test_an_even_pace_has_no_spread_whatever_the_truth_does() -> None:
    truth = [np.full((8, 8), v, np.float32) for v in (0, 0.1, 0.4, 0.5)]
    assert unevenness([plane / 2 for plane in truth], truth) == pytest.approx(0, abs=1e-5)
    jumping = [truth[0], truth[0], truth[3], truth[3]]
    assert unevenness(jumping, truth) == pytest.approx(
        np.std([0, 5 / 3, 0]) / np.mean([0, 5 / 3, 0]), rel=1e-4
    )
    assert unevenness(truth, truth[:1] * 4) is None


def test_a_value_that_goes_there_and_back_flickers_unless_the_truth_does() -> None:
    steady = [np.full((8, 8), v, np.float32) for v in (0.1, 0.2, 0.3)]
    jumpy = [steady[0], steady[1] + 0.5, steady[2]]
    assert flicker(steady, steady) == 0
    assert flicker(jumpy, steady) == pytest.approx(255 * 0.4, rel=1e-4)
    assert flicker(jumpy, jumpy) == 0
    assert flicker(steady[:2], steady[:2]) is None


def test_every_measure_is_there_and_those_that_cannot_be_taken_are_none() -> None:
    truth = {0.0: plain(0), 0.5: plain(50), 1.0: plain(100)}
    made = {0.5: plain(60), 0.001: plain(4)}
    found = quality(Drawn(made, truth, (0.5,)))
    assert set(found) == {measure.key for measure in QUALITY}
    assert found["lpips"] is None
    assert found["end"] == pytest.approx(4, abs=1e-3)
    assert found["psnr_mid"] == found["psnr"] == pytest.approx(20 * np.log10(25.5), abs=1e-3)


def test_a_perceptual_distance_is_used_where_there_is_one() -> None:
    truth = {0.0: plain(0), 0.5: plain(50), 1.0: plain(100)}
    found = quality(Drawn({0.5: plain(60)}, truth, (0.5,)), perceptual=lambda a, b: 0.25)
    assert found["lpips"] == 0.25


def test_a_difference_picture_is_black_where_nothing_is_wrong() -> None:
    assert not difference(plain(9), plain(9)).pixels.any()
    assert (difference(plain(10), plain(20)).pixels == 30).all()
