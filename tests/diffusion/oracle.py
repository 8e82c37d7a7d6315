"""DiffMorpher as the paper tells it: one frame after the other, in float32, with stored attention inputs.

This is what the engine is measured against, so it shares nothing with it: the networks run with diffusers'
own attention, LoRAs are loaded for one frame at a time and the ends are denoised first, their attention
inputs kept for the frames between them. It is slow and meant to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

Factors = dict[str, tuple[Tensor, Tensor]]
"""A LoRA: (down (rank, in), up (out, rank)) by projection, e.g. "mid_block...attn1.to_out"."""
Inputs = dict[tuple[int, bool, str], Tensor]
"""Stored attention inputs, by step, whether it is the negative pass, and layer."""


@dataclass(frozen=True)
class Text:
    """A prompt as the network takes it; `pooled` and `sizes` for SDXL only."""

    states: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None


@dataclass(frozen=True)
class End:
    """One keyframe: its inverted latents (1, C, h, w), its LoRA and its prompt."""

    noise: Tensor
    lora: Factors | None = None
    prompt: str = ""


@dataclass(frozen=True)
class Switches:
    """How frames are made; the defaults are the paper's method without rescheduling."""

    steps: int = 50
    attention: bool = True
    attention_share: float = 0.6
    """The paper's lambda."""
    adain: bool = True
    lora: bool = True
    lora_alpha: float | None = None
    """A LoRA mix for all frames, in place of each frame's own alpha."""
    guidance: float = 1.0
    negative: str = ""


