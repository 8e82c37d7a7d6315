"""The distance that pacing is measured with: LPIPS, or the checkpoint's own latents without it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keytween.engines.diffmorpher.memory import is_shortage

log = logging.getLogger(__name__)
ALEXNET = "alexnet-owt-7be5be79.pth"
LPIPS_SIDE = 256
"""Pictures are compared at most this large: pacing is about what moves, not about grain."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A named distance of images (1, 3, H, W) in -1..1.

    `keep` gives what is kept of an image: numbers whose root-sum-square difference is the distance of two, or
    the square of that difference where it is `squared`.
    """

    name: str
    keep: Callable[[Tensor], Tensor]
    squared: bool = False

    def all_apart(self, first: Tensor, second: Tensor) -> NDArray[np.float64]:
        """How far apart (M, N) the rows of M and N kept images are."""
        # Products of matrices would leave a rest where two are the same.
        how = "donot_use_mm_for_euclid_dist"
        lengths = torch.cdist(first.flatten(1).float(), second.flatten(1).float(), compute_mode=how)
        return (lengths.double() ** (2 if self.squared else 1)).numpy()

    def apart(self, first: Tensor, second: Tensor) -> float:
        """How far apart two kept images are; 0 is the same."""
        return float(self.all_apart(first[None], second[None])[0, 0])

    def between(self, first: Tensor, second: Tensor) -> float:
        """How far apart two images are; 0 is the same."""
        return self.apart(self.keep(first), self.keep(second))


def pick(encode: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device) -> Distance:
    """LPIPS (AlexNet, on -1..1) when AlexNet's weights are on this machine, else latents; never downloads."""
    return _lpips_here(device) or latent_distance(encode)


def _weights() -> Path:
    """Where torchvision keeps AlexNet's weights once they are there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def _lpips_here(device: torch.device) -> Distance | None:
    """LPIPS where AlexNet's weights are on this machine and are nothing but weights, else None."""
    if not _weights().is_file():
        return None
    try:
        return lpips_distance(device)
    except Exception as error:  # what is wrong with a .pth has no common class
        if is_shortage(error):
            raise
        log.warning("LPIPS is not used: %s holds more than weights or is damaged: %s", _weights(), error)
        return None


def lpips_distance(device: torch.device) -> Distance:
    """LPIPS as its authors define it (Zhang et al. 2018), AlexNet."""
    import lpips

    with warnings.catch_warnings(), _weights_alone():
        warnings.simplefilter("ignore")  # torchvision's old names for its weights
        network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
    return of_network(network, device)


@contextmanager
def _weights_alone() -> Iterator[None]:
    """Lets PyTorch read nothing but weights: LPIPS and AlexNet come as .pth, which can hold code to run.

    torchvision allows that code in what it finds in its folder, and only the environment can forbid it.
    """
    changed = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def of_network(network: Any, device: torch.device) -> Distance:
    """The distance of an LPIPS network of the library's."""
    return Distance("LPIPS (AlexNet)", partial(_features, network, device), squared=True)


def _features(network: Any, device: torch.device, image: Tensor) -> Tensor:
    """What LPIPS sees of an image (1, 3, H, W): LPIPS of two is the square of how far these are apart.

    LPIPS weighs squared differences of normalised features and takes their mean over each layer's places.
    """
    import lpips

    with torch.no_grad():
        layers = network.net.forward(network.scaling_layer(_small(image).to(device)))
        weights = [layer.model[-1].weight for layer in network.lins]
        kept = [
            lpips.normalize_tensor(found)[0] * (weight[0].clamp_min(0) / found[0, 0].numel()).sqrt()
            for found, weight in zip(layers, weights, strict=True)
        ]
    return torch.cat([layer.flatten() for layer in kept]).cpu()


def latent_distance(encode: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Distance:
    """The root-mean-square difference of the checkpoint's own VAE latents."""

    def keep(image: Tensor) -> Tensor:
        with torch.no_grad():
            latents = encode(image)[0].flatten().cpu()
        return latents / latents.numel() ** 0.5

    return Distance("VAE latents (RMS)", keep)


def _small(images: Tensor) -> Tensor:
    scale = LPIPS_SIDE / max(images.shape[-2:])
    if scale >= 1:
        return images
    return torch.nn.functional.interpolate(images, scale_factor=scale, mode="area")


def of_pictures() -> Callable[[NDArray[np.float32], NDArray[np.float32]], float] | None:
    """LPIPS of two pictures (H, W, 3) in 0..1; None when AlexNet's weights are not on this machine."""
    distance = _lpips_here(torch.device("cpu"))
    if distance is None:
        return None

    def between(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        return distance.between(*(_tensor(picture) for picture in (first, second)))

    return between


def _tensor(picture: NDArray[np.float32]) -> Tensor:
    """A picture (H, W, 3) in 0..1 as the network wants it: (1, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] * 2 - 1
