# SPDX-License-Identifier: Apache-2.0
"""OpenTimelineIO in and out: gaps become shots, finished shots take the gaps' places, times stay exact."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest

from discs import draw_disc
from keytween.config import Config
from keytween.shots import conform, reading
from keytween.shots.planning import prepare
from keytween.shots.unit import Maker
from keytween_wire.errors import KeytweenError, ShotsUnreadable

RATE = 24000 / 1001


def time(frames: float, rate: float = RATE) -> dict[str, Any]:
    """A rational time as files hold it."""
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": frames}


def span(start: float, frames: float, rate: float = RATE) -> dict[str, Any]:
    """A time range as files hold it."""
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": time(start, rate), "duration": time(frames, rate)}


def marker(name: str, *, comment: str = "", start: float = 0, **metadata: Any) -> dict[str, Any]:
    """A marker, as Marker.2 has it."""
    return {
        "OTIO_SCHEMA": "Marker.2",
        "metadata": {"keytween": metadata} if metadata else {},
        "name": name,
        "color": "GREEN",
        "comment": comment,
        "marked_range": span(start, 1),
    }


def clip(media: dict[str, Any], start: float, frames: float, *markers: dict[str, Any]) -> dict[str, Any]:
    """A clip, as Clip.2 has it: several references, one of them active."""
    return {
        "OTIO_SCHEMA": "Clip.2",
        "metadata": {"somebody": {"else": 1}},
        "name": "still",
        "source_range": span(start, frames),
        "effects": [],
        "markers": list(markers),
        "enabled": True,
        "media_references": {"DEFAULT_MEDIA": media},
        "active_media_reference_key": "DEFAULT_MEDIA",
    }


def still(url: str, frames: float, *markers: dict[str, Any]) -> dict[str, Any]:
    """A clip of one picture."""
    media = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "metadata": {},
        "name": "",
        "available_range": span(0, 1),
        "available_image_bounds": None,
        "target_url": url,
    }
    return clip(media, 0, frames, *markers)


def sequence(base: str, first: int, count: int, *, start: float, frames: float) -> dict[str, Any]:
    """A clip of some frames of an image sequence."""
    media = {
        "OTIO_SCHEMA": "ImageSequenceReference.1",
        "metadata": {},
        "name": "",
        "available_range": span(first, count),
        "available_image_bounds": None,
        "target_url_base": base,
        "name_prefix": "walk.",
        "name_suffix": ".png",
        "start_frame": first,
        "frame_step": 1,
        "rate": RATE,
        "frame_zero_padding": 4,
        "missing_frame_policy": "error",
    }
    return clip(media, start, frames)


def gap(frames: float, *markers: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A gap."""
    return {
        "OTIO_SCHEMA": "Gap.1",
        "metadata": {"keytween": metadata} if metadata else {},
        "name": "",
        "source_range": span(0, frames),
        "effects": [],
        "markers": list(markers),
        "enabled": True,
    }