class Oracle:
    """The method over one checkpoint."""

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        pipeline = _load(path).to(self.device)
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self._encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
        if hasattr(pipeline, "text_encoder_2"):
            self._encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        for part in (self.unet, self.vae, *(encoder for _, encoder in self._encoders)):
            part.requires_grad_(False).eval()
        config = pipeline.scheduler.config
        self.alphas = (1 - betas(config)).cumprod(0)
        self.predicts_v = config.get("prediction_type", "epsilon") == "v_prediction"

    # ---- pictures and text

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """The scaled mean and spread (1, C, h, w) of the latents of an (H, W, 3) uint8 picture."""
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self.device, torch.float32)
        posterior = self.vae.encode(pixels / 127.5 - 1).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The picture (1, 3, H, W) in -1..1 of latents (1, C, h, w)."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    @torch.no_grad()
    def text(self, prompt: str, latents: Tensor) -> Text:
        """A prompt for pictures of the size that latents (1, C, h, w) have."""
        if len(self._encoders) == 1:
            return Text(self._read(0, prompt).last_hidden_state)
        first, second = self._read(0, prompt), self._read(1, prompt)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = latents.shape[2] * factor, latents.shape[3] * factor
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=self.device)
        return Text(states, second.text_embeds, sizes)

    def _read(self, which: int, prompt: str) -> Any:
        tokenizer, encoder = self._encoders[which]
        length = tokenizer.model_max_length
        tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True)
        ids = torch.tensor([tokens.input_ids], device=self.device)
        return encoder(ids, output_hidden_states=True)

    # ---- the noise schedule

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of a denoising, from noise to picture."""
        return [i * (len(self.alphas) // steps) for i in range(steps - 1, -1, -1)]

    def level(self, timestep: int) -> float:
        """The cumulative alpha at a timestep; before the first one it is that of timestep 0."""
        return float(self.alphas[max(timestep, 0)])

    def _noise(self, latents: Tensor, level: float, timestep: int, text: Text) -> Tensor:
        """The noise that the network sees in latents of some level, asked at a timestep."""
        output = self._network(latents, timestep, text)
        if self.predicts_v:
            return level**0.5 * output + (1 - level) ** 0.5 * latents
        return output

    def _network(self, latents: Tensor, timestep: int, text: Text) -> Tensor:
        added = {"text_embeds": text.pooled, "time_ids": text.sizes} if text.pooled is not None else None
        return self.unet(latents, timestep, text.states, added_cond_kwargs=added).sample

    # ---- fit and invert

    def fit(
        self,
        image: np.ndarray,
        prompt: str = "",
        *,
        steps: int = 200,
        lr: float = 2e-4,
        rank: int = 16,
        seed: int = 0,
    ) -> Factors:
        """A LoRA that knows one picture (paper, section 3.1)."""
        mean, spread = self.encode(image)
        text = self.text(prompt, mean)
        factors = self.start(rank, seed)
        weights = [weight.requires_grad_(True) for pair in factors.values() for weight in pair]
        optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=1e-2)
        generator = torch.Generator().manual_seed(seed)
        with loaded(self.unet, factors):
            for _ in range(steps):
                posterior = torch.randn(mean.shape[1:], generator=generator).to(self.device)
                noise = torch.randn(mean.shape[1:], generator=generator).to(self.device)
                timestep = int(torch.randint(len(self.alphas), (1,), generator=generator))
                optimizer.zero_grad()
                self.loss(mean + spread * posterior, noise[None], timestep, text).backward()
                optimizer.step()
        return {name: (down.detach(), up.detach()) for name, (down, up) in factors.items()}

    def start(self, rank: int, seed: int) -> Factors:
        """The LoRA that every fit starts from: it changes nothing yet."""
        generator = torch.Generator().manual_seed(seed)
        factors: Factors = {}
        for name, layer in sorted(projections(self.unet).items()):
            down = torch.randn(rank, layer.in_features, generator=generator) / rank
            up = torch.zeros(layer.out_features, rank)
            factors[name] = (down.to(self.device), up.to(self.device))
        return factors

    def loss(self, clean: Tensor, noise: Tensor, timestep: int, text: Text) -> Tensor:
        """How far the network is from the truth about latents with noise of a timestep."""
        signal, spread = self.level(timestep) ** 0.5, (1 - self.level(timestep)) ** 0.5
        wanted = signal * noise - spread * clean if self.predicts_v else noise
        output = self._network(signal * clean + spread * noise, timestep, text)
        return ((output - wanted) ** 2).mean()

    @torch.no_grad()
    def invert(
        self, image: np.ndarray, prompt: str = "", lora: Factors | None = None, *, steps: int = 50
    ) -> Tensor:
        """The noise (1, C, h, w) that a picture comes from, by DDIM run backwards (paper, section 3.1)."""
        latents, _ = self.encode(image)
        text = self.text(prompt, latents)
        with loaded(self.unet, lora):
            for timestep in reversed(self.timesteps(steps)):
                level = self.level(timestep - len(self.alphas) // steps)
                noise = self._noise(latents, level, timestep, text)
                latents = ddim(latents, noise, level, self.level(timestep))
        return latents

    # ---- frames

    @torch.no_grad()
    def frames(self, alphas: Sequence[float], first: End, second: End, switches: Switches) -> list[Tensor]:
        """The final latents (1, C, h, w) at each alpha: first the ends are denoised, then the rest."""
        stored: tuple[Inputs, Inputs] = ({}, {})
        for alpha, inputs in zip((0.0, 1.0), stored, strict=True):
            self._frame(alpha, first, second, switches, _Watch(store=inputs))
        return [self._frame(a, first, second, switches, _Watch(ends=stored, alpha=a)) for a in alphas]

    def _frame(self, alpha: float, first: End, second: End, switches: Switches, watch: _Watch) -> Tensor:
        """One frame, with its own LoRA loaded."""
        latents = between(first.noise, second.noise, alpha, moments_too=switches.adain)
        text = mix_text(self.text(first.prompt, latents), self.text(second.prompt, latents), alpha)
        lora = None
        if switches.lora and first.lora is not None and second.lora is not None:
            share = alpha if switches.lora_alpha is None else switches.lora_alpha
            lora = mix_factors(first.lora, second.lora, share)
        with loaded(self.unet, lora), watching(self.unet, watch):
            return self._denoise(latents, text, switches, watch)

    def _denoise(self, latents: Tensor, text: Text, switches: Switches, watch: _Watch) -> Tensor:
        """From noise to picture in DDIM steps without chance."""
        negative = self.text(switches.negative, latents)
        for step, timestep in enumerate(self.timesteps(switches.steps)):
            watch.step = step
            watch.active = switches.attention and step < switches.attention_share * switches.steps
            level = self.level(timestep)
            watch.negative = False
            noise = self._noise(latents, level, timestep, text)
            if switches.guidance != 1:
                watch.negative = True
                without = self._noise(latents, level, timestep, negative)
                noise = without + switches.guidance * (noise - without)
            latents = ddim(latents, noise, level, self.level(timestep - len(self.alphas) // switches.steps))
        return latents


# ---- the checkpoint


def _load(path: Path) -> Any:
    """The pipeline in a folder, in float32; of the two shapes the folder's own index names one."""
    settings: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    if (path / "text_encoder_2").is_dir():
        return StableDiffusionXLPipeline.from_pretrained(path, add_watermarker=False, **settings)
    return StableDiffusionPipeline.from_pretrained(path, safety_checker=None, **settings)


