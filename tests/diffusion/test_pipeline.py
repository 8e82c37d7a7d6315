"""The engine as the daemon uses it: pictures in, frames out, with a tiny checkpoint."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file  # noqa: E402

from keytween.engines.base import Frame, Progress  # noqa: E402
from keytween.engines.diffmorpher import (  # noqa: E402
    DiffMorpher,
    checkpoints,
    inversion,
    lora,
    pacing,
    perceptual,
    pipeline,
)
from keytween.engines.diffmorpher.fits import Fit, FitStore  # noqa: E402
from keytween.engines.diffmorpher.reschedule import PacingCurve  # noqa: E402
from keytween.images import Picture  # noqa: E402
from keytween_wire.errors import (  # noqa: E402
    BadSetting,
    CheckpointUnusable,
    LoraUnusable,
    ModelGaveNothing,
)
from keytween_wire.messages import Colour, Diffusion, KeyframeImage, MorphRequest  # noqa: E402

QUICK = {"steps": 3, "lora_steps": 2, "lora_rank": 2, "lora_lr": 1e-2}


def request(checkpoint: Path, *positions: tuple[float, ...], **settings: object) -> MorphRequest:
    images = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(len(positions) + 1))
    chosen = Diffusion(**{"checkpoint": str(checkpoint), **QUICK, **settings})
    return MorphRequest(images, positions, engine="diffmorpher", diffusion=chosen)


def run(
    engine: DiffMorpher, asked: MorphRequest, pictures: list[Picture], **kwargs: object
) -> dict[int, Picture]:
    made = engine.morph(asked, pictures, **kwargs)
    return {m.index: m.picture for m in made if isinstance(m, Frame)}


@pytest.fixture
def pictures(drawings: tuple[np.ndarray, np.ndarray]) -> list[Picture]:
    return [Picture(image) for image in drawings]


@pytest.fixture
def engine(tmp_path: Path) -> DiffMorpher:
    return DiffMorpher(fits=tmp_path / "fits", device="cpu")


def phases(engine: DiffMorpher, asked: MorphRequest, pictures: list[Picture]) -> list[str]:
    made = engine.morph(asked, pictures)
    return [m.phase for m in made if isinstance(m, Progress)]


def test_every_position_becomes_a_frame_like_the_keyframes(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    frames = run(engine, request(tiny_sd, (0.25, 0.5, 0.75)), pictures)
    assert sorted(frames) == [0, 1, 2]
    assert all(f.pixels.shape == (64, 64, 3) and f.pixels.dtype == np.uint8 for f in frames.values())
    assert not np.array_equal(frames[0].pixels, frames[2].pixels)


def test_the_same_seed_gives_the_same_pixels(tiny_sd: Path, pictures: list[Picture]) -> None:
    asked = request(tiny_sd, (0.4,))
    once, again = (run(DiffMorpher(device="cpu"), asked, pictures)[0].pixels for _ in range(2))
    other = run(DiffMorpher(device="cpu"), replace(asked, seed=5), pictures)[0].pixels
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_finished_drawings_are_not_made_again(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    asked = request(tiny_sd, (0.25, 0.5), (0.5,))
    three = [*pictures, pictures[0]]
    assert sorted(run(engine, asked, three, skip=frozenset({0, 2}))) == [1]
    assert run(engine, asked, three, skip=frozenset({0, 1, 2})) == {}


def test_near_a_keyframe_the_frame_is_nearly_the_keyframe(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    asked = request(tiny_sd, (0.0, 1.0), reschedule="off")
    exact = run(engine, asked, pictures)
    loose = run(engine, replace(asked, diffusion=replace(asked.diffusion, keep_ends=False)), pictures)
    for index in (0, 1):
        want = pictures[index].pixels.astype(int)
        assert np.abs(exact[index].pixels - want).max() <= 1
        assert np.abs(loose[index].pixels - want).max() > 10


def test_odd_sizes_and_aspect_ratios_come_back_as_they_were(engine: DiffMorpher, tiny_sd: Path) -> None:
    rng = np.random.default_rng(1)
    odd = [Picture(rng.integers(0, 255, (45, 71, 3), dtype=np.uint8)) for _ in range(2)]
    assert run(engine, request(tiny_sd, (0.5,)), odd)[0].pixels.shape == (45, 71, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32])
def test_depth_and_colour_are_the_keyframes(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], dtype: type[np.generic]
) -> None:
    scale = 257 if dtype is np.uint16 else 1 / 255
    deep = [Picture((p.pixels.astype(float) * scale).astype(dtype), Colour.SCENE_LINEAR) for p in pictures]
    frame = run(engine, request(tiny_sd, (0.5,)), deep)[0]
    assert (frame.pixels.dtype, frame.colour) == (dtype, Colour.SCENE_LINEAR)


def test_the_matte_morphs_as_its_own_pass(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    y, x = np.mgrid[:64, :64]
    mattes = [np.where((x - c) ** 2 + (y - 32) ** 2 < 200, 255, 0).astype(np.uint8) for c in (20, 44)]
    sprites = [Picture(np.dstack([p.pixels, m])) for p, m in zip(pictures, mattes, strict=True)]
    asked = request(tiny_sd, (0.02, 0.98), reschedule="off")
    frames = run(engine, asked, sprites)
    for index in (0, 1):
        own = np.abs(frames[index].pixels[..., 3].astype(int) - mattes[index]).mean()
        other = np.abs(frames[index].pixels[..., 3].astype(int) - mattes[1 - index]).mean()
        assert own < other / 3


def test_what_a_matte_hides_does_not_show(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    matte = np.zeros((64, 64), np.uint8)
    matte[16:48, 16:48] = 255
    shown = [Picture(np.dstack([p.pixels, matte])) for p in pictures]
    hidden = [Picture(p.pixels.copy()) for p in shown]
    for picture in hidden:
        picture.pixels[matte == 0, :3] = 255 - picture.pixels[matte == 0, :3]
    asked = request(tiny_sd, (0.5,))
    frames = [run(DiffMorpher(device="cpu"), asked, p)[0].pixels for p in (shown, hidden)]
    assert np.array_equal(frames[0], frames[1])


# ---- fits


def test_a_fit_is_found_by_content_not_by_name(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    asked = request(tiny_sd, (0.5,))
    assert "studying the keyframes" in phases(engine, asked, pictures)
    renamed = replace(asked, keyframes=tuple(replace(k, name="other.png") for k in asked.keyframes))
    assert "studying the keyframes" not in phases(engine, renamed, pictures)
    changed = [pictures[0], Picture(255 - pictures[1].pixels)]
    assert "studying the keyframes" in phases(engine, asked, changed)


def test_a_new_number_of_frames_probes_nothing_again(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    first = phases(engine, request(tiny_sd, (0.5,)), pictures)
    second = phases(engine, request(tiny_sd, (0.2, 0.4, 0.6, 0.8)), pictures)
    assert first.count("drawing") > second.count("drawing") == QUICK["steps"]


def test_n_keyframes_are_fitted_once_each(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    run(engine, request(tiny_sd, (0.5,), (0.5,), (0.5,)), [*pictures, pictures[0], pictures[1]])
    assert len(list((tmp_path / "fits").glob("*.safetensors"))) == 2


def test_a_damaged_fit_is_made_again(tmp_path: Path) -> None:
    store = FitStore(tmp_path)
    (tmp_path / "abc.safetensors").write_bytes(b"half a file")
    (tmp_path / "abc.json").write_text("{")
    assert store.load("abc") is None
    store.save("abc", Fit({}, torch.zeros(1, 4, 2, 2), torch.full((1, 4, 2, 2), float("nan"))))
    assert store.load("abc") is None
    assert store.load_curve("abc") is None
    assert list(tmp_path.iterdir()) == []


# ---- pacing


def test_rescheduled_positions_are_monotone_with_ends_fixed() -> None:
    curve = PacingCurve.from_distances([0, 0.25, 0.5, 0.75, 1.0], [0.1, 4.0, 0.2, 0.1])
    alphas = [curve.alpha_at(p / 20) for p in range(21)]
    assert alphas == sorted(alphas)
    assert (alphas[0], alphas[-1]) == (0.0, 1.0)
    assert curve.monotone
    assert 0.25 < curve.alpha_at(0.5) < 0.5


def test_a_frame_says_what_its_pace_was_measured_by(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    for how, note in (("probe", "The pace was evened out, measured by "), ("off", "")):
        made = engine.morph(request(tiny_sd, (0.5,), reschedule=how), pictures)
        (said,) = [m.note for m in made if isinstance(m, Frame)]
        assert said.startswith(note)
        assert bool(said) == bool(note)


def test_pictures_that_are_all_the_same_need_no_pacing() -> None:
    assert PacingCurve.from_distances([0, 0.5, 1], [0.0, 0.0]).alpha_at(0.3) == 0.3


def test_rescheduling_evens_out_the_pace(engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]) -> None:
    """By the distance it used, on frames it did not probe."""
    positions = tuple((i + 1) / 12 for i in range(11))
    spread = {}
    for how in ("off", "full"):
        asked = request(tiny_sd, positions, reschedule=how, keep_ends=False, use_lora=False)
        frames = run(engine, asked, pictures)
        distance = perceptual.latent_distance(engine._open(str(tiny_sd), None).encode)
        images = [
            torch.from_numpy(frames[i].pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for i in range(11)
        ]
        steps = [distance.between(a, b) for a, b in pairwise(images)]
        spread[how] = float(np.std(steps) / np.mean(steps))
    assert spread["full"] < 0.8 * spread["off"]


def steps_of(engine: DiffMorpher, asked: MorphRequest, pictures: list[Picture]) -> list[float]:
    """How far neighbouring drawings are apart, by the distance that paces them."""
    frames = run(engine, asked, pictures)
    keep = engine.distance(asked.diffusion)[1]
    kept = [keep(frames[index]) for index in sorted(frames)]
    return [float((a - b).square().mean().sqrt()) for a, b in pairwise(kept)]


@pytest.mark.parametrize("how", ["probe", "full"])
def test_each_further_round_evens_out_what_the_first_has_left(
    engine: DiffMorpher, tiny_v: Path, pictures: list[Picture], how: str
) -> None:
    positions, spread = tuple(i / 10 for i in range(11)), []
    for rounds in (1, 2, 4):
        quick = {"steps": 6, "keep_ends": False, "use_lora": False}
        asked = request(tiny_v, positions, reschedule=how, pace_rounds=rounds, **quick)
        steps = steps_of(engine, asked, pictures)
        spread.append(float(np.std(steps) / np.mean(steps)))
    assert spread[1] < 0.9 * spread[0]
    assert spread[2] < 0.6 * spread[0]


def test_the_pace_is_measured_no_more_once_it_is_even(
    tiny_sd: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny_sd, (0.3, 0.6), pace_rounds=3, use_lora=False)
    for even, rounds in ((9.0, 1), (0.0, 3)):
        monkeypatch.setattr(pacing, "EVEN", even)
        said = phases(DiffMorpher(device="cpu"), asked, pictures)
        # Once for the first curve, once for each round, and once for what is asked for.
        assert said.count("drawing") == QUICK["steps"] * (1 + rounds + 1)


def test_a_pace_that_was_measured_without_the_keys_own_detail_is_not_taken_for_one_with_it(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]
) -> None:
    asked = request(tiny_sd, (0.3, 0.6), pace_rounds=2, use_lora=False, keep_ends=False)
    assert "drawing" in phases(engine, asked, pictures)
    known = phases(engine, asked, pictures).count("drawing")
    shown = replace(asked, diffusion=replace(asked.diffusion, keep_ends=True))
    assert phases(engine, shown, pictures).count("drawing") > known


def test_what_was_drawn_to_measure_an_even_pace_is_not_drawn_again(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is what would have been drawn: a curve that is known leads to the same pictures."""
    monkeypatch.setattr(pacing, "EVEN", 9.0)
    asked = request(tiny_sd, tuple(i / 8 for i in range(9)), pace_rounds=2, use_lora=False, keep_ends=False)
    plain, drawn = pipeline.denoise, list[int]()

    def counted(*arguments: object, **settings: object) -> object:
        drawn.append(len(arguments[3]))  # type: ignore[arg-type]
        return plain(*arguments, **settings)

    monkeypatch.setattr(pipeline, "denoise", counted)
    first = run(engine, asked, pictures)
    assert drawn == [7, 7]
    again = run(engine, asked, pictures)
    assert drawn == [7, 7, 9]
    assert max(np.abs(first[i].pixels.astype(int) - again[i].pixels).max() for i in first) <= 1


