"""The DDIM noise schedule of a checkpoint, whatever scheduler it names: steps forward and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction")
MOST_TIMESTEPS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """Cumulative alphas (T,) in float64 and how the network's output is to be read.

    `prediction` is "epsilon" or "v_prediction". Timesteps are spaced from 0 upwards ("leading", no
    offset), and the alpha before the first step is that of timestep 0.
    """

    alphas_cumprod: Tensor
    prediction: str = "epsilon"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule that a checkpoint's scheduler config describes; ValueError where it makes no sense."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        wanted = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        known = {name: config[name] for name in wanted if config.get(name) is not None}
        known |= {"rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr", False))}
        prediction = config.get("prediction_type", "epsilon")
        count = known.get("num_train_timesteps", 1000)
        if prediction not in PREDICTIONS or type(count) is not int or not 0 < count <= MOST_TIMESTEPS:
            raise ValueError(f"{str(prediction)[:40]!r} over {str(count)[:40]} timesteps")
        try:
            alphas = DDIMScheduler(**known).alphas_cumprod.double()
        except (TypeError, NotImplementedError, ArithmeticError, RuntimeError, IndexError) as error:
            raise ValueError(str(error)[:200]) from error
        if not (
            alphas.ndim == 1 and 0 < len(alphas) <= MOST_TIMESTEPS and ((alphas >= 0) & (alphas <= 1)).all()
        ):
            raise ValueError("its noise levels are none")
        return cls(alphas, prediction)

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of a denoising of so many steps, noisiest first."""
        stride = len(self.alphas_cumprod) // steps
        return [i * stride for i in reversed(range(steps))]

    def before(self, timestep: int, steps: int) -> int:
        """The timestep that a denoising step from `timestep` leads to; negative: the picture."""
        return timestep - len(self.alphas_cumprod) // steps

    def level(self, timestep: int) -> float:
        """The cumulative alpha at a timestep."""
        return float(self.alphas_cumprod[max(0, timestep)])

    def epsilon(self, output: Tensor, latents: Tensor, level: float) -> Tensor:
        """The noise that the network's output means for latents of that level."""
        if self.prediction == "epsilon":
            return output
        return level**0.5 * output + (1 - level) ** 0.5 * latents

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noised latents and what the network should say of them, for training at timesteps (B,)."""
        level = self.alphas_cumprod.to(clean.device)[timesteps].to(clean.dtype).reshape(-1, 1, 1, 1)
        noised = level.sqrt() * clean + (1 - level).sqrt() * noise
        if self.prediction == "epsilon":
            return noised, noise
        return noised, level.sqrt() * noise - (1 - level).sqrt() * clean

    def move(self, latents: Tensor, noise: Tensor, *, level: float, to: float) -> Tensor:
        """One DDIM step without chance (eta 0): latents of one level moved to another, in their own dtype."""
        x, eps = latents.float(), noise.float()
        clean = (x - (1 - level) ** 0.5 * eps) / level**0.5
        return (to**0.5 * clean + (1 - to) ** 0.5 * eps).to(latents.dtype)


def as_tensor(values: list[float], like: Tensor) -> Tensor:
    """Floats on the device of `like`, in float32."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
