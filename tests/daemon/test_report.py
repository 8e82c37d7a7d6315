"""Reports: contact sheets, films, evenness and the page."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from keytween import images
from keytween.images import Picture
from keytween.report import (
    ACCENT,
    FRAME,
    GAP,
    Distance,
    FrameEntry,
    Pacing,
    Result,
    contact_sheet,
    evenness,
    preview_mp4,
    rms_difference,
    write_report,
)
from keytween_wire.errors import BadSetting, OutputUnwritable, PictureMissing, PictureSizesDiffer
from keytween_wire.messages import Colour

av = pytest.importorskip("av")
HOSTILE = '<script>alert("1")</script>&\'"\udcff\n</title>'


def plain(value: float, *, size: tuple[int, int] = (48, 32), matte: float | None = None) -> Picture:
    """A picture of one grey, 0..1."""
    values = [value] * 3 + ([] if matte is None else [matte])
    return Picture(np.full((size[1], size[0], len(values)), np.rint(np.array(values) * 255), np.uint8))


def linear(value: float, *, dtype: type[np.floating] = np.float32) -> Picture:
    """A scene-linear picture of one grey."""
    return Picture(np.full((32, 48, 3), value, dtype), Colour.SCENE_LINEAR)


def ramp(number: int, **size: tuple[int, int]) -> list[Picture]:
    """Greys from black to white in even steps."""
    return [plain(i / (number - 1), **size) for i in range(number)]


def tween(number: int = 5, **changes: object) -> Result:
    """A result of two keyframes and in-betweens, linear and on ones."""
    pictures = ramp(number)
    entries = tuple(
        FrameEntry(i + 1, p, keyframe=i in (0, number - 1), position=i / (number - 1), seconds=0.25)
        for i, p in enumerate(pictures)
    )
    settings: dict[str, object] = {"title": "Fox to owl", "engine": "dissolve", "frames": entries} | changes
    return Result(**settings)  # type: ignore[arg-type]


def decoded(path: Path) -> list[np.ndarray]:
    """The film's frames as RGB bytes, upright and in order."""
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


