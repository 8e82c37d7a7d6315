"""Trains the checkpoint `toon` from nothing, in chunks that can be stopped at any time; see docs/toon.md.

    python packaging/train_toon.py STATE --minutes 9

Repeat it until it says that the checkpoint is finished; `--export FOLDER` writes what there is so far.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toon_networks import (
    SIDE,
    new_schedule,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    new_vae,
    save_pipeline,
    standardise,
)
from torch import Tensor, nn

from keytween.models import digests
from keytween.toon.casting import caption, held_out_toon, training_toon
from keytween.toon.characters import Toon
from keytween.toon.painting import draw

CACHED, LATENTS = 3000, 14000
"""Drawings kept at hand for the VAE, and drawings that are encoded for the network."""
SILHOUETTES = 20
"""One drawing in so many is a white shape on black: the engine morphs mattes as pictures, too."""
LONGEST_STEP = 5.0
"""Seconds that a step counts at most, so that a process that was paused does not lose its schedule."""
PARTS = {"vae": 16, "unet": 16}
"""The parts that are trained, with their batches."""


@dataclass(slots=True)
class Plan:
    """What the command line asks for: where state lies, for how long, on what."""

    state: Path
    minutes: float
    vae_minutes: float
    unet_minutes: float
    device: torch.device
    stopped: bool = False

    def stop(self, *_: Any) -> None:
        """Told by a signal: the step at hand is finished, then everything is saved."""
        self.stopped = True


# ---- drawings


def picture(toon: Toon, number: int) -> np.ndarray:
    """A drawing as it is trained on: (SIDE, SIDE, 3) uint8; now and then its matte instead."""
    if number % SILHOUETTES == 0:
        drawn = draw(toon, SIDE, backdrop=False)[..., 3:].repeat(3, axis=2)
    else:
        drawn = draw(toon, SIDE)[..., :3]
    return np.round(drawn * 255).astype(np.uint8)


class Drawings:
    """Some thousands of training drawings, replaced by new ones as training goes on."""

    def __init__(self, count: int, start: int, seed: int) -> None:
        self.next = start
        self.pixels = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
        self.rng = np.random.default_rng(seed)
        for place in range(count):
            self._replace(place)

    def _replace(self, place: int) -> None:
        drawn = picture(training_toon(self.next), self.next)
        self.pixels[place] = torch.from_numpy(drawn).permute(2, 0, 1)
        self.next += 1

    def refresh(self, count: int) -> None:
        """Replaces so many."""
        for place in self.rng.integers(0, len(self.pixels), count):
            self._replace(int(place))

    def batch(self, count: int, side: int) -> Tensor:
        """Parts (count, 3, side, side) in -1..1 ; some are mirrored, some in false colours."""
        rows = []
        for place in self.rng.integers(0, len(self.pixels), count):
            y, x = 4 * self.rng.integers(0, (SIDE - side) // 4 + 1, 2)
            part = self.pixels[int(place), :, y : y + side, x : x + side]
            part = part.flip(2) if self.rng.random() < 0.5 else part
            rows.append(part[self.rng.permutation(3)] if self.rng.random() < 0.2 else part)
        return torch.stack(rows).float() / 127.5 - 1


def held_out(count: int) -> Tensor:
    """Drawings (count, 3, SIDE, SIDE) in -1..1 that training never sees."""
    drawn = np.stack([picture(held_out_toon(i), 1) for i in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


class Threads:
    """Two threads while nobody else works here, otherwise one: two would wait for each other."""

    def __init__(self, device: torch.device) -> None:
        self.on = device.type == "cpu"
        self.seen = self._spent()

    @staticmethod
    def _spent() -> tuple[float, float]:
        """The clock, and how many seconds processors have worked for others."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return time.monotonic(), sum(times) - idle - time.process_time()

    def before(self, step: int) -> None:
        """Looks around every ten steps."""
        if self.on and step % 10 == 0:
            now = self._spent()
            others = (now[1] - self.seen[1]) / max(0.01, now[0] - self.seen[0])
            torch.set_num_threads(2 if others < 0.3 else 1)
            self.seen = now


# ---- one part's training, whatever the part


