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
COUNT = 1
"""Pairs of each set."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tables.Bench:
    """Two pairs, drawn by four rungs and the dissolve, as `keytween bench morph` does."""
    toon = models.built_in().get(models.TOON)
    if toon is None:
        pytest.skip("the checkpoint toon has not been trained here")
    whole = Diffusion(checkpoint=str(toon.folder), steps=25, lora_steps=80, lora_lr=1e-3)
    switches = (ladder.OFF, ladder.ADAIN, ladder.RESCHEDULE, ladder.FULL)
    contenders = ladder.contenders(("dissolve", "diffmorpher"), switches, whole)
    folder: Path = tmp_path_factory.mktemp("bench")
    plan = morph_runs.Plan("Toons", pairs.chosen((), COUNT), contenders, whole, 9, folder)
    return next(event.bench for event in morph_runs.run(plan) if isinstance(event, morph_page.Morphs))


def figure(bench: tables.Bench, contender: str, key: str, group: str | None = None) -> float:
    """A contender's mean of a figure, over both pairs or one group."""
    measure = next(measure for measure in bench.measures if measure.key == key)
    scenes = None if group is None else bench.grouped()[group]
    found = bench.figures(contender, measure, scenes)
    assert found
    return sum(found) / len(found)


def test_rescheduling_evens_out_the_pace_by_what_it_uses_and_by_what_it_does_not_see(
    bench: tables.Bench,
) -> None:
    for key in ("evenness", "evenness_rms"):
        before, after = (figure(bench, rung, key) for rung in ("+adain", "+reschedule"))
        assert after < 0.3
        assert after < 0.65 * before


def test_lora_brings_the_ends_back_and_the_last_rung_pastes_what_is_left(bench: tables.Bench) -> None:
    off, fitted = (figure(bench, rung, "end") for rung in ("off", "+adain"))
    assert fitted < 22
    assert fitted < 0.85 * off
    assert figure(bench, "full", "end") < 1.5


def test_metamorphoses_are_sharper_than_a_dissolve(bench: tables.Bench) -> None:
    dissolved, morphed = (
        figure(bench, name, "sharpness", pairs.METAMORPHOSIS) for name in ("dissolve", "full")
    )
    assert morphed > dissolved + 0.1
    assert morphed < 1.2