# ---- memory and numbers


def test_chunks_halve_when_memory_runs_out_and_the_frames_are_the_same(
    tiny_sd: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny_sd, (0.2, 0.4, 0.6, 0.8))
    whole = run(DiffMorpher(device="cpu"), asked, pictures)
    plain, refused = pipeline.denoise, []

    def short_of_memory(
        model: object, fits: object, texts: object, alphas: list[float], *a: object, **k: object
    ):
        if len(alphas) > 2:
            refused.append(len(alphas))
            raise torch.OutOfMemoryError("not enough")
        return plain(model, fits, texts, alphas, *a, **k)

    monkeypatch.setattr(pipeline, "denoise", short_of_memory)
    engine = DiffMorpher(device="cpu", chunk=4)
    chunked = run(engine, asked, pictures)
    assert refused
    assert engine.chunk == 2
    for index, picture in whole.items():
        assert np.abs(chunked[index].pixels.astype(int) - picture.pixels).max() <= 1


def test_keyframes_that_do_not_fit_in_memory_together_are_fitted_apart(
    tiny_sd: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny_sd, (0.5,))
    whole = run(DiffMorpher(device="cpu"), asked, pictures)[0].pixels
    plain, sizes = lora.fit, []

    def short_of_memory(*arguments: object, conditions: list[object], **settings: object) -> object:
        sizes.append(len(conditions))
        if len(conditions) > 1:
            raise torch.OutOfMemoryError("not enough")
        return plain(*arguments, conditions=conditions, **settings)

    monkeypatch.setattr(lora, "fit", short_of_memory)
    apart = run(DiffMorpher(device="cpu"), asked, pictures)[0].pixels
    assert sizes == [2, 1, 1]
    assert np.abs(apart.astype(int) - whole).max() <= 2


