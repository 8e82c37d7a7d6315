# SPDX-License-Identifier: Apache-2.0
"""`keytween bench flow`, from the command line down."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from keytween import cli, engines
from keytween.bench import memory, own, rivals, runs, speed, tables
from keytween.bench.measures import QUALITY
from keytween.bench.scenes import scenes
from keytween.bench.tables import Bench
from keytween.bench.trial import BESIDE, Record, Step, Trial, Truth, trials
from keytween.engines.base import Frame
from keytween.images import Picture, write
from keytween_wire.errors import (
    BadSetting,
    EngineUnavailable,
    OutputUnwritable,
    PictureSizesDiffer,
    SequenceEmpty,
    TooFewKeyframes,
    UnknownEngine,
)
from keytween_wire.messages import KeyframeImage, MorphRequest

SCENES = {scene.name: scene for scene in scenes(64)}
NEEDS = {"tvl1": "skimage", "ilk": "skimage"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `keytween bench flow` -> exit code, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["bench", "flow", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def picture(value: int, *, side: int = 24) -> Picture:
    """A picture with a step in it that tells pictures apart."""
    pixels = np.full((side, side, 3), 240, np.uint8)
    pixels[:, : value + 2] = 20
    return Picture(pixels)


def put(folder: Path, *values: int, names: str = "frame.{:04d}.png", side: int = 24) -> Path:
    """Writes a numbered sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(values):
        write(picture(value, side=side), folder / names.format(number))
    return folder


# ---- rivals


@pytest.mark.parametrize("name", rivals.NAMES)
def test_a_rival_moves_a_texture_closer_to_the_truth_than_a_dissolve(name: str) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    scene = next(scene for scene in scenes(128) if scene.name == "noise-sheet")
    found = {t.engine: t for t in trials([scene], [name, "dissolve"]) if isinstance(t, Trial)}
    better, worse = (found[engine].figures["psnr_mid"] for engine in (name, "dissolve"))
    assert better is not None
    assert worse is not None
    assert better > worse + 3


@pytest.mark.parametrize("name", ["dis", "farneback"])
def test_a_rival_skips_what_is_done_and_gives_the_keyframes_at_their_positions(name: str) -> None:
    scene = SCENES["sprite-turn"]
    keyframes = scene.draw(0), scene.draw(1)
    request = MorphRequest((KeyframeImage("0", ".png"), KeyframeImage("1", ".png")), ((0.0, 0.5, 1.0),))
    made = rivals.open_contender(name).morph(request, keyframes, skip=frozenset({1}))
    frames = {event.index: event.picture for event in made if isinstance(event, Frame)}
    assert sorted(frames) == [0, 2]
    for index, keyframe in ((0, keyframes[0]), (2, keyframes[1])):
        seen = keyframe.pixels[..., 3] > 0
        assert np.array_equal(frames[index].pixels[seen], keyframe.pixels[seen])


def test_a_rival_whose_library_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match="scikit-image not installed"):
        rivals.open_contender("tvl1")
    found = [t for t in trials([SCENES["pan"]], ["tvl1", "dissolve"]) if isinstance(t, Trial)]
    assert [trial.trouble for trial in found] == ["scikit-image not installed", ""]
    bench = Bench("b", QUALITY, tuple(trial.record for trial in found))
    assert tables.troubles(bench) == ["tvl1: scikit-image not installed"]
    assert tables.overall(bench).heads == ("measure", "tvl1", "dissolve")
    assert {row[1].text for row in tables.overall(bench).rows} == {tables.NONE}


def test_engines_of_other_packages_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "open_engine", lambda name, fits=None: (name, fits))
    assert rivals.open_contender("theirs") == ("theirs", None)


# ---- trials and tables


def test_a_trial_compares_quarters_and_draws_beside_the_keyframes() -> None:
    found = list(trials([SCENES["turn-30"]], ["dissolve"]))
    assert found[0] == Step("turn-30: dissolve", 0, 1)
    trial = found[1]
    assert isinstance(trial, Trial)
    assert trial.truth.compared == (0.25, 0.5, 0.75)
    assert set(trial.made) == {*BESIDE, *(k / 8 for k in range(1, 8))}
    assert {m.key for m in QUALITY} < set(trial.figures)
    assert trial.figures["end"] == pytest.approx(0, abs=0.2)
    assert not hasattr(trial.record, "made")


