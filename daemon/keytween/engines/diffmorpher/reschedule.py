"""Perceptual respacing: from distances along alpha to alphas that look even (section 3.5). Pure."""

from __future__ import annotations

from collections.abc import Sequence
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

    def alpha_at(self, position: float) -> float:
        """The alpha at which the change has come so far, 0..1; ends stay ends, and it never falls."""
        return float(np.interp(position, self.changed, self.alphas))

    def refined(self, again: PacingCurve) -> PacingCurve:
        """The curve through both: `again` was measured on pictures at the alphas that this one gave.

        Its `alphas` are therefore positions on this curve.
        """
        knots = {self.alpha_at(p): c for p, c in zip(again.alphas, again.changed, strict=True)}
        for alpha, position in zip(self.alphas, self.changed, strict=True):
            knots.setdefault(alpha, float(np.interp(position, again.alphas, again.changed)))
        alphas = tuple(sorted(knots))
        return PacingCurve(alphas, tuple(knots[alpha] for alpha in alphas), again.distance)

    def evenness(self) -> float:
        """Standard deviation over mean of the steps that the curve was made from."""
        steps = np.diff(self.changed)
        return float(np.std(steps) / np.mean(steps))

    @property
    def monotone(self) -> bool:
        """Whether it rises, as every curve of distances does."""
        return all(a <= b for a, b in pairwise(self.changed))


LINEAR = PacingCurve((0.0, 1.0), (0.0, 1.0), "none")
"""No respacing: alpha is the position."""
