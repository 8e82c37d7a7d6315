# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a batch at random moments, again and again: every shot is done once, and none is lost.

`KEYTWEEN_TEST_BATCH_KILLS=20` kills as often as that.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from discs import draw_disc
from keytween.config import Config
from keytween.shots import reading
from keytween.shots.records import Shelf

KILLS = int(os.environ.get("KEYTWEEN_TEST_BATCH_KILLS", "3"))
SHOTS = 12


@pytest.fixture
def show(tmp_path: Path, config: Config) -> Path:
    """A shots file with shots of large drawings, so that kills come in the middle of them."""
    for index in range(4):
        draw_disc(tmp_path / f"key{index}.png", centre=(80 + 60 * index, 100), size=(480, 270))
    rows = "".join(
        f'[[shot]]\nid = "s{n}"\nin_betweens = {n % 7 + 6}\n'
        f'keyframes = ["key{n % 4}.png", "key{(n + 1) % 4}.png"]\n'
        for n in range(SHOTS)
    )
    (tmp_path / "shots.toml").write_text(f'[defaults]\nengine = "dissolve"\n{rows}')
    return tmp_path


def start(show: Path, output: str) -> subprocess.Popen[bytes]:
    """The batch as a process."""
    command = [sys.executable, "-m", "keytween.cli", "batch", "shots.toml", "-o", output, "--jobs", "2"]
    return subprocess.Popen(command, cwd=show, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ended(show: Path, output: str) -> dict[str, float]:
    """When each shot that is done was finished."""
    batch = reading.read(show / "shots.toml", output=show / output)
    found = ((shot.id, Shelf(batch.results, shot.id).load() or {}) for shot in batch.shots)
    return {shot: record["ended"] for shot, record in found if record.get("state") == "done"}


def hashes(show: Path, output: str) -> dict[str, list[tuple[int, str]]]:
    """Every frame's digest, by shot."""
    batch = reading.read(show / "shots.toml", output=show / output)
    records = {shot.id: Shelf(batch.results, shot.id).load() or {} for shot in batch.shots}
    return {shot: [(f["frame"], f["sha256"]) for f in r["frames"]] for shot, r in records.items()}


@pytest.mark.timeout(900)
def test_a_batch_that_is_killed_at_random_ends_as_one_that_was_not(show: Path) -> None:
    began = time.monotonic()
    assert start(show, "calm").wait(timeout=300) == 0
    whole = time.monotonic() - began
    chance = random.Random(20261122)
    seen: dict[str, float] = {}
    killed = 0
    while killed < KILLS:
        driver = start(show, "killed")
        try:
            # Short enough, all together, that the batch is not over before the last kill.
            driver.wait(timeout=chance.uniform(0.3, max(0.6, 0.8 * whole / KILLS)))
            if len(ended(show, "killed")) == SHOTS:
                break
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            killed += 1
        seen |= ended(show, "killed")
    assert killed >= min(3, KILLS)
    assert start(show, "killed").wait(timeout=300) == 0
    last = ended(show, "killed")
    assert len(last) == SHOTS
    assert {shot: last[shot] for shot in seen} == seen, "a shot that was done has been made again"
    assert hashes(show, "killed") == hashes(show, "calm")
    assert [p for p in (show / "killed").rglob("*.tmp") if "frames" in p.parts] == []
    print(json.dumps({"kills": killed, "seconds": round(time.monotonic() - began, 1)}))