class Tags(HTMLParser):
    """Collects a page's tags, and checks that each closes what is open."""

    VOID = ("meta", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(index: Path) -> Tags:
    """The parsed page."""
    return Tags(index.read_text(encoding="utf-8"))


def test_an_even_change_has_evenness_0_and_its_path_is_the_whole_way() -> None:
    pacing = evenness(ramp(6))
    assert pacing.steps == pytest.approx([0.2] * 5, abs=0.003)
    assert pacing.path == pytest.approx(1.0, abs=0.003)
    assert pacing.evenness == pytest.approx(0.0, abs=0.01)


def test_evenness_is_the_standard_deviation_over_the_mean() -> None:
    assert Pacing("any", (1.0, 3.0)).evenness == pytest.approx(0.5)
    assert Pacing("any", (1.0, 3.0)).path == 4.0


@pytest.mark.parametrize("steps", [(), (0.0,), (0.0, 0.0)])
def test_where_nothing_moves_the_change_is_even(steps: tuple[float, ...]) -> None:
    assert Pacing("any", steps).evenness == 0.0


def test_the_distance_is_the_callers_and_is_named() -> None:
    always_two = Distance("always two", lambda first, second: 2.0)
    assert evenness(ramp(3), distance=always_two) == Pacing("always two", (2.0, 2.0))


def test_scene_linear_pictures_are_compared_as_they_are_displayed() -> None:
    assert rms_difference(linear(0.0), linear(0.2140411)) == pytest.approx(0.5, abs=1e-3)
    assert rms_difference(linear(1.0, dtype=np.float16), plain(1.0)) == pytest.approx(0.0, abs=1e-6)


def test_values_beyond_the_display_and_nan_are_clipped() -> None:
    assert rms_difference(linear(7.0), plain(1.0)) == 0.0
    assert rms_difference(linear(math.nan), plain(0.0)) == 0.0


def test_paint_hidden_under_a_matte_does_not_count_but_the_matte_does() -> None:
    assert rms_difference(plain(0.0, matte=0.0), plain(1.0, matte=0.0)) == 0.0
    assert rms_difference(plain(0.0, matte=0.0), plain(0.0, matte=1.0)) == pytest.approx(math.sqrt(0.5))


def test_pictures_of_different_sizes_have_no_distance() -> None:
    with pytest.raises(PictureSizesDiffer):
        rms_difference(plain(0.0), plain(0.0, size=(8, 8)))


def test_a_contact_sheet_frames_the_keyframes_and_only_them() -> None:
    sheet = contact_sheet(ramp(3), ["a", "b", "c"], keyframes={0, 2}).pixels
    framed = (sheet == ACCENT).all(axis=2)
    cell = 96
    columns = [framed[:, GAP + i * (cell + GAP) - FRAME : GAP + i * (cell + GAP) + cell] for i in range(3)]
    assert [bool(column.any()) for column in columns] == [True, False, True]


def test_a_contact_sheet_wraps_into_balanced_rows() -> None:
    one_row = contact_sheet(ramp(4), ["x"] * 4, width=96 * 6 + GAP * 7)
    two_rows = contact_sheet(ramp(8), ["x"] * 8, width=96 * 6 + GAP * 7)
    assert two_rows.size[0] == one_row.size[0]
    assert two_rows.size[1] == 2 * one_row.size[1] - GAP


def test_big_frames_are_scaled_down_and_small_ones_kept() -> None:
    big = contact_sheet([plain(1.0, size=(2000, 1000))], ["big"], cell=200)
    assert (big.pixels == 255).all(axis=2).sum() == pytest.approx(200 * 100, rel=0.05)
    small = contact_sheet([plain(1.0, size=(20, 10))], ["small"], cell=200)
    assert (small.pixels[: GAP + 10] == 255).all(axis=2).sum() == 20 * 10


def test_a_matte_shows_a_checkerboard_in_the_sheet() -> None:
    sheet = contact_sheet([plain(1.0, size=(64, 64), matte=0.0)], [""]).pixels
    inside = sheet[GAP : GAP + 64, GAP + 16 : GAP + 16 + 64]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 2


def test_long_and_strange_captions_stay_in_their_column() -> None:
    sheet = contact_sheet(ramp(2), ["x" * 500 + "\0\n" + HOSTILE, "\U0001f98a\n"], width=400)
    assert sheet.size[0] == GAP + 2 * (96 + GAP)
    assert (sheet.pixels[:, -GAP // 2 :] == sheet.pixels[0, 0]).all()


@pytest.mark.parametrize("captions", [[], ["a"], ["a", "b", "c"]])
def test_captions_must_match_the_pictures(captions: list[str]) -> None:
    with pytest.raises(BadSetting):
        contact_sheet(ramp(2), captions)


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(BadSetting):
        contact_sheet([], [])


def test_a_film_shows_every_frame_once_in_order(tmp_path: Path) -> None:
    frames = decoded(preview_mp4(ramp(5), tmp_path / "a.mp4", fps=12))
    assert [frame.mean() / 255 for frame in frames] == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.02)


def test_a_film_holds_frames(tmp_path: Path) -> None:
    frames = decoded(preview_mp4(ramp(3), tmp_path / "a.mp4", holds=[3, 2, 1]))
    assert [round(frame.mean() / 255, 1) for frame in frames] == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("fps", [24, 23.976, 12.5, 60])
def test_a_film_has_the_rate_asked_for_and_a_format_that_browsers_play(tmp_path: Path, fps: float) -> None:
    with av.open(str(preview_mp4(ramp(3), tmp_path / "a.mp4", fps=fps))) as film:
        stream = film.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, abs=1e-3)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)


