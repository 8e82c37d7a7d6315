# SPDX-License-Identifier: Apache-2.0
"""The whole way, in a real window: press Tween in Blender, and the in-betweens grow into the timeline.

Needs what `packaging/setup_blender.sh` sets up, and is skipped without it; with KEYTWEEN_TEST_ALL=1 its
absence is a failure. With KEYTWEEN_UPDATE_IMAGES=1 the pictures that the documentation shows are made anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import network
import opentimelineio as otio
import pytest
import windowed
from opentimelineio.opentime import RationalTime, TimeRange

from keytween_wire.errors import DaemonNotRunning, NetworkRefused, OnlineAccessOff

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
EXAMPLES = ROOT / "daemon" / "keytween" / "examples"
LEAVE_WITHIN_S = 5.0
STALL_MS = 1000.0
"""A tick that long waits for something, however busy the machine is; the budget itself is a benchmark's."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of the windowed Blender; without it the tests are skipped, or fail where all must run."""
    found, reason = windowed.find_folder()
    if found is None:
        leave_out(f"nothing was tested in a Blender window: {reason}")
    return found


def leave_out(reason: str) -> NoReturn:
    """Skips, and says what for; where all tests must run, that is a failure."""
    if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
        pytest.fail(f"LEFT OUT although all tests were asked for: {reason}")
    pytest.skip(f"LEFT OUT, {reason}")


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension's zip: the one that is named, else built from the sources as they stand."""
    if named := os.environ.get("KEYTWEEN_EXTENSION_ZIP"):
        return Path(named)
    output = tmp_path_factory.mktemp("dist")
    builder = [sys.executable, str(ROOT / "packaging" / "build_extension.py")]
    subprocess.run([*builder, "--platform", "linux-x64", "--output", str(output)], check=True, timeout=120)
    return next(output.glob("keytween-*linux*x64.zip"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that both sides see, with two of the example keyframes in it."""
    work = tmp_path_factory.mktemp("window")
    for path in keyframes():
        shutil.copy(path, work)
    return work


def keyframes() -> list[Path]:
    """Two of the example keyframes."""
    return [EXAMPLES / "wave_1.png", EXAMPLES / "wave_2.png"]


@pytest.fixture(scope="module")
def daemon(folder: Path, work: Path) -> Iterator[dict[str, str]]:
    """A real daemon outside; gives the environment in which Blender finds it."""
    with windowed.serve(work / "daemon") as environment:
        yield environment


@pytest.fixture(scope="module")
def blender(folder: Path, work: Path, extension: Path, daemon: dict[str, str]) -> windowed.WindowedBlender:
    """The windowed Blender with the extension installed, as the manual says."""
    blender = windowed.WindowedBlender(folder, work, daemon)
    install(blender, extension)
    return blender


def install(blender: windowed.WindowedBlender, extension: Path) -> None:
    """Installs the extension without a window."""
    copy = Path(shutil.copy(extension, blender.work))
    played = blender.command(
        "--command", "extension", "install-file", "-r", "user_default", "--enable", str(copy)
    )
    assert played.code == 0, played.explain()
    assert "Traceback" not in played.log, played.explain()


def options(work: Path, **more: object) -> list[str]:
    """The scene's options: the two keyframes and whatever else it needs."""
    first, second = (work / path.name for path in keyframes())
    return [f"first={first}", f"second={second}", *(f"{key}={value}" for key, value in more.items())]


def play(blender: windowed.WindowedBlender, scene: str, *options: str, **more: Any) -> windowed.Played:
    """Plays a scene that must end well: no exception in Blender, and Blender leaves by itself, at once."""
    played = blender.play(scene, *options, **more)
    assert played.code == 0, played.explain()
    assert "error" not in played.notes, played.explain()
    assert "Traceback" not in played.log, played.explain()
    assert played.seconds_to_leave < LEAVE_WITHIN_S, played.explain()
    return played


def keep_picture(work: Path, name: str) -> None:
    """Checks that the picture was taken; copies it into the documentation when that is asked for."""
    picture = work / f"{name}.png"
    assert picture.stat().st_size > 20_000
    if os.environ.get("KEYTWEEN_UPDATE_IMAGES") == "1":
        IMAGES.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, IMAGES)


def check_strip(strip: dict[str, Any], last_key: int) -> None:
    """One image strip above the keyframes, from the first to the last of them, every file in its place."""
    files = strip["files"]
    assert strip["type"] == "IMAGE"
    assert strip["state"] == "done"
    assert strip["channel"] == 2
    assert strip["start"] <= 5
    assert strip["end"] >= last_key
    assert len(files) == strip["end"] - strip["start"]
    missing = [name for name in files if not (Path(strip["directory"]) / name).stat().st_size]
    assert not missing
    between = last_key - 5
    assert len({name for name in files if name.startswith("drawing_")}) == between


@pytest.fixture(scope="module")
def tweened(blender: windowed.WindowedBlender, work: Path) -> dict[str, Any]:
    """What is noted when two keyframes are tweened with the mouse, undone and redone; saved as wave.blend."""
    return play(blender, "tween", *options(work, save=work / "wave.blend")).notes


def test_one_press_of_tween_fills_the_gap(tweened: dict[str, Any], work: Path) -> None:
    """The strip is whole, its files are there, and Blender never had to wait."""
    check_strip(tweened["made"], last_key=25)
    assert tweened["tick_max_ms"] < STALL_MS
    keep_picture(work, "blender-panel")


def test_undo_takes_the_strip_away_and_redo_brings_it_back(tweened: dict[str, Any]) -> None:
    """By their shortcuts, one press each."""
    assert tweened["undone"] is None
    assert tweened["strips_undone"] == 2
    assert tweened["redone"] == tweened["made"]


def test_a_finished_file_opens_whole_and_connected(
    blender: windowed.WindowedBlender, work: Path, tweened: dict[str, Any]
) -> None:
    """Blender started with a file, as by a double click, shows the tween and finds the daemon by itself."""
    assert play(blender, "opened_again", file=work / "wave.blend").notes["found"] == tweened["saved"]


def test_a_tween_is_timed_anew_with_the_mouse(blender: windowed.WindowedBlender, work: Path) -> None:
    """On twos and eased: each drawing is there and held for two frames; the panel shows the timing chart."""
    retimed = play(blender, "timing", *options(work, save=work / "timing.blend")).notes["retimed"]
    files = retimed["files"]
    assert retimed["state"] == "done"
    assert [name.startswith("drawing_") for name in files] == [False] * 5 + [True] * (len(files) - 6) + [
        False
    ]
    assert len({*files[5:-1]}) == (len(files) - 6 + 1) // 2
    keep_picture(work, "blender-timing")


def test_a_keyframe_is_dragged_and_a_drawing_becomes_one(
    blender: windowed.WindowedBlender, work: Path
) -> None:
    """With the mouse: the strip says it is stale, Retime follows, Promote takes a drawing, undo undoes it."""
    notes = play(blender, "breakdown", *options(work, save=work / "breakdown.blend")).notes
    assert notes["dragged_to"] < 25
    assert notes["tag"] == "COLOR_02"
    assert "Keyframe 2 was moved" in notes["stale"]
    retimed, promoted = notes["retimed"], notes["promoted"]
    assert retimed["end"] == notes["dragged_to"] + 1
    assert len(promoted["files"]) == len(retimed["files"])
    assert promoted["files"][notes["frame"] - promoted["start"]].startswith("key_")
    assert notes["strips_undone"] == 3
    assert notes["undone"]["files"] == retimed["files"]
    assert notes["tick_max_ms"] < STALL_MS
    keep_picture(work, "blender-breakdown")


def test_leaving_blender_while_a_job_runs(blender: windowed.WindowedBlender, work: Path) -> None:
    """Blender closes at once, the daemon goes on, and the file finds its frames when it is opened again."""
    file = work / "shot.blend"
    left = play(blender, "leave_running", *options(work, frame=150, save=file)).notes["left"]
    assert left["state"] == "running"
    keep_picture(work, "blender-progress")
    notes = play(blender, "come_back", file=file).notes
    assert notes["found"]["files"][-2] != notes["made"]["files"][-2]
    check_strip(notes["made"], last_key=150)
    assert notes["tick_max_ms"] < STALL_MS


def test_undo_renders_and_prefetching_while_drawings_arrive(
    blender: windowed.WindowedBlender, work: Path
) -> None:
    """Neither Blender nor the strip minds, and while a render reads the strip nothing changes it."""
    paths = {"frames": work / "frames" / "f_", "save": work / "meddle.blend"}
    notes = play(blender, "meddle", *options(work, frame=150, **paths)).notes
    assert notes["undone"] == [True] * 4
    assert notes["changed_while_rendering"] == 0
    (film,) = (work / "frames").glob("f_*")
    assert film.stat().st_size > 0
    check_strip(notes["made"], last_key=150)
    assert notes["prefetch"] is True


def test_the_bundled_file_is_one_press_away_from_a_tween(
    blender: windowed.WindowedBlender, work: Path
) -> None:
    """Opened in a later Blender than the one that made it."""
    file = Path(shutil.copy(EXAMPLES / "first_tween.blend", work))
    made = play(blender, "first_file", file=file).notes["made"]
    assert (made["state"], made["start"], made["end"]) == ("done", 1, 26)
    assert len({name for name in made["files"] if name.startswith("drawing_")}) == 20


def test_one_selected_strip_is_explained(blender: windowed.WindowedBlender, work: Path) -> None:
    """The button is grey: pressing it does nothing, and it says what is missing."""
    assert play(blender, "one_strip", *options(work)).notes["strips"] == 2
    keep_picture(work, "blender-one-strip")


def test_without_a_daemon_the_panel_says_so(blender: windowed.WindowedBlender, work: Path) -> None:
    """No daemon is an error with a code, a sentence and a next step; no strip is made."""
    nobody = {"KEYTWEEN_CONNECTION": str(work / "nobody.json")}
    alone = windowed.WindowedBlender(blender.folder, work, blender.env | nobody)
    notes = play(alone, "no_daemon", *options(work)).notes
    assert notes["state"] != "ready"
    assert DaemonNotRunning.code in notes["told"]
    assert notes["made"] is None
    keep_picture(work, "blender-no-daemon")


def test_the_preferences_page(blender: windowed.WindowedBlender, work: Path) -> None:
    """The extension's page draws without a complaint."""
    play(blender, "preferences", screen=(1000, 640))
    keep_picture(work, "blender-preferences")


# ---- the first run


@pytest.fixture(scope="module")
def first_run(folder: Path, extension: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is noted when somebody has the extension and a Python and nothing else, and presses the button."""
    if sys.base_prefix == "/usr":
        leave_out("the first run in a window: the system's own Python cannot be lent to another system")
    work = tmp_path_factory.mktemp("first")
    for path in keyframes():
        shutil.copy(path, work)
    with network.network(work) as environment:
        # One more try tells as much as five.
        environment["PIP_RETRIES"] = "1"
        blender = windowed.WindowedBlender(folder, work, environment, python=Path(sys.base_prefix))
        install(blender, extension)
        more = options(work, save=work / "wave.blend", network=work / "network")
        notes = play(blender, "first_run", *more, script="windowed_first_run.py").notes
    return notes | {"work": work}


def test_nothing_is_fetched_while_online_access_is_off(first_run: dict[str, Any]) -> None:
    """The panel says so, and its button leads to the box in the preferences."""
    assert (first_run["has_program"], first_run["online"]) == (False, False)
    assert first_run["offline"]["code"] == OnlineAccessOff.code
    assert first_run["offline"]["state"] == "failed"
    assert first_run["allowed"]


def test_a_network_that_refuses_is_named(first_run: dict[str, Any]) -> None:
    """The sentence has the reason, and the log is one press away."""
    assert first_run["refused"]["code"] == NetworkRefused.code
    assert "403 Forbidden" in first_run["refused"]["text"]


def test_an_interrupted_set_up_goes_on_where_it_was(first_run: dict[str, Any]) -> None:
    """What was fetched before stays; nothing that is half made is taken for the program."""
    assert first_run["first"] == "Fetching uv"
    assert first_run["label"] == first_run["resumed"] == "Installing the daemon"
    assert (first_run["interrupted"], first_run["half_made"]) == ("stopped", False)
    keep_picture(first_run["work"], "blender-set-up")


def test_the_daemon_that_was_set_up_draws_the_first_tween(first_run: dict[str, Any]) -> None:
    """No terminal was opened; Blender did not wait, and the daemon ends with it."""
    (program,) = first_run["command"]
    assert first_run["set_up"] == "done"
    assert Path(program).is_relative_to(first_run["home"])
    check_strip(first_run["made"], last_key=25)
    assert first_run["stale"] == ""
    assert first_run["tick_max_ms"] < STALL_MS
    connection = first_run["work"] / "home" / Path(first_run["connection"]).relative_to(windowed.HOME)
    end = time.monotonic() + LEAVE_WITHIN_S
    while connection.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert connection.parent.is_dir()
    assert not connection.is_file()


# ---- a batch's timeline

FIRST_FRAME, HELD, GAP = 101, 4, 12


@pytest.fixture(scope="module")
def show(work: Path) -> Path:
    """What a real batch leaves of three stills with gaps between them, on twos."""
    show = work / "show"
    show.mkdir()
    track = otio.schema.Track("Wave", metadata={"keytween": {"engine": "flow", "exposure": 2}})
    for name in ("wave_1.png", "wave_2.png", "wave_3.png"):
        shutil.copy(EXAMPLES / name, show)
        gap = otio.schema.Gap(source_range=extent(GAP))
        track.extend([gap, otio.schema.Clip(name[:-4], otio.schema.ExternalReference(name), extent(HELD))])
    del track[0]
    timeline = otio.schema.Timeline("cut", global_start_time=RationalTime(FIRST_FRAME, 24))
    timeline.tracks.append(track)
    timeline.to_json_file(str(show / "cut.otio"))
    batch = [sys.executable, "-m", "keytween.cli", "batch", str(show / "cut.otio"), "--jobs", "1"]
    subprocess.run([*batch, "--output", str(show / "renders")], check=True, timeout=120)
    return show


def extent(length: int) -> TimeRange:
    """So many frames."""
    return TimeRange(RationalTime(0, 24), RationalTime(length, 24))


def test_a_batchs_timeline_is_opened_from_the_add_menu(
    blender: windowed.WindowedBlender, work: Path, show: Path
) -> None:
    """Chosen in the file chooser; every picture is at the timeline's frame, and one undo takes all away."""
    chosen = [f"save={show / 'renders' / 'edit.blend'}", "name=cut.otio"]
    notes = play(blender, "import_tweens", *chosen, script="windowed_import.py").notes
    assert notes["chooser"] == "KEYTWEEN_OT_import_tweens"
    shown = {
        strip["start"] + index: (Path(strip["directory"]) / name).resolve()
        for strip in notes["imported"]
        for index, name in enumerate(strip["files"])
    }
    stills = [FIRST_FRAME + index * (HELD + GAP) for index in range(3)]
    bounds = [
        bound for start in stills for bound in ((start, start + HELD), (start + HELD, start + HELD + GAP))
    ]
    assert [(strip["start"], strip["end"]) for strip in notes["imported"]] == bounds[:-1]
    assert {strip["channel"] for strip in notes["imported"]} == {1}
    assert [shown[start] for start in stills] == [show / f"wave_{n}.png" for n in (1, 2, 3)]
    frames = {frame: path for frame, path in shown.items() if frame not in stills}
    assert len(frames) == 2 * GAP
    assert all(path.is_file() and path.name.endswith(f".{frame:04d}.png") for frame, path in frames.items())
    assert notes["undone"] == []
    assert notes["redone"] == notes["imported"]
    keep_picture(work, "blender-import")
