# SPDX-License-Identifier: Apache-2.0
"""Shots files and what they mean, and one shot made: what is done stays, what is missing is made."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from discs import draw_disc
from keytween.config import Config
from keytween.images import Picture
from keytween.images import read as read_picture
from keytween.images import write as write_picture
from keytween.shots import film, reading, wishes
from keytween.shots.planning import check_places, prepare
from keytween.shots.pool import jobs_for
from keytween.shots.records import Shelf
from keytween.shots.shot import Shot
from keytween.shots.unit import Maker
from keytween_wire.errors import (
    BadSetting,
    CheckpointUnusable,
    KeytweenError,
    OutputUnwritable,
    PictureError,
    PictureMissing,
    PictureSizesDiffer,
    SequenceEmpty,
    ShotBusy,
    ShotsUnreadable,
    UnknownShot,
)
from keytween_wire.messages import Colour, Diffusion

TOML = """
output = "out"
frames = "frames/{shot}/{shot}.{frame:04d}"

[defaults]
engine = "dissolve"
in_betweens = 3

[defaults.diffusion]
steps = 10

[[shot]]
folders = "keys/sq*"
keyframes = "key.####.png"

[[shot]]
id = "door"
keyframes = ["keys/sq1/key.0001.png", "keys/sq1/key.0005.png"]
in_betweens = 5
ease = "sine-in-out"
diffusion = { prompts = "a door" }
"""


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A folder with two folders of keyframes and a shots file."""
    for number in (1, 2):
        folder = tmp_path / "keys" / f"sq{number}"
        folder.mkdir(parents=True)
        for index in range(3):
            draw_disc(folder / f"key.{1 + 4 * index:04d}.png", centre=(20 + 9 * index + 5 * number, 32))
    (tmp_path / "shots.toml").write_text(TOML)
    return tmp_path


def write(show: Path, text: str, name: str = "shots.toml") -> Path:
    """The shots file with another text."""
    path = show / name
    path.write_text(text)
    return path


def one(show: Path, settings: str = "", keyframes: str = "keys/sq1/key.####.png") -> Path:
    """A shots file with one shot called `a` of two drawings a stretch."""
    text = f'output = "out"\n[[shot]]\nid = "a"\nengine = "dissolve"\nkeyframes = "{keyframes}"\n'
    return write(show, text + ("" if "in_betweens" in settings else "in_betweens = 2\n") + settings)


def make(source: Path, config: Config, **arguments: bool) -> tuple[dict, bool]:
    """Makes the file's only shot."""
    batch = reading.read(source)
    assert not batch.faults, batch.faults
    return Maker(config, batch.results, **arguments).make(batch.shots[0], lambda share, phase: None)


def frames(show: Path, shot: str = "a") -> dict[str, bytes]:
    """A shot's frames by name."""
    return {p.name: p.read_bytes() for p in sorted((show / "out" / "frames" / shot).iterdir())}


# ---- files


def test_defaults_folders_and_overrides_make_shots(show: Path) -> None:
    batch = reading.read(show / "shots.toml")
    assert [shot.id for shot in batch.shots] == ["sq1", "sq2", "door"]
    assert batch.output == show / "out"
    assert [shot.in_betweens for shot in batch.shots] == [3, 3, 5]
    door = batch.shots[2]
    assert door.ease == ("sine-in-out",)
    assert (door.diffusion.steps, door.diffusion.prompts) == (10, ("a door",))
    assert door.file(batch.output, 7) == show / "out" / "frames" / "door" / "door.0007"


def test_a_shot_survives_the_way_through_json(show: Path) -> None:
    for shot in reading.read(show / "shots.toml").shots:
        assert Shot.from_json(json.loads(json.dumps(shot.as_json()))) == shot


