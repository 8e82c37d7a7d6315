"""The distance that pacing is measured with: LPIPS, or the checkpoint's own latents without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALEXNET = "alexnet-owt-7be5be79.pth"
LPIPS_SIDE = 256
"""Pictures are compared at most this large: pacing is about what moves, not about grain."""


def _whole(image: Tensor) -> Tensor:
    return image


@dataclass(frozen=True, slots=True)
class Distance:
    """A named distance of images (1, 3, H, W) in -1..1: what is kept of each, and how far apart two are."""

    name: str
    apart: Callable[[Tensor, Tensor], float]
    keep: Callable[[Tensor], Tensor] = _whole

    def between(self, first: Tensor, second: Tensor) -> float:
        """How far apart two images are; 0 is the same."""
        return self.apart(self.keep(first), self.keep(second))


def pick(encode: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device) -> Distance:
    """LPIPS (AlexNet, on -1..1) when AlexNet's weights are on this machine, else latents; never downloads."""
    return lpips_distance(device) if _weights().is_file() else latent_distance(encode)


def _weights() -> Path:
    """Where torchvision keeps AlexNet's weights once they are there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def lpips_distance(device: torch.device) -> Distance:
    """LPIPS as its authors define it (Zhang et al. 2018), AlexNet."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's old names for its weights
        network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    def between(first: Tensor, second: Tensor) -> float:
        with torch.no_grad():
            return float(network(_small(first).to(device), _small(second).to(device)))

    return Distance("LPIPS (AlexNet)", between)


def latent_distance(encode: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Distance:
    """The root-mean-square difference of the checkpoint's own VAE latents."""

    def keep(image: Tensor) -> Tensor:
        with torch.no_grad():
            return encode(image)[0]

    def apart(first: Tensor, second: Tensor) -> float:
        return float((first - second).square().mean().sqrt())

    return Distance("VAE latents (RMS)", apart, keep)


def _small(images: Tensor) -> Tensor:
    scale = LPIPS_SIDE / max(images.shape[-2:])
    if scale >= 1:
        return images
    return torch.nn.functional.interpolate(images, scale_factor=scale, mode="area")


def of_pictures() -> Callable[[NDArray[np.float32], NDArray[np.float32]], float] | None:
    """LPIPS of two pictures (H, W, 3) in 0..1; None when AlexNet's weights are not on this machine."""
    if not _weights().is_file():
        return None
    distance = lpips_distance(torch.device("cpu"))

    def between(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        return distance.between(*(_tensor(picture) for picture in (first, second)))

    return between


def _tensor(picture: NDArray[np.float32]) -> Tensor:
    """A picture (H, W, 3) in 0..1 as the network wants it: (1, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] * 2 - 1