def test_a_scaled_down_keyframe_keeps_its_detail_near_itself(engine: DiffMorpher, tiny_sd: Path) -> None:
    rng = np.random.default_rng(3)
    fine = [Picture(rng.integers(0, 255, (150, 130, 3), dtype=np.uint8)) for _ in range(2)]
    frames = run(engine, request(tiny_sd, (0.0,), reschedule="off"), fine)
    assert np.abs(frames[0].pixels.astype(int) - fine[0].pixels).max() <= 1


def test_numbers_that_run_away_are_retried_in_full_precision_and_then_refused(
    tiny_sd: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "pick_dtype", lambda device: torch.bfloat16)
    engine = DiffMorpher(device="cpu")
    plain, calls = lora.run, []

    def broken(unet: object, latents: object, *rest: object) -> object:
        calls.append(next(unet.parameters()).dtype)
        return plain(unet, latents, *rest) * float("nan")

    monkeypatch.setattr(inversion, "run", broken)
    asked = request(tiny_sd, (0.5,), use_lora=False)
    with pytest.raises(ModelGaveNothing):
        run(engine, asked, pictures)
    assert [dtype for dtype, _ in groupby(calls)] == [torch.bfloat16, torch.float32]


def test_closing_it_stops_within_a_step(engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture]) -> None:
    made = engine.morph(request(tiny_sd, (0.5,)), pictures)
    for step in made:
        if isinstance(step, Progress) and step.phase == "inverting the keyframes":
            break
    made.close()
    assert run(engine, request(tiny_sd, (0.5,)), pictures).keys() == {0}


