"""Perceptual respacing: from distances along alpha to alphas that look even (section 3.5). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
    def even(
        cls, alphas: Sequence[float], chosen: Sequence[int], apart: Array, *, distance: str = ""
    ) -> PacingCurve:
        """The curve whose even positions are the `chosen` of the drawings at `alphas`, the first to the last.

        Within a step, the drawings that lie there share it out as far as they are `apart` (M, M).
        """
        knots, changed = [alphas[chosen[0]]], [0.0]
        for number, (low, high) in enumerate(pairwise(chosen)):
            parts = [float(apart[i, i + 1]) for i in range(low, high)]
            total = sum(parts) or 1.0
            knots += [alphas[i] for i in range(low + 1, high + 1)]
            changed += [(number + part / total) / (len(chosen) - 1) for part in accumulate(parts)]
            changed[-1] = (number + 1) / (len(chosen) - 1)
        return cls(tuple(knots), tuple(changed), distance)

    def alpha_at(self, position: float) -> float:
        """The alpha at which the change has come so far, 0..1; ends stay ends, and it never falls."""
        return float(np.interp(position, self.changed, self.alphas))

    def position_at(self, alpha: float) -> float:
        """How far the change has come at an alpha, 0..1."""
        return float(np.interp(alpha, self.alphas, self.changed))

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