def betas(config: Mapping[str, Any]) -> Tensor:
    """The noise added at each timestep of training (T,), float64."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    low, high, count = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    if config["beta_schedule"] == "scaled_linear":
        return torch.linspace(low**0.5, high**0.5, count, dtype=torch.float64) ** 2
    assert config["beta_schedule"] == "linear"
    return torch.linspace(low, high, count, dtype=torch.float64)


def ddim(latents: Tensor, noise: Tensor, level: float, to: float) -> Tensor:
    """Latents of one level moved to another along their noise."""
    clean = (latents - (1 - level) ** 0.5 * noise) / level**0.5
    return to**0.5 * clean + (1 - to) ** 0.5 * noise


# ---- between two ends


def between(first: Tensor, second: Tensor, alpha: float, *, moments_too: bool) -> Tensor:
    """The noise at alpha: on the arc between two, and with AdaIN also in each channel's mean and spread."""
    a, b = first.double(), second.double()
    found = slerp(a, b, alpha)
    if moments_too:
        (mean_a, spread_a), (mean_b, spread_b) = moments(a), moments(b)
        mean, spread = moments(found)
        found = (found - mean) / spread * mix(spread_a, spread_b, alpha) + mix(mean_a, mean_b, alpha)
    return found.float()


def slerp(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The point at alpha on the arc between two tensors; on the line where they are parallel."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    if abs(cosine) > 0.9995:
        return mix(a, b, alpha)
    angle = np.arccos(cosine)
    return (np.sin((1 - alpha) * angle) * a + np.sin(alpha * angle) * b) / np.sin(angle)


def moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean and spread."""
    flat = latents.flatten(2)
    mean, variance = flat.mean(-1), flat.var(-1, unbiased=True)
    return mean[..., None, None], (variance + 1e-5).sqrt()[..., None, None]


def mix(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The point at alpha on the straight line between two tensors."""
    return (1 - alpha) * a + alpha * b


def mix_text(a: Text, b: Text, alpha: float) -> Text:
    """The text at alpha."""
    pooled = mix(a.pooled, b.pooled, alpha) if a.pooled is not None and b.pooled is not None else None
    return Text(mix(a.states, b.states, alpha), pooled, a.sizes)


def mix_factors(a: Factors, b: Factors, alpha: float) -> Factors:
    """The LoRA at alpha: each factor is mixed, not their product."""
    return {name: (mix(a[name][0], b[name][0], alpha), mix(a[name][1], b[name][1], alpha)) for name in a}


# ---- LoRAs on the network


def projections(unet: nn.Module) -> dict[str, nn.Linear]:
    """The layers that a LoRA changes, by the attention layer's path and to_q, to_k, to_v or to_out."""
    found: dict[str, nn.Linear] = {}
    for name, module in unet.named_modules():
        plain = name.removesuffix(".0")
        layer, _, kind = plain.rpartition(".")
        if isinstance(module, nn.Linear) and layer.endswith(("attn1", "attn2")) and kind.startswith("to_"):
            found[plain] = module
    return found


@contextmanager
def loaded(unet: nn.Module, factors: Factors | None) -> Iterator[None]:
    """The network with a LoRA; afterwards it is as before."""
    layers = projections(unet)
    with ExitStack() as stack:
        for name, (down, up) in (factors or {}).items():
            stack.callback(layers[name].register_forward_hook(_adding(down, up)).remove)
        yield


def _adding(down: Tensor, up: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def add(_module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return output + arguments[0] @ down.T @ up.T

    return add


# ---- attention inputs


@dataclass
class _Watch:
    """What the up blocks' self-attention layers do with their inputs: store them, or read the ends'."""

    store: Inputs | None = None
    ends: tuple[Inputs, Inputs] | None = None
    alpha: float = 0.0
    active: bool = field(default=False, init=False)
    step: int = field(default=0, init=False)
    negative: bool = field(default=False, init=False)


@contextmanager
def watching(unet: nn.Module, watch: _Watch) -> Iterator[None]:
    """The network with every self-attention layer of its up blocks under watch."""
    with ExitStack() as stack:
        for name, module in unet.named_modules():
            if name.startswith("up_blocks") and name.endswith(".attn1"):
                hook = module.register_forward_pre_hook(_intercepting(watch, name), with_kwargs=True)
                stack.callback(hook.remove)
        yield


def _intercepting(watch: _Watch, name: str) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that stores a layer's input, or gives the layer the mixed inputs for its keys and values."""

    def intercept(_module: nn.Module, arguments: tuple[Tensor], settings: dict[str, Any]) -> Any:
        key = (watch.step, watch.negative, name)
        if not watch.active:
            return None
        if watch.store is not None:
            watch.store[key] = arguments[0]
        if watch.ends is None:
            return None
        read = mix(watch.ends[0][key], watch.ends[1][key], watch.alpha)
        return arguments, settings | {"encoder_hidden_states": read}

    return intercept
