"""The engine equals the plain, slow, frame-by-frame method: latents within 1e-3, relative."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from oracle import End, Oracle, Switches  # noqa: E402

from keytween.engines.diffmorpher import checkpoints, lora  # noqa: E402
from keytween.engines.diffmorpher.fits import Fit  # noqa: E402
from keytween.engines.diffmorpher.inversion import invert  # noqa: E402
from keytween.engines.diffmorpher.pipeline import denoise  # noqa: E402
from keytween_wire.messages import Diffusion  # noqa: E402

ALPHAS = [0.2, 0.5, 0.85]
STEPS, LORA = 5, {"steps": 6, "lr": 1e-2, "rank": 4}
PROMPTS = ("a cat", "a dog")
T = TypeVar("T")


def returned(generator: Generator[Any, Any, T]) -> T:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def distance(ours: Any, theirs: Any) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def tensor(image: np.ndarray) -> Any:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


@dataclass
class Pair:
    """A pair of drawings fitted both ways."""

    model: checkpoints.Checkpoint
    oracle: Oracle
    images: list[np.ndarray]
    with_lora: bool = True
    prompts: tuple[str, ...] = PROMPTS

    def __post_init__(self) -> None:
        size = self.images[0].shape[:2]
        self.conditions = [self.model.condition(p, size) for p in self.prompts]
        with torch.no_grad():
            encoded = [self.model.encode(tensor(image)) for image in self.images]
        means, spreads = (torch.cat([pair[i] for pair in encoded]) for i in (0, 1))
        self.factors = self._fit(means, spreads) if self.with_lora else [{} for _ in self.images]
        blend = self.model.blend
        blend.loras = lora.stack(self.factors, device=self.model.device, dtype=torch.float32)
        blend.weights = None
        blend.mixing = False
        with torch.no_grad():
            inverting = invert(self.model.unet, self.model.schedule, means, self.conditions, steps=STEPS)
            self.noise = returned(inverting)
        self.fits = [Fit(f, means[i : i + 1], self.noise[i : i + 1]) for i, f in enumerate(self.factors)]

    def _fit(self, means: Any, spreads: Any) -> list[lora.Factors]:
        settings = lora.FitSettings(LORA["steps"], LORA["lr"], LORA["rank"], seed=3)
        return returned(
            lora.fit(
                self.model.unet,
                self.model.blend,
                self.model.schedule,
                means=means,
                spreads=spreads,
                conditions=self.conditions,
                settings=settings,
            )
        )

    def same_ends(self) -> list[End]:
        """Our fits as the oracle takes them: what differs then is the frames' own doing."""
        return [End(f.noise, f.factors or None, p) for f, p in zip(self.fits, self.prompts, strict=True)]

    def ends(self) -> list[End]:
        """The oracle's own fits of the same drawings."""
        found = []
        for image, prompt in zip(self.images, self.prompts, strict=True):
            fitted = self.oracle.fit(image, prompt, seed=3, **LORA) if self.with_lora else None
            noise = self.oracle.invert(image, prompt, fitted, steps=STEPS)
            found.append(End(noise, fitted, prompt))
        return found

    def ours(self, settings: Diffusion, alphas: list[float], first: int = 0) -> Any:
        """The engine's latents at alphas, ends left out."""
        negative = None
        if settings.guidance != 1:
            negative = self.model.condition(settings.negative_prompt, self.images[0].shape[:2])
        fits, texts = self.fits[first : first + 2], self.conditions[first : first + 2]
        with torch.no_grad():
            return returned(
                denoise(
                    self.model, tuple(fits), tuple(texts), alphas, settings, steps=STEPS, negative=negative
                )
            )


Make = Callable[..., Pair]


@pytest.fixture(scope="module")
def make(
    checkpoint: Callable[[str], Path],
    oracle_of: Callable[[str], Oracle],
    drawings: tuple[np.ndarray, np.ndarray],
) -> Make:
    """Pairs by kind of checkpoint, each fitted once."""
    known: dict[Any, Pair] = {}

    def get(kind: str = "sd", *, with_lora: bool = True, height: int = 64) -> Pair:
        key = (kind, with_lora, height)
        if key not in known:
            model = checkpoints.load(checkpoint(kind), device=torch.device("cpu"))
            images = [image[:height] for image in drawings]
            known[key] = Pair(model, oracle_of(kind), images, with_lora=with_lora)
        return known[key]

    return get