def test_csv_says_the_same_as_toml(show: Path) -> None:
    rows = (
        "\ufeffid,keyframes,in_betweens,ease,engine,diffusion.steps,exposure\n"
        "007,keys/sq1/key.0001.png;keys/sq1/key.0005.png,5,sine-in-out,dissolve,10,\n"
    )
    csv = reading.read(write(show, rows, "shots.csv"), output=show / "out").shots[0]
    toml = reading.read(
        write(
            show,
            'output = "out"\n[[shot]]\nid = "007"\n'
            'keyframes = ["keys/sq1/key.0001.png", "keys/sq1/key.0005.png"]\n'
            'in_betweens = 5\nease = "sine-in-out"\nengine = "dissolve"\ndiffusion = { steps = 10 }\n',
        )
    ).shots[0]
    assert csv == toml


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("shots.toml", "[[shot]\n", "Expected"),
        ("shots.toml", "shots = 1\n", "'shots'"),
        ("shots.toml", "output = 'x'\n", "no shot"),
        ("shots.toml", "frames = 'f/{frame}'\n[[shot]]\nid = 'a'\n", "{shot}"),
        ("shots.toml", "frames = '{shot.__class__}/{frame}'\n[[shot]]\nid = 'a'\n", "{shot}"),
        ("shots.toml", "frames = '{shot[x]}/{frame}'\n[[shot]]\nid = 'a'\n", "{shot}"),
        ("shots.toml", "frames = '{shot}/{frame:9999999999d}'\n[[shot]]\nid = 'a'\n", "99 digits"),
        ("shots.toml", "frames = '{shot}/{frame'\n[[shot]]\nid = 'a'\n", "braces"),
        ("shots.toml", "shot = " + "[" * 5000, "nested too deeply"),
        ("shots.csv", "id,diffusion,diffusion.steps\na,b,3\n", "cannot go together"),
        ("shots.csv", "id,keyfames\na,b\n", "'keyfames'"),
        ("shots.csv", "id,keyframes\na,b,c\n", "more cells"),
        ("shots.txt", "", ".txt"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_as_a_whole(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(ShotsUnreadable) as caught:
        reading.read(write(tmp_path, text, name))
    assert said in caught.value.message
    assert name in caught.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShotsUnreadable, match="No such file"):
        reading.read(tmp_path / "shots.toml")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('id = "bad"', "keyframes"),
        ('id = "bad"\nkeyframe = "a.png"', "did you mean keyframes"),
        ('id = "bad"\nkeyframes = 3', "text"),
        ('id = "bad"\nkeyframes = "a.png"\nin_betweens = "many"', "whole number"),
        ('id = "bad"\nkeyframes = "a.png"\nin_betweens = 0', "in_betweens"),
        ('id = "bad"\nkeyframes = "a.png"\nease = "wobble"', "wobble"),
        ('id = "bad"\nkeyframes = "a.png"\nengine = "steam"', "steam"),
        ('id = "bad"\nkeyframes = "a.png"\nframes = [5, 1]', "rise"),
        ('id = "bad"\nkeyframes = "a.png"\nfps = nan', "fps"),
        ('id = "bad"\nkeyframes = "a.png"\nfilm = "vhs"', "vhs"),
        ('id = "bad"\nkeyframes = "a.png"\ndiffusion = { step = 3 }', "did you mean steps"),
        ('id = "bad"\nkeyframes = "a.png"\ndiffusion = { steps = "3" }', "whole number"),
        ('id = "bad"\nkeyframes = "a.png"\ndiffusion = { preset = ["draft"] }', "preset"),
        ('id = "bad"\nkeyframes = "a.png"\ndiffusion = { steps = true }', "whole number"),
        ('id = "bad"\nkeyframes = "a.png"\nseed = 9223372036854775808', "64 bits"),
        (f'id = "bad"\nkeyframes = "a.png"\nin_betweens = 0x{"f" * 5000}', "64 bits"),
        (f'id = "bad"\nkeyframes = "a.png"\nfps = 1{"0" * 400}', "64 bits"),
        (f'id = 0x{"f" * 5000}\nkeyframes = "a.png"', "text"),
        (f'id = "bad"\nfolders = "{"a/" * 5000}"\nkeyframes = "a.png"', "folders"),
        ('id = "bad"\nfolders = "nowhere/*"\nkeyframes = "a.png"', "no folder"),
        ('id = "../bad"\nkeyframes = "a.png"', "../bad"),
        ('id = "GOOD"\nkeyframes = "a.png"', "another shot"),
    ],
)
def test_a_bad_row_is_a_fault_of_its_shot_alone(tmp_path: Path, row: str, said: str) -> None:
    text = f'[[shot]]\nid = "good"\nkeyframes = "a.png"\n[[shot]]\n{row}\n'
    batch = reading.read(write(tmp_path, text))
    assert [shot.id for shot in batch.shots] == ["good"]
    assert len(batch.faults) == 1
    message = batch.faults[0].error.message
    assert said in message
    assert batch.faults[0].shot in message
    assert "\n" not in message


