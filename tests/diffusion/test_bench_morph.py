# SPDX-License-Identifier: Apache-2.0
"""`keytween bench morph` through the engine, with a tiny checkpoint: every switch shows in what is drawn."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from keytween import cli  # noqa: E402
from keytween.bench import ladder, morph_runs, morphing, pairs  # noqa: E402
from keytween.engines.base import Frame  # noqa: E402
from keytween.engines.diffmorpher import DiffMorpher, perceptual  # noqa: E402
from keytween.engines.diffmorpher.framing import colours  # noqa: E402
from keytween.images import Picture  # noqa: E402
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest  # noqa: E402

SIDE = 64


def whole(checkpoint: Path) -> Diffusion:
    """Every switch on, and quick; the LoRAs learn enough to show."""
    study = {"lora_steps": 6, "lora_rank": 2, "lora_lr": 3e-2, "refinements": 2}
    return Diffusion(checkpoint=str(checkpoint), steps=4, attention=1.0, **study)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> DiffMorpher:
    return DiffMorpher(fits=tmp_path_factory.mktemp("fits"), device="cpu")


@pytest.fixture(scope="module")
def rungs(engine: DiffMorpher, tiny_sd: Path) -> dict[str, list[Picture]]:
    """What each rung draws of one pair, at 0, a third, two thirds and 1."""
    pair = pairs.chosen(("metamorphosis",), 1, size=SIDE)[0]
    images = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    found = {}
    for switch in ladder.SWITCHES:
        settings = ladder.rung(switch, whole(tiny_sd))
        request = MorphRequest(images, ((0.0, 0.3, 0.6, 1.0),), engine="diffmorpher", diffusion=settings)
        made = engine.morph(request, (pair.draw(0), pair.draw(1)))
        found[switch] = [event.picture for event in made if isinstance(event, Frame)]
    return found


def apart(first: Picture, second: Picture) -> float:
    return float(np.abs(first.pixels.astype(int) - second.pixels).mean())


@pytest.mark.parametrize(("before", "after"), list(pairwise(ladder.USUAL)))
def test_every_switch_shows_in_the_in_betweens(
    rungs: dict[str, list[Picture]], before: str, after: str
) -> None:
    assert max(apart(a, b) for a, b in zip(rungs[before][1:3], rungs[after][1:3], strict=True)) > 0.1


def test_the_published_pace_is_not_that_of_the_probe(rungs: dict[str, list[Picture]]) -> None:
    found = zip(rungs["published"][1:3], rungs["reschedule"][1:3], strict=True)
    assert max(apart(a, b) for a, b in found) > 0.01


def test_only_lora_refinement_and_pasting_change_what_is_drawn_of_the_keyframes(
    rungs: dict[str, list[Picture]],
) -> None:
    changed = [max(apart(rungs[a][i], rungs[b][i]) for i in (0, 3)) > 0.1 for a, b in pairwise(ladder.USUAL)]
    assert changed == [True, True, False, False, False, True]


def test_ends_are_not_pasted_below_the_last_rung(
    rungs: dict[str, list[Picture]],
) -> None:
    pair = pairs.chosen(("metamorphosis",), 1, size=SIDE)[0]
    for switch in ladder.SWITCHES:
        off = max(apart(rungs[switch][i], pair.draw(end)) for i, end in ((0, 0.0), (3, 1.0)))
        assert off < 1 if switch == ladder.FULL else off > 5


def test_the_bench_measures_by_what_the_pace_was_measured_with(engine: DiffMorpher, tiny_sd: Path) -> None:
    settings = whole(tiny_sd)
    gauge = morph_runs.gauge_of({"diffmorpher": engine}, settings)
    picked = perceptual.pick(engine._open(str(tiny_sd), None).encode, torch.device("cpu"))
    pair = pairs.chosen(("animation",), 1, size=SIDE)[0]
    ends = pair.draw(0), pair.draw(1)
    assert gauge.name == picked.name
    expected = picked.between(*(colours(picture) for picture in ends))
    assert gauge.apart(*map(gauge.keep, ends)) == pytest.approx(expected, rel=1e-4)
    assert gauge.weights == morphing.weights_of(tiny_sd)


def test_pictures_of_any_size_and_matte_are_seen_as_the_network_sees_them(
    engine: DiffMorpher, tiny_sd: Path
) -> None:
    gauge = morph_runs.gauge_of({"diffmorpher": engine}, whole(tiny_sd))
    rng = np.random.default_rng(0)
    odd = [Picture(rng.integers(0, 255, (90, 131, 4), dtype=np.uint8)) for _ in range(2)]
    assert gauge.apart(*map(gauge.keep, odd)) > 0
    assert gauge.apart(gauge.keep(odd[0]), gauge.keep(odd[0])) == 0


def test_a_checkpoint_that_is_not_there_leaves_a_distance_without_a_network() -> None:
    gauge = morph_runs.gauge_of({}, Diffusion(checkpoint="/nowhere"))
    assert gauge.name == "1 - MS-SSIM"


def test_a_whole_bench_runs_on_a_checkpoint_and_goes_on_without_drawing_again(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["bench", "morph", "-o", str(tmp_path), "--checkpoint", str(tiny_sd), "--pairs", "1"]
    arguments += ["--set", "animation", "--size", "64", "--frames", "4", "--steps", "2", "--lora-steps", "1"]
    arguments += [
        "--engine",
        "dissolve",
        "--engine",
        "diffmorpher",
        "--switches",
        "off",
        "--switches",
        "full",
    ]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["distance"] == "VAE latents (RMS)" or found["distance"].startswith("LPIPS")
    assert set(found["groups"]["animation"]) == {"dissolve", "off", "full"}
    assert found["groups"]["animation"]["full"]["end"]["mean"] < 1
    assert found["groups"]["animation"]["off"]["end"]["mean"] > 5
    assert found["settings"]["Steps"] == "2"
    monkeypatch.setattr(DiffMorpher, "morph", None)
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == found["groups"]


def test_a_checkpoint_that_cannot_be_used_is_told_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "morph", "-o", str(tmp_path), "--checkpoint", str(tmp_path), "--pairs", "1"]
    arguments += ["--size", "64", "--frames", "4", "--set", "animation", "--switches", "off"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "distances by 1 - MS-SSIM" in out
    assert "off: " in out
    assert "model_index.json" in out
