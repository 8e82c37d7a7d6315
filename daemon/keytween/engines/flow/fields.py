"""Pictures and motions at other sizes and places: the arithmetic that every part of the engine shares."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def reduced(picture: Array, side: int) -> Array:
    """The picture with its longest side at most `side`."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # pyright: ignore


def resized(motion: Array, height: int, width: int) -> Array:
    """A motion field at another size, its displacements scaled along."""
    if motion.shape[:2] == (height, width):
        return motion
    scale = (width / motion.shape[1], height / motion.shape[0], 0, 0)
    return cv2.multiply(cv2.resize(motion, (width, height)), scale)  # pyright: ignore


@lru_cache(maxsize=4)
def grid(height: int, width: int) -> Array:
    """Each pixel's own place (x, y), (height, width, 2); kept, and never to be written to."""
    places = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    places.flags.writeable = False
    return places


def fetched(picture: Array, places: Array, *, how: int = cv2.INTER_LINEAR) -> Array:
    """The picture at other places (h, w, 2); beyond its border it goes on as at the border."""
    return cv2.remap(picture, places, None, how, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore


def moved(picture: Array, motion: Array) -> Array:
    """What each pixel finds at the end of its motion."""
    return fetched(picture, grid(*motion.shape[:2]) + motion)


def scaled(places: Array, scale: float | np.float32) -> Array:
    """The same places in a picture that is so many times as large."""
    return (places + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)


def agreement(motion: Array, opposite: Array, tolerance: float) -> Array:
    """Whether going there and back ends where it began: 1 yes, 0 further off than `tolerance` pixels."""
    off = np.square(motion + moved(opposite, motion)).sum(2)
    return np.exp(-off / np.float32(tolerance**2))


def filled(values: Array, cover: Array) -> Array:
    """Values (h, w, C) where `cover` (h, w) in 0..1 knows them, and elsewhere what lies around."""
    height, width = cover.shape
    if min(height, width) <= 2:
        return values
    size = (width + 1) // 2, (height + 1) // 2
    part = cv2.resize(values * cover[..., None], size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)
    lower = filled(part / (share[..., None] + np.float32(1e-6)), np.minimum(2 * share, 1))  # pyright: ignore
    wide = cv2.resize(lower, (width, height))
    return wide + (values - wide) * cover[..., None]  # pyright: ignore