def test_an_unknown_engine_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(UnknownEngine, match="nonesuch") as caught:
        next(runs.run([SCENES["pan"]], ["nonesuch"], title=""))
    assert "dis" in caught.value.advice


def record(engine: str, scene: str, figure: float | None, *, group: str = "rigid") -> Record:
    """A trial's record with one figure."""
    return Record(engine, scene, group, scene.endswith("textured"), {"psnr_mid": figure})


def test_tables_have_means_the_best_and_the_gain_over_the_baseline() -> None:
    records = (
        record("dissolve", "a", 20),
        record("flow", "a", 30),
        record("dissolve", "a-textured", 24, group="texture"),
        record("flow", "a-textured", 23, group="texture"),
    )
    bench = Bench("b", QUALITY[:1], records, memory={"dissolve": 100.0, "flow": None})
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in tables.overall(bench).rows}
    assert rows == {"PSNR ½ ↑": ["22.0", "26.5"], "peak MB ↓": ["100", tables.NONE]}
    gains = tables.gains(bench)
    assert gains
    assert [cell.text for cell in gains.rows[0]] == ["flow", "+4.5", "-1.0", "a-textured"]
    matrix = tables.by_scene(bench)
    assert [[cell.best for cell in row[1:]] for row in matrix.rows] == [[False, True], [True, False]]
    groups = {row[0].text: row[2].text for row in tables.by_group(bench).rows}
    assert groups == {"rigid": "30.0", "texture": "23.0", "flat twins": "30.0", "textured twins": "23.0"}
    assert len(tables.everything(bench).rows) == 4
    assert tables.as_json(bench)["means"]["flow"] == {"psnr_mid": 26.5}


def test_there_is_no_gain_without_the_baseline() -> None:
    assert tables.gains(Bench("b", QUALITY, (record("flow", "a", 30),))) is None


def test_peak_memory_is_that_of_another_process() -> None:
    taken = memory.peak("dissolve", SCENES["shift-quarter"])
    assert taken is None or taken > 20


def test_an_engine_that_fails_has_no_peak_memory() -> None:
    assert memory.peak("nonesuch", SCENES["shift-quarter"]) is None


# ---- the command


def test_bench_flow_leaves_a_page_and_figures(run: Run, tmp_path: Path) -> None:
    names = ["--engine", "dissolve", "--engine", "dis", "--scene", "turn-30", "--scene", "sprite-turn"]
    code, out, _ = run(*names, "--size", 96, "-o", tmp_path / "out")
    assert code == 0
    assert "PSNR ½ ↑ by scene" in out
    assert "turn-30" in out
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 * 3
    assert "http://" not in page
    assert "https://" not in page
    figures = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert len(figures["trials"]) == 4
    assert figures["measures"]["psnr_mid"]["better"] == "higher"
    assert {t["scene"] for t in figures["trials"]} == {"turn-30", "sprite-turn"}


