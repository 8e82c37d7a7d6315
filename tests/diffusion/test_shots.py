"""Shots that share keyframes: each keyframe is studied once, also when two of them are made at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from PIL import Image

from keytween.config import Config
from keytween.shots import reading
from keytween.shots.shot import Shot
from keytween.shots.unit import Maker

STUDY = "studying the keyframes"


def test_a_keyframe_of_two_shots_is_studied_once(
    tiny_sd: Path, tmp_path: Path, drawings: tuple[np.ndarray, np.ndarray], config: Config
) -> None:
    for index, image in enumerate(drawings):
        Image.fromarray(image).save(tmp_path / f"key{index}.png")
    settings = f'checkpoint = "{tiny_sd.as_posix()}", steps = 8, lora_steps = 20, lora_rank = 2'
    (tmp_path / "shots.toml").write_text(
        f'[defaults]\nengine = "diffmorpher"\nkeyframes = "key#.png"\ndiffusion = {{ {settings} }}\n'
        '[[shot]]\nid = "two"\nin_betweens = 2\n[[shot]]\nid = "three"\nin_betweens = 3\n'
    )
    batch = reading.read(tmp_path / "shots.toml")

    def phases(shot: Shot) -> set[str]:
        said: set[str] = set()
        # A maker for each, as if they were two processes: locks and studies on disk are all they share.
        Maker(config, batch.results).make(shot, lambda share, phase: said.add(phase))
        return said

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(phases, batch.shots))
    assert sorted(STUDY in said for said in found) == [False, True]
    assert all("drawing" in said for said in found)
    assert len(list((config.state / "fits").glob("*.safetensors"))) == 2
