"""The checkpoint that comes with Keytween: it loads, gives drawings back, draws, and fits in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from keytween import models  # noqa: E402
from keytween.engines.base import Frame  # noqa: E402
from keytween.engines.diffmorpher import DiffMorpher, checkpoints  # noqa: E402
from keytween.images import Picture  # noqa: E402
from keytween.toon.casting import animation_pair, caption, held_out_toon  # noqa: E402
from keytween.toon.painting import draw  # noqa: E402
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest  # noqa: E402

FOLDER: Path = models.built_in()["toon"].folder
LEAST_PSNR = 27.0
"""A little below what docs/toon.md says of held-out drawings."""


@pytest.fixture(scope="module")
def toon() -> checkpoints.Checkpoint:
    return checkpoints.load(FOLDER, device=torch.device("cpu"))


def drawings(count: int) -> torch.Tensor:
    """Held-out drawings (count, 3, 128, 128) in -1..1."""
    drawn = np.stack([draw(held_out_toon(number), 128)[..., :3] for number in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1


def test_the_checkpoint_is_what_the_engine_expects_at_128_pixels(toon: checkpoints.Checkpoint) -> None:
    assert (toon.native, toon.factor, toon.is_xl) == (128, 8, False)
    assert toon.schedule.prediction == "v_prediction"
    assert any("up_blocks" in name and ".attn1." in name for name in toon.unet.attn_processors)


def test_every_file_together_is_at_most_24_mb() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 24_000_000


@torch.no_grad()
def test_held_out_drawings_come_back_from_the_vae(toon: checkpoints.Checkpoint) -> None:
    shown = drawings(8)
    again = toon.decode(toon.encode(shown)[0]).clamp(-1, 1)
    errors = ((again - shown) / 2).square().mean(dim=(1, 2, 3))
    assert float((-10 * errors.log10()).mean()) > LEAST_PSNR


@torch.no_grad()
def test_latents_have_mean_0_and_spread_1_as_the_network_learnt_them(toon: checkpoints.Checkpoint) -> None:
    means, spreads = toon.encode(drawings(16))
    assert means.shape == (16, 8, 16, 16)
    assert float(means.mean()) == pytest.approx(0, abs=0.1)
    assert float(means.std()) == pytest.approx(1, abs=0.15)
    assert float(spreads.mean()) < 0.5


@torch.no_grad()
def test_the_network_tells_noise_from_a_drawing_and_from_another_drawings_latents(
    toon: checkpoints.Checkpoint,
) -> None:
    clean = toon.encode(drawings(16))[0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    timestep = 400
    level = toon.schedule.level(timestep)
    noised = level**0.5 * clean + (1 - level) ** 0.5 * noise
    text = toon.condition("", (128, 128))["text"].expand(16, -1, -1)
    output = toon.unet(noised, timestep, text, return_dict=False)[0]
    found = toon.schedule.epsilon(output, noised, level)
    # Taking all of it for noise, or nothing, would be off by this much.
    alone = min(float((noised - noise).square().mean()), float(noise.square().mean()))
    assert float((found - noise).square().mean()) < 0.5 * alone


def test_every_caption_fits_into_the_tokens_and_is_read_back_from_them(toon: checkpoints.Checkpoint) -> None:
    tokenizer = toon.encoders[0][0]
    for number in range(50):
        words = caption(held_out_toon(number))
        tokens = tokenizer(words).input_ids
        assert len(tokens) <= tokenizer.model_max_length
        assert tokenizer.decode(tokens, skip_special_tokens=True).split() == words.split()


def test_a_short_morph_between_two_poses_shows_drawings(tmp_path: Path) -> None:
    ends = [draw(toon, 128)[..., :3] for toon in animation_pair(2)]
    pictures = [Picture(np.round(end * 255).astype(np.uint8)) for end in ends]
    images = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(2))
    settings = Diffusion(checkpoint=str(FOLDER), steps=10, lora_steps=5, reschedule="off")
    asked = MorphRequest(images, ((0.05, 0.5),), engine="diffmorpher", diffusion=settings)
    engine = DiffMorpher(fits=tmp_path / "fits", device="cpu")
    made = {m.index: m.picture.pixels / 255 for m in engine.morph(asked, pictures) if isinstance(m, Frame)}
    assert float(np.abs(made[0] - ends[0]).mean()) < 0.06
    # Halfway it is neither end, and it has the keyframes' contrast: it is no grey mist.
    assert min(float(np.abs(made[1] - end).mean()) for end in ends) > 0.01
    assert made[1].std() > 0.6 * min(end.std() for end in ends)