def test_bench_flow_prints_one_json_value(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--json", "--engine", "dissolve", "--scene", "pan", "--size", 64, "-o", tmp_path)
    assert code == 0
    assert json.loads(out)["means"]["dissolve"]["psnr_mid"] > 5
    assert json.loads(out)["report"] == str(tmp_path / "index.html")


def test_names_are_written_as_text_whatever_they_are(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "three" / "<b>&amp;[red]", 1, 5, 9)
    code, out, _ = run("--triplets", tmp_path / "three", "--engine", "dissolve", "-o", tmp_path / "out")
    assert code == 0
    assert "<b>&amp;[red]" in out
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;amp;[red]" in page


def test_list_names_scenes_and_engines_and_measures_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--list", "-o", tmp_path / "out")
    assert code == 0
    assert "turn-60-textured" in out
    assert "farneback" in out
    assert not (tmp_path / "out").exists()
    listed = json.loads(run("--list", "--json")[1])
    assert {"name": "pan", "group": "camera", "textured": False} in listed["scenes"]
    assert [e["name"] for e in listed["engines"] if e["name"] == "dis"] == ["dis"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scene", "nonesuch"), "nonesuch"),
        (("--size", 8), "between 64 and 4096"),
        (("--engine", "nonesuch"), "There is no engine called nonesuch"),
        (("--triplets", "a", "--sequence", "b"), "cannot go with --triplets"),
        (("--preset", "best"), "choose one of"),
    ],
)
def test_a_wrong_setting_is_an_error_in_plain_words(
    run: Run, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    code, _, err = run(*arguments, "-o", tmp_path / "out")
    assert code == cli.EXIT_CODES[type(BadSetting(name="", value="", detail="")).__mro__[1]]
    assert said in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench("b", QUALITY, (record("flow", "a", 30),))
    with pytest.raises(OutputUnwritable):
        runs.write(runs.Finished(bench, ()), tmp_path / "file")


def test_ctrl_c_ends_the_bench_in_plain_words(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    def interrupted(*arguments: object, **settings: object) -> Generator[Step]:
        try:
            yield Step("turn-30: flow", 0, 3)
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(runs, "run", interrupted)
    code, _, err = run("-o", tmp_path / "out")
    assert code == cli.EXIT_INTERRUPTED
    assert "Traceback" not in err
    assert closed
    assert not (tmp_path / "out").exists()


def test_the_pace_of_an_engine_is_measured_from_files() -> None:
    found = speed.pace("dis", speed.Case("small", "sprite-turn", 96, 64), count=3)
    # Which is quicker is the machine's mood: only that all were taken can be said.
    assert min(found.drawing, found.overall, found.again) > 0
    assert speed.Case("small", "sprite-turn", 96, 64).load().draw(0).size == (96, 64)


def test_rendered_scenes_are_among_the_benchs_own() -> None:
    found = runs.chosen(["rendered-head"])[0]
    assert (found.group, found.textured, len(found.known)) == ("rendered", False, 7)


# ---- the user's own pictures


def test_triplets_are_compared_at_the_middle(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "in" / "b", 2, 6, 10)
    put(tmp_path / "in" / "a", 0, 4, 8, names="{}.png")
    found = own.triplets(tmp_path / "in")
    assert [scene.name for scene in found] == ["a", "b"]
    assert found[0].known == (0.5,)
    assert np.array_equal(found[1].draw(0.5).pixels, picture(6).pixels)
    code, _, _ = run("--triplets", tmp_path / "in", "--engine", "dissolve", "-o", tmp_path / "out")
    assert code == 0


def test_a_folder_of_three_pictures_is_a_triplet_itself(tmp_path: Path) -> None:
    assert [scene.name for scene in own.triplets(put(tmp_path / "only", 1, 2, 3))] == ["only"]


def test_triplets_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SequenceEmpty):
        own.triplets(tmp_path / "missing")
    with pytest.raises(SequenceEmpty):
        own.triplets(tmp_path)
    with pytest.raises(BadSetting, match="holds 2 pictures"):
        own.triplets(put(tmp_path / "two", 1, 2))
    put(tmp_path / "sizes", 1, 2)
    write(picture(3, side=30), tmp_path / "sizes" / "z.png")
    with pytest.raises(PictureSizesDiffer):
        own.triplets(tmp_path / "sizes")


def test_every_kth_frame_of_a_sequence_is_a_keyframe(tmp_path: Path) -> None:
    put(tmp_path, *range(0, 16, 2))
    found = own.sequence(str(tmp_path / "frame.####.png"), 3)
    assert [scene.known for scene in found] == [(1 / 3, 2 / 3)] * 2
    assert np.array_equal(found[1].draw(0).pixels, picture(6).pixels)
    assert np.array_equal(found[1].draw(2 / 3).pixels, picture(10).pixels)
    assert np.array_equal(found[1].draw(1).pixels, picture(12).pixels)
    truth = Truth.of(found[0])
    assert truth.compared == (1 / 3, 2 / 3)


def test_a_sequence_that_leaves_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3)
    with pytest.raises(BadSetting):
        own.sequence(str(tmp_path / "frame.####.png"), 1)
    with pytest.raises(TooFewKeyframes):
        own.sequence(str(tmp_path / "frame.####.png"), 3)
    with pytest.raises(SequenceEmpty):
        own.sequence(str(tmp_path / "other.####.png"), 2)