def timeline(*tracks: list[dict[str, Any]], start: float = 86400, **metadata: Any) -> dict[str, Any]:
    """A timeline whose first frame is an hour in, as tools like it."""
    return {
        "OTIO_SCHEMA": "Timeline.1",
        "metadata": {"keytween": {"engine": "dissolve", **metadata}},
        "name": "reel",
        "global_start_time": time(start),
        "tracks": {
            "OTIO_SCHEMA": "Stack.1",
            "metadata": {},
            "name": "tracks",
            "source_range": None,
            "effects": [],
            "markers": [],
            "enabled": True,
            "children": [
                {
                    "OTIO_SCHEMA": "Track.1",
                    "metadata": {},
                    "name": f"V{number}",
                    "source_range": None,
                    "effects": [],
                    "markers": [],
                    "enabled": True,
                    "kind": "Video",
                    "children": children,
                }
                for number, children in enumerate(tracks, start=1)
            ],
        },
    }


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A folder with a few stills and a walk of ten frames, some with names that addresses must escape."""
    for index, name in enumerate(("a.png", "b one.png", "ç.png", "d.png")):
        draw_disc(tmp_path / name, centre=(20 + 12 * index, 32))
    (tmp_path / "walk").mkdir()
    for number in range(1001, 1011):
        draw_disc(tmp_path / "walk" / f"walk.{number}.png", centre=(20 + 4 * (number - 1000), 24))
    return tmp_path


def write(show: Path, whole: dict[str, Any], name: str = "reel.otio") -> Path:
    """The timeline as a file."""
    path = show / name
    path.write_text(json.dumps(whole))
    return path


REEL = [
    still("a.png", 1, marker("prompt: a cat")),
    gap(5, marker("x", comment="ease: sine-in-out\nexposure: 2\nlooks too slow")),
    still("b%20one.png", 3),
    gap(4),
    still("%C3%A7.png", 1, marker("", prompt="a dog")),
    still("d.png", 10),
]


def test_gaps_between_stills_chain_into_a_shot_with_its_timing(show: Path, config: Config) -> None:
    batch = reading.read(write(show, timeline(REEL)))
    assert not batch.faults
    (shot,) = batch.shots
    assert shot.id == "V1_86401"
    assert [Path(k).name for k in shot.keyframes] == ["a.png", "b one.png", "ç.png"]
    assert shot.frames == (86400, 86406, 86413)
    assert shot.holds == (1, 3, 1)
    assert shot.ease == ("sine-in-out", "linear")
    assert shot.exposure == (2, 1)
    assert shot.diffusion.prompts == ("a cat", "a cat", "a dog")
    assert shot.fps == RATE
    found = prepare(shot, batch.output, config)
    cels = [cel for _, cel in found.frames()]
    assert cels == ["k0", "k0", "d0", "d0", "d1", "d1", "k1", "k1", "k1", "d2", "d3", "d4", "d5", "k2"]


def test_a_sequence_gives_its_last_frame_before_a_gap_and_its_first_one_after(show: Path) -> None:
    walk = [
        sequence("walk/", 1001, 10, start=1001, frames=4),
        gap(3),
        sequence(show.as_uri() + "/walk", 1001, 10, start=1006, frames=5),
        gap(2),
        still(f"file://localhost{show}/d.png", 1),
    ]
    first, second = reading.read(write(show, timeline(walk, start=0))).shots
    assert [Path(k).name for k in first.keyframes] == ["walk.1004.png", "walk.1006.png"]
    assert (first.frames, first.id) == ((3, 7), "V1_00004")
    assert [Path(k).name for k in second.keyframes] == ["walk.1010.png", "d.png"]
    assert second.frames == (11, 14)
    assert all(Path(k).is_file() for shot in (first, second) for k in shot.keyframes)


def test_gaps_beside_films_transitions_and_ends_are_left(show: Path) -> None:
    others = [gap(3), still("a.png", 2), gap(4), still("film.mov", 9), gap(2), still("d.png", 1), gap(7)]
    skipped = [still("a.png", 2), gap(4, marker("skip")), still("d.png", 1)]
    kept = [still("a.png", 2), gap(4, marker("shot: kept")), still("d.png", 1)]
    batch = reading.read(write(show, timeline(others, skipped, kept)))
    assert [shot.id for shot in batch.shots] == ["kept"]
    with pytest.raises(ShotsUnreadable, match="no track has a gap"):
        reading.read(write(show, timeline(others)))


def test_rates_that_are_rounded_differently_fall_on_the_same_frames(show: Path) -> None:
    late = 150_000
    filler = still("film.mov", late)
    filler["source_range"] = span(0, late, 23.976)
    (shot,) = reading.read(
        write(show, timeline([filler, still("a.png", 1), gap(5), still("d.png", 1)], start=0))
    ).shots
    assert shot.frames == (late, late + 6)


def make(source: Path, config: Config) -> Any:
    """Makes every shot and writes the timeline; gives the batch, and the timeline as it reads back."""
    batch = reading.read(source)
    maker = Maker(config, batch.results)
    for shot in batch.shots:
        try:
            maker.make(shot, lambda share, phase: None)
        except KeytweenError:
            continue
    path = conform.write(batch)
    assert path is not None
    return batch, otio.adapters.read_from_file(str(path))


def test_the_round_trip_puts_frames_in_place_and_moves_nothing_else(show: Path, config: Config) -> None:
    source = write(show, timeline(REEL, [gap(2), still("a.png", 1)]))
    before = otio.adapters.read_from_file(str(source))
    batch, after = make(source, config)
    assert after.global_start_time == before.global_start_time
    for track, old in zip(after.tracks, before.tracks, strict=True):
        assert [track.range_of_child_at_index(i) for i in range(len(track))] == [
            old.range_of_child_at_index(i) for i in range(len(old))
        ]
    filled = [after.tracks[0][i] for i in (1, 3)]
    for new, number, count in zip(filled, (86401, 86409), (5, 4), strict=True):
        assert new.source_range == otio.opentime.TimeRange(
            otio.opentime.RationalTime(number, RATE), otio.opentime.RationalTime(count, RATE)
        )
        media = new.media_reference
        shown = [
            media.frame_for_time(new.source_range.start_time + otio.opentime.RationalTime(i, RATE))
            for i in range(count)
        ]
        assert shown == list(range(number, number + count))
        for frame in shown:
            url = media.target_url_for_image_number(frame - media.start_frame)
            assert (batch.output / url).is_file()
    assert after.tracks[0][0].media_reference.target_url == "../a.png"
    assert (batch.output / "../b one.png").is_file()
    assert after.tracks[0][2].media_reference.target_url == "../b%20one.png"
    assert after.tracks[0][0].metadata["somebody"]["else"] == 1


def test_a_timeline_that_came_back_reads_as_one_without_gaps(show: Path, config: Config) -> None:
    batch, _ = make(write(show, timeline(REEL)), config)
    with pytest.raises(ShotsUnreadable, match="no track has a gap"):
        reading.read(batch.output / "reel.otio")


def test_a_gap_whose_shot_failed_stays_with_a_red_marker(show: Path, config: Config) -> None:
    (show / "d.png").write_bytes((show / "d.png").read_bytes()[:200])
    good, bad = (
        [still("a.png", 1), gap(3), still("b one.png", 1)],
        [still("a.png", 1), gap(3), still("d.png", 1)],
    )
    batch, after = make(
        write(show, timeline(good, bad, [still("a.png", 1), gap(3, ease="wobble"), still("a.png", 1)])),
        config,
    )
    assert isinstance(after.tracks[0][1], otio.schema.Clip)
    for track, said in ((1, "damaged"), (2, "wobble")):
        left = after.tracks[track][1]
        assert isinstance(left, otio.schema.Gap)
        assert [m.color for m in left.markers] == ["RED"]
        assert said in left.markers[0].comment
    again = reading.read(batch.output / "reel.otio")
    assert [shot.id for shot in again.shots] == ["V2_86401"]


def test_old_clips_with_one_media_reference_are_read(show: Path) -> None:
    old = still("a.png", 1)
    old["OTIO_SCHEMA"], old["media_reference"] = "Clip.1", old.pop("media_references")["DEFAULT_MEDIA"]
    del old["active_media_reference_key"]
    (shot,) = reading.read(write(show, timeline([old, gap(2), still("d.png", 1)]))).shots
    assert [Path(k).name for k in shot.keyframes] == ["a.png", "d.png"]


# ---- archives


def archive(show: Path, members: dict[str, bytes], *, link: str = "") -> Path:
    """An archive with these files; one of them a link where asked for."""
    path = show / "reel.otioz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777 if name == link else stat.S_IFREG | 0o644) << 16
            packed.writestr(info, data)
    return path


def packed(show: Path) -> dict[str, bytes]:
    """A timeline with two stills beside it, as `.otioz` holds them."""
    content = timeline([still("media/a.png", 1), gap(3), still("media/d.png", 1)])
    pictures = {f"media/{n}": (show / n).read_bytes() for n in ("a.png", "d.png")}
    return {"content.otio": json.dumps(content).encode(), "version.txt": b"1.0.0", **pictures}


def test_an_archive_is_unpacked_and_made(show: Path, config: Config) -> None:
    source = archive(show, packed(show))
    batch, after = make(source, config)
    assert after.tracks[0][0].media_reference.target_url == "unpacked/media/a.png"
    assert isinstance(after.tracks[0][1], otio.schema.Clip)
    picture = batch.output / "unpacked" / "media" / "a.png"
    stamp = picture.stat().st_mtime_ns
    reading.read(source)
    assert picture.stat().st_mtime_ns == stamp


def test_tasks_that_unpack_at_once_do_not_disturb_each_other(show: Path) -> None:
    source = archive(show, packed(show))
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: reading.read(source), range(8)))
    assert {shot.keyframes for batch in batches for shot in batch.shots} == {batches[0].shots[0].keyframes}
    assert all(
        Path(k).read_bytes() == (show / Path(k).name).read_bytes() for k in batches[0].shots[0].keyframes
    )


@pytest.mark.parametrize(
    "name", ["../out.png", "/tmp/out.png", "media/../../out.png", "C:\\out.png", "a\\..\\out.png"]
)
def test_an_archive_that_wants_out_of_its_folder_is_refused(show: Path, name: str) -> None:
    before = sorted(show.rglob("*"))
    source = archive(show, {**packed(show), name: b"gotcha"})
    with pytest.raises(ShotsUnreadable, match="no plain file inside"):
        reading.read(source)
    assert sorted({*show.rglob("*")} - {source}) == before


def test_an_archive_with_a_link_is_refused(show: Path) -> None:
    source = archive(show, {**packed(show), "media/link": b"../../.."}, link="media/link")
    with pytest.raises(ShotsUnreadable, match="no plain file inside"):
        reading.read(source)


@pytest.mark.parametrize(
    "text", ["", "{}", "not json", '{"OTIO_SCHEMA": "Clip.2"}', '{"OTIO_SCHEMA": "Timeline.99"}', "[1]"]
)
def test_what_is_no_timeline_is_refused(show: Path, text: str) -> None:
    path = show / "reel.otio"
    path.write_text(text)
    with pytest.raises(ShotsUnreadable, match=r"reel\.otio"):
        reading.read(path)
    source = archive(show, {"content.otio": text.encode()})
    with pytest.raises(ShotsUnreadable, match=r"reel\.otioz"):
        reading.read(source)
    source.write_bytes(b"PK\3\4 cut short")
    with pytest.raises(ShotsUnreadable, match=r"reel\.otioz"):
        reading.read(source)


def test_the_command_line_fills_a_timeline(show: Path, config: Config) -> None:
    source = write(show, timeline(REEL, film="none"))
    command = [sys.executable, "-m", "keytween.cli", "batch", str(source), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout)
    assert said["done"] == 1
    assert Path(said["timeline"]) == show / "reel-batch" / "reel.otio"
    assert otio.adapters.read_from_file(said["timeline"]).tracks[0][1].name == "V1_86401"
