# SPDX-License-Identifier: Apache-2.0
"""`keytween bench morph` without a network: pairs, rungs, measures, kept outcomes, tables and page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from keytween import cli
from keytween.bench import curves, ladder, morph_page, morph_runs, morphing, pairs, sequence, tables
from keytween.bench.measures import Seen
from keytween.engines.base import Frame, Progress
from keytween.engines.dissolve import Dissolve
from keytween.images import Picture, write
from keytween_wire.errors import BadSetting, PictureSizesDiffer, SequenceEmpty, UnknownEngine
from keytween_wire.messages import Diffusion, MorphRequest

WHOLE = Diffusion(checkpoint="toon", refinements=1, pace_rounds=3)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance is 1 - MS-SSIM, whether torch is installed or not."""
    monkeypatch.setattr(morph_runs, "find_spec", lambda name: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `keytween bench morph` -> exit code, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["bench", "morph", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def bars(shift: int = 0, *, side: int = 64) -> Picture:
    """Dark bars on white, shifted to the right."""
    pixels = np.full((side, side, 3), 250, np.uint8)
    for left in range(shift, side - 4, 16):
        pixels[:, left : left + 4] = 20
    return Picture(pixels)


def grey(value: int, *, side: int = 32) -> Picture:
    return Picture(np.full((side, side, 3), value, np.uint8))


def light(picture: Picture) -> np.ndarray:
    return Seen.of(picture).light


def put(folder: Path, *names: str, side: int = 24) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        write(grey(40 + 50 * number, side=side), folder / name)
    return folder


# ---- pairs


def test_the_sets_hold_as_many_pairs_as_were_asked_for_and_the_rendered_scenes() -> None:
    found = pairs.chosen(pairs.SETS, 4, size=32)
    groups = [pair.group for pair in found]
    assert {group: groups.count(group) for group in pairs.SETS} == {
        "animation": 4,
        "metamorphosis": 4,
        "strange": 4,
        "rendered": 3,
    }
    assert [pair.group for pair in pairs.chosen((), 1)] == ["animation", "metamorphosis"]


def test_the_truth_is_known_between_poses_and_between_rendered_frames_and_nowhere_else() -> None:
    animation, metamorphosis, strange, *rendered = pairs.chosen(pairs.SETS, 1, size=32)
    for pair in (animation, strange):
        truth = pair.truth(0.3)
        assert truth is not None
        assert truth.pixels.shape == (32, 32, 3)
        assert not np.array_equal(truth.pixels, pair.draw(0).pixels)
    assert metamorphosis.truth(0.5) is None
    assert rendered[0].truth(0.125) is not None
    assert rendered[0].truth(0.2) is None


@pytest.mark.parametrize(
    ("names", "count", "size", "word"),
    [(("cats",), 1, 128, "animation"), ((), 0, 128, "1"), ((), 1, 8, "32")],
)
def test_sets_counts_and_sizes_that_cannot_be_are_refused(
    names: tuple[str, ...], count: int, size: int, word: str
) -> None:
    with pytest.raises(BadSetting, match=word):
        pairs.chosen(names, count, size=size)


def test_morphbench_is_read_as_it_comes(tmp_path: Path) -> None:
    put(tmp_path / "Animation", "cat_0.png", "cat_1.png", "old_man_0.png", "old_man_1.png")
    put(tmp_path / "Metamorphosis", "castle_0.png", "castle_1.png")
    found = [(pair.group, pair.name) for pair in pairs.in_folder(tmp_path)]
    assert found == [("animation", "cat"), ("animation", "old_man"), ("metamorphosis", "castle")]


def test_sub_folders_of_two_pictures_are_pairs_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path / "walk", "a.png", "b.png")
    put(tmp_path / "wave", "1.png", "2.png")
    found = pairs.in_folder(tmp_path)
    assert [(pair.group, pair.name) for pair in found] == [("own", "walk"), ("own", "wave")]
    assert found[0].draw(0).pixels[0, 0, 0] < found[0].draw(1).pixels[0, 0, 0]
    assert found[0].truth(0.5) is None


def test_a_folder_may_be_a_pair_itself(tmp_path: Path) -> None:
    assert [pair.name for pair in pairs.in_folder(put(tmp_path / "one", "a.png", "b.png"))] == ["one"]


def test_pictures_without_a_partner_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="lonely_0"):
        pairs.in_folder(put(tmp_path / "a", "lonely_0.png", "x_0.png", "x_1.png"))
    with pytest.raises(BadSetting, match="NAME_0"):
        pairs.in_folder(put(tmp_path / "b", "1.png", "2.png", "3.png"))
    with pytest.raises(SequenceEmpty):
        pairs.in_folder(tmp_path / "c")
    put(tmp_path / "d", "x_0.png")
    put(tmp_path / "d", "x_1.png", side=12)
    put(tmp_path / "d", "x_0.png")
    with pytest.raises(PictureSizesDiffer):
        pairs.in_folder(tmp_path / "d")


