"""Smooth noise that can be asked for at any point, so that moving it needs no resampling; pure."""

from __future__ import annotations

import numpy as np

from keytween.toon.canvas import Array, Place, Points


def pixel_centres(size: int) -> Points:
    """The middles of a square sheet's pixels, (size * size, 2) as (x, y) in units of its width."""
    steps = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(steps, steps)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def noise(size: int, place: Place, seed: int, *, coarse: float = 2.0, fine: float = 26.0) -> Array:
    """Coloured noise that lies in a place on a sheet: (size, size, 3) in 0..1.

    It holds waves of `coarse` to `fine` periods per frame width, as photographs do: fewer and weaker the
    finer they are.
    """
    points = place.back(pixel_centres(size)).astype(np.float32)
    random = np.random.default_rng(seed)
    light = _waves(points, random, 22, coarse, fine)
    warm = _waves(points, random, 6, coarse, fine / 4)
    green = _waves(points, random, 6, coarse, fine / 4)
    base = 0.5 + 0.36 * np.tanh(1.8 * light)
    tint = np.stack([0.16 * warm, 0.1 * green, -0.16 * warm], axis=1)
    colours = np.clip(base[:, None] + tint, 0, 1)
    return colours.reshape(size, size, 3).astype(np.float32)


def _waves(points: Array, random: np.random.Generator, count: int, coarse: float, fine: float) -> Array:
    """A sum of plane waves at the points (N, 2); its standard deviation is 1."""
    periods = np.geomspace(coarse, fine, count)
    angles = random.uniform(0, 2 * np.pi, count)
    phases = random.uniform(0, 2 * np.pi, count)
    amplitudes = periods**-0.5
    amplitudes = amplitudes * np.sqrt(2 / (amplitudes**2).sum())
    total = np.zeros(len(points), np.float32)
    for period, angle, phase, amplitude in zip(periods, angles, phases, amplitudes, strict=True):
        across = (2 * np.pi * period * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32)
        total += np.float32(amplitude) * np.cos(points @ across + np.float32(phase))
    return total
