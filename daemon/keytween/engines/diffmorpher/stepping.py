"""Even steps: which of the drawings that are there lie evenly apart, and where to draw for better ones. Pure.

A morph may stand still for a while and then change nearly at once. Between two drawings that are far apart
nothing is known, so this looks there until each even step begins and ends at a drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from keytween.engines.diffmorpher.reschedule import evenness

Array = NDArray[np.float64]

SEEN = 0.01
"""A step that would end so near to a drawing, as a share of its length, ends there."""
LENGTHS = 24
"""How many lengths of a step are tried when drawings are chosen."""


def fairest(apart: Array, count: int) -> tuple[int, ...]:
    """Of drawings in order, the `count` whose neighbours are most evenly apart, first and last among them.

    `apart` (M, M) says how far two are apart; where no more than `count` are there, all are taken.
    """
    known = len(apart)
    if known <= count:
        return tuple(range(known))
    shortest = apart[0, -1] / (count - 1)
    longest = float(np.diagonal(apart, 1).sum()) / (count - 1)
    choices = {_steps_like(apart, length, count) for length in np.linspace(shortest, longest, LENGTHS)}
    return min(choices, key=lambda choice: evenness([apart[a, b] for a, b in pairwise(choice)]))


def _steps_like(apart: Array, length: float, count: int) -> tuple[int, ...]:
    """The way from first to last in `count` - 1 steps that miss a length least, by dynamic programming."""
    known = len(apart)
    forward = np.arange(known)[:, None] < np.arange(known)[None]
    miss = np.where(forward, (apart - length) ** 2, np.inf)
    cost, came_from = np.where(np.arange(known) == 0, 0.0, np.inf), list[NDArray[np.intp]]()
    for _ in range(count - 1):
        through = cost[:, None] + miss
        came_from.append(through.argmin(axis=0))
        cost = through.min(axis=0)
    way = [known - 1]
    for before in reversed(came_from):
        way.append(int(before[way[-1]]))
    return tuple(reversed(way))


def look_next(alphas: Sequence[float], apart: Array, chosen: Sequence[int], *, most: int) -> list[float]:
    """Where, at most `most` times, to draw next so that more even drawings can replace the `chosen`.

    `apart` (M, M) says how far the drawings at `alphas` are apart. Each step of the chosen is shared out
    among the drawings within it, and even steps along that end where it looks, unless a drawing is close by.
    What is left of `most` halves the widest unseen parts of the stretches that it looks into.
    """
    way = _way(apart, chosen)
    step = way[-1] / (len(chosen) - 1)
    lengths = np.diff(way).tolist()
    unseen: dict[int, list[float]] = {}
    for end in (number * step for number in range(1, len(chosen) - 1)):
        stretch = min(int(np.searchsorted(way, end, side="right")) - 1, len(lengths) - 1)
        if min(end - way[stretch], way[stretch + 1] - end) > SEEN * step:
            unseen.setdefault(stretch, []).append(float(end - way[stretch]) / lengths[stretch])
    for _ in range(most - sum(map(len, unseen.values())) if unseen else 0):
        widest = max(unseen, key=lambda stretch: lengths[stretch] / (len(unseen[stretch]) + 1))
        unseen[widest].append(_widest_middle(unseen[widest]))
    found = (
        alphas[stretch] + share * (alphas[stretch + 1] - alphas[stretch])
        for stretch, shares in unseen.items()
        for share in shares
    )
    return sorted(set(found) - set(alphas))[:most]


def _way(apart: Array, chosen: Sequence[int]) -> Array:
    """How much of the way is behind each drawing: steps of the chosen, shared out among what lies within."""
    way = np.zeros(len(apart))
    for low, high in pairwise(chosen):
        parts = np.diagonal(apart, 1)[low:high]
        way[low + 1 : high + 1] = way[low] + parts.cumsum() * (apart[low, high] / (parts.sum() or 1.0))
    return way


def _widest_middle(shares: Sequence[float]) -> float:
    """The middle of the widest gap between shares of a stretch, its ends 0 and 1 included."""
    low, high = max(pairwise(sorted((0.0, *shares, 1.0))), key=lambda gap: gap[1] - gap[0])
    return (low + high) / 2