def test_shots_are_found_by_name_and_pattern(show: Path) -> None:
    batch = reading.read(show / "shots.toml")
    assert reading.matching(batch, ("sq*", "door")) == {"sq1", "sq2", "door"}
    with pytest.raises(UnknownShot, match="tree"):
        reading.matching(batch, ("tree",))


# ---- plans


def planned(source: Path, config: Config):
    """The plan of the file's first shot, with its places looked at."""
    batch = reading.read(source)
    found = prepare(batch.shots[0], batch.output, config)
    check_places(found, Shelf(batch.results, batch.shots[0].id))
    return found


def test_frames_may_come_from_names_and_holds_from_the_file(show: Path, config: Config) -> None:
    found = planned(one(show, 'frames = "from-names"\nholds = [2, 1]\nexposure = 2\n'), config)
    assert [key.frame for key in found.request.keyframes] == [1, 5, 9]
    assert [cel for _, cel in found.frames()] == ["k0", "k0", "k0", "d0", "k1", "k1", "d1", "d1", "k2"]


def test_spaced_keyframes_leave_room_for_holds_and_exposure(show: Path, config: Config) -> None:
    found = planned(one(show, "holds = 3\nexposure = [1, 2]\nfirst_frame = 101\n"), config)
    assert [key.frame for key in found.request.keyframes] == [101, 106, 114]
    assert found.request.total == 4


def test_the_request_is_what_is_in_the_files_not_what_they_are_called(show: Path, config: Config) -> None:
    before = planned(one(show), config).request_hash
    shutil.copytree(show / "keys" / "sq1", show / "keys" / "copied")
    assert planned(one(show, keyframes="keys/copied/key.####.png"), config).request_hash == before
    assert planned(one(show, "priority = 4\n"), config).request_hash == before
    assert planned(one(show, "seed = 1\n"), config).request_hash != before
    draw_disc(show / "keys" / "sq1" / "key.0005.png", centre=(50, 20))
    assert planned(one(show), config).request_hash != before


def _missing(show: Path) -> str:
    return "keys/sq1/nothing.png"


def _no_sequence(show: Path) -> str:
    return "keys/sq1/nothing.####.png"


def _circle(show: Path) -> str:
    (show / "one.png").symlink_to(show / "two.png")
    (show / "two.png").symlink_to(show / "one.png")
    return "one.png"


def _folder(show: Path) -> str:
    return "keys/sq1"


def _too_long(show: Path) -> str:
    return f"keys/{'x' * 300}.png"


def _text(show: Path) -> str:
    (show / "text.png").write_text("no picture")
    return "text.png"


def _empty(show: Path) -> str:
    (show / "empty.png").touch()
    return "empty.png"


def _other_size(show: Path) -> str:
    return draw_disc(show / "large.png", centre=(20, 20), size=(128, 64)).name


