"""Arithmetic on pictures' arrays: depth, matte, colour curves, orientation. Pure: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[Any]

_HALF_MAX = 65504.0


def full_scale(dtype: np.dtype[Any]) -> float:
    """The number that stands for 1.0: 255 for uint8, 65535 for uint16, 1 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def unit(pixels: Pixels) -> Floats:
    """The pixels as new float32: 0..1 from whole numbers, as they are from floats."""
    if pixels.dtype.kind == "u":
        return np.divide(pixels, np.float32(full_scale(pixels.dtype)), dtype=np.float32)
    return pixels.astype(np.float32)


def quantised(array: Floats, dtype: np.dtype[Any]) -> Pixels:
    """The inverse of `unit`: rounded to nearest, clamped to the dtype's range; NaN is 0 in uints."""
    if dtype.kind == "u":
        full = np.float32(full_scale(dtype))
        # fmax and fmin, unlike clip, do not pass NaN on.
        scaled = np.fmin(np.fmax(array, 0), 1) * full
        return np.rint(scaled, out=scaled).astype(dtype)
    if dtype == np.float16:
        beyond = np.isfinite(array) & (np.abs(array) > _HALF_MAX)
        if beyond.any():
            array = np.where(beyond, np.copysign(np.float32(_HALF_MAX), array), array)
        return array.astype(np.float16)
    return np.array(array, np.float32)


def straight(pixels: Pixels) -> Pixels:
    """Divides the colours of premultiplied RGBA (H, W, 4) by the matte, except where it is 0 (or below) or 1.

    Half becomes float32 where a quotient leaves half's range: nothing is lost to a faint matte.
    """
    full = full_scale(pixels.dtype)
    partial = (pixels[..., 3] > 0) & (pixels[..., 3] != full)
    if not partial.any():
        return pixels
    divisor = np.where(partial, pixels[..., 3].astype(np.float32), np.float32(full))[..., np.newaxis]
    with np.errstate(invalid="ignore"):
        colours = _finite_quotient(pixels[..., :3].astype(np.float32) * np.float32(full), divisor)
    if pixels.dtype == np.float16 and (np.abs(colours[partial]) > _HALF_MAX).any():
        pixels = pixels.astype(np.float32)
    result = np.array(pixels)
    result[..., :3] = np.rint(np.minimum(colours, full)) if pixels.dtype.kind == "u" else colours
    return result


def _finite_quotient(colours: Floats, divisor: Floats) -> Floats:
    """colours / divisor, stopping at the largest float where a vanishing divisor would make it infinite."""
    with np.errstate(over="ignore"):
        quotient = colours / divisor
    lost = np.isinf(quotient) & np.isfinite(colours)
    quotient[lost] = np.copysign(np.finfo(np.float32).max, colours[lost])
    return quotient


def premultiplied(values: Floats, *, keep_light: bool) -> Floats:
    """Straight RGBA (H, W, 4) with its colours times the matte; `keep_light` spares those where it is 0."""
    matte = values[..., 3:]
    factor = np.where(matte == 0, np.float32(1), matte) if keep_light else matte
    with np.errstate(invalid="ignore", over="ignore"):
        return np.concatenate([values[..., :3] * factor, matte], axis=-1)


def in_window(pixels: Pixels, offset: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """The pixels laid at `offset` (x, y) in a picture of `size` (width, height).

    Overscan is cropped; where the pixels do not reach there is nothing (zeros).
    """
    (left, top), (width, height) = offset, size
    rows, columns = pixels.shape[:2]
    if (left, top, columns, rows) == (0, 0, width, height):
        return pixels
    placed = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
    x0, x1 = max(left, 0), min(left + columns, width)
    y0, y1 = max(top, 0), min(top + rows, height)
    if x0 < x1 and y0 < y1:
        placed[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    return placed


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turns and flips as the EXIF orientation 1..8 says, into memory in plain row order."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def linear_from_srgb(values: Floats) -> Floats:
    """Scene-linear values of sRGB ones (float32, any shape): mirrored below 0, unbounded above 1."""
    size = np.abs(values)
    with np.errstate(over="ignore", invalid="ignore"):
        curve = ((size + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
        return np.copysign(np.where(size <= 0.04045, size / np.float32(12.92), curve), values)


def srgb_from_linear(values: Floats) -> Floats:
    """sRGB values of scene-linear ones (float32, any shape); the inverse of `linear_from_srgb`."""
    size = np.abs(values)
    with np.errstate(over="ignore", invalid="ignore"):
        curve = np.float32(1.055) * size ** np.float32(1 / 2.4) - np.float32(0.055)
        return np.copysign(np.where(size <= 0.0031308, size * np.float32(12.92), curve), values)


def linear_colours(pixels: Pixels) -> Floats:
    """Scene-linear values of sRGB pixels of any of the four types; whole numbers are looked up in a table."""
    if pixels.dtype.kind != "u":
        return linear_from_srgb(pixels.astype(np.float32))
    full = int(full_scale(pixels.dtype))
    table = linear_from_srgb(np.arange(full + 1, dtype=np.float32) / np.float32(full))
    return table[pixels]