# ---- rungs


def test_each_rung_changes_one_switch_and_the_last_is_the_engine_as_it_is() -> None:
    rungs = [ladder.rung(name, WHOLE) for name in ladder.USUAL]
    names = ("use_lora", "refinements", "attention", "adain", "reschedule", "keep_ends")
    for before, after, name in zip(rungs[:-1], rungs[1:], names, strict=True):
        assert [n for n in names if getattr(before, n) != getattr(after, n)] == [name]
    assert rungs[-1] == WHOLE
    off = rungs[0]
    assert (off.use_lora, off.attention, off.adain, off.reschedule) == (False, 0, False, "off")
    assert off.refinements == 0
    assert rungs[-2].pace_rounds == WHOLE.pace_rounds


def test_the_published_rung_is_the_papers_preset() -> None:
    paper = Diffusion(checkpoint="toon", **Diffusion.PRESETS["paper"])  # type: ignore[arg-type]
    assert ladder.rung(ladder.PUBLISHED, WHOLE) == paper


def test_contenders_are_engines_with_the_ladder_in_place_of_diffmorpher() -> None:
    found = ladder.contenders((), (), WHOLE)
    assert [contender.name for contender in found] == [
        "dissolve",
        "flow",
        "off",
        "+lora",
        "+refine",
        "+attention",
        "+adain",
        "+reschedule",
        "full",
    ]
    assert {contender.engine for contender in found[2:]} == {"diffmorpher"}
    assert [c.name for c in ladder.contenders(["diffmorpher"], ["off", "full"], WHOLE)] == ["off", "full"]
    with pytest.raises(BadSetting, match="published"):
        ladder.contenders((), ["attentive"], WHOLE)
    with pytest.raises(UnknownEngine):
        ladder.contenders(["nonsense"], (), WHOLE)


# ---- measures


def test_even_steps_are_even_and_uneven_ones_are_not() -> None:
    assert sequence.evenness((2.0, 2.0, 2.0)) == 0
    assert sequence.evenness((1.0, 3.0)) == pytest.approx(0.5)
    assert sequence.evenness((0.0, 0.0)) is None


