"""The sheet that scenes and characters are drawn on."""

from __future__ import annotations

import numpy as np
import pytest

from keytween.toon.canvas import Canvas, Place, arc, box, ellipse, limb, smooth, star

RED = (1.0, 0.0, 0.0)


def test_a_shape_covers_as_much_as_it_should_wherever_it_lies() -> None:
    for shift in (0.0, 0.1, 0.37, 0.5):
        canvas = Canvas(64, 48)
        canvas.fill(ellipse(30 + shift, 24 - shift, 15, 10), RED)
        assert canvas.picture()[..., 3].sum() == pytest.approx(np.pi * 150, rel=0.04)


def test_a_shape_that_moves_a_fraction_of_a_pixel_is_drawn_that_far_on() -> None:
    places = []
    for x in (20.0, 20.25, 20.5):
        canvas = Canvas(40, 40)
        canvas.fill(ellipse(x, 20, 9, 9), RED)
        matte = canvas.picture()[..., 3]
        places.append((matte.sum(0) * (np.arange(40) + 0.5)).sum() / matte.sum())
    assert places == pytest.approx([20.0, 20.25, 20.5], abs=0.06)


def test_half_covered_pixels_keep_the_full_colour_and_clear_ones_are_black() -> None:
    canvas = Canvas(32, 32)
    canvas.fill(ellipse(16, 16, 10, 10), RED)
    picture = canvas.picture()
    edge = (picture[..., 3] > 0) & (picture[..., 3] < 1)
    assert edge.any()
    assert np.allclose(picture[edge][:, :3], RED)
    assert not picture[picture[..., 3] == 0].any()


def test_paper_is_opaque_and_an_outline_has_its_width() -> None:
    canvas = Canvas(64, 64, paper=(1, 1, 1))
    canvas.fill(box(32, 32, 20, 20), RED, line=4, ink=(0, 0, 0))
    picture = canvas.picture()
    assert (picture[..., 3] == 1).all()
    assert (picture[32, :, :3].sum(1) < 0.1).sum() == pytest.approx(8, abs=2)


def test_a_place_scales_then_turns_then_moves() -> None:
    (x, y) = Place(10, 20, turn=90, wide=3, tall=1)(np.array([[1.0, 0.0]]))[0]
    assert (x, y) == pytest.approx((10, 23))


def test_shapes_have_the_extent_that_was_asked() -> None:
    tip = star(0, 0, 10)[0]
    assert tip == pytest.approx((0, -10))
    bone = limb((0, 0), (20, 0), 3, 1)
    assert (bone[:, 0].min(), bone[:, 0].max()) == pytest.approx((-3, 21))
    assert arc(0, 0, 5, 5, 0, 90)[-1] == pytest.approx((0, 5))


def test_a_smooth_curve_goes_through_its_points() -> None:
    knots = np.array([[0.0, 0], [10, 2], [9, 12], [1, 8]])
    for closed in (True, False):
        curve = smooth(knots, closed=closed)
        assert all(np.abs(curve - knot).sum(1).min() < 1e-9 for knot in knots)
