# SPDX-License-Identifier: Apache-2.0
"""`keytween top`: what it sees of machine, daemon and batch, and that its keys reach the batch."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.widgets import DataTable, Static

import ordeal
from discs import draw_disc, request_for
from keytween.config import Config
from keytween.shots import watching
from keytween.shots.screen import Top, thumbnail
from keytween.starter import DaemonProcess
from keytween_wire.client import Client

ROWS = """
[defaults]
engine = "ordeal"
in_betweens = 2
keyframes = "key#.png"
[[shot]]
id = "good"
[[shot]]
id = "hangs"
seed = 12
[[shot]]
id = "fails"
keyframes = ["key0.png", "half.png"]
[[shot]]
id = "hangs too"
seed = 12
[[shot]]
id = "last"
"""


@pytest.fixture
def output(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running batch of one process that has made a shot and hangs in the next."""
    for index in range(2):
        draw_disc(tmp_path / f"key{index}.png", centre=(30 + 20 * index, 32))
    whole = (tmp_path / "key1.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    ordeal.install(tmp_path / "packages", monkeypatch)
    (tmp_path / "shots.toml").write_text(ROWS)
    command = [sys.executable, "-m", "keytween.cli", "batch", str(tmp_path / "shots.toml"), "--jobs", "1"]
    running = subprocess.Popen([*command, "-o", str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    yield tmp_path / "out"
    running.kill()
    running.wait()


def until(config: Config, output: Path, states: dict[str, str]) -> watching.Seen:
    """Looks until these shots are in these states."""
    began = time.monotonic()
    while True:
        seen = watching.look(config, output)
        found = {shot.shot: shot.state for shot in seen.shots}
        if states.items() <= found.items():
            return seen
        assert time.monotonic() - began < 60, found
        time.sleep(0.1)


def test_keys_cancel_and_retry_and_the_batch_goes_on(output: Path, config: Config) -> None:
    seen = until(config, output, {"good": "done", "hangs": "running"})
    assert seen.running
    assert seen.devices[0].total_mb > 100
    assert "No Keytween daemon is running" in seen.daemon
    assert seen.counts == {"done": 1, "running": 1, "waiting": 3}

    async def use() -> None:
        app = Top(config, output)
        async with app.run_test(size=(120, 40)) as pilot:
            while app.seen is None:
                await pilot.pause(0.1)
            table = app.query_one("#shots", DataTable)
            assert [str(table.get_row_at(0)[n]) for n in (0, 1)] == ["hangs", "running"]
            await pilot.press("c")
            await _shown(app, pilot, lambda: app.seen.counts.get("failed", 0) == 2)
            row = next(n for n, shot in enumerate(app.seen.shots) if shot.shot == "fails")
            assert "damaged" in app.seen.shots[row].error
            (output.parent / "half.png").write_bytes((output.parent / "key1.png").read_bytes())
            table.move_cursor(row=row)
            await pilot.press("r")
            assert "has been told" in str(app.query_one("#said", Static).render())
            table.move_cursor(row=0)
            await pilot.press("c")
            await _shown(app, pilot, lambda: not app.seen.running)
            assert "has ended" in str(app.query_one("#machine", Static).render())
            await pilot.press("r")
            assert "No batch is running" in str(app.query_one("#said", Static).render())

    asyncio.run(use())
    seen = until(config, output, {"fails": "done", "last": "done", "hangs": "failed", "hangs too": "failed"})
    assert {shot.error for shot in seen.shots if shot.state == "failed"} == {"The job was cancelled."}


async def _shown(app: Top, pilot: object, true: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < 60, app.seen
        await pilot.pause(0.1)  # type: ignore[attr-defined]


def test_once_prints_daemon_and_batch_for_scripts(
    output: Path, config: Config, daemon: DaemonProcess, keyframe_files: list[Path]
) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    with Client(daemon.connection) as client:
        client.hello()
        client.submit(job_id, request, blobs, label="from Blender")
    until(config, output, {"good": "done", "hangs": "running"})
    command = [sys.executable, "-m", "keytween.cli", "top", str(output)]
    said = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "hangs running" in said
    assert "from Blender" in said
    assert "the batch is running" in said
    whole = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True).stdout
    )
    assert whole["jobs"][0]["name"] == "from Blender"
    assert whole["counts"]["waiting"] == 3


def test_without_a_batch_it_says_so(config: Config, tmp_path: Path) -> None:
    assert "No batch has run" in watching.look(config, tmp_path).batch
    assert "No batch is watched" in watching.look(config, None).batch


def test_a_thumbnail_has_the_pictures_colours(tmp_path: Path) -> None:
    told = thumbnail(draw_disc(tmp_path / "a.png", centre=(48, 32)))
    assert told is not None
    lines = told.plain.splitlines()[1:]
    assert {len(line) for line in lines} == {40}
    assert len(lines) == 13
    styles = {str(span.style) for span in told.spans}
    assert "#bed7f0 on #bed7f0" in styles
    assert "#dc3c28 on #dc3c28" in styles
    assert thumbnail(tmp_path / "none.png") is None