def test_a_cross_fade_has_half_the_gradient_energy_and_a_moved_drawing_all_of_it() -> None:
    ends = bars(0), bars(8)
    faded = Picture(((ends[0].pixels.astype(int) + ends[1].pixels) // 2).astype(np.uint8))
    planes = [light(end) for end in ends]
    assert sequence.sharpness([light(faded)], planes) == pytest.approx(0.5, abs=0.06)
    assert sequence.sharpness([light(bars(4))], planes) == pytest.approx(1, abs=0.1)
    assert sequence.sharpness([light(grey(9))], [light(grey(99))]) is None


def test_ms_ssim_is_1_for_the_same_and_falls_with_what_differs() -> None:
    same, near, far = bars(0), bars(2), bars(8)
    found = [sequence.ms_ssim(Seen.of(same), Seen.of(other)) for other in (same, near, far)]
    assert found[0] == pytest.approx(1)
    assert found[0] > found[1] > found[2] >= 0


def test_ms_ssim_uses_fewer_scales_for_small_pictures() -> None:
    tiny = grey(100, side=5), grey(120, side=5)
    assert 0 < sequence.ms_ssim(*map(Seen.of, tiny)) < 1


def test_the_course_of_a_morph_goes_from_0_to_1() -> None:
    assert sequence.course((1.0, 3.0)) == (0, 0.25, 1)
    assert sequence.course((0.0, 0.0)) == (0, 0.5, 1)


def test_the_papers_form_is_the_mean_and_the_variance_of_steps_times_256() -> None:
    assert sequence.paper_forms((0.1, 0.3)) == pytest.approx((51.2, 25.6**2))


def test_a_morph_that_is_the_truth_is_found_true_even_and_at_its_ends() -> None:
    made = [bars(shift) for shift in (0, 2, 4, 6, 8)]
    drawings = sequence.Drawings(made, (made[0], made[-1]), made)
    figures, steps = sequence.measured(drawings, sequence.plain())
    assert (figures["truth"], figures["truth_psnr"], figures["end"]) == (pytest.approx(0, abs=1e-6), 60, 0)
    assert figures["path"] == pytest.approx(sum(steps["steps"]))
    assert figures["evenness_rms"] == pytest.approx(0, abs=0.05)
    assert figures["inputs"] is not None
    assert figures["inputs"] > 0.05
    assert {key for key in figures} <= {measure.key for measure in sequence.measures(sequence.plain())}


def test_ends_that_were_not_reached_and_a_missing_truth_show() -> None:
    made = [bars(shift) for shift in (1, 4, 7)]
    drawings = sequence.Drawings(made, (bars(0), bars(8)), (None, None, None))
    figures, _ = sequence.measured(drawings, sequence.plain())
    assert figures["end"] > 20  # type: ignore[operator]
    assert figures["end_apart"] > 0.01  # type: ignore[operator]
    assert (figures["truth"], figures["truth_psnr"], figures["truth_ms_ssim"]) == (None, None, None)


def test_every_heading_of_a_distance_names_it() -> None:
    headings = {measure.key: measure.heading for measure in sequence.measures(sequence.plain())}
    for key in ("path", "evenness", "truth", "inputs", "end_apart"):
        assert headings[key].endswith("(MS-SSIM)")


# ---- trials


class Studious:
    """An engine that studies first, then fades; it remembers nothing."""

    info = Dissolve.info

    def __init__(self) -> None:
        self.calls = 0

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        self.calls += 1
        yield Progress("studying the keyframes", 1, 1)
        yield from Dissolve().morph(request, keyframes, skip=skip)


def trial(
    engine: object, contender: ladder.Contender, known: morphing.Known, **more: float
) -> morphing.Outcome:
    drawing = morphing.tried(engine, contender, known, sequence.plain(), **more)  # type: ignore[arg-type]
    while True:
        try:
            next(drawing)
        except StopIteration as stop:
            return stop.value


def known(name: str = "animation", frames: int = 5) -> morphing.Known:
    return morphing.Known.of(pairs.chosen((name,), 1, size=32)[0], frames)


FADE = ladder.Contender("dissolve", "dissolve")


def test_a_trial_draws_both_ends_and_everything_between_them() -> None:
    outcome = trial(Dissolve(), FADE, known())
    assert len(outcome.steps["steps"]) == 4
    assert outcome.record.figures["end"] == 0
    assert outcome.record.figures["truth_psnr"] is not None
    assert outcome.row.startswith(b"\xff\xd8")


def test_the_study_is_counted_once_and_drawing_again_leaves_it_out() -> None:
    figures = trial(Studious(), FADE, known()).record.figures
    assert figures["seconds"] > figures["again"]  # type: ignore[operator]
    reused = trial(Dissolve(), FADE, known(), studied=100.0).record.figures
    assert reused["seconds"] == pytest.approx(100 + reused["again"])  # type: ignore[operator]


def test_an_outcome_is_found_again_by_what_it_depends_on(tmp_path: Path) -> None:
    shelf, gauge = morphing.Shelf(tmp_path), sequence.plain()
    outcome = trial(Dissolve(), FADE, known())
    shelf.save(FADE, known(), gauge, outcome)
    assert shelf.load(FADE, known(), gauge) == outcome
    assert shelf.load(FADE, known(frames=6), gauge) is None
    assert shelf.load(FADE, known("metamorphosis"), gauge) is None
    assert shelf.load(ladder.Contender("flow", "flow"), known(), gauge) is None
    rungs = ladder.contenders(["diffmorpher"], ["off", "lora"], WHOLE)
    shelf.save(rungs[0], known(), gauge, outcome)
    assert shelf.load(rungs[0], known(), gauge) is not None
    assert shelf.load(rungs[1], known(), gauge) is None
    shelf.clear()
    assert shelf.load(FADE, known(), gauge) is None


def test_an_outcome_that_failed_or_is_damaged_is_made_again(tmp_path: Path) -> None:
    shelf, gauge = morphing.Shelf(tmp_path), sequence.plain()
    shelf.save(FADE, known(), gauge, morphing.cannot(FADE, known(), "no"))
    assert list(tmp_path.iterdir()) == []
    shelf.save(FADE, known(), gauge, trial(Dissolve(), FADE, known()))
    next(tmp_path.iterdir()).write_text("{")
    assert shelf.load(FADE, known(), gauge) is None


# ---- the whole of it


class _Sources(HTMLParser):
    """What a page loads, and how many pictures and plots it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]
        self.plots += tag == "svg"


def test_a_bench_leaves_tables_a_page_and_figures(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    engines = ("--engine", "dissolve", "--engine", "flow")
    code, text, _ = run("-o", out, "--pairs", 2, "--size", 48, "--frames", 5, *engines)
    assert code == 0
    assert "animation: mean ± spread over 2 pairs; distances by 1 - MS-SSIM" in text
    assert "±" in text
    assert "FID needs an Inception network's weights and is not computed here." in text
    page = _Sources()
    page.feed((out / "index.html").read_text("utf-8"))
    assert len(page.loaded) == 4 * 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.loaded)
    assert page.plots == 2 + 4
    found = json.loads((out / "bench.json").read_text("utf-8"))
    assert found["distance"] == "1 - MS-SSIM"
    assert found["groups"]["animation"]["dissolve"]["evenness_rms"]["pairs"] == 2
    assert found["groups"]["animation"]["dissolve"]["sharpness"]["spread"] > 0
    assert "truth" not in found["groups"]["metamorphosis"]["flow"]
    assert len(found["trials"][0]["steps"]["steps"]) == 4


def test_a_bench_goes_on_from_what_an_earlier_run_has_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    plain = morphing.tried

    def counting(engine: object, contender: ladder.Contender, pair: morphing.Known, *a: object, **k: object):
        drawn.append(pair.pair.name)
        return plain(engine, contender, pair, *a, **k)  # type: ignore[arg-type]

    monkeypatch.setattr(morph_runs, "tried", counting)
    small = (
        "-o",
        tmp_path / "out",
        "--size",
        32,
        "--frames",
        4,
        "--engine",
        "dissolve",
        "--set",
        "animation",
    )
    assert run(*small, "--pairs", 1)[0] == 0
    assert run(*small, "--pairs", 2)[0] == 0
    assert drawn == ["animation-00", "animation-01"]
    assert run(*small, "--pairs", 2, "--fresh")[0] == 0
    assert drawn[2:] == ["animation-00", "animation-01"]


def test_stopping_keeps_what_is_finished(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> object:
        if list((tmp_path / "out").rglob("*.json")):
            raise KeyboardInterrupt
        return plain(*_, **__)  # type: ignore[arg-type]

    plain = morphing.tried
    monkeypatch.setattr(morph_runs, "tried", interrupted)
    code, _, err = run(
        "-o", tmp_path / "out", "--pairs", 2, "--size", 32, "--frames", 4, "--engine", "dissolve"
    )
    assert code == cli.EXIT_INTERRUPTED
    assert "goes on from here" in err
    assert len(list((tmp_path / "out" / "trials").glob("*.json"))) == 1
    assert not (tmp_path / "out" / "index.html").exists()


def test_an_engine_that_cannot_run_keeps_its_rungs_with_the_reason(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(names: Sequence[str], fits: Path) -> dict[str, object]:
        return {name: "torch not installed" if name == "diffmorpher" else Dissolve() for name in names}

    monkeypatch.setattr(morph_runs, "opened", opened)
    out = tmp_path / "out"
    code, text, _ = run("-o", out, "--pairs", 1, "--size", 32, "--frames", 4)
    assert code == 0
    assert "+attention: torch not installed" in text
    assert "torch not installed" in (out / "index.html").read_text("utf-8")


def test_one_json_value_has_the_figures_and_the_page(run: Run, tmp_path: Path) -> None:
    code, text, _ = run(
        "-o", tmp_path, "--pairs", 1, "--size", 32, "--frames", 4, "--engine", "dissolve", "--json"
    )
    found = json.loads(text)
    assert code == 0
    assert found["report"].endswith("index.html")
    assert found["paper"]["caveat"] == sequence.CAVEAT
    assert {row["FID"] for row in found["paper"]["table"]} == {"not computed here"}


def test_a_users_folder_is_measured_under_its_name(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "mine" / "jump", "a.png", "b.png")
    code, text, _ = run(
        "-o", tmp_path / "out", "--folder", tmp_path / "mine", "--engine", "dissolve", "--frames", 4
    )
    assert code == 0
    assert "own: mean" in text
    assert "<h1>mine</h1>" in (tmp_path / "out" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--folder", "x", "--set", "animation"], "--folder"),
        (["--frames", "2"], "4"),
        (["--set", "cats"], "animation"),
        (["--switches", "cats"], "lora"),
        (["--pairs", "0"], "1"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    run: Run, tmp_path: Path, arguments: list[str], word: str
) -> None:
    code, _, err = run("-o", tmp_path / "out", "--engine", "dissolve", *arguments)
    assert code == cli.EXIT_CODES[cli.RequestError]
    assert word in err
    assert not (tmp_path / "out").exists()


def test_the_memory_of_each_contender_is_measured_with_its_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def peak(engine: str, pair: pairs.Pair, *, diffusion: Diffusion) -> float:
        asked.append((engine, pair.name, diffusion.use_lora))
        return 123.0

    monkeypatch.setattr(morph_runs.memory, "peak", peak)
    code, text, _ = run(
        "-o", tmp_path, "--pairs", 1, "--size", 32, "--frames", 4, "--engine", "dissolve", "--memory"
    )
    assert code == 0
    assert asked == [("dissolve", "animation-00", True)]
    assert "peak MB" in text
    assert "123" in text


def test_a_plot_names_its_lines_and_escapes_them() -> None:
    plot = curves.curves("a < b", {"x & y": (0, 0.2, 1), "even": (0, 0.5, 1)})
    assert plot.count("<polyline") == 2
    assert "x &amp; y" in plot
    assert "a &lt; b" in plot


def test_the_spread_is_the_standard_deviation_over_a_groups_pairs() -> None:
    measure = sequence.measures(sequence.plain())[0]
    records = tuple(
        tables.Record("dissolve", f"p{i}", "g", False, {"sharpness": value})
        for i, value in enumerate((1.0, 3.0))
    )
    table = tables.spread(tables.Bench("b", (measure,), records), "g")
    assert table.rows[0][1].text == "2.000 ±1.414"
    assert morph_page.Morphs is not None
