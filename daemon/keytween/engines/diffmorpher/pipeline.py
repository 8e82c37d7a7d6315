"""DiffMorpher: fits keyframes, then morphs between two fits (Zhang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from keytween.engines import DIFFMORPHER
from keytween.engines.base import Frame, Progress
from keytween.engines.diffmorpher import checkpoints, lora, perceptual
from keytween.engines.diffmorpher.checkpoints import Checkpoint
from keytween.engines.diffmorpher.fits import Fit, FitStore, key_of
from keytween.engines.diffmorpher.framing import Framing, colours, compose, faded, matte
from keytween.engines.diffmorpher.inversion import invert
from keytween.engines.diffmorpher.latents import adain, lerp, slerp
from keytween.engines.diffmorpher.memory import MOST_WAITS, coming_back, naming, room, thrift
from keytween.engines.diffmorpher.pacing import evened_out
from keytween.engines.diffmorpher.reschedule import LINEAR, PacingCurve
from keytween.engines.diffmorpher.schedule import as_tensor
from keytween.images import Picture
from keytween_wire.errors import BadSetting, CheckpointUnusable, ModelGaveNothing, OutOfMemory
from keytween_wire.messages import Diffusion, MorphRequest

PROBE_ALPHAS, PROBE_STEPS = 9, 12
MOST_PROBES = 33
"""Drawings of a further round of pacing: as many as will be shown, within bounds."""
CHUNK = {"cuda": 16, "mps": 4, "cpu": 4}
"""Frames of 512 x 512 that are denoised together; of smaller ones more, up to MOST_ROWS."""
MOST_ROWS = 32
T = TypeVar("T")
W = TypeVar("W")
Step = Progress | Frame


@dataclass(slots=True, eq=False)
class _Side:
    """One keyframe in one pass (colours or matte): as it is, as the network sees it, its fit and its text."""

    own: Tensor
    image: Tensor
    key: str
    condition: dict[str, Any]
    lora_file: str = ""
    fit: Fit | None = None

    @property
    def fitted(self) -> Fit:
        assert self.fit is not None
        return self.fit


class DiffMorpher:
    """The engine. One checkpoint stays loaded between requests; `fits` is the folder of kept fits."""

    info = DIFFMORPHER

    def __init__(self, *, fits: Path | None = None, chunk: int = 0, device: str = "auto") -> None:
        self._store = FitStore(fits)
        self._device = checkpoints.pick_device(device)
        self._asked_chunk = chunk
        self._chunk = self._usual = chunk or CHUNK[self._device.type]
        self._thrift = thrift(0)
        self._loaded: Checkpoint | None = None
        self.evaluations = 0

    # ---- the engine's one verb

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position of the request that is not in `skip`.

        Raises CheckpointUnusable, LoraUnusable, BadSetting, ModelGaveNothing or OutOfMemory.
        """
        check(request.diffusion, len(keyframes))
        yield from self._await_memory()
        self.evaluations = 0
        done = set(skip)
        try:
            yield from self._attempt(request, keyframes, done, dtype=None)
        except _NotFinite:
            yield Progress("repeating in full precision", 0, 1)
            try:
                yield from self._attempt(request, keyframes, done, dtype=torch.float32)
            except _NotFinite as error:
                raise ModelGaveNothing(name=request.diffusion.checkpoint) from error

    def _attempt(
        self,
        request: MorphRequest,
        keyframes: Sequence[Picture],
        done: set[int],
        *,
        dtype: torch.dtype | None,
    ) -> Iterator[Step]:
        yield Progress("loading the checkpoint", 0, 1)
        with torch.inference_mode(False), torch.no_grad(), naming("while drawing", self._device):
            with naming("while loading the checkpoint", self._device):
                model = self._open(request.diffusion.checkpoint, dtype)
            run = _Run(self, model, request, keyframes)
            for made in run.frames(done):
                if isinstance(made, Frame):
                    done.add(made.index)
                yield made

    def _open(self, checkpoint: str, dtype: torch.dtype | None) -> Checkpoint:
        if not checkpoint:
            raise CheckpointUnusable(name="(none)", detail="no checkpoint was chosen")
        path = Path(checkpoint).expanduser()
        loaded = self._loaded
        if loaded is None or loaded.path != path or (dtype is not None and loaded.dtype is not dtype):
            self._loaded = None
            self._loaded = checkpoints.load(path, device=self._device, dtype=dtype, thrift=self._thrift)
        assert self._loaded is not None
        self._loaded.make_do(self._thrift)
        return self._loaded

    def distance(
        self, settings: Diffusion
    ) -> tuple[str, Callable[[Picture], Tensor], Callable[[Tensor, Tensor], float]]:
        """What the pace is measured with: its name, what it keeps of a picture, and how far apart two are.

        Pictures are seen at the size that the network would draw them. Raises CheckpointUnusable.
        """
        model = self._open(settings.checkpoint, None)
        distance = perceptual.pick(model.encode, self._device)

        def keep(picture: Picture) -> Tensor:
            size = settings.size or model.native
            framing = Framing.of(picture.pixels.shape, size=size, multiple=model.multiple)
            return distance.keep(framing.enter(colours(picture)))

        return distance.name, keep, distance.apart

    def close(self) -> None:
        """Frees the checkpoint."""
        self._loaded = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # ---- memory

    def make_do(self, lean: int) -> None:
        """Takes less memory the more `lean`: the daemon says how often it ran out for this job."""
        self._thrift = thrift(lean)

    def _await_memory(self) -> Iterator[Step]:
        """Waits for a device's memory after a process that ran out of it; a processor's is there at once."""
        if self._thrift == thrift(0) or self._device.type != "cuda":
            return
        for look in coming_back(lambda: room(self._device)[0]):
            yield Progress("waiting for memory", look, MOST_WAITS)

    @property
    def apart(self) -> bool:
        """Whether keyframes are studied one by one."""
        return self._thrift.apart

    @property
    def shortage(self) -> str:
        """What drawings say of the memory that they were made with; empty where there was enough."""
        return self._thrift.sentence(self._chunk, self._usual)

    @property
    def chunk(self) -> int:
        """How many frames are denoised together, the two ends not counted."""
        return self._chunk

    def set_chunk(self, pixels: int) -> None:
        """Chooses the chunk for frames of so many pixels; memory grows with both."""
        fitting = CHUNK.get(self._device.type, 4) * 512 * 512 // max(1, pixels)
        self._usual = self._asked_chunk or min(MOST_ROWS, max(1, fitting))
        self._chunk = self._thrift.chunk(self._usual)

    def halve_chunk(self, frames: int) -> None:
        """Makes do with less memory, where so many frames were wanted."""
        self._chunk = max(1, min(self._chunk, frames) // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def store(self) -> FitStore:
        """Where fits are kept."""
        return self._store


class _NotFinite(Exception):
    """The network gave NaN or infinity."""


def check(settings: Diffusion, keyframes: int) -> None:
    """Refuses settings that no checkpoint could carry out; raises BadSetting."""
    for name, value, low, high in (
        ("steps", settings.steps, 1, 1000),
        ("lora steps", settings.lora_steps, 0, 100_000),
        ("lora rank", settings.lora_rank, 1, 1024),
        ("lambda", settings.attention, 0, 1),
        ("guidance", settings.guidance, 0, 100),
        ("refinements", settings.refinements, 0, 100),
        ("pace rounds", settings.pace_rounds, 1, 10),
        ("lora learning rate", settings.lora_lr, 0, 10),
        ("size", settings.size, 0, 8192),
        ("fixed lora", settings.fixed_lora if settings.fixed_lora != -1 else 0, 0, 1),
    ):
        if not low <= value <= high:
            raise BadSetting(name=name, value=value, detail=f"it must lie in {low}..{high}")
    if settings.reschedule not in Diffusion.RESCHEDULES:
        choices = ", ".join(Diffusion.RESCHEDULES)
        raise BadSetting(name="reschedule", value=settings.reschedule, detail=f"choose one of {choices}")
    for name, given in (("prompts", settings.prompts), ("loras", settings.loras)):
        if len(given) not in (0, 1, keyframes):
            detail = f"give one, or one for each of the {keyframes} keyframes"
            raise BadSetting(name=name, value=len(given), detail=detail)


class _Run:
    """One request on one checkpoint."""

    def __init__(
        self, engine: DiffMorpher, model: Checkpoint, request: MorphRequest, keyframes: Sequence[Picture]
    ) -> None:
        self._engine, self._model = engine, model
        self._request, self._settings = request, request.diffusion
        self._pictures = keyframes
        shape = keyframes[0].pixels.shape
        size = self._settings.size or model.native
        self._framing = Framing.of(shape, size=size, multiple=model.multiple)
        self._shape = shape
        engine.set_chunk(self._framing.height * self._framing.width)
        # Once and for all: where networks are alone on the device, its encoder would push out the network.
        guided = self._settings.guidance != 1
        self._negative = self._condition(self._settings.negative_prompt) if guided else None
        self._distance: perceptual.Distance | None = None
        self._drawn: dict[tuple[str, str, float], Tensor] = {}

    def frames(self, done: set[int]) -> Iterator[Step]:
        """Fits every keyframe that a missing drawing needs, then goes through the segments."""
        wanted = self._wanted(done)
        if not wanted:
            return
        passes = [[self._side(colours(p), i) for i, p in enumerate(self._pictures)]]
        mattes = [matte(picture) for picture in self._pictures]
        if any(not torch.equal(a, b) for a, b in pairwise(mattes)):
            passes.append([self._side(image, i) for i, image in enumerate(mattes)])
        # A keyframe that no missing drawing lies beside is not studied.
        needed = sorted({side for segment in wanted for side in (segment, segment + 1)})
        for sides in passes:
            yield from self._fit([sides[i] for i in needed])
        for segment, positions in wanted.items():
            pairs = [(sides[segment], sides[segment + 1]) for sides in passes]
            yield from self._segment(segment, positions, pairs, mattes[segment])

    def _wanted(self, done: set[int]) -> dict[int, list[tuple[int, float]]]:
        """The missing drawings (index, position) by segment."""
        found: dict[int, list[tuple[int, float]]] = {}
        index = 0
        for segment, positions in enumerate(self._request.positions):
            for position in positions:
                if index not in done:
                    found.setdefault(segment, []).append((index, position))
                index += 1
        return found

    # ---- fitting

    def _side(self, own: Tensor, index: int) -> _Side:
        image = self._framing.enter(own)
        prompt = _nth(self._settings.prompts, index, "")
        lora_file = _nth(self._settings.loras, index, "")
        key = key_of(image, self._fit_settings(prompt, lora_file))
        return _Side(own, image, key, self._condition(prompt), lora_file)

    def _fit_settings(self, prompt: str, lora_file: str) -> dict[str, Any]:
        s = self._settings
        return {
            "checkpoint": self._model.fingerprint(),
            "dtype": str(self._model.dtype),
            "prompt": prompt,
            "steps": s.steps,
            "refinements": s.refinements,
            "lora": [s.lora_steps, s.lora_lr, s.lora_rank, self._request.seed] if s.use_lora else None,
            "file": _file_digest(lora_file) if lora_file and s.use_lora else "",
        }

    def _condition(self, prompt: str) -> dict[str, Any]:
        with naming("while reading the prompts", self._model.device):
            return self._model.condition(prompt, self._framing.padded)

    def _fit(self, sides: list[_Side]) -> Iterator[Step]:
        for side in sides:
            side.fit = self._engine.store.load(side.key)
        missing = list({side.key: side for side in sides if side.fit is None}.values())
        if len(missing) > 1 and not self._engine.apart:
            with suppress(OutOfMemory):
                yield from self._fit_together(missing, sides)
        # Fitted apart they come out the same: each sees its own LoRA and the same noise.
        for side in missing:
            if side.fit is None:
                yield from self._fit_together([side], sides)
        for side in sides:
            side.fit = _moved(side.fitted, self._model.device)

    def _fit_together(self, missing: list[_Side], sides: list[_Side]) -> Iterator[Step]:
        with naming("while reading the keyframes", self._model.device):
            encoded = [self._model.encode(side.image) for side in missing]
        means = torch.cat([mean for mean, _ in encoded])
        spreads = torch.cat([spread for _, spread in encoded])
        with naming("while studying the keyframes", self._model.device):
            factors = yield from self._factors(missing, means, spreads)
        with naming("while inverting the keyframes", self._model.device):
            noise = yield from self._invert(missing, means, factors)
        for i, side in enumerate(missing):
            fit = Fit(factors[i], means[i : i + 1], noise[i : i + 1])
            _check_finite(fit.noise)
            self._engine.store.save(side.key, fit)
            for same in sides:
                same.fit = fit if same.key == side.key else same.fit

    def _factors(
        self, missing: list[_Side], means: Tensor, spreads: Tensor
    ) -> Generator[Step, None, list[lora.Factors]]:
        s = self._settings
        if not s.use_lora:
            return [{} for _ in missing]
        if s.loras:
            return [lora.load(Path(side.lora_file), self._model.unet) for side in missing]
        self._model.at_work(self._model.unet)
        settings = lora.FitSettings(s.lora_steps, s.lora_lr, s.lora_rank, self._request.seed)
        fitting = lora.fit(
            self._model.unet,
            self._model.blend,
            self._model.schedule,
            means=means,
            spreads=spreads,
            conditions=[side.condition for side in missing],
            settings=settings,
        )
        return (yield from _with_progress(fitting, "studying the keyframes", s.lora_steps))

    def _invert(
        self, missing: list[_Side], means: Tensor, factors: list[lora.Factors]
    ) -> Generator[Step, None, Tensor]:
        self._model.at_work(self._model.unet)
        blend = self._model.blend
        blend.loras = lora.stack(factors, device=self._model.device, dtype=self._model.dtype)
        blend.weights, blend.mixing = None, False
        steps = invert(
            self._model.unet,
            self._model.schedule,
            means,
            [side.condition for side in missing],
            steps=self._settings.steps,
            refinements=self._settings.refinements,
        )
        return (yield from _with_progress(steps, "inverting the keyframes", self._settings.steps))

    # ---- a segment

    def _segment(
        self,
        segment: int,
        positions: list[tuple[int, float]],
        pairs: list[tuple[_Side, _Side]],
        steady_matte: Tensor,
    ) -> Iterator[Step]:
        curve = yield from self._curve(pairs[0])
        wanted = [(index, position, curve.alpha_at(position)) for index, position in positions]
        while wanted:
            images = yield from self._as_fits(wanted, lambda chunk: self._passes(pairs, chunk))
            count = len(images[0])
            mattes = images[1] if len(images) > 1 else [steady_matte[0]] * count
            for (index, _, _), colour, alpha in zip(wanted[:count], images[0], mattes, strict=True):
                template = self._pictures[segment]
                if not template.has_matte:
                    template = (
                        self._pictures[segment + 1] if self._pictures[segment + 1].has_matte else template
                    )
                note = " ".join(filter(None, (_paced(curve), self._engine.shortage)))
                yield Frame(index, compose(template, colour, alpha), note)
            wanted = wanted[count:]

    def _as_fits(
        self, wanted: list[W], make: Callable[[list[W]], Generator[Step, None, T]]
    ) -> Generator[Step, None, T]:
        """What `make` makes of as many of the wanted, from the first on, as memory has room for."""
        while True:
            try:
                with naming("while drawing", self._model.device):
                    return (yield from make(wanted[: self._engine.chunk]))
            except OutOfMemory:
                if min(self._engine.chunk, len(wanted)) <= 1:
                    raise
            # Here the error is gone, and with it all that the attempt held.
            self._engine.halve_chunk(len(wanted))

    def _passes(
        self, pairs: list[tuple[_Side, _Side]], wanted: list[tuple[int, float, float]]
    ) -> Generator[Step, None, list[list[Tensor]]]:
        """The images of one chunk in each pass."""
        images: list[list[Tensor]] = []
        for pair in pairs:
            images.append((yield from self._images(pair, wanted)))
        return images

    def _images(
        self, pair: tuple[_Side, _Side], wanted: list[tuple[int, float, float]]
    ) -> Generator[Step, None, list[Tensor]]:
        """The images (3, H, W) of one chunk at the pictures' size, with the keys' own detail near them."""
        latents = self._known(pair, [alpha for _, _, alpha in wanted])
        if latents is None:
            latents = yield from self._denoise(pair, [alpha for _, _, alpha in wanted], self._settings.steps)
        _check_finite(latents)
        decoded = [self._decode(latents[i : i + 1]) for i in range(latents.shape[0])]
        out = [self._framing.leave(image, self._shape)[0] for image in decoded]
        if not self._settings.keep_ends:
            return out[1:-1]
        own = [side.own[0].to(out[0]) for side in pair]
        residuals = own[0] - out[0], own[1] - out[-1]
        return [
            image + faded(residuals, min(1.0, max(0.0, position)))
            for image, (_, position, _) in zip(out[1:-1], wanted, strict=True)
        ]

    def _known(self, pair: tuple[_Side, _Side], alphas: list[float]) -> Tensor | None:
        """What was drawn to even out the pace, ends included; None unless it is all of this."""
        rows = [self._drawn.get(_place(pair, alpha)) for alpha in (0.0, *alphas, 1.0)]
        found = [row for row in rows if row is not None]
        return torch.stack(found) if len(found) == len(rows) else None

    def _decode(self, latents: Tensor) -> Tensor:
        with naming("while turning a drawing into pixels", self._model.device):
            image = self._model.decode(latents)
        _check_finite(image)
        return image

    def _denoise(
        self, pair: tuple[_Side, _Side], alphas: list[float], steps: int
    ) -> Generator[Step, None, Tensor]:
        """Denoises the frames at `alphas` in lockstep with both ends, which are its first and last rows."""
        self._model.at_work(self._model.unet)
        denoising = denoise(
            self._model,
            (pair[0].fitted, pair[1].fitted),
            (pair[0].condition, pair[1].condition),
            alphas,
            self._settings,
            steps=steps,
            negative=self._negative,
        )
        return (yield from _with_progress(denoising, "drawing", steps))

    # ---- pacing

    @property
    def _probes(self) -> int:
        """How many drawings at full steps measure the pace: those of the longest segment, and its ends.

        Of fewer than nine a probe learns little, and of very many no more.
        """
        inner = (sum(0 < position < 1 for position in segment) for segment in self._request.positions)
        shown = max(inner) + 2
        if self._settings.reschedule == "full":
            return shown
        return min(MOST_PROBES, max(PROBE_ALPHAS, shown))

    def _curve(self, pair: tuple[_Side, _Side]) -> Generator[Step, None, PacingCurve]:
        how = self._settings.reschedule
        if how == "off":
            return LINEAR
        s = self._settings
        settings = (
            pair[0].key,
            pair[1].key,
            how,
            s.guidance,
            s.negative_prompt,
            s.attention,
            s.adain,
            s.fixed_lora,
            s.pace_rounds,
            # Further rounds measure drawings as they are shown.
            s.keep_ends and s.pace_rounds > 1,
        )
        measured = self._probes if how == "full" or s.pace_rounds > 1 else 0
        key = key_of(torch.zeros(0), {"curve": settings, "probes": measured})
        known = self._engine.store.load_curve(key)
        if known is not None:
            return known
        curve = yield from self._first_curve(pair)
        if s.pace_rounds > 1:
            curve, drawn = yield from evened_out(
                curve,
                lambda alphas: self._probe(pair, alphas, s.steps),
                lambda latents, positions: self._shown(pair, latents, positions),
                self._picked,
                count=self._probes,
                rounds=s.pace_rounds,
            )
            self._drawn = {_place(pair, alpha): row for alpha, row in drawn.items()}
        self._engine.store.save_curve(key, curve)
        return curve

    def _first_curve(self, pair: tuple[_Side, _Side]) -> Generator[Step, None, PacingCurve]:
        """From drawings at even alphas, for a probe with few steps."""
        cheap, distance = self._settings.reschedule == "probe", self._picked
        probes = PROBE_ALPHAS if cheap else self._probes
        steps = min(PROBE_STEPS, self._settings.steps) if cheap else self._settings.steps
        alphas = [i / (probes - 1) for i in range(probes)]
        latents = yield from self._probe(pair, alphas, steps)
        kept = [distance.keep(self._decode(row[None])) for row in latents]
        steps_apart = [distance.apart(a, b) for a, b in pairwise(kept)]
        return PacingCurve.from_distances(alphas, steps_apart, distance=distance.name)

    def _shown(
        self, pair: tuple[_Side, _Side], latents: list[Tensor], positions: Sequence[float]
    ) -> Iterator[Tensor]:
        """Drawings, ends included, as they are shown at these positions: with the keys' own detail."""
        if not self._settings.keep_ends:
            yield from (self._decode(row[None]) for row in latents)
            return
        ends = self._decode(latents[0][None]), self._decode(latents[-1][None])
        residuals = pair[0].image.to(ends[0]) - ends[0], pair[1].image.to(ends[1]) - ends[1]
        for row, position in zip(latents, positions, strict=True):
            yield self._decode(row[None]) + faded(residuals, position)

    @property
    def _picked(self) -> perceptual.Distance:
        """What pictures are compared by."""
        self._distance = self._distance or perceptual.pick(self._model.encode, self._model.device)
        return self._distance

    def _probe(
        self, pair: tuple[_Side, _Side], alphas: list[float], steps: int
    ) -> Generator[Step, None, list[Tensor]]:
        """Latents at the probe's alphas, ends included, in chunks like any frames."""
        inner, rows, ends = alphas[1:-1], list[Tensor](), None
        while inner or ends is None:
            latents = yield from self._as_fits(inner, lambda chunk: self._denoise(pair, chunk, steps))
            rows += list(latents[1:-1])
            ends, inner = (latents[0], latents[-1]), inner[len(latents) - 2 :]
        return [ends[0], *rows, ends[1]]


def _place(pair: tuple[_Side, _Side], alpha: float) -> tuple[str, str, float]:
    """Under which a drawing is kept; what a hair is apart is the same."""
    return pair[0].key, pair[1].key, round(alpha, 9)


def denoise(
    model: Checkpoint,
    fits: tuple[Fit, Fit],
    conditions: tuple[dict[str, Any], dict[str, Any]],
    alphas: Sequence[float],
    settings: Diffusion,
    *,
    steps: int,
    negative: dict[str, Any] | None = None,
) -> Generator[int, None, Tensor]:
    """Latents (2 + frames, C, h, w) at alphas 0, `alphas`, 1, denoised as one batch; yields each step."""
    first, second = fits
    alpha = as_tensor([0.0, *alphas, 1.0], first.noise)
    latents = slerp(first.noise, second.noise, alpha)
    if settings.adain:
        latents = adain(latents, first.noise, second.noise, alpha)
    text = {name: lerp(conditions[0][name], conditions[1][name], alpha) for name in conditions[0]}
    against = {n: v.expand(len(alpha), *v.shape[1:]) for n, v in negative.items()} if negative else None
    _set_blend(model, fits, alpha, settings)
    schedule = model.schedule
    for number, timestep in enumerate(schedule.timesteps(steps)):
        # A hair less: 0.7 x 10 is a little more than 7 in binary.
        model.blend.mixing = number < settings.attention * steps - 1e-6
        output = lora.run(model.unet, latents, timestep, [text])
        if against is not None:
            base = lora.run(model.unet, latents, timestep, [against])
            output = base + settings.guidance * (output - base)
        level, to = schedule.level(timestep), schedule.level(schedule.before(timestep, steps))
        latents = schedule.move(latents, schedule.epsilon(output, latents, level), level=level, to=to)
        yield number + 1
    model.blend.mixing = False
    return latents


def _set_blend(model: Checkpoint, fits: tuple[Fit, Fit], alpha: Tensor, settings: Diffusion) -> None:
    share = torch.full_like(alpha, settings.fixed_lora) if settings.fixed_lora >= 0 else alpha
    blend = model.blend
    blend.loras = lora.stack([fit.factors for fit in fits], device=model.device, dtype=model.dtype)
    blend.weights = torch.stack([1 - share, share], dim=1)
    blend.alphas = alpha


def _paced(curve: PacingCurve) -> str:
    return "" if curve is LINEAR else f"The pace was evened out, measured by {curve.distance}."


def _with_progress(steps: Generator[Any, None, T], phase: str, total: int) -> Generator[Step, None, T]:
    """Forwards a generator's steps as progress and returns what it returns."""
    number = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        number += 1
        yield Progress(phase, number, total)


def _nth(values: Sequence[str], index: int, default: str) -> str:
    if not values:
        return default
    return values[index if len(values) > 1 else 0]


def _file_digest(file: str) -> str:
    import hashlib

    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else file


def _moved(fit: Fit, device: torch.device) -> Fit:
    return replace(fit, clean=fit.clean.to(device).float(), noise=fit.noise.to(device).float())


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise _NotFinite
