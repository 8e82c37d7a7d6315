# SPDX-License-Identifier: Apache-2.0
"""`auto` where a checkpoint is named: what both keyframes show moves, what they do not share is redrawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from keytween.bench import pairs
from keytween.engines import open_engine
from keytween.engines.base import Engine, Frame
from keytween.engines.diffmorpher import DiffMorpher, pipeline
from keytween.engines.flow import Flow
from keytween.images import Picture
from keytween.render import render
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest

QUICK = {"steps": 2, "use_lora": False, "reschedule": "off"}


@pytest.fixture(scope="module")
def keyframes() -> list[Picture]:
    """One character in two poses, and then another."""
    moving = pairs.chosen(("animation",), 1, size=128)[0]
    other = pairs.chosen(("metamorphosis",), 1, size=128)[0]
    return [moving.draw(0), moving.draw(1), other.draw(1)]


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """One for all tests: what it has matched stays known."""
    return open_engine("auto", fits=tmp_path_factory.mktemp("fits"))


def request(engine: str, checkpoint: Path | str, *positions: tuple[float, ...]) -> MorphRequest:
    images = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(len(positions) + 1))
    diffusion = Diffusion(checkpoint=str(checkpoint), **QUICK)
    return MorphRequest(images, positions, engine=engine, diffusion=diffusion)


def drawn(engine: Engine, asked: MorphRequest, keyframes: list[Picture], skip: int = -1) -> dict[int, Frame]:
    made = engine.morph(asked, keyframes, skip=frozenset({skip} - {-1}))
    return {event.index: event for event in made if isinstance(event, Frame)}


def test_each_segment_gets_the_engine_that_suits_it_and_the_note_says_why(
    auto: Engine, tiny_sd: Path, keyframes: list[Picture]
) -> None:
    asked = request("auto", tiny_sd, (0.5,), (0.3, 0.5))
    made = drawn(auto, asked, keyframes)
    moved = drawn(Flow(), asked, keyframes)
    redrawn = drawn(DiffMorpher(), asked, keyframes)
    assert np.array_equal(made[0].picture.pixels, moved[0].picture.pixels)
    for index in (1, 2):
        off = np.abs(made[index].picture.pixels.astype(int) - redrawn[index].picture.pixels)
        assert off.max() <= 1
        assert not np.array_equal(made[index].picture.pixels, moved[index].picture.pixels)
    assert "was found again" in made[0].note
    assert "too little to move: `diffmorpher` redraws it." in made[1].note
    assert "diffmorpher" not in made[0].note + made[2].note


def test_without_a_checkpoint_everything_is_flows(auto: Engine, keyframes: list[Picture]) -> None:
    asked = request("auto", "", (0.5,), (0.5,))
    made, moved = (drawn(engine, asked, keyframes) for engine in (auto, Flow()))
    assert all(np.array_equal(made[i].picture.pixels, moved[i].picture.pixels) for i in (0, 1))
    assert [made[i].note for i in (0, 1)] == [moved[i].note for i in (0, 1)]


def test_what_is_finished_is_not_drawn_and_its_keyframes_are_left_alone(
    auto: Engine, tiny_sd: Path, keyframes: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    studied, plain = [], pipeline._Run._fit

    def noted(run: object, sides: list[object]) -> object:
        studied.append(len(sides))
        return plain(run, sides)

    monkeypatch.setattr(pipeline._Run, "_fit", noted)
    asked = request("auto", tiny_sd, (0.4,), (0.6,))
    assert set(drawn(auto, asked, keyframes, skip=1)) == {0}
    assert studied == []
    assert set(drawn(auto, asked, keyframes, skip=0)) == {1}
    assert studied == [2]


def test_beyond_the_keyframes_what_is_redrawn_stops_and_what_moves_goes_on(
    auto: Engine, tiny_sd: Path, keyframes: list[Picture]
) -> None:
    asked = request("auto", tiny_sd, (1.2,), (1.2,))
    made = {event.index: event for event in render(asked, keyframes, auto) if isinstance(event, Frame)}
    assert not np.array_equal(made[0].picture.pixels, keyframes[1].pixels)
    assert np.abs(made[1].picture.pixels.astype(int) - keyframes[2].pixels).max() <= 1