def test_larger_frames_are_denoised_in_smaller_chunks() -> None:
    engine = DiffMorpher(device="cpu")
    chunks = []
    for side in (64, 256, 512, 2048):
        engine.set_chunk(side * side)
        chunks.append(engine.chunk)
    assert chunks == [32, 16, 4, 1]


# ---- what is refused


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"reschedule": "nonsense"},
        {"refinements": -1},
        {"pace_rounds": 0},
        {"attention": 1.5},
        {"lora_rank": 0},
        {"fixed_lora": 2.0},
        {"prompts": ("a", "b", "c")},
        {"size": -8},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_at_once(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], settings: dict[str, object]
) -> None:
    with pytest.raises(BadSetting):
        run(engine, request(tiny_sd, (0.5,), **settings), pictures)


def test_a_folder_that_is_no_checkpoint_says_what_is_missing(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    import shutil

    for spoil, word in (
        (lambda folder: shutil.rmtree(folder / "unet"), "unet"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text('{"_class_name": "Flux"}'), "Flux"),
    ):
        broken = tmp_path / word
        shutil.copytree(tiny_sd, broken)
        spoil(broken)
        with pytest.raises(CheckpointUnusable, match=word):
            run(engine, request(broken, (0.5,)), pictures)
    with pytest.raises(CheckpointUnusable, match="no checkpoint was chosen"):
        run(engine, replace(request(tiny_sd, (0.5,)), diffusion=Diffusion()), pictures)


# ---- LoRA files


def fitted(engine: DiffMorpher, checkpoint: Path) -> tuple[object, lora.Factors]:
    unet = engine._open(str(checkpoint), None).unet
    factors = lora.initial(unet, lora.FitSettings(rank=2))
    generator = torch.Generator().manual_seed(1)
    return unet, {n: (a, torch.randn(b.shape, generator=generator)) for n, (a, b) in factors.items()}


def test_a_lora_file_makes_the_round_trip(engine: DiffMorpher, tiny_sd: Path, tmp_path: Path) -> None:
    unet, factors = fitted(engine, tiny_sd)
    lora.save(factors, tmp_path / "a.safetensors")
    again = lora.load(tmp_path / "a.safetensors", unet)
    assert again.keys() == factors.keys()
    assert all(torch.equal(again[n][i], factors[n][i]) for n in factors for i in (0, 1))


def test_a_lora_file_of_the_published_program_is_read(
    engine: DiffMorpher, tiny_sd: Path, tmp_path: Path
) -> None:
    unet, factors = fitted(engine, tiny_sd)
    published = {}
    for name, (down, up) in factors.items():
        layer, projection = name.rsplit(".", 1)
        published[f"unet.{layer}.processor.{projection}_lora.down.weight"] = down
        published[f"unet.{layer}.processor.{projection}_lora.up.weight"] = up
    save_file(published, tmp_path / "a.safetensors")
    again = lora.load(tmp_path / "a.safetensors", unet)
    assert all(torch.equal(again[n][1], factors[n][1]) for n in factors)


def test_lora_files_that_cannot_be_used_are_refused(
    engine: DiffMorpher, tiny_sd: Path, tmp_path: Path
) -> None:
    unet, factors = fitted(engine, tiny_sd)
    name, (down, up) = next(iter(factors.items()))
    lora.save({name: (down, up * float("nan"))}, tmp_path / "nan.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    lora.save({"up_blocks.9.attn1.to_q": next(iter(factors.values()))}, tmp_path / "other.safetensors")
    for name in ("nan.safetensors", "text.safetensors", "other.safetensors", "missing.safetensors"):
        with pytest.raises(LoraUnusable, match=name):
            lora.load(tmp_path / name, unet)


def test_a_given_lora_replaces_the_study(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    _, factors = fitted(engine, tiny_sd)
    lora.save(factors, tmp_path / "a.safetensors")
    asked = request(tiny_sd, (0.5,), loras=(str(tmp_path / "a.safetensors"),))
    assert "studying the keyframes" not in phases(engine, asked, pictures)
    plain = run(engine, request(tiny_sd, (0.5,)), pictures)[0].pixels
    assert not np.array_equal(run(engine, asked, pictures)[0].pixels, plain)


def test_our_lora_file_does_the_same_in_diffusers(tiny_sd: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    engine = DiffMorpher(device="cpu")
    unet, factors = fitted(engine, tiny_sd)
    lora.save(factors, tmp_path / "a.safetensors")
    latents, text = torch.randn(1, 4, 8, 8), {"text": torch.randn(1, 77, unet.config.cross_attention_dim)}
    model = engine._open(str(tiny_sd), None)
    model.blend.loras = lora.stack([factors], device=torch.device("cpu"), dtype=torch.float32)
    model.blend.weights = torch.ones(1, 1)
    with torch.no_grad():
        ours = lora.run(unet, latents, 100, [text])
    theirs_pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    theirs_pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    with torch.no_grad():
        theirs = theirs_pipeline.unet(latents, 100, text["text"]).sample
        theirs_pipeline.disable_lora()
        without = theirs_pipeline.unet(latents, 100, text["text"]).sample
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    assert float((without - theirs).norm() / theirs.norm()) > 1e-2
