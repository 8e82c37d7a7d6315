"""The oracle itself: it does what the paper says, and whatever each of its switches does shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from drawings import Picture, draw_pair  # noqa: E402
from oracle import End, Oracle, Switches, between, loaded, mix_factors, slerp  # noqa: E402

OracleOf = Callable[[str], Oracle]
EndsOf = Callable[[str], tuple[End, End]]

PROMPTS = ("a disc by day", "a box by night")
SWITCHES = Switches(steps=5)
VISIBLE = 1e-3
"""A relative change that no rounding makes."""


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far latents are from others, relative to these."""
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope="session")
def ends_of(oracle_of: OracleOf, drawings: tuple[Picture, Picture]) -> EndsOf:
    """Two drawings fitted and inverted, once for each kind of checkpoint."""
    made: dict[str, tuple[End, End]] = {}

    def get(kind: str) -> tuple[End, End]:
        if kind not in made:
            first, second = (
                _fitted(oracle_of(kind), drawing, prompt)
                for drawing, prompt in zip(drawings, PROMPTS, strict=True)
            )
            made[kind] = first, second
        return made[kind]

    return get


def _fitted(oracle: Oracle, drawing: Picture, prompt: str) -> End:
    lora = oracle.fit(drawing, prompt, steps=8, lr=1e-2, rank=4)
    return End(oracle.invert(drawing, prompt, lora, steps=SWITCHES.steps), lora, prompt)


# ---- the checkpoints it runs on