@pytest.mark.parametrize(
    "spoil", [_missing, _no_sequence, _circle, _folder, _too_long, _text, _empty, _other_size]
)
def test_a_keyframe_that_cannot_be_used_is_found_before_work(
    show: Path, config: Config, spoil: Callable[[Path], str]
) -> None:
    source = write(show, f'[[shot]]\nid = "a"\nkeyframes = ["keys/sq1/key.0001.png", "{spoil(show)}"]\n')
    with pytest.raises(PictureError) as caught:
        planned(source, config)
    assert "\n" not in caught.value.message
    expected = {_missing: PictureMissing, _other_size: PictureSizesDiffer}.get(spoil, PictureError)
    assert isinstance(caught.value, expected)
    if spoil is _circle:
        assert "circle" in caught.value.message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("frames = [1, 3, 1000000000000]", "may go on for 250000 frames"),
        ("in_betweens = 100000\nexposure = 100000", "may go on for 250000 frames"),
        ("holds = [1, 99999]\nframes = [1, 200000, 400000]", "may go on for 250000 frames"),
    ],
)
def test_a_shot_without_end_is_found_before_it_is_laid_out(
    show: Path, config: Config, settings: str, said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        prepare(reading.read(one(show, settings)).shots[0], show / "out", config)


def test_a_home_that_nobody_has_is_a_folder_like_others(show: Path, config: Config) -> None:
    keyframes = "~nobody-of-that-name/key.####.png"
    with pytest.raises(SequenceEmpty, match="~nobody-of-that-name"):
        prepare(reading.read(one(show, keyframes=keyframes)).shots[0], show / "out", config)


def test_a_folder_that_is_no_checkpoint_is_not_looked_through(
    show: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(*_: object) -> None:
        raise AssertionError("it was looked through")

    monkeypatch.setattr(Path, "rglob", searched)
    shot = reading.read(one(show, 'diffusion = { checkpoint = "/" }')).shots[0]
    with pytest.raises(CheckpointUnusable, match=r"model_index\.json"):
        prepare(dataclasses.replace(shot, engine="diffmorpher"), show / "out", config)


def test_records_that_make_no_sense_are_none(show: Path) -> None:
    shelf = Shelf(show / "results", "a")
    shelf.folder.mkdir(parents=True)
    lines = [
        '{"request": "r"}',
        '{"cel": "d0", "file": "a\\u0000b", "sha256": "", "bytes": 1, "mtime_ns": 1}',
    ]
    shelf.journal.write_text("\n".join([*lines, "[" * 5000]))
    assert [stored.intact for stored in shelf.read_journal("r").values()] == [False]
    for path in (shelf.record_file, shelf.journal):
        path.write_text("[" * 5000)
    assert (shelf.load(), shelf.read_journal("r")) == (None, {})
    (shelf.results / ".wishes").mkdir()
    (shelf.results / ".wishes" / "a.json").write_text("[" * 5000)
    assert wishes.take(shelf.results) == []


def test_an_output_that_cannot_be_written_is_found_before_work(show: Path, config: Config) -> None:
    (show / "out").write_text("a file, no folder")
    with pytest.raises(OutputUnwritable, match="no folder"):
        planned(one(show), config)
    (show / "out").unlink()
    (show / "out").symlink_to(show / "out")
    with pytest.raises(OutputUnwritable, match="circle"):
        planned(one(show), config)


def test_a_name_that_no_disk_takes_is_found_before_work(show: Path, config: Config) -> None:
    shot = "ä" * 126
    for index in range(2):
        draw_disc(show / f"{'ü' * 125}{index}.png", centre=(30 + 20 * index, 30))
    text = f'output = "out"\n{{}}[[shot]]\nid = "{shot}"\nkeyframes = "ü*.png"\nengine = "dissolve"\n'
    with pytest.raises(OutputUnwritable, match="bytes are too long"):
        planned(write(show, text.format('frames = "{shot}/{shot}{frame:04d}"\n')), config)
    record, _ = make(write(show, text.format("")), config)
    assert record["state"] == "done"
    assert len(frames(show, shot)) == 9


def test_files_that_are_not_the_batchs_own_are_not_replaced(show: Path, config: Config) -> None:
    source = one(show)
    foreign = show / "out" / "frames" / "a" / "0003.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"somebody's")
    with pytest.raises(OutputUnwritable, match="--overwrite"):
        make(source, config)
    assert foreign.read_bytes() == b"somebody's"
    make(source, config, overwrite=True)
    assert foreign.read_bytes() != b"somebody's"


def test_keyframes_are_never_replaced(show: Path, config: Config) -> None:
    shutil.copytree(show / "keys" / "sq1", show / "out" / "frames" / "a")
    for file in (show / "out" / "frames" / "a").iterdir():
        file.rename(file.with_name(file.name.removeprefix("key.")))
    before = frames(show)
    with pytest.raises(OutputUnwritable, match="it is a keyframe"):
        make(one(show, keyframes="out/frames/a/####.png"), config, overwrite=True)
    assert frames(show) == before


# ---- one shot


def test_a_shot_is_made_once_and_then_left_alone(show: Path, config: Config) -> None:
    source = one(show, "exposure = 2\n")
    record, made = make(source, config)
    assert made
    assert (record["state"], record["attempts"], record["drawn"], record["drawings"]) == ("done", 1, 4, 4)
    assert [f["frame"] for f in record["frames"]] == list(range(1, 14))
    assert set(frames(show)) == {f"{n:04d}.png" for n in range(1, 14)}
    assert record["memory_bytes"] > 1e7
    assert len(record["pacing"]["steps"]) == 6
    assert read_picture(show / "out" / record["sheet"]).size[0] > 300
    before = {p: p.stat().st_mtime_ns for p in (show / "out").rglob("*.png")}
    again, made = make(source, config)
    assert not made
    assert again == record
    assert {p: p.stat().st_mtime_ns for p in (show / "out").rglob("*.png")} == before


def test_keyframes_keep_their_bytes_and_held_frames_are_the_same(show: Path, config: Config) -> None:
    make(one(show, "exposure = 2\n"), config)
    found = frames(show)
    assert found["0001.png"] == (show / "keys" / "sq1" / "key.0001.png").read_bytes()
    assert found["0003.png"] == found["0004.png"] != found["0005.png"]


def test_only_what_is_missing_or_damaged_is_made_again(show: Path, config: Config) -> None:
    source = one(show)
    make(source, config)
    whole = frames(show)
    (show / "out" / "frames" / "a" / "0002.png").unlink()
    (show / "out" / "frames" / "a" / "0005.png").write_bytes(whole["0005.png"][:-9])
    record, made = make(source, config)
    assert (made, record["drawn"], record["attempts"]) == (True, 2, 2)
    assert frames(show) == whole


def test_a_touched_keyframe_changes_nothing_and_a_painted_one_everything(show: Path, config: Config) -> None:
    source, key = one(show), show / "keys" / "sq1" / "key.0005.png"
    make(source, config)
    os.utime(key, (1, 1))
    assert not make(source, config)[1]
    before = frames(show)
    draw_disc(key, centre=(60, 20))
    record, made = make(source, config)
    assert (made, record["drawn"], record["attempts"]) == (True, 4, 1)
    assert frames(show)["0002.png"] != before["0002.png"]


def test_frames_of_an_earlier_request_are_swept_and_nothing_else(show: Path, config: Config) -> None:
    make(one(show, "in_betweens = 4\n"), config)
    (show / "out" / "frames" / "a" / "notes.txt").write_text("mine")
    (show / "out" / "frames" / "a" / "0099.png").write_text("mine")
    make(one(show, "in_betweens = 2\n"), config)
    assert set(frames(show)) == {*(f"{n:04d}.png" for n in range(1, 8)), "notes.txt", "0099.png"}
    make(one(show, 'format = "exr-half"\n'), config)
    assert set(frames(show)) == {*(f"{n:04d}.exr" for n in range(1, 8)), "notes.txt", "0099.png"}


def test_the_output_may_be_moved(show: Path, config: Config) -> None:
    make(one(show), config)
    (show / "out").rename(show / "elsewhere")
    batch = reading.read(one(show), output=show / "elsewhere")
    _, made = Maker(config, batch.results).make(batch.shots[0], lambda share, phase: None)
    assert not made


def test_a_failure_is_recorded_and_what_was_drawn_is_kept(show: Path, config: Config) -> None:
    source, key = one(show), show / "keys" / "sq1" / "key.0009.png"
    good = key.read_bytes()
    key.write_bytes(good[: len(good) // 2])
    with pytest.raises(PictureError):
        make(source, config)
    batch = reading.read(source)
    record = Shelf(batch.results, "a").load()
    assert record is not None
    assert (record["state"], record["error"]["code"]) == ("failed", "KT-103")
    key.write_bytes(good)
    assert make(source, config)[0]["state"] == "done"


def test_a_shot_that_is_being_made_is_not_made_twice(show: Path, config: Config) -> None:
    source = one(show)
    shelf = Shelf(reading.read(source).results, "a")
    with shelf.locked(), pytest.raises(ShotBusy, match="a"):
        make(source, config)
    assert make(source, config)[1]


def test_progress_never_goes_back(show: Path, config: Config) -> None:
    said: list[float] = []
    batch = reading.read(one(show))
    Maker(config, batch.results).make(batch.shots[0], lambda share, phase: said.append(share))
    assert said == sorted(said)
    assert said[-1] == 1.0


def test_what_nobody_foresaw_is_an_error_like_others(show: Path, config: Config) -> None:
    source = one(show, 'film = "mp4"\n')
    shelf = Shelf(reading.read(source).results, "a")
    shelf.film(".mp4").mkdir(parents=True)
    with pytest.raises(KeytweenError):
        make(source, config)
    assert (shelf.load() or {})["state"] == "failed"


# ---- films


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "h264"), ("prores", "prores")])
def test_a_film_has_every_frame_at_the_exact_rate(show: Path, config: Config, kind: str, codec: str) -> None:
    record, _ = make(one(show, f'film = "{kind}"\nfps = 23.976\nexposure = 2\n'), config)
    with av.open(str(show / "out" / record["film"])) as found:
        stream = found.streams.video[0]
        assert stream.codec_context.name == codec
        assert stream.average_rate == Fraction(24000, 1001)
        assert sum(1 for _ in found.decode(stream)) == len(record["frames"]) == 13
        assert (stream.width, stream.height) == (96, 64)


def test_prores_keeps_colours_and_the_matte(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :24] = (200, 80, 40, 255)
    pixels[:, 24:] = (30, 60, 220, 128)
    Image.fromarray(pixels).save(tmp_path / "0001.png")
    path = film.write("prores", [tmp_path / "0001.png"], tmp_path / "film.mov", fps=24)
    with av.open(str(path)) as found:
        frame = next(found.decode(video=0))
        assert frame.format.name.startswith("yuva444p")
        shown = frame.reformat(format="rgba", src_colorspace="ITU709", src_color_range="MPEG").to_ndarray()
    assert np.abs(shown[16, 8].astype(int) - pixels[16, 8]).max() <= 4
    assert np.abs(shown[16, 40].astype(int) - pixels[16, 40]).max() <= 4


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (24, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_rounded_rates_mean_exact_ones(fps: float, rate: Fraction) -> None:
    assert film.rate_of(fps) == rate


def test_a_setting_out_of_range_for_its_keyframes_is_refused(show: Path, config: Config) -> None:
    for setting in ("holds = [1, 2, 3, 4]\n", "frames = [1, 9]\n", "frames = [1, 2, 3]\n"):
        with pytest.raises((BadSetting, KeytweenError)) as caught:
            planned(one(show, setting), config)
        assert caught.value.code in ("KT-205", "KT-202")


def test_the_worked_example_of_the_documentation_can_be_made(tmp_path: Path, config: Config) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "batch.md").read_text("utf-8")
    toml = text.split("```toml\n")[1].split("```")[0]
    for name in (
        "sq010_sh010/key.0001",
        "sq010_sh010/key.0013",
        "sq010_sh010/key.0025",
        "sq010_sh020/key.0001",
    ):
        (tmp_path / "keys" / name).parent.mkdir(parents=True, exist_ok=True)
        draw_disc(tmp_path / "keys" / f"{name}.png", centre=(20 + len(name), int(name[-2:]) + 20))
    draw_disc(tmp_path / "keys" / "sq010_sh020" / "key.0009.png", centre=(50, 30))
    (tmp_path / "keys" / "special").mkdir()
    for index, name in enumerate(("door_open", "door_shut")):
        pixels = np.full((32, 48, 3), 0.2 + index, np.float16)
        write_picture(Picture(pixels, Colour.SCENE_LINEAR), tmp_path / "keys" / "special" / f"{name}.exr")
    batch = reading.read(write(tmp_path, toml))
    assert not batch.faults
    assert [shot.id for shot in batch.shots] == ["sq010_sh010", "sq010_sh020", "door"]
    found = [prepare(shot, batch.output, config) for shot in batch.shots]
    assert [len(plan.plan.cels) for plan in found] == [25, 9, 13]
    record, _ = Maker(config, batch.results).make(batch.shots[2], lambda share, phase: None)
    assert record["frames"][1]["file"] == "frames/door/door.0002.exr"
    assert record["film"].endswith(".mov")


@pytest.mark.parametrize(
    ("engine", "checkpoint", "one_at_a_time"),
    [("diffmorpher", "toon", True), ("auto", "toon", True), ("auto", "", False), ("flow", "toon", False)],
)
def test_shots_that_may_need_the_network_are_made_one_at_a_time_without_a_gpu(
    engine: str, checkpoint: str, one_at_a_time: bool
) -> None:
    shot = Shot(
        id="s",
        keyframes=("a.png", "b.png"),
        output="{frame}",
        engine=engine,
        diffusion=Diffusion(checkpoint=checkpoint),
    )
    assert shot.may_diffuse is one_at_a_time
    assert jobs_for([shot], ()) == (1 if one_at_a_time else jobs_for([], ()))
