"""Evens out the pace of a morph: draws, measures, and draws again where nobody has seen what happens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keytween.engines.diffmorpher.perceptual import Distance
from keytween.engines.diffmorpher.reschedule import PacingCurve, evenness
from keytween.engines.diffmorpher.stepping import fairest, look_next

Step = TypeVar("Step")
Draw = Callable[[list[float]], Generator[Step, None, list[Tensor]]]
"""Latents at alphas, 0 and 1 among them, for whoever passes on the steps."""

EVEN = 0.03
"""It is enough once drawings are as even as that, as standard deviation over mean of their steps."""
MOST_LOOKS = 8
"""In further rounds at least so many drawings are made at once: fewer cost a processor little less."""


def evened_out(
    curve: PacingCurve,
    draw: Draw[Step],
    shown: Callable[[list[Tensor], list[float]], Iterable[Tensor]],
    distance: Distance,
    *,
    count: int,
    rounds: int,
) -> Generator[Step, None, tuple[PacingCurve, dict[float, Tensor]]]:
    """The curve along which `count` drawings are evenly far apart, and their latents by alpha.

    The first round draws where `curve` leads, each further one where something happens that nobody has seen;
    it ends when there are so many even drawings among all that were made, or after so many rounds.
    `shown` gives the images of latents at their positions.
    """
    seen, chosen = _Seen(distance), tuple[int, ...]()
    alphas = [curve.alpha_at(i / (count - 1)) for i in range(count)]
    for _ in range(rounds):
        latents = yield from draw(alphas)
        seen.add(alphas, latents, shown(latents, [curve.position_at(alpha) for alpha in alphas]))
        chosen = fairest(seen.apart, count)
        curve = PacingCurve.even(seen.alphas, chosen, seen.apart, distance=distance.name)
        if evenness([seen.apart[a, b] for a, b in pairwise(chosen)]) < EVEN:
            break
        more = look_next(seen.alphas, seen.apart, chosen, most=max(MOST_LOOKS, count - 2))
        if not more:
            break
        alphas = [0.0, *more, 1.0]
    return curve, {seen.alphas[i]: seen.latents[i] for i in chosen}


class _Seen:
    """Drawings in the order of their alphas, and how far all of them are apart."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self.alphas: list[float] = []
        self.latents: list[Tensor] = []
        self.apart: NDArray[np.float64] = np.zeros((0, 0))
        self._kept: list[Tensor] = []

    def add(self, alphas: Sequence[float], latents: Sequence[Tensor], images: Iterable[Tensor]) -> None:
        """Takes drawings in, with their images; those at alphas that are known already are passed over."""
        before = len(self.alphas)
        for alpha, row, image in zip(alphas, latents, images, strict=True):
            if alpha not in self.alphas:
                self.alphas.append(alpha)
                self.latents.append(row)
                self._kept.append(self._distance.keep(image))
        self._measure(before)
        order = sorted(range(len(self.alphas)), key=self.alphas.__getitem__)
        self.alphas, self.latents = [self.alphas[i] for i in order], [self.latents[i] for i in order]
        self._kept, self.apart = [self._kept[i] for i in order], self.apart[np.ix_(order, order)]

    def _measure(self, before: int) -> None:
        """How far the drawings after the first `before` are from all; those themselves are known."""
        known, self.apart = self.apart, np.zeros((len(self._kept), len(self._kept)))
        self.apart[:before, :before] = known
        if len(self._kept) > before:
            beside = self._distance.all_apart(torch.stack(self._kept), torch.stack(self._kept[before:]))
            self.apart[:, before:], self.apart[before:] = beside, beside.T