def test_a_tiny_checkpoint_is_tiny_and_safe(checkpoint: Callable[[str], Path], kind: str) -> None:
    files = [file for file in checkpoint(kind).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2e6
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pkl")]


def test_a_drawing_has_latents_of_about_unit_spread(
    oracle_of: OracleOf, kind: str, drawings: tuple[Picture, Picture]
) -> None:
    first, second = (oracle_of(kind).encode(drawing)[0] for drawing in drawings)
    assert first.shape == (1, 4, 8, 8)
    assert 0.5 < first.std() < 2
    assert distance(first, second) > 0.5


def test_prompts_differ_in_their_text(oracle_of: OracleOf, kind: str) -> None:
    oracle, latents = oracle_of(kind), torch.zeros(1, 4, 6, 10)
    first, second = (oracle.text(prompt, latents) for prompt in PROMPTS)
    assert distance(first.states, second.states) > 0.01
    assert first.states.shape == (1, 77, oracle.unet.config.cross_attention_dim)
    if kind == "xl":
        assert first.sizes.tolist() == [[48, 80, 0, 0, 48, 80]]
        assert distance(first.pooled, second.pooled) > 0.01


def test_drawings_come_in_any_size() -> None:
    assert draw_pair(37, 51)[0].shape == (51, 37, 3)


# ---- the schedule, and between two ends


def test_the_schedule_is_what_ddim_has(oracle_of: OracleOf, kind: str) -> None:
    from diffusers import DDIMScheduler

    oracle = oracle_of(kind)
    scheduler = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", set_alpha_to_one=False)
    scheduler.set_timesteps(5)
    assert oracle.timesteps(5) == scheduler.timesteps.tolist() == [800, 600, 400, 200, 0]
    torch.testing.assert_close(oracle.alphas.float(), scheduler.alphas_cumprod, rtol=1e-4, atol=0)
    assert oracle.level(-200) == oracle.level(0) == pytest.approx(float(scheduler.final_alpha_cumprod))


def test_the_ends_of_the_arc_are_the_ends() -> None:
    first, second = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for moments_too in (False, True):
        torch.testing.assert_close(between(first, second, 0.0, moments_too=moments_too), first)
        torch.testing.assert_close(between(first, second, 1.0, moments_too=moments_too), second)


def test_the_arc_keeps_the_length_and_the_line_does_not() -> None:
    first, second = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    second *= first.norm() / second.norm()
    torch.testing.assert_close(slerp(first, second, 0.3).norm(), first.norm())
    parallel = 2 * first
    torch.testing.assert_close(slerp(first, parallel, 0.3), 1.3 * first)


# ---- fit and invert


def test_a_fit_lowers_the_loss_of_its_own_picture(
    oracle_of: OracleOf, kind: str, drawings: tuple[Picture, Picture]
) -> None:
    oracle = oracle_of(kind)
    mean, _ = oracle.encode(drawings[0])
    text = oracle.text(PROMPTS[0], mean)
    noises = torch.randn(4, *mean.shape, generator=torch.Generator().manual_seed(5))

    def probe() -> float:
        levels = (100, 350, 600, 850)
        return sum(float(oracle.loss(mean, n, t, text)) for n, t in zip(noises, levels, strict=True))

    lora = oracle.fit(drawings[0], PROMPTS[0], steps=80, lr=3e-3, rank=4)
    with torch.no_grad():
        before = probe()
        with loaded(oracle.unet, lora):
            # Attention alone can do little about a network that knows nothing.
            assert probe() < 0.997 * before
        assert probe() == before


def test_fits_start_from_the_same_factors_and_change_nothing_at_first(oracle_of: OracleOf, kind: str) -> None:
    oracle = oracle_of(kind)
    start = oracle.start(4, seed=3)
    layers = [name for name, _ in oracle.unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    wanted = {f"{layer}.{kind}" for layer in layers for kind in ("to_q", "to_k", "to_v", "to_out")}
    assert set(start) == wanted
    generator = torch.Generator().manual_seed(3)
    for name, (down, up) in sorted(start.items()):
        torch.testing.assert_close(down, torch.randn(down.shape, generator=generator) / 4)
        assert not up.any(), name


def test_denoising_gives_the_picture_back_the_better_the_more_steps(
    oracle_of: OracleOf, kind: str, drawings: tuple[Picture, Picture]
) -> None:
    oracle = oracle_of(kind)
    clean, _ = oracle.encode(drawings[0])
    errors = []
    for steps in (50, 200):
        end = End(oracle.invert(drawings[0], PROMPTS[0], steps=steps), prompt=PROMPTS[0])
        (found,) = oracle.frames([0.0], end, end, Switches(steps=steps, attention=False))
        errors.append(distance(found, clean))
    # DDIM is of first order: four times the steps, a quarter of the error.
    assert errors[1] < 0.4 * errors[0] < 0.1


def test_the_network_is_as_before_after_a_frame(oracle_of: OracleOf, ends_of: EndsOf, kind: str) -> None:
    oracle, (first, second) = oracle_of(kind), ends_of(kind)
    oracle.frames([0.5], first, second, SWITCHES)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in oracle.unet.modules())


# ---- frames


def test_frames_are_the_ends_at_the_ends(oracle_of: OracleOf, ends_of: EndsOf, kind: str) -> None:
    oracle, (first, second) = oracle_of(kind), ends_of(kind)
    found = oracle.frames([0.0, 1.0], first, second, replace(SWITCHES, guidance=2.0))
    for end, frame in zip((first, second), found, strict=True):
        alone = replace(SWITCHES, guidance=2.0, attention=False, adain=False)
        (wanted,) = oracle.frames([0.0], end, end, alone)
        torch.testing.assert_close(frame, wanted, rtol=1e-4, atol=1e-5)


def test_a_morph_backwards_is_the_morph_turned_around(
    oracle_of: OracleOf, ends_of: EndsOf, kind: str
) -> None:
    oracle, (first, second) = oracle_of(kind), ends_of(kind)
    forth = oracle.frames([0.25, 0.5], first, second, SWITCHES)
    back = oracle.frames([0.75, 0.5], second, first, SWITCHES)
    for frame, wanted in zip(back, forth, strict=True):
        torch.testing.assert_close(frame, wanted, rtol=1e-3, atol=1e-4)


def test_a_frame_decodes_to_a_picture_of_its_size(oracle_of: OracleOf, kind: str) -> None:
    oracle = oracle_of(kind)
    first, second = (End(oracle.invert(drawing, steps=2)) for drawing in draw_pair(80, 48))
    (frame,) = oracle.frames([0.5], first, second, Switches(steps=2))
    assert frame.shape == (1, 4, 6, 10)
    assert oracle.decode(frame).shape == (1, 3, 48, 80)


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        ({}, {"attention": False}),
        ({}, {"attention_share": 0.2}),
        ({}, {"attention_share": 1.0}),
        ({}, {"adain": False}),
        ({}, {"lora": False}),
        ({}, {"lora_alpha": 0.7}),
        ({}, {"guidance": 2.0}),
        ({"guidance": 2.0}, {"guidance": 2.0, "negative": "a red cat"}),
        ({"guidance": 2.0}, {"guidance": 2.0, "attention": False}),
    ],
    ids=str,
)
def test_every_switch_shows(
    oracle_of: OracleOf, ends_of: EndsOf, kind: str, base: dict[str, object], changed: dict[str, object]
) -> None:
    oracle, (first, second) = oracle_of(kind), ends_of(kind)
    (plain,) = oracle.frames([0.4], first, second, replace(SWITCHES, **base))
    (other,) = oracle.frames([0.4], first, second, replace(SWITCHES, **changed))
    assert distance(other, plain) > VISIBLE


def test_a_fixed_lora_mix_holds_for_the_ends_too(oracle_of: OracleOf, ends_of: EndsOf, kind: str) -> None:
    oracle, (first, second) = oracle_of(kind), ends_of(kind)
    own = oracle.frames([0.0, 0.4], first, second, SWITCHES)
    fixed = oracle.frames([0.0, 0.4], first, second, replace(SWITCHES, lora_alpha=0.4))
    # The frame's own LoRA is the same both times; only what it reads of the ends differs.
    assert all(distance(a, b) > VISIBLE for a, b in zip(fixed, own, strict=True))
    unread = replace(SWITCHES, attention=False)
    (alone,) = oracle.frames([0.4], first, second, unread)
    (same,) = oracle.frames([0.4], first, second, replace(unread, lora_alpha=0.4))
    torch.testing.assert_close(same, alone)


def test_mixing_factors_is_not_mixing_their_product(ends_of: EndsOf, kind: str) -> None:
    first, second = (end.lora for end in ends_of(kind))
    mixed = mix_factors(first, second, 0.4)
    name = next(name for name in mixed if name.endswith("attn1.to_v"))
    products = [(up @ down) for down, up in (mixed[name], first[name], second[name])]
    assert distance(products[0], 0.6 * products[1] + 0.4 * products[2]) > VISIBLE
