# SPDX-License-Identifier: Apache-2.0
"""A batch on a disk that is full, and on one that may only be read: small file systems in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keytween.config import Config
from keytween.images import Picture, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it mounts file systems of Linux")


@pytest.fixture
def show(tmp_path: Path, config: Config) -> Path:
    """Two keyframes of noise, whose frames take some 30 kB each, and three shots of them."""
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 255, (96, 96, 3)).astype(np.uint8)
        write(Picture(pixels), tmp_path / f"key{index}.png")
    (tmp_path / "shots.toml").write_text(
        'output = "disk/out"\n[defaults]\nengine = "dissolve"\nkeyframes = "key#.png"\nin_betweens = 9\n'
        '[[shot]]\nid = "one"\n[[shot]]\nid = "two"\n[[shot]]\nid = "three"\nin_betweens = 30\n'
    )
    (tmp_path / "disk").mkdir()
    return tmp_path


def inside(show: Path, *steps: str) -> list[str]:
    """Runs these steps in a world of mounts of their own; gives what they print on standard output."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", "\n".join(steps)]
    done = subprocess.run(command, cwd=show, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("--next--")


BATCH = f"{sys.executable} -m keytween.cli batch shots.toml --json || true; echo --next--"


def test_a_full_disk_is_said_of_each_shot_and_more_room_lets_it_go_on(show: Path) -> None:
    told = inside(
        show,
        "mount -t tmpfs -o size=700k tmpfs disk",
        BATCH,
        "mount -o remount,size=8m disk",
        BATCH,
    )
    first, second = json.loads(told[0]), json.loads(told[1])
    assert first["failed"] >= 2
    assert {failure["code"] for failure in first["failures"]} <= {"KT-505", "KT-209"}
    assert all("disk is full" in failure["message"] for failure in first["failures"])
    assert (second["done"] + second["unchanged"], second["failed"]) == (3, 0)


def test_a_disk_that_may_only_be_read_is_found_before_work(show: Path) -> None:
    plan = BATCH.replace("--json", "--json --dry-run")
    told = inside(show, "mount -t tmpfs -o size=700k,ro tmpfs disk", plan, BATCH)
    lines = json.loads(told[0])["shots"]
    assert [line["error"]["code"] for line in lines] == ["KT-209"] * 3
    assert all("cannot be written to" in line["error"]["message"] for line in lines)
    assert all(line["shot"] in line["error"]["message"] for line in lines)
    assert json.loads(told[1])["error"]["code"] == "KT-209"
