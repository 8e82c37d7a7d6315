"""The cross-fade: the baseline that other engines are measured against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keytween.engines import DISSOLVE
from keytween.engines.base import Frame, Progress
from keytween.images import Picture, as_float, like
from keytween_wire.messages import EngineInfo, MorphRequest

Array = NDArray[np.float32]


class Dissolve:
    """Fades each keyframe into the next."""

    info: EngineInfo = DISSOLVE

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position not in `skip`; positions beyond 0..1 show the keyframe."""
        index = 0
        for segment, positions in enumerate(request.positions):
            for position in positions:
                if index not in skip:
                    yield Progress("drawing", index + 1, request.total)
                    yield Frame(index, dissolve(keyframes[segment], keyframes[segment + 1], position))
                index += 1


def dissolve(first: Picture, second: Picture, position: float) -> Picture:
    """The cross-fade of two pictures of one size, in the first one's encoding and depth."""
    if position <= 0:
        return first
    if position >= 1:
        return second
    mixed = mix(premultiplied(as_float(first)), premultiplied(as_float(second)), position)
    return like(straight(mixed), template(first, second))


def template(first: Picture, second: Picture) -> Picture:
    """The one whose depth and channels the drawings take: the first, unless only the second has a matte."""
    return second if second.has_matte and not first.has_matte else first


def mix(first: Array, second: Array, position: float) -> Array:
    """The blend of two premultiplied pictures (H, W, C); a missing matte counts as opaque."""
    channels = max(first.shape[2], second.shape[2])
    first, second = with_channels(first, channels), with_channels(second, channels)
    return np.asarray(first + np.float32(position) * (second - first), np.float32)


def with_channels(pixels: Array, channels: int) -> Array:
    """The same (H, W, C) picture with an opaque matte added where `channels` asks for one."""
    if pixels.shape[2] == channels:
        return pixels
    return np.concatenate([pixels, np.ones((*pixels.shape[:2], 1), np.float32)], axis=2)


def premultiplied(pixels: Array) -> Array:
    """Straight (H, W, C) to premultiplied: what lies under a clear matte then weighs nothing."""
    if pixels.shape[2] == 3:
        return pixels
    out = pixels.copy()
    out[..., :3] *= pixels[..., 3:]
    return out


def straight(pixels: Array) -> Array:
    """Premultiplied (H, W, C) back to straight; clear pixels become black."""
    if pixels.shape[2] == 3:
        return pixels
    divisor = np.where(pixels[..., 3] > 1e-6, pixels[..., 3], np.float32(1))
    out = pixels.copy()
    # One channel at a time: numpy is slow where one matte divides three colours at once.
    for channel in range(3):
        np.divide(pixels[..., channel], divisor, out=out[..., channel])
    return out
