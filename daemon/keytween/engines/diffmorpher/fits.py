"""Fits on disk, found by content: the picture, prompt, checkpoint and settings, never a file's name."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from keytween.engines.diffmorpher.lora import Factors
from keytween.engines.diffmorpher.reschedule import PacingCurve


@dataclass(slots=True, eq=False)
class Fit:
    """A keyframe as the model knows it: its LoRA (empty for none), clean latents and noise (1, C, h, w)."""

    factors: Factors
    clean: Tensor
    noise: Tensor


@dataclass(frozen=True, slots=True)
class FitStore:
    """A folder of fits and pacing curves; None keeps nothing."""

    folder: Path | None = None

    def load(self, key: str) -> Fit | None:
        """The fit under a key; None when it is not there or not whole."""
        path = self._path(key, ".safetensors")
        if path is None or not path.is_file():
            return None
        try:
            tensors = load_file(path)
            names = sorted({name.rsplit("|", 1)[0] for name in tensors if "|" in name})
            factors = {name: (tensors[f"{name}|down"], tensors[f"{name}|up"]) for name in names}
            if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
                raise ValueError("values that are no numbers")
            return _whole(Fit(factors, tensors["clean"], tensors["noise"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            path.unlink(missing_ok=True)
            return None

    def save(self, key: str, fit: Fit) -> None:
        """Keeps a fit, whole or not at all."""
        path = self._path(key, ".safetensors")
        if path is None:
            return
        tensors = {"clean": fit.clean.cpu().contiguous(), "noise": fit.noise.cpu().contiguous()}
        for name, (down, up) in fit.factors.items():
            tensors |= {f"{name}|down": down.contiguous(), f"{name}|up": up.contiguous()}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(tensors, unfinished)
        unfinished.replace(path)

    def load_curve(self, key: str) -> PacingCurve | None:
        """The pacing curve of a pair of fits."""
        path = self._path(key, ".json")
        if path is None or not path.is_file():
            return None
        try:
            values = json.loads(path.read_text("utf-8"))
            return _curve(values["alphas"], values["changed"], values["distance"])
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, OSError):
            path.unlink(missing_ok=True)
            return None

    def save_curve(self, key: str, curve: PacingCurve) -> None:
        """Keeps a pacing curve."""
        path = self._path(key, ".json")
        if path is None:
            return
        values = {"alphas": curve.alphas, "changed": curve.changed, "distance": curve.distance}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(values), "utf-8")
        unfinished.replace(path)

    def _path(self, key: str, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.folder / f"{key}{suffix}"


def _whole(fit: Fit) -> Fit:
    """The fit; ValueError where its parts do not go together."""
    pairs = [(down.shape, up.shape) for down, up in fit.factors.values()]
    if any(len(d) != 2 or len(u) != 2 or d[0] != u[1] for d, u in pairs):
        raise ValueError("a layer's halves do not fit")
    if fit.clean.ndim != 4 or fit.clean.shape != fit.noise.shape:
        raise ValueError("the latents do not fit")
    return fit


def _curve(alphas: Any, changed: Any, distance: Any) -> PacingCurve:
    """The curve through these numbers; ValueError or TypeError where they are none or do not rise."""
    curve = PacingCurve(tuple(map(float, alphas)), tuple(map(float, changed)), str(distance))
    numbers = (*curve.alphas, *curve.changed)
    if (
        len(curve.alphas) < 2
        or len(curve.alphas) != len(curve.changed)
        or not all(map(math.isfinite, numbers))
    ):
        raise ValueError("it is no curve")
    return curve


def key_of(images: Tensor, settings: Mapping[str, Any]) -> str:
    """A fit's name: a SHA-256 of the pixels that the network sees and of all that shapes the fit."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(str(tuple(images.shape)).encode())
    digest.update(images.to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
