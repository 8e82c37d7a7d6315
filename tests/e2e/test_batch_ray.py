# SPDX-License-Identifier: Apache-2.0
"""A batch on a Ray cluster of two nodes on this machine: nodes, shots and drivers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ordeal
from discs import draw_disc
from keytween.config import Config
from keytween.shots.records import Shelf
from keytween.shots.wishes import CANCEL, wish

TOKEN = "a-token-of-this-test-alone-0123456789"


@pytest.fixture
def show(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keyframes, and the engine that misbehaves, for every process of the cluster."""
    for index in range(2):
        draw_disc(tmp_path / f"key{index}.png", centre=(30 + 20 * index, 32))
    ordeal.install(tmp_path / "packages", monkeypatch)
    return tmp_path


@pytest.fixture
def cluster(show: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a core each, the head one of them; whoever has no token is refused."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    made.add_node(num_cpus=1, num_gpus=0)
    yield made
    made.shutdown()


def shots(show: Path, *rows: str) -> Path:
    """A shots file with a shot for each row."""
    top = (
        'output = "out"\n[defaults]\nengine = "ordeal"\nin_betweens = 4\nseed = 15\nkeyframes = "key*.png"\n'
    )
    path = show / "shots.toml"
    path.write_text(top + "".join(f'[[shot]]\nid = "s{n}"\n{row}\n' for n, row in enumerate(rows)))
    return path


def start(source: Path, address: str, *more: str) -> subprocess.Popen[str]:
    """The batch as a process."""
    command = [sys.executable, "-m", "keytween.cli", "batch", str(source), "--json", "--ray", address, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(running: subprocess.Popen[str]) -> dict[str, Any]:
    """What a batch says at its end, with its exit code."""
    said, complaint = running.communicate(timeout=200)
    assert said, complaint
    return {**json.loads(said), "exit": running.returncode}


def records(show: Path) -> dict[str, dict[str, Any]]:
    """Every shot's record."""
    results = show / "out" / "results"
    folders = [p for p in results.glob("[!.]*") if p.is_dir()]
    return {folder.name: Shelf(results, folder.name).load() or {} for folder in folders}


def wait_for(show: Path, count: int) -> None:
    """Until so many shots are done."""
    began = time.monotonic()
    while sum(record.get("state") == "done" for record in records(show).values()) < count:
        assert time.monotonic() - began < 120
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_nodes_shots_and_drivers_may_die_and_all_other_shots_are_done(
    show: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"s2": "seed = 11", "s5": "seed = 12\ndeadline = 3", "s8": "seed = 13", "s11": "seed = 12"}
    source = shots(show, *(bad.get(f"s{n}", "") for n in range(12)))
    # The driver dies in the middle: what is done stays done.
    running = start(source, cluster.address, "--memory", "700")
    wait_for(show, 2)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    before = {
        shot: record["ended"] for shot, record in records(show).items() if record.get("state") == "done"
    }
    # A node dies in the middle of shots and is not replaced.
    running = start(source, cluster.address, "--memory", "700")
    wait_for(show, len(before) + 2)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    # Somebody who watches cancels a shot.
    while records(show).get("s11", {}).get("state") != "running":
        assert running.poll() is None
        time.sleep(0.1)
    wish(show / "out" / "results", "s11", CANCEL)
    found = finished(running)
    reasons = {failure["shot"]: failure["code"] for failure in found["failures"]}
    assert reasons == {"s2": "KT-608", "s5": "KT-606", "s8": "KT-607", "s11": "KT-506"}
    assert (found["done"] + found["unchanged"], found["failed"], found["exit"]) == (8, 4, 8)
    after = records(show)
    assert {shot: after[shot]["ended"] for shot in before} == before
    assert all(len(after[shot]["frames"]) == 6 for shot in after if shot not in bad)
    # Whoever has no token, or the wrong one, is refused before anything is handed out.
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token-0123456789")
    refused = start(source, cluster.address)
    assert json.loads(refused.communicate(timeout=120)[0])["error"]["code"] == "KT-609"
    monkeypatch.delenv("RAY_AUTH_MODE")
    refused = start(source, cluster.address)
    assert json.loads(refused.communicate(timeout=60)[0])["error"]["code"] == "KT-609"
    assert refused.returncode == 8
