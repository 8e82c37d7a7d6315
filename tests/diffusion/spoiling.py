"""Networks that run out of memory or give no numbers, in a phase of the engine; real workers load it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from keytween.engines.diffmorpher import DiffMorpher
from keytween_wire.messages import EngineInfo

PHASES = ("prompts", "keyframes", "study", "inversion", "drawing", "pixels")
NEVER, NAN = 9, 8
"""What `Spoilt` does in a phase, by the seed's last digit: memory is never enough, or numbers run away.

1 and 2: memory is enough once it has run out so often. The digit before is the phase's place in PHASES.
"""
Deed = Callable[[torch.Tensor], torch.Tensor]


def seed_for(phase: str, kind: int) -> int:
    return 10 * PHASES.index(phase) + kind


def no_numbers(output: torch.Tensor) -> torch.Tensor:
    return output * float("nan")


def no_memory(_: object = None) -> torch.Tensor:
    """What a GPU's allocator says."""
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
    raise torch.OutOfMemoryError(said)


def short_of_memory(times: int) -> Deed:
    """Raises as an allocator does, so many times."""
    left = [times]

    def deed(output: torch.Tensor) -> torch.Tensor:
        if not left[0]:
            return output
        left[0] -= 1
        return no_memory()

    return deed


def spoil(model: Any, phase: str, deed: Deed) -> list[Any]:
    """Puts a deed between a network of the checkpoint and its output, in one phase; the hooks."""

    def now() -> str:
        if torch.is_grad_enabled():
            return "study"
        return "inversion" if model.blend.weights is None else "drawing"

    def in_text(_network: Any, _given: Any, output: Any) -> Any:
        output.last_hidden_state = deed(output.last_hidden_state)
        return output

    if phase == "prompts":
        return [encoder.register_forward_hook(in_text) for _, encoder in model.encoders]
    if phase in ("keyframes", "pixels"):
        part = model.vae.encoder if phase == "keyframes" else model.vae.decoder
        return [part.register_forward_hook(lambda _n, _g, output: deed(output))]
    hook = model.unet.register_forward_hook
    return [hook(lambda _n, _g, output: (deed(output[0]),) if now() == phase else output)]


class Spoilt(DiffMorpher):
    """The engine, with a checkpoint that the request's seed spoils."""

    info = EngineInfo("spoilt", "Morphs, or has too little memory as the seed says.")

    def __init__(self) -> None:
        super().__init__(device="cpu")
        torch.set_num_threads(1)
        self._lean = 0

    def make_do(self, lean: int) -> None:
        self._lean = lean
        super().make_do(lean)

    def morph(self, request: Any, keyframes: Any, *, skip: frozenset[int] = frozenset()) -> Iterator[Any]:
        place, kind = divmod(request.seed, 10)

        def deed(output: torch.Tensor) -> torch.Tensor:
            return no_numbers(output) if kind == NAN else no_memory() if self._lean < kind else output

        hooks = spoil(self._open(request.diffusion.checkpoint, None), PHASES[place], deed)
        try:
            yield from super().morph(request, keyframes, skip=skip)
        finally:
            for hook in hooks:
                hook.remove()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `spoilt` an engine of every process that is started from now on; `folder` holds its package."""
    package = folder / "spoilt-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: spoilt\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[keytween.engines]\nspoilt = spoiling:Spoilt\n")
    places = (str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
