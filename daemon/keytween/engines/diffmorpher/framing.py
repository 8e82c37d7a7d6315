"""From pictures to what the network sees and back: size, padding, colour, matte, and the keys' own detail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from keytween.images import Picture, as_float, like
from keytween.pixels import linear_from_srgb, srgb_from_linear
from keytween_wire.messages import Colour

FADE = 4
"""How fast a keyframe's own detail fades: the power of the position. A quarter of the way a third is left."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The working size of a request: (height, width) before padding, and what sides must divide by."""

    height: int
    width: int
    multiple: int

    @classmethod
    def of(cls, shape: tuple[int, ...], *, size: int, multiple: int) -> Framing:
        """The framing of pictures (H, W, ...) scaled to about size x size pixels, aspect ratio kept."""
        height, width = shape[:2]
        scale = size / (height * width) ** 0.5
        return cls(max(1, round(height * scale)), max(1, round(width * scale)), multiple)

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) as the network sees it."""
        return self.height + -self.height % self.multiple, self.width + -self.width % self.multiple

    def enter(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) as the network sees them: resized, then padded by repeating the border."""
        if images.shape[-2:] != (self.height, self.width):
            images = _resized(images, (self.height, self.width))
        down, right = -self.height % self.multiple, -self.width % self.multiple
        return F.pad(images, (0, right, 0, down), mode="replicate")

    def leave(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The network's images (B, 3, H', W') back at the pictures' own size (H, W)."""
        images = images[..., : self.height, : self.width]
        return images if images.shape[-2:] == tuple(shape[:2]) else _resized(images, shape[:2])


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(images, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def colours(picture: Picture) -> Tensor:
    """The picture's colours in -1..1 as (1, 3, H, W), display-referred, invisible pixels filled in."""
    values = as_float(picture)
    shown = values[..., :3]
    if picture.colour is Colour.SCENE_LINEAR:
        shown = srgb_from_linear(shown)
    image = torch.from_numpy(np.ascontiguousarray(np.clip(shown, 0, 1))).permute(2, 0, 1)[None].float()
    if picture.has_matte:
        matte = torch.from_numpy(np.ascontiguousarray(values[..., 3]))[None, None].float()
        image = filled(image, matte)
    return image * 2 - 1


def matte(picture: Picture) -> Tensor:
    """The picture's matte in -1..1 as a grey image (1, 3, H, W); white where there is none."""
    if not picture.has_matte:
        return torch.ones(1, 3, *picture.pixels.shape[:2])
    values = torch.from_numpy(np.ascontiguousarray(as_float(picture)[..., 3]))
    return values[None, None].float().expand(1, 3, -1, -1) * 2 - 1


def filled(image: Tensor, weight: Tensor) -> Tensor:
    """The image (1, 3, H, W) with its invisible pixels taken from their surroundings, coarse to fine.

    What a matte hides is often black or noise; the network would draw it.
    """
    if min(image.shape[-2:]) < 2:
        return image
    half_weight = F.avg_pool2d(weight, 2, ceil_mode=True)
    half = F.avg_pool2d(image * weight, 2, ceil_mode=True) / half_weight.clamp_min(1e-6)
    if bool((half_weight == 0).any()):
        half = filled(half, (half_weight > 0).float())
    below = F.interpolate(half, size=image.shape[-2:], mode="bilinear", align_corners=False)
    return weight * image + (1 - weight) * below


def compose(template: Picture, colour: Tensor, matte_image: Tensor | None) -> Picture:
    """A picture like the keyframe `template` from images (3, H, W) in -1..1."""
    shown = (colour.permute(1, 2, 0).clamp(-1, 1) / 2 + 0.5).cpu().numpy()
    if template.colour is Colour.SCENE_LINEAR:
        shown = linear_from_srgb(shown)
    if template.has_matte:
        shape = (*template.pixels.shape[:2], 1)
        alpha = np.ones(shape, np.float32)
        if matte_image is not None:
            alpha = (matte_image.mean(dim=0).clamp(-1, 1) / 2 + 0.5).cpu().numpy()[..., None]
        shown = np.concatenate([shown, alpha], axis=-1)
    return like(shown.astype(np.float32), template)


def faded(residuals: tuple[Tensor, Tensor], position: float) -> Tensor:
    """What the two keyframes lost in the network, as far as a position between them still shows it."""
    first, second = residuals
    return (1 - position) ** FADE * first + position**FADE * second
