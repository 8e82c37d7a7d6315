# SPDX-License-Identifier: Apache-2.0
"""Even steps along a morph that stands still, jumps and turns back: chosen, looked for, and reached."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from keytween.engines.diffmorpher import pacing, stepping  # noqa: E402
from keytween.engines.diffmorpher.perceptual import Distance  # noqa: E402
from keytween.engines.diffmorpher.reschedule import LINEAR, PacingCurve, evenness  # noqa: E402

Morph = Callable[[float], tuple[float, float]]


def lengths_of(places: Iterable[tuple[float, float]]) -> np.ndarray:
    points = np.array(list(places))
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def corner(alpha: float) -> tuple[float, float]:
    """Along one side of a square, then along the next: the way across is shorter than the way along."""
    return (2 * alpha, 0.0) if alpha < 0.5 else (1.0, 2 * alpha - 1)


def sudden(alpha: float) -> tuple[float, float]:
    """Nearly nothing, then nearly all of it within a hundredth, with a turn in the middle of that."""
    share = float(np.clip((alpha - 0.615) / 0.01, 0, 1))
    return 0.05 * alpha + share, 0.5 * np.sin(np.pi * share)


# ---- choosing among drawings


def test_the_drawings_that_are_chosen_are_the_most_even_ones_there_are() -> None:
    places = (0.0, 0.1, 0.26, 0.3, 0.5, 0.52, 0.74, 0.8, 1.0)
    chosen = stepping.fairest(lengths_of((p, 0.0) for p in places), 5)
    assert [places[i] for i in chosen] == [0.0, 0.26, 0.5, 0.74, 1.0]


def test_where_there_are_no_more_drawings_than_are_wanted_all_are_chosen() -> None:
    assert stepping.fairest(lengths_of([(0, 0), (1, 0), (5, 0)]), 3) == (0, 1, 2)
    assert stepping.fairest(lengths_of([(0, 0), (1, 0)]), 9) == (0, 1)


def test_choosing_is_about_chords_and_not_about_the_way_between_them() -> None:
    """Around a corner a step of the same length covers more of the way."""
    alphas = np.linspace(0, 1, 41)
    lengths = lengths_of(corner(a) for a in alphas)
    chosen = stepping.fairest(lengths, 4)
    steps = [lengths[a, b] for a, b in pairwise(chosen)]
    assert evenness(steps) < 0.03
    assert steps[1] < alphas[chosen[2]] * 2 - alphas[chosen[1]] * 2


# ---- where to look


def test_it_looks_inside_the_jump_and_nowhere_else() -> None:
    alphas = [i / 8 for i in range(9)]
    apart = lengths_of(sudden(a) for a in alphas)
    looks = stepping.look_next(alphas, apart, stepping.fairest(apart, 9), most=8)
    assert len(looks) == 8
    assert all(0.5 < look < 0.625 or 0.625 < look < 0.75 for look in looks)


def test_a_step_is_looked_for_where_it_would_end() -> None:
    alphas = [0.0, 0.4, 1.0]
    looks = stepping.look_next(alphas, lengths_of((a, 0.0) for a in alphas), (0, 1, 2), most=1)
    assert looks == pytest.approx([0.5])


def test_there_is_nowhere_to_look_when_every_step_ends_at_a_drawing_or_nothing_changes() -> None:
    alphas = [i / 40 for i in range(41)]
    apart = lengths_of((a, 0.0) for a in alphas)
    assert stepping.look_next(alphas, apart * 0, (0, 20, 40), most=8) == []
    close = lengths_of((a, 0.0) for a in (0.0, 0.49, 0.5, 1.0))
    assert stepping.look_next((0.0, 0.49, 0.5, 1.0), close, (0, 1, 3), most=8) == []


# ---- the whole of it


def paced(morph: Morph, *, count: int = 9, rounds: int) -> tuple[PacingCurve, list[int], dict[float, object]]:
    """Evens out a morph whose latents are a point; says how many drawings each round made."""
    drawn: list[int] = []

    def draw(alphas: list[float]) -> Generator[None, None, list[torch.Tensor]]:
        drawn.append(len(alphas))
        yield
        return [torch.tensor(morph(alpha)) for alpha in alphas]

    making = pacing.evened_out(
        LINEAR, draw, lambda latents, _: latents, Distance("plain", lambda p: p), count=count, rounds=rounds
    )
    while True:
        try:
            next(making)
        except StopIteration as stop:
            return stop.value[0], drawn, stop.value[1]


@pytest.mark.parametrize("morph", [corner, sudden, lambda a: (a**6, 0.0)], ids=["corner", "sudden", "late"])
def test_a_few_rounds_make_even_what_stands_still_and_jumps(morph: Morph) -> None:
    curve, drawn, kept = paced(morph, rounds=9)
    alphas = [curve.alpha_at(i / 8) for i in range(9)]
    places = [np.array(morph(alpha)) for alpha in alphas]
    assert evenness([float(np.linalg.norm(a - b)) for a, b in pairwise(places)]) < 0.05
    assert alphas == pytest.approx(sorted(kept))
    assert len(drawn) <= 7


def test_a_morph_that_is_even_is_drawn_once() -> None:
    curve, drawn, _ = paced(lambda a: (a, 0.0), rounds=9)
    assert drawn == [9]
    assert curve.alpha_at(0.5) == pytest.approx(0.5)


def test_rounds_are_the_most_that_are_made() -> None:
    assert len(paced(sudden, rounds=2)[1]) == 2


def test_between_even_drawings_the_others_share_out_the_step() -> None:
    apart = lengths_of((p, 0.0) for p in (0.0, 3.0, 4.0, 8.0))
    curve = PacingCurve.even((0.0, 0.25, 0.5, 1.0), (0, 2, 3), apart, distance="ours")
    assert curve.distance == "ours"
    assert curve.alphas == (0.0, 0.25, 0.5, 1.0)
    assert curve.changed == pytest.approx((0.0, 0.375, 0.5, 1.0))
    assert curve.position_at(0.25) == pytest.approx(0.375)
    still = PacingCurve.even((0.0, 0.5, 1.0), (0, 1, 2), np.zeros((3, 3)))
    assert still.alpha_at(0.25) == 0.25
