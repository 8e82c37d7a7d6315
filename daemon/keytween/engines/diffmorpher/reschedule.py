"""Perceptual respacing: from distances along alpha to alphas that look even (section 3.5). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class PacingCurve:
    """How far the picture has changed at each alpha: `changed` rises from 0 to 1 with `alphas`.

    `distance` names what it was measured with.
    """

    alphas: tuple[float, ...]
    changed: tuple[float, ...]
    distance: str = ""

    @classmethod
    def from_distances(
        cls, alphas: Sequence[float], distances: Sequence[float], *, distance: str = ""
    ) -> PacingCurve:
        """The curve through pictures at `alphas` whose neighbours are `distances` apart.

        Pictures that are all the same give the straight line: there is nothing to pace.
        """
        total = float(sum(distances))
        if not np.isfinite(total) or total <= 0:
            return cls((0.0, 1.0), (0.0, 1.0), distance)
        changed = (0.0, *(d / total for d in accumulate(distances)))
        return cls(tuple(alphas), (*changed[:-1], 1.0), distance)

    @classmethod
    def through(
        cls,
        alphas: Sequence[float],
        known: Sequence[float],
        apart: Callable[[float, float], float],
        *,
        distance: str = "",
    ) -> PacingCurve:
        """The curve through pictures at `alphas`; how far two pictures are `apart` is asked by their alphas.

        Within a step, the pictures at `known` alphas that lie there share it out as far as they are apart.
        """
        knots, steps = [alphas[0]], list[float]()
        for low, high in pairwise(alphas):
            inside = [low, *sorted(alpha for alpha in set(known) if low < alpha < high), high]
            parts = [apart(a, b) for a, b in pairwise(inside)]
            share = apart(low, high) / (sum(parts) or 1.0)
            knots += inside[1:]
            steps += [part * share for part in parts]
        return cls.from_distances(knots, steps, distance=distance)

    def alpha_at(self, position: float) -> float:
        """The alpha at which the change has come so far, 0..1; ends stay ends, and it never falls."""
        return float(np.interp(position, self.changed, self.alphas))

    @property
    def monotone(self) -> bool:
        """Whether it rises, as every curve of distances does."""
        return all(a <= b for a, b in pairwise(self.changed))


def evenness(steps: Sequence[float]) -> float:
    """Standard deviation over mean; 0 where all steps are the same, or nothing changes."""
    mean = float(np.mean(steps))
    return float(np.std(steps)) / mean if mean > 0 else 0.0


LINEAR = PacingCurve((0.0, 1.0), (0.0, 1.0), "none")
"""No respacing: alpha is the position."""