@pytest.mark.parametrize("size", [(47, 33), (3, 5), (1, 1)])
def test_odd_sizes_are_padded_to_even_ones(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = decoded(preview_mp4([plain(0.5, size=size)] * 2, tmp_path / "a.mp4"))
    assert [f.shape for f in frames] == [(size[1] + size[1] % 2, size[0] + size[0] % 2, 3)] * 2


def test_colours_in_a_film_are_those_of_the_pictures(tmp_path: Path) -> None:
    pixels = np.full((32, 48, 3), (200, 60, 30), np.uint8)
    frame = decoded(preview_mp4([Picture(pixels)] * 2, tmp_path / "a.mp4"))[0]
    assert frame[16, 24] == pytest.approx([200, 60, 30], abs=4)


def test_scene_linear_is_shown_as_srgb_in_a_film(tmp_path: Path) -> None:
    frame = decoded(preview_mp4([linear(0.2140411)], tmp_path / "a.mp4"))[0]
    assert frame.mean() == pytest.approx(127.5, abs=3)


def test_a_film_of_large_pictures_is_scaled_down(tmp_path: Path) -> None:
    frame = decoded(preview_mp4([plain(0.5, size=(4000, 500))], tmp_path / "a.mp4"))[0]
    assert frame.shape == (240, 1920, 3)


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(BadSetting):
        preview_mp4(ramp(2), tmp_path / "a.mp4", fps=fps)


def test_a_film_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(PictureSizesDiffer):
        preview_mp4([plain(0.0), plain(0.0, size=(8, 8))], tmp_path / "a.mp4")
    with pytest.raises(BadSetting):
        preview_mp4([], tmp_path / "b.mp4")
    with pytest.raises(PictureMissing):
        preview_mp4([plain(0.0), tmp_path / "none.png"], tmp_path / "c.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_film_is_not_written_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable):
        preview_mp4(ramp(2), tmp_path / "none" / "a.mp4")


def test_a_report_holds_the_film_the_sheet_and_the_page(tmp_path: Path) -> None:
    index = write_report(tmp_path / "new" / "report", [tween()])
    assert index == tmp_path / "new" / "report" / "index.html"
    assert sorted(p.name for p in index.parent.iterdir()) == [
        "index.html",
        "tween-1-sheet.png",
        "tween-1.mp4",
    ]
    assert len(decoded(index.parent / "tween-1.mp4")) == 5


def test_the_page_needs_nothing_but_what_lies_beside_it(tmp_path: Path) -> None:
    index = write_report(tmp_path, [tween(), tween(title="Another")])
    tags = page_of(index)
    links = [a[k] for _, a in tags.found for k in ("src", "href") if a.get(k)]
    assert links
    for link in links:
        assert link is not None
        assert link.startswith(("./", "#"))
        assert link.startswith("#") or (tmp_path / unquote(link)).is_file()
    assert not tags.all("script")
    assert not tags.all("link")
    assert "http" not in index.read_text(encoding="utf-8")


def test_pictures_films_and_charts_have_texts_for_those_who_cannot_see_them(tmp_path: Path) -> None:
    tags = page_of(write_report(tmp_path, [tween()]))
    assert all(image["alt"] for image in tags.all("img"))
    assert all(video["aria-label"] for video in tags.all("video"))
    names = {title.get("id") for title in tags.all("title")}
    assert tags.all("svg")
    assert all(chart["role"] == "img" and chart["aria-labelledby"] in names for chart in tags.all("svg"))
    assert tags.all("html")[0]["lang"] == "en"


def test_the_page_tells_engine_time_memory_evenness_and_every_position(tmp_path: Path) -> None:
    result = tween(seconds=150.0, peak_memory_bytes=3 << 30, settings=(("Easing", "sine-in-out"),))
    text = " ".join(page_of(write_report(tmp_path, [result])).text)
    for wanted in (
        "dissolve",
        "2 min 30 s",
        "3.00 GiB",
        "Evenness",
        "sine-in-out",
        "0.2500",
        "0.7500",
        "250 ms",
    ):
        assert wanted in text


def test_what_was_not_measured_is_not_made_up(tmp_path: Path) -> None:
    text = " ".join(page_of(write_report(tmp_path, [tween()])).text)
    assert re.search(r"Peak memory\W+–", text)


def test_hostile_texts_are_only_texts(tmp_path: Path) -> None:
    source = tmp_path / "javascript:alert(1)<b>&\"'#?%.png"
    images.write(plain(0.5), source)
    result = tween(
        title=HOSTILE,
        engine=HOSTILE,
        settings=((HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
        frames=(
            FrameEntry(1, plain(0.0), keyframe=True),
            FrameEntry(2, source),
            FrameEntry(3, plain(1.0), True),
        ),
    )
    tags = page_of(write_report(tmp_path, [result, result]))
    assert not tags.all("script")
    assert not tags.all("b")
    assert len(tags.all("title")) == 1 + 2 * (2 + 3 + 2)
    links = [str(a["href"]) for a in tags.all("a") if "javascript" in str(a["href"])]
    assert links
    assert all(link.startswith("./") and (tmp_path / unquote(link)) == source for link in links)


def test_a_report_of_a_single_frame_or_of_no_change_still_stands(tmp_path: Path) -> None:
    one = tween(frames=(FrameEntry(7, plain(0.5), keyframe=True),))
    still = tween(frames=tuple(FrameEntry(i, plain(0.5), position=0.5) for i in (1, 2)))
    page_of(write_report(tmp_path, [one, still]))


def test_overshooting_positions_and_many_segments_stay_within_the_chart(tmp_path: Path) -> None:
    entries = [
        FrameEntry(10 * s + i, plain(0.5), keyframe=i == 0, segment=s, position=1.4 * i / 9 - 0.2)
        for s in range(3)
        for i in range(10)
    ]
    tags = page_of(write_report(tmp_path, [tween(frames=tuple(entries))]))
    assert all(0 <= float(dot["cy"] or -1) <= 240 for dot in tags.all("circle"))
    assert all(0 <= float(dot["cx"] or -1) <= 760 for dot in tags.all("circle"))


@pytest.mark.parametrize("results", [[], [tween(frames=())]])
def test_a_report_of_nothing_is_refused(tmp_path: Path, results: list[Result]) -> None:
    with pytest.raises(BadSetting):
        write_report(tmp_path, results)


def test_a_report_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("here")
    with pytest.raises(OutputUnwritable):
        write_report(tmp_path / "taken", [tween()])