class Training:
    """A network with its optimiser, running average and clock; saved whole and resumed."""

    def __init__(self, name: str, network: nn.Module, plan: Plan, *, rate: float) -> None:
        self.name, self.plan, self.rate = name, plan, rate
        self.network = network.to(plan.device).train()
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.step, self.seconds, self.loss = 0, 0.0, 0.0
        if self._file.exists():
            self._load()

    @property
    def _file(self) -> Path:
        return self.plan.state / f"{self.name}.safetensors"

    def _load(self) -> None:
        kept = load_file(self._file, device=str(self.plan.device))
        with safe_open(self._file, "pt") as file:
            told = json.loads(file.metadata()["training"])
        self.network.load_state_dict(_within("network.", kept))
        self.average.load_state_dict(_within("average.", kept))
        self._load_optimizer(_within("optimizer.", kept), told["groups"])
        self.step, self.seconds = told["step"], told["seconds"]

    def _load_optimizer(self, kept: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in kept.items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = value
        for number, parameter in enumerate(self.network.parameters()):
            # A file has one layout of memory, the optimiser wants the parameter's.
            for key, value in state.get(number, {}).items():
                if value.shape == parameter.shape:
                    state[number][key] = torch.empty_like(parameter).copy_(value)
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def save(self) -> None:
        """Writes everything beside its place, then renames."""
        beside = self._file.with_suffix(".tmp")
        optimizer = self.optimizer.state_dict()
        kept = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        kept |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, values in optimizer["state"].items():
            kept |= {f"optimizer.{number}.{key}": value for key, value in values.items()}
        told = {"groups": optimizer["param_groups"], "step": self.step, "seconds": self.seconds}
        plain = {name: value.contiguous() for name, value in kept.items()}
        save_file(plain, beside, metadata={"training": json.dumps(told)})
        beside.replace(self._file)

    @property
    def progress(self) -> float:
        """How much of the planned time is over, 0..1."""
        return min(1.0, self.seconds / 60 / getattr(self.plan, f"{self.name}_minutes"))

    def learn(self, loss: Tensor) -> None:
        """One step of the optimiser, with a warm start and a cosine to nothing; then the running average."""
        rate = (
            self.rate
            * min(1.0, (self.step + 1) / 200)
            * (0.02 + 0.49 * (1 + math.cos(math.pi * self.progress)))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(0.9993, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_([*self.average.parameters()], [*self.network.parameters()], 1 - keep)
        value = float(loss.detach())
        self.loss += 0.02 * (value - self.loss) if self.loss else value

    def steps(self) -> Iterator[int]:
        """Counts steps until the call's minutes or the plan's are over, or a signal comes; then saves."""
        began, shown = time.monotonic(), time.monotonic()
        bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with bar:
            task = bar.add_task(self.name, total=1.0, completed=self.progress)
            threads = Threads(self.plan.device)
            while (
                self.progress < 1
                and not self.plan.stopped
                and time.monotonic() - began < 60 * self.plan.minutes
            ):
                before = time.monotonic()
                threads.before(self.step)
                yield self.step
                self.seconds += min(LONGEST_STEP, time.monotonic() - before)
                bar.update(
                    task, completed=self.progress, description=f"{self.name} {self.step} {self.loss:.4f}"
                )
                if time.monotonic() - shown > 60:
                    shown = time.monotonic()
                    self.save()
                    self.note()
        self.save()
        self.note()

    def note(self, **figures: float) -> None:
        """Adds a line to the log."""
        row = [self.name, self.step, f"{self.seconds / 60:.2f}", f"{self.loss:.5f}"]
        with (self.plan.state / "log.csv").open("a", newline="") as file:
            csv.writer(file).writerow([*row, *(f"{key} {value:.3f}" for key, value in figures.items())])
        print(*row, figures or "", flush=True)

    def autocast(self) -> torch.autocast:
        """bf16 for what is heavy: on processors that have it, it halves a step."""
        return torch.autocast(self.plan.device.type, dtype=torch.bfloat16)


def _within(prefix: str, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of the kept tensors has names that begin so, without that."""
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}


# ---- the VAE


def train_vae(plan: Plan) -> Training:
    """Trains the VAE until its time is over: on parts of drawings, at the end on whole ones."""
    training = Training("vae", new_vae(), plan, rate=1.5e-3)
    if training.progress == 1:
        return training
    drawings = Drawings(CACHED, start=training.step * 4, seed=training.step)
    for step in training.steps():
        whole = training.progress > 0.75
        pixels = drawings.batch(5 if whole else PARTS["vae"], SIDE if whole else SIDE // 2)
        training.learn(_vae_loss(training, pixels.to(plan.device)))
        if step % 50 == 0:
            drawings.refresh(100)
        if step % 1000 == 999:
            training.note(psnr=psnr(training.average, held_out(32).to(plan.device)))
    training.note(psnr=psnr(training.average, held_out(32).to(plan.device)))
    return training


def _vae_loss(training: Training, pixels: Tensor) -> Tensor:
    """How far the pictures are off, in values and in edges, and a little for latents that run away."""
    vae: Any = training.network
    with training.autocast():
        posterior = vae.encode(pixels).latent_dist
        again = vae.decode(posterior.sample()).sample
    off = again.float() - pixels
    edges = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
    mean, doubt = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + doubt.exp() - 1 - doubt).mean()
    return off.abs().mean() + 2 * off.square().mean() + 0.5 * edges + 1e-4 * divergence


@torch.no_grad()
def psnr(vae: Any, pixels: Tensor) -> float:
    """The mean PSNR in dB of drawings (N, 3, H, W) in -1..1 that went through the VAE."""
    values = []
    for part in pixels.split(8):
        again = vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        values += ((again - part) / 2).square().mean(dim=(1, 2, 3)).tolist()
    return sum(-10 * math.log10(value) for value in values) / len(values)


# ---- the network


def train_unet(plan: Plan, vae: Any) -> Training:
    """Trains network and text encoder together on the latents of many drawings."""
    latents, captions = _latents(plan, vae)
    # In this layout of its memory a step takes two thirds of the time.
    unet: Any = new_unet().to(memory_format=torch.channels_last)
    networks = nn.ModuleDict({"unet": unet, "text": new_text_encoder()})
    training = Training("unet", networks, plan, rate=8e-4)
    tokens = _tokens(plan, captions)
    levels = new_schedule().alphas_cumprod.to(plan.device)
    generator = torch.Generator().manual_seed(training.step)
    for _ in training.steps():
        rows = torch.randint(len(latents), (PARTS["unet"],), generator=generator)
        training.learn(_unet_loss(training, latents[rows].to(plan.device).float(), tokens[rows], levels))
    return training


def _tokens(plan: Plan, captions: list[str]) -> Tensor:
    """The captions' tokens (N, T), and those of no caption in the last row."""
    tokenizer = new_tokenizer(plan.state / "tokenizer")
    rows = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt")
    return rows.input_ids.to(plan.device)


def _unet_loss(training: Training, clean: Tensor, tokens: Tensor, levels: Tensor) -> Tensor:
    """The error of v, weighed by min-SNR (Hang et al. 2023); half of the captions are left out."""
    network: Any = training.network
    count, device = len(clean), clean.device
    level = levels[torch.randint(len(levels), (count,), device=device)]
    timesteps = torch.searchsorted(-levels, -level)
    level = level[:, None, None, None]
    noise = torch.randn_like(clean)
    target = level.sqrt() * noise - (1 - level).sqrt() * clean
    with training.autocast():
        text = network["text"](tokens).last_hidden_state
        noised = (level.sqrt() * clean + (1 - level).sqrt() * noise).to(memory_format=torch.channels_last)
        found = network["unet"](noised, timesteps, text, return_dict=False)[0].float()
    ratio = level / (1 - level)
    weight = ratio.clamp(max=5) / (ratio + 1)
    return (weight * (found - target).square()).mean() / weight.mean()


@torch.no_grad()
def _latents(plan: Plan, vae: Any) -> tuple[Tensor, list[str]]:
    """The latents (N, C, h, w) of many drawings in float16 and their captions, made once and kept."""
    file = plan.state / "latents.safetensors"
    toons = [training_toon(number) for number in range(LATENTS)]
    captions = [caption(toon) for toon in toons]
    if file.exists():
        return load_file(file)["latents"], captions
    rows = []
    for first in range(0, LATENTS, 50):
        drawn = np.stack([picture(toons[i], i) for i in range(first, min(LATENTS, first + 50))])
        pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float().to(plan.device) / 127.5 - 1
        with torch.autocast(plan.device.type, dtype=torch.bfloat16):
            rows.append(vae.encode(pixels).latent_dist.mean.cpu().half())
        if first % 1000 == 0:
            print("encoded", first, flush=True)
    latents = torch.cat(rows)
    save_file({"latents": latents}, file)
    return latents, captions


# ---- the command


def main() -> None:
    """Goes on where the last call stopped; writes the checkpoint when both parts are trained."""
    plan, export = _arguments()
    plan.state.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, plan.stop)
    signal.signal(signal.SIGINT, plan.stop)
    vae = train_vae(plan)
    if (vae.progress < 1 or plan.stopped) and not export:
        print("Call again to go on with the VAE.")
        return
    frozen = _standard_vae(plan, vae)
    unet = train_unet(plan, frozen)
    if unet.progress == 1 or export:
        networks: Any = unet.average
        folder = export or plan.state / "toon"
        save_pipeline(folder, vae=frozen, unet=networks["unet"], text_encoder=networks["text"])
        _note_digests(folder)
        print(f"The checkpoint is in {folder}.")
    if unet.progress < 1:
        print("Call again to go on with the network.")


def _note_digests(folder: Path) -> None:
    """What `keytween models verify toon` compares the files with."""
    found = {name: [digest.size, digest.sha256] for name, digest in digests(folder).items()}
    (folder / "digests.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _standard_vae(plan: Plan, training: Training) -> Any:
    """The trained VAE with latents of mean 0 and spread 1, as the network learns them."""
    vae: Any = copy.deepcopy(training.average)
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([picture(training_toon(i), i) for i in range(400)]))
        pixels = pixels.permute(0, 3, 1, 2).float().to(plan.device) / 127.5 - 1
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(20)])
    standardise(vae, latents)
    return vae


def _arguments() -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("state", type=Path, help="a folder for what is learnt so far")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop and save after so long (9)")
    parser.add_argument(
        "--vae-minutes", type=float, default=40.0, help="training time of the VAE in all (40)"
    )
    parser.add_argument("--unet-minutes", type=float, default=60.0, help="of the network in all (60)")
    parser.add_argument("--device", default="cpu", help="cpu (two threads), cuda or mps")
    parser.add_argument("--export", type=Path, help="write a checkpoint here now, trained or not")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(2)
    plan = Plan(given.state, given.minutes, given.vae_minutes, given.unet_minutes, device)
    return plan, given.export


if __name__ == "__main__":
    main()