def test_the_loras_fitted_in_one_batch_are_those_fitted_alone(make: Make) -> None:
    pair = make()
    for ours, end in zip(pair.factors, pair.ends(), strict=True):
        assert ours.keys() == end.lora.keys()
        for name, (down, up) in ours.items():
            assert distance(down, end.lora[name][0]) < 1e-3
            assert distance(up, end.lora[name][1]) < 1e-2
            assert up.abs().max() > 1e-3


def test_inverted_noise_is_the_same(make: Make) -> None:
    pair = make()
    for i, end in enumerate(pair.ends()):
        assert distance(pair.noise[i : i + 1], end.noise) < 1e-3


CASES = {
    "defaults": (Diffusion(), Switches()),
    "no AdaIN": (Diffusion(adain=False), Switches(adain=False)),
    "lambda 0": (Diffusion(attention=0.0), Switches(attention_share=0.0)),
    "no attention": (Diffusion(attention=0.0), Switches(attention=False)),
    "lambda 1": (Diffusion(attention=1.0), Switches(attention_share=1.0)),
    "fixed LoRA": (Diffusion(fixed_lora=0.3), Switches(lora_alpha=0.3)),
    "guidance": (
        Diffusion(guidance=2.5, negative_prompt="a bird"),
        Switches(guidance=2.5, negative="a bird"),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["sd", "v", "xl"])
def test_frames_equal_the_oracles(make: Make, kind: str, case: str) -> None:
    settings, switches = CASES[case]
    _compare(make(kind), settings, switches)


@pytest.mark.parametrize("kind", ["sd", "v"])
def test_frames_without_lora_equal_the_oracles(make: Make, kind: str) -> None:
    _compare(make(kind, with_lora=False), Diffusion(use_lora=False), Switches(lora=False))


def test_frames_that_are_not_square_equal_the_oracles(make: Make) -> None:
    _compare(make(height=48), Diffusion(), Switches())


@pytest.mark.parametrize("kind", ["sd", "v", "xl"])
def test_everything_from_the_drawings_on_equals_the_oracles(make: Make, kind: str) -> None:
    pair = make(kind)
    _compare(pair, Diffusion(), Switches(), pair.ends())


def test_four_keyframes_fitted_together_equal_the_oracles_pairs(make: Make) -> None:
    plain = make()
    turned = [np.ascontiguousarray(image[::-1]) for image in plain.images]
    four = Pair(plain.model, plain.oracle, [*plain.images, *turned], prompts=("a cat", "a dog", "", "a bird"))
    for ours, end in zip(four.factors, four.ends(), strict=True):
        assert all(distance(down, end.lora[name][0]) < 1e-3 for name, (down, _) in ours.items())
    ends = four.same_ends()
    for segment in range(3):
        theirs = four.oracle.frames(ALPHAS, ends[segment], ends[segment + 1], Switches(steps=STEPS))
        rows = four.ours(Diffusion(), ALPHAS, first=segment)[1:-1]
        for row, expected in zip(rows, theirs, strict=True):
            assert distance(row[None], expected) < 1e-3


def _compare(pair: Pair, settings: Diffusion, switches: Switches, ends: list[End] | None = None) -> None:
    first, second = ends or pair.same_ends()
    theirs = pair.oracle.frames([0.0, *ALPHAS, 1.0], first, second, replace(switches, steps=STEPS))
    ours = pair.ours(settings, ALPHAS)
    assert ours.shape[0] == len(ALPHAS) + 2
    for row, expected in zip(ours, theirs, strict=True):
        assert distance(row[None], expected) < 1e-3


def test_every_switch_changes_the_frames(make: Make) -> None:
    pair = make()
    plain = pair.ours(Diffusion(), ALPHAS)[1:-1]
    for case in CASES.keys() - {"defaults"}:
        assert distance(pair.ours(CASES[case][0], ALPHAS)[1:-1], plain) > 1e-3, case


def test_chunks_give_what_one_batch_gives(make: Make) -> None:
    pair = make()
    whole = pair.ours(Diffusion(), ALPHAS)[1:-1]
    alone = torch.cat([pair.ours(Diffusion(), [alpha])[1:-1] for alpha in ALPHAS])
    assert distance(alone, whole) < 1e-5
