# SPDX-License-Identifier: Apache-2.0
"""What morphs with the checkpoint `toon` look like, in figures: a change that spoils them fails here."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from keytween import models
from keytween.bench import ladder, morph_page, morph_runs, pairs, tables
from keytween_wire.messages import Diffusion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PAIRS = (*pairs.chosen((pairs.METAMORPHOSIS,), 2), *pairs.chosen((pairs.ANIMATION,), 1))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tables.Bench:
    """Three pairs, drawn by three rungs and the dissolve, with the settings of `keytween bench morph`."""
    toon = models.built_in().get(models.TOON)
    if toon is None:
        pytest.skip("the checkpoint toon has not been trained here")
    whole = Diffusion(
        checkpoint=str(toon.folder), steps=25, lora_steps=80, lora_lr=1e-3, refinements=1, pace_rounds=9
    )
    switches = (ladder.OFF, ladder.ADAIN, ladder.RESCHEDULE)
    contenders = ladder.contenders(("dissolve", "diffmorpher"), switches, whole)
    folder: Path = tmp_path_factory.mktemp("bench")
    plan = morph_runs.Plan("Toons", PAIRS, contenders, whole, 9, folder)
    return next(event.bench for event in morph_runs.run(plan) if isinstance(event, morph_page.Morphs))


def figure(bench: tables.Bench, contender: str, key: str, group: str | None = None) -> float:
    """A contender's mean of a figure, over all pairs or one group."""
    measure = next(measure for measure in bench.measures if measure.key == key)
    scenes = None if group is None else bench.grouped()[group]
    found = bench.figures(contender, measure, scenes)
    assert found
    return sum(found) / len(found)


# The bounds leave room around what was measured on these pairs; it stands beside each.


def test_rescheduling_evens_out_the_pace_by_what_it_uses_and_by_what_it_does_not_see(
    bench: tables.Bench,
) -> None:
    # 0.56 to 0.05 by latents, 0.50 to 0.07 by pixels; the worst of the three pairs is left with 0.10.
    for key, most in (("evenness", 0.1), ("evenness_rms", 0.12)):
        before, after = (figure(bench, rung, key) for rung in ("+adain", "+reschedule"))
        assert after < most
        assert after < before / 3


def test_lora_and_refined_inversion_bring_the_ends_back(bench: tables.Bench) -> None:
    # 24 to 11, most of which is the VAE's.
    off, fitted = (figure(bench, rung, "end") for rung in ("off", "+adain"))
    assert fitted < 15
    assert fitted < 0.65 * off


def test_metamorphoses_are_sharper_than_a_dissolve(bench: tables.Bench) -> None:
    # 0.63 and 0.89.
    dissolved, morphed = (
        figure(bench, name, "sharpness", pairs.METAMORPHOSIS) for name in ("dissolve", "+reschedule")
    )
    assert morphed > dissolved + 0.15
    assert morphed < 1.2
