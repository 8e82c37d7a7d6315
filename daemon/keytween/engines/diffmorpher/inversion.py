"""DDIM inversion: from a picture's latents to the noise that gives it back (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from torch import Tensor

from keytween.engines.diffmorpher.lora import run
from keytween.engines.diffmorpher.schedule import NoiseSchedule


def invert(
    unet: Any,
    schedule: NoiseSchedule,
    latents: Tensor,
    conditions: list[dict[str, Any]],
    *,
    steps: int,
    refinements: int = 0,
) -> Generator[int, None, Tensor]:
    """The noise of latents (K, C, h, w), without guidance; yields each step, returns the noise.

    The network is asked at the noisier timestep of each step. `refinements` asks again with the answer
    so many times (fixed-point iteration), which makes few steps as true as many.
    """
    for number, timestep in enumerate(reversed(schedule.timesteps(steps)), start=1):
        level, to = schedule.level(schedule.before(timestep, steps)), schedule.level(timestep)
        guess = latents
        for refinement in range(refinements + 1):
            output = run(unet, guess, timestep, conditions)
            noise = schedule.epsilon(output, guess, to if refinement else level)
            guess = schedule.move(latents, noise, level=level, to=to)
        latents = guess
        yield number
    return latents
