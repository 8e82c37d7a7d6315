# SPDX-License-Identifier: Apache-2.0
"""Whole batches by the command line: plans, several processes, bad shots that take no other with them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ordeal
from discs import draw_disc
from keytween.config import Config
from keytween.shots import page
from keytween.shots.records import Shelf


@pytest.fixture
def show(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two keyframes, and an engine that misbehaves where a shot asks for it."""
    for index in range(2):
        draw_disc(tmp_path / f"key{index}.png", centre=(30 + 20 * index, 32))
    ordeal.install(tmp_path / "packages", monkeypatch)
    return tmp_path


def shots(show: Path, *rows: str) -> Path:
    """A shots file with a shot for each row, called `s0` and so on unless the row names it."""
    named = (row if "id =" in row else f'id = "s{n}"\n{row}' for n, row in enumerate(rows))
    top = 'output = "out"\n[defaults]\nengine = "ordeal"\nin_betweens = 2\nkeyframes = "key*.png"\n'
    path = show / "shots.toml"
    path.write_text(top + "".join(f"[[shot]]\n{row}\n" for row in named))
    return path


def keytween(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line, as a process of its own."""
    command = [sys.executable, "-m", "keytween.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def batch(source: Path, *arguments: object) -> dict:
    """The summary of a batch, with its exit code."""
    done = keytween("batch", source, "--json", *arguments)
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "exit": done.returncode}


def records(source: Path) -> dict[str, dict]:
    """Every shot's record."""
    results = source.parent / "out" / "results"
    folders = [p for p in results.glob("[!.]*") if p.is_dir()]
    return {folder.name: Shelf(results, folder.name).load() or {} for folder in folders}


def test_a_batch_makes_every_shot_and_then_nothing_more(show: Path) -> None:
    source = shots(show, "", "seed = 1", "exposure = 2", 'id = "höhe größe"')
    first = batch(source)
    assert (first["done"], first["unchanged"], first["failed"], first["exit"]) == (4, 0, 0, 0)
    assert (show / "out" / "frames" / "höhe größe" / "0004.png").is_file()
    second = batch(source)
    assert (second["done"], second["unchanged"], second["exit"]) == (0, 4, 0)
    assert all(record["attempts"] == 1 for record in records(source).values())


def test_bad_shots_take_no_other_with_them_and_are_named_with_their_reason(show: Path) -> None:
    bad = (
        "seed = 11",
        "seed = 12\ndeadline = 2",
        "seed = 13",
        "seed = 14",
        'keyframes = "no.png"',
        "colour = 3",
    )
    source = shots(show, *bad, *[""] * 6)
    found = batch(source, "--memory", 350, "--jobs", 2, "--attempts", 2)
    reasons = {failure["shot"]: failure["code"] for failure in found["failures"]}
    expected = ["KT-608", "KT-606", "KT-607", "KT-507", "KT-201", "KT-602"]
    assert reasons == {f"s{n}": code for n, code in enumerate(expected)}
    assert (found["done"], found["failed"], found["exit"]) == (6, 6, 8)
    messages = {failure["shot"]: failure["message"] for failure in found["failures"]}
    assert "2 times: it was ended by SIGSEGV" in messages["s0"]
    assert "a mistake" in messages["s3"]
    said = (show / "out" / "index.html").read_text("utf-8")
    assert all(code in said for code in expected)
    assert "Segmentation fault" in "".join(p.read_text() for p in (show / "out" / "results").glob(".worker*"))


def test_what_failed_is_tried_again_alone(show: Path) -> None:
    source = shots(show, "", "seed = 14", 'keyframes = ["key0.png", "late.png"]')
    assert batch(source)["failed"] == 2
    draw_disc(show / "late.png", centre=(60, 20))
    again = batch(source, "--retry-failed")
    assert (again["done"], again["unchanged"], again["failed"]) == (1, 0, 1)


def test_a_plan_says_everything_and_makes_nothing(show: Path) -> None:
    source = shots(show, "", "priority = 5", 'keyframes = "none.####.png"')
    done = keytween("batch", source, "--dry-run")
    assert done.returncode == 8
    assert "s2" in done.stdout
    assert "No picture matches" in done.stdout
    assert "2 shots to make, 4 drawings" in done.stdout
    found = batch(source, "--dry-run")
    assert [line["shot"] for line in found["shots"]] == ["s1", "s0", "s2"]
    assert not (show / "out").exists()
    assert [
        line["shot"] for line in batch(source, "--dry-run", "--only", "s[01]", "--priority", "s0")["shots"]
    ] == [
        "s0",
        "s1",
    ]


def test_an_estimate_follows_what_the_batch_itself_took(show: Path) -> None:
    assert batch(shots(show, ""), "--dry-run")["estimate_s"] is None
    batch(shots(show, ""))
    found = batch(shots(show, "", "in_betweens = 20"), "--dry-run")
    assert [line["state"] for line in found["shots"]] == ["done", "new"]
    assert found["estimate_s"] == pytest.approx(10 * records(shots(show, ""))["s0"]["seconds"], rel=0.2)


def test_skip_done_trusts_the_records(show: Path) -> None:
    source = shots(show, "")
    batch(source)
    (show / "out" / "frames" / "s0" / "0002.png").unlink()
    assert batch(source, "--skip-done")["done"] == 0
    assert batch(source)["done"] == 1


def test_a_shot_that_somebody_else_makes_is_waited_for(show: Path) -> None:
    source = shots(show, "", "")
    with Shelf(show / "out" / "results", "s0").locked():
        command = [sys.executable, "-m", "keytween.cli", "batch", str(source)]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert running.stderr is not None
        line = ""
        while "being made already" not in line:
            line = running.stderr.readline()
            assert line
        assert keytween("shot", source, "s0").returncode == 75
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert {record["state"] for record in records(source).values()} == {"done"}


def test_one_shot_prints_progress_for_farms_and_its_exit_code_says_why(show: Path) -> None:
    source = shots(show, "", "seed = 14", 'keyframes = "none.####.png"')
    done = keytween("shot", source, "s0")
    assert done.returncode == 0
    progress = [
        float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("openjd_progress:")
    ]
    assert progress == sorted(progress)
    assert progress[-1] == 100.0
    assert "openjd_status: measuring" in done.stdout
    assert "nothing to do" in keytween("shot", source, "--index", 0).stdout
    assert keytween("shot", source, "s1").returncode == 7
    assert keytween("shot", source, "s2").returncode == 3
    assert keytween("shot", source, "s9").returncode == 8
    assert keytween("shot", source, "--index", 3).returncode == 8
    assert keytween("shot", source).returncode == 4


def test_the_processes_end_with_a_batch_that_is_killed(show: Path) -> None:
    source = shots(show, "seed = 12", "seed = 12")
    running = subprocess.Popen([sys.executable, "-m", "keytween.cli", "batch", str(source), "--jobs", "2"])
    began = time.monotonic()
    try:
        while len([r for r in records(source).values() if r.get("state") == "running"]) < 2:
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        workers = [record["pid"] for record in records(source).values()]
    finally:
        running.kill()
        running.wait()
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    assert not Shelf(show / "out" / "results", "s0").busy


def test_a_batch_that_is_broken_off_leaves_a_page_and_no_process(show: Path) -> None:
    source = shots(show, "", "seed = 12")
    running = subprocess.Popen([sys.executable, "-m", "keytween.cli", "batch", str(source), "--jobs", "1"])
    began = time.monotonic()
    try:
        while records(source).get("s1", {}).get("state") != "running":
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    finally:
        running.kill()
        running.wait()
    assert not _alive(records(source)["s1"]["pid"])
    said = (show / "out" / "index.html").read_text("utf-8")
    assert "interrupted" in said
    assert "s0" in said


@pytest.mark.parametrize(
    ("library", "extra", "command"),
    [
        ("opentimelineio", "otio", ("batch", "reel.otio")),
        ("ray", "ray", ("batch", "shots.toml", "--ray", "127.0.0.1:1")),
        ("textual", "top", ("top",)),
    ],
)
def test_a_library_that_is_not_there_is_said_with_its_extra(
    show: Path, library: str, extra: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    shots(show, "")
    (show / "reel.otio").write_text("{}")
    code = f"import sys\nsys.modules[{library!r}] = None\n"
    code += "from keytween.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=show,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 8
    assert f"its extra `{extra}`" in done.stderr
    assert "KT-610" in done.stderr


def _alive(pid: int) -> bool:
    try:
        return "zombie" not in (Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False


def test_the_page_takes_thousands_of_shots_and_escapes_what_they_are_called() -> None:
    record = {
        "state": "done",
        "engine": "flow",
        "sheet": "results/<&> %2f/sheet.jpg",
        "pacing": {"steps": [0.1] * 7, "evenness": 0.0},
        "frames": [{"file": "frames/a b/0001.png"}],
        "drawings": 6,
        "seconds": 3.2,
        "memory_bytes": 2 << 20,
        "attempts": 1,
    }
    rows = [page.Row(f"<&> {n}", record) for n in range(5000)]
    whole = page.page("<shots>", rows)
    assert len(whole) < 5000 * 1500
    assert whole.count("loading=lazy") == 5000
    assert "&lt;&amp;&gt; 17" in whole
    assert "<&>" not in whole
    assert "./results/%3C%26%3E%20%252f/sheet.jpg" in whole
    assert "http" not in whole.replace("http-equiv", "")
