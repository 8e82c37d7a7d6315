"""Loads the parts of a Stable Diffusion checkpoint in diffusers layout: safetensors only, no remote code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keytween.engines.diffmorpher.attention import Blend, install
from keytween.engines.diffmorpher.memory import PLENTY, Thrift, is_shortage
from keytween.engines.diffmorpher.schedule import NoiseSchedule
from keytween.engines.weights import fault
from keytween_wire.errors import CheckpointUnusable

_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
}
"""The classes a checkpoint may be made of; whatever else its index names is refused, not imported."""


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A checkpoint in memory, with our attention installed: `blend` steers it.

    With `alone`, only the networks at work lie on the device.
    """

    path: Path
    unet: Any
    vae: Any
    encoders: list[tuple[Any, Any]]
    schedule: NoiseSchedule
    blend: Blend
    device: torch.device
    dtype: torch.dtype
    alone: bool = False

    @property
    def factor(self) -> int:
        """How many pixels one latent covers, each way."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """What a picture's sides must be a multiple of, so that the network's halvings come out even."""
        return self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def native(self) -> int:
        """The side in pixels that the checkpoint was trained at."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def is_xl(self) -> bool:
        """Whether text comes pooled as well, with sizes (SDXL)."""
        return len(self.encoders) > 1

    # ---- memory

    @property
    def networks(self) -> list[Any]:
        """All its networks."""
        return [self.unet, self.vae, *(encoder for _, encoder in self.encoders)]

    def make_do(self, thrift: Thrift) -> None:
        """Takes as much memory as these settings say."""
        self.blend.queries, self.alone = thrift.queries, thrift.alone
        if thrift.recompute:
            self.unet.enable_gradient_checkpointing()
        else:
            self.unet.disable_gradient_checkpointing()
        if not self.alone:
            self._place(self.networks, self.device)

    def at_work(self, *networks: Any) -> None:
        """Puts networks on the device; where they must be alone there, the others leave it."""
        if self.alone:
            self._place([n for n in self.networks if n not in networks], torch.device("cpu"))
            self._place(networks, self.device)

    def _place(self, networks: Iterable[Any], device: torch.device) -> None:
        for network in networks:
            network.to(device)

    # ---- text

    def condition(self, prompt: str, size: tuple[int, int]) -> dict[str, Any]:
        """The text of a prompt as the network takes it, for pictures of (height, width)."""
        self.at_work(*(encoder for _, encoder in self.encoders))
        states, pooled = [], None
        for tokenizer, encoder in self.encoders:
            tokens = tokenizer(
                prompt,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(self.device)
            output = encoder(tokens, output_hidden_states=True)
            # SDXL reads the layer before the last one and does not normalise it.
            states.append(output.hidden_states[-2] if self.is_xl else output.last_hidden_state)
            pooled = output[0] if self.is_xl else None
        text = torch.cat(states, dim=-1).float()
        if pooled is None:
            return {"text": text}
        sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
        return {"text": text, "pooled": pooled.float(), "size": sizes}

    # ---- pictures

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's scaled mean and spread (B, C, h, w) of images (B, 3, H, W) in -1..1, float32."""
        self.at_work(self.vae)
        posterior = self.vae.encode(images.to(self.device, self._vae_dtype)).latent_dist
        scale = self.vae.config.scaling_factor
        return (posterior.mean.float() - self._shift) * scale, posterior.std.float() * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in -1..1, float32, of scaled latents (B, C, h, w)."""
        self.at_work(self.vae)
        plain = latents.to(self._vae_dtype) / self.vae.config.scaling_factor + self._shift
        return self.vae.decode(plain, return_dict=False)[0].float()

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def _vae_dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    def fingerprint(self) -> str:
        """A SHA-256 that names the weights: of every component's config, file sizes and header bytes."""
        return fingerprint(self.path)


def pick_device(name: str = "auto") -> torch.device:
    """The best device here, or the one that is named."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device is good at it, fp16 on other GPUs, fp32 on processors."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def load(
    path: Path,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    thrift: Thrift = PLENTY,
) -> Checkpoint:
    """The checkpoint in a folder; raises CheckpointUnusable and says what is missing."""
    index = _index(path)
    device = device or pick_device()
    dtype = dtype or pick_dtype(device)
    # SDXL's VAE overflows in fp16 (and says so); one picture at a time, fp32 costs little.
    vae_dtype = torch.float32 if dtype is torch.float16 or index.get("text_encoder_2") else dtype
    unet = _component(path, index, "unet", dtype)
    vae = _component(path, index, "vae", vae_dtype)
    encoders = [
        (_component(path, index, f"tokenizer{n}", None), _component(path, index, f"text_encoder{n}", dtype))
        for n in ("", "_2")
        if index.get(f"text_encoder{n}")
    ]
    model = Checkpoint(path, unet, vae, encoders, schedule(path), Blend(), device, dtype)
    for network in model.networks:
        network.requires_grad_(False).eval()
    for network in (unet, vae):
        install(network, model.blend)
    model.make_do(thrift)
    return model


def schedule(path: Path) -> NoiseSchedule:
    """The noise schedule of the checkpoint in a folder; raises CheckpointUnusable."""
    try:
        return NoiseSchedule.from_config(_json(path / "scheduler" / "scheduler_config.json", path))
    except ValueError as error:
        raise CheckpointUnusable(name=path, detail=f"its scheduler makes no sense: {error}") from error


def fingerprint(path: Path) -> str:
    """A SHA-256 that names the weights without reading gigabytes: configs, sizes, heads and tails."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.suffix in (".json", ".safetensors")):
        digest.update(f"{file.relative_to(path)}:{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            stream.seek(max(0, file.stat().st_size - (1 << 16)))
            digest.update(stream.read())
    return digest.hexdigest()


def _json(file: Path, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointUnusable(name=path, detail=f"it has no readable {file.relative_to(path)}") from error
    return value if isinstance(value, dict) else {}


def _index(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointUnusable(name=path, detail="there is no such folder")
    index = _json(path / "model_index.json", path)
    if index.get("_class_name") not in PIPELINES:
        raise CheckpointUnusable(
            name=path, detail=f"it is a {index.get('_class_name')}, not Stable Diffusion"
        )
    return index


def _component(path: Path, index: dict[str, Any], name: str, dtype: torch.dtype | None) -> Any:
    library, cls = _CLASSES[name]
    if (index.get(name) or [None, None])[1] != cls and not name.startswith("tokenizer"):
        raise CheckpointUnusable(name=path, detail=f"its {name} is {index.get(name)}, not {cls}")
    module = _quiet(library)
    if dtype is not None and (wrong := fault(path / name, _STEMS[library])):
        raise CheckpointUnusable(name=path, detail=f"its {name} {wrong}")
    settings: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        settings |= {"torch_dtype" if library == "diffusers" else "dtype": dtype, "use_safetensors": True}
    try:
        return getattr(module, cls).from_pretrained(path / name, **settings)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if is_shortage(error):
            raise
        raise CheckpointUnusable(
            name=path, detail=f"its {name} cannot be loaded: {_first_line(error)}"
        ) from error


def _quiet(library: str) -> Any:
    """The library, without its own progress bars: the worker reports progress itself."""
    module = import_module(library)
    import_module(f"{library}.utils.logging").disable_progress_bar()
    return module


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
