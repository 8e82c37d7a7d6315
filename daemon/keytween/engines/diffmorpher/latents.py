"""What lies between two latents: slerp, AdaIN, lerp. Pure (paper, section 3.2 and 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL = 0.9995
"""Above this cosine the arc is a line to the last bit that matters."""
ADAIN_EPSILON = 1e-5


def _column(alpha: Tensor, like: Tensor) -> Tensor:
    """Alphas (B,) shaped to weigh the rows of `like` (B, ...)."""
    return alpha.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def lerp(first: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
    """Rows between two tensors (1, ...) at alphas (B,): the straight line, shape (B, ...)."""
    weight = _column(alpha, first)
    return (1 - weight) * first + weight * second


def slerp(first: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
    """Rows between two latents (1, C, h, w) at alphas (B,) on the arc: (B, C, h, w).

    The angle is that of the whole tensors, in float64; nearly parallel latents take the straight line.
    """
    a, b = first.double(), second.double()
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if not torch.isfinite(cosine) or cosine.abs() > PARALLEL:
        return lerp(a, b, alpha).to(first.dtype)
    angle = torch.arccos(cosine)
    weight = _column(alpha.double(), a)
    mixed = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    return mixed.to(first.dtype)


def moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased variance + 1e-5) of each channel: (B, C, 1, 1) each."""
    variance = latents.var(dim=(2, 3), keepdim=True, unbiased=True)
    return latents.mean(dim=(2, 3), keepdim=True), (variance + ADAIN_EPSILON).sqrt()


def adain(latents: Tensor, first: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
    """Latents (B, C, h, w) with each channel's moments moved to the lerp of the two ends' (1, C, h, w)."""
    mean, spread = moments(latents.double())
    (mean_0, spread_0), (mean_1, spread_1) = moments(first.double()), moments(second.double())
    target_mean, target_spread = lerp(mean_0, mean_1, alpha), lerp(spread_0, spread_1, alpha)
    moved = (latents.double() - mean) / spread * target_spread + target_mean
    return moved.to(latents.dtype)
