"""DiffMorpher against the plain method: `python benchmarks/diffmorpher.py --shape tiny|sd15|sd21|sdxl`.

Builds a checkpoint of that shape with random weights (nothing is downloaded), runs the engine and a
frame-by-frame fp32 implementation of the same method in one process, and prints seconds by phase,
evaluations of the network, peak memory and the ratios. The plain method reschedules as published: it
renders everything twice. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "diffusion"))

from checkpoints import SHAPES, make_shape
from drawings import draw_pair
from oracle import End, Oracle, Switches

from keytween.engines.base import Frame, Progress
from keytween.engines.diffmorpher import DiffMorpher, perceptual
from keytween.engines.diffmorpher.reschedule import PacingCurve
from keytween.images import Picture
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest


class Count:
    """Counts rows that go through a network."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.calls = self.rows = 0
        unet.register_forward_pre_hook(self._add)

    def _add(self, _module: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> None:
        self.calls += 1
        self.rows += arguments[0].shape[0]


def peak_mb(device: torch.device) -> float:
    """Peak memory of the device since the last reset; on a processor, of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the device's queue emptied."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def engine_run(engine: DiffMorpher, request: MorphRequest, pictures: list[Picture]) -> dict[str, float]:
    """Runs the engine; seconds by phase."""
    phases: dict[str, float] = {}
    last, phase = time.perf_counter(), "load"
    for made in engine.morph(request, pictures):
        now = time.perf_counter()
        label = made.phase if isinstance(made, Progress) else "decode and finish"
        phases[label] = phases.get(label, 0.0) + now - last
        last, phase = now, label
        assert isinstance(made, Progress | Frame), phase
    return phases


def plain_run(
    oracle: Oracle, images: Sequence[np.ndarray], frames: int, options: argparse.Namespace
) -> dict[str, float]:
    """The method as published: two fits, two inversions, everything rendered twice."""
    phases: dict[str, float] = {}

    def phase(name: str, call: Callable[[], object]) -> None:
        phases[name] = timed(call, oracle.device)

    loras: list[object] = []
    noises: list[torch.Tensor] = []
    phase("study", lambda: loras.extend(oracle.fit(i, steps=options.lora_steps) for i in images))
    phase(
        "invert",
        lambda: noises.extend(
            oracle.invert(i, lora=fitted, steps=options.steps)
            for i, fitted in zip(images, loras, strict=True)
        ),
    )
    ends = [End(noise, fitted) for noise, fitted in zip(noises, loras, strict=True)]
    alphas = [i / (frames + 1) for i in range(frames + 2)]
    switches = Switches(steps=options.steps)
    first: list[torch.Tensor] = []
    phase("first rendering", lambda: first.extend(map(oracle.decode, oracle.frames(alphas, *ends, switches))))
    distance = perceptual.latent_distance(lambda x: (oracle.vae.encode(x).latent_dist.mean, x))
    curve = PacingCurve.from_distances(alphas, [distance.between(a, b) for a, b in pairwise(first)])
    paced = [curve.alpha_at(a) for a in alphas]
    phase("second rendering", lambda: list(map(oracle.decode, oracle.frames(paced, *ends, switches))))
    return phases


def main() -> None:
    """Runs both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--frames", type=int, default=14, help="in-betweens (16 frames with the keyframes)")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lora-steps", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--no-plain", action="store_true", help="the engine alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """The engine with nothing cached, with its fits cached, and the plain method."""
    checkpoint = make_shape(folder / options.shape, options.shape)
    engine = DiffMorpher(fits=folder / "fits", chunk=options.chunk)
    model = engine._open(str(checkpoint), None)
    side = model.native
    images = draw_pair(side, side)
    count = Count(model.unet)
    settings = Diffusion(str(checkpoint), steps=options.steps, lora_steps=options.lora_steps)
    positions = tuple((i + 1) / (options.frames + 1) for i in range(options.frames))
    keys = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(2))
    request = MorphRequest(keys, (positions,), engine="diffmorpher", diffusion=settings)
    pictures = [Picture(image) for image in images]
    print(f"{options.shape}, {options.frames} in-betweens of {side} x {side}, {model.device}, {model.dtype}")
    totals: dict[str, float] = {}
    for label in ("engine, cold", "engine, fits cached"):
        count.calls = count.rows = 0
        phases = engine_run(engine, request, pictures)
        totals[label] = show(label, phases, count, model.device)
    if not options.no_plain:
        oracle = Oracle(checkpoint, device=model.device.type)
        plain_count = Count(oracle.unet)
        phases = plain_run(oracle, images, options.frames, options)
        totals["plain"] = show("plain, as published", phases, plain_count, model.device)
        fits = sum(phases[name] for name in ("study", "invert"))
        cold = totals["plain"] / totals["engine, cold"]
        print(f"ratio, cold         {cold:6.1f} x   (budget on a GPU 20, on a CPU 2)")
        cached = (totals["plain"] - fits) / totals["engine, fits cached"]
        print(f"ratio, fits cached  {cached:6.1f} x   (budget on a GPU 30)")


def show(label: str, phases: dict[str, float], count: Count, device: torch.device) -> float:
    """Prints one run; returns its seconds."""
    total = sum(phases.values())
    print(
        f"\n{label}: {total:.2f} s, {count.calls} calls of {count.rows} rows, peak {peak_mb(device):.0f} MB"
    )
    for name, seconds in phases.items():
        print(f"  {name:26} {seconds:8.2f} s")
    return total


if __name__ == "__main__":
    main()
