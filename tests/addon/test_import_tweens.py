"""Import Tweens: the timeline of a batch opens in the sequencer, every picture at the timeline's frame."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import PACKAGE, elements, png  # noqa: E402

RATE = 24000 / 1001
WRITTEN = 23.976
"""As many tools write the same rate."""
BEGIN = 86400
"""One hour, as timelines of 24 frames begin."""
PICTURES = 30


def time(value: float, rate: float = RATE) -> dict[str, Any]:
    """A RationalTime."""
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": value}


def extent(start: float, length: float, rate: float = RATE) -> dict[str, Any]:
    """A TimeRange."""
    return {
        "OTIO_SCHEMA": "TimeRange.1",
        "start_time": time(start, rate),
        "duration": time(length, rate),
    }


def gap(length: float, rate: float = RATE) -> dict[str, Any]:
    """A Gap."""
    return {"OTIO_SCHEMA": "Gap.1", "name": "", "source_range": extent(0, length, rate)}


def still(url: str, length: float, **more: Any) -> dict[str, Any]:
    """A clip of one file, in the second version of the schema."""
    media = {"OTIO_SCHEMA": "ExternalReference.1", "target_url": url, "available_range": None}
    return {
        "OTIO_SCHEMA": "Clip.2",
        "name": unquote(Path(url).stem),
        "source_range": extent(0, length),
        "media_references": {"DEFAULT_MEDIA": media},
        "active_media_reference_key": "DEFAULT_MEDIA",
        **more,
    }


def sequence(start: int, length: int, rate: float = RATE, **more: Any) -> dict[str, Any]:
    """A clip of numbered files; `a b.00101.png` is at 101."""
    media = {
        "OTIO_SCHEMA": "ImageSequenceReference.1",
        "target_url_base": quote("pictures é"),
        "name_prefix": quote("a b."),
        "name_suffix": ".png",
        "start_frame": 101,
        "frame_step": 1,
        "rate": rate,
        "frame_zero_padding": 5,
        "missing_frame_policy": "error",
        "available_range": extent(101, PICTURES, rate),
    } | more
    return {
        "OTIO_SCHEMA": "Clip.1",
        "name": f"sequence {start}",
        "source_range": extent(start, length, rate),
        "media_reference": media,
    }


def track(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A track of pictures."""
    return {"OTIO_SCHEMA": "Track.1", "name": "", "kind": "Video", "children": list(items), **more}


def timeline(*tracks: dict[str, Any], begin: dict[str, Any] | None = None) -> dict[str, Any]:
    """A Timeline."""
    stack = {"OTIO_SCHEMA": "Stack.1", "name": "tracks", "source_range": None, "children": list(tracks)}
    return {"OTIO_SCHEMA": "Timeline.1", "name": "cut", "global_start_time": begin, "tracks": stack}


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A folder with numbered pictures and two stills."""
    folder = tmp_path / "show"
    (folder / "pictures é").mkdir(parents=True)
    for number in range(101, 101 + PICTURES):
        (folder / "pictures é" / f"a b.{number:05d}.png").write_bytes(png(64, 48, number % 40))
    for name in ("key one", "key two"):
        (folder / f"{name}.png").write_bytes(png(64, 48, 4))
    return folder


@pytest.fixture
def at_film_rate(scene: object) -> object:
    """The scene at 23.976 frames a second, as Blender's own preset has it."""
    scene.render.fps, scene.render.fps_base = 24, 1.001
    return scene


def write(folder: Path, whole: object) -> str:
    """The file of a timeline."""
    path = folder / "cut.otio"
    path.write_text(json.dumps(whole), "utf-8")
    return str(path)


def bring_in(path: str, **settings: Any) -> None:
    """Runs the operator, as the file chooser does."""
    assert bpy.ops.keytween.import_tweens("EXEC_DEFAULT", True, filepath=path, **settings) == {"FINISHED"}


def placed(scene: object) -> list[tuple[str, int, int, int]]:
    """Name, channel, first frame and frame after the last of every strip, by channel and time."""
    found = [
        (s.name, s.channel, int(s.frame_final_start), int(s.frame_final_end))
        if not hasattr(s, "left_handle")
        else (s.name, s.channel, int(s.left_handle), int(s.right_handle))
        for s in scene.sequence_editor.strips
    ]
    return sorted(found, key=lambda row: row[1:])


def shown_at(strip: object, frame: int) -> str:
    """The file that Blender shows of a strip at a frame."""
    return strip.strip_elem_from_frame(frame).filename


def numbers(strip: object) -> list[int]:
    """The numbers in a strip's file names."""
    return [int(name.split(".")[1]) for name in elements(strip)]


def two_tracks() -> dict[str, Any]:
    """Stills, gaps and a sequence on one track, a sequence behind a gap on another."""
    below = track(still("key%20one.png", 1), gap(5), sequence(103, 12), gap(3), still("key two.png", 8))
    above = track(gap(10), sequence(120, 4), name="over")
    return timeline(below, above, begin=time(BEGIN))


def test_every_picture_is_at_the_timelines_frame(at_film_rate: object, show: Path) -> None:
    bring_in(write(show, two_tracks()))
    assert placed(at_film_rate) == [
        ("key one", 1, BEGIN, BEGIN + 1),
        ("sequence 103", 1, BEGIN + 6, BEGIN + 18),
        ("key two", 1, BEGIN + 21, BEGIN + 29),
        ("sequence 120", 2, BEGIN + 10, BEGIN + 14),
    ]
    strips = at_film_rate.sequence_editor.strips
    below, above = strips["sequence 103"], strips["sequence 120"]
    assert [shown_at(below, BEGIN + 6 + i) for i in range(12)] == [
        f"a b.{103 + i:05d}.png" for i in range(12)
    ]
    assert [shown_at(above, BEGIN + 10 + i) for i in range(4)] == [f"a b.{120 + i:05d}.png" for i in range(4)]
    for strip in strips:
        folder = Path(os.path.realpath(bpy.path.abspath(strip.directory)))
        assert all((folder / name).is_file() for name in elements(strip))
        assert (strip.blend_type, strip.mute, strip.select) == ("ALPHA_OVER", False, True)
    channels = at_film_rate.sequence_editor.channels
    assert [channels[i].name for i in (1, 2, 3)] == ["V1", "over", "Channel 3"]
    assert not at_film_rate.keytween.error


def test_it_is_rendered_there(at_film_rate: object, show: Path, tmp_path: Path) -> None:
    bring_in(write(show, timeline(track(gap(40), sequence(103, 4)))))
    settings = at_film_rate.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format = "PNG"
    seen = []
    for frame in (39, 40, 43, 44):
        at_film_rate.frame_set(frame)
        at_film_rate.render.filepath = str(tmp_path / f"seen {frame}.png")
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(at_film_rate.render.filepath)
        row = [image.pixels[(24 * 64 + x) * 4] for x in range(64)]
        seen.append(next((x for x, red in enumerate(row) if red > 0.6), None))
        bpy.data.images.remove(image)
    assert seen == [None, 103 % 40, 106 % 40, None]


def test_a_rate_that_is_written_in_decimals_is_the_same(at_film_rate: object, show: Path) -> None:
    below = track(gap(7, WRITTEN), sequence(103, 12, WRITTEN))
    bring_in(write(show, timeline(below, begin=time(BEGIN, RATE))))
    assert placed(at_film_rate) == [("sequence 103", 1, BEGIN + 7, BEGIN + 19)]
    assert numbers(at_film_rate.sequence_editor.strips[0]) == list(range(103, 115))


def test_pictures_on_twos_and_steps_are_held(at_film_rate: object, show: Path) -> None:
    halved = sequence(101, 3, RATE / 2)
    stepped = sequence(101, 6, frame_step=3)
    bring_in(write(show, timeline(track(halved, stepped), begin=time(0))))
    assert placed(at_film_rate) == [("sequence 101", 1, 0, 6), ("sequence 101.001", 1, 6, 12)]
    strips = at_film_rate.sequence_editor.strips
    assert numbers(strips["sequence 101"]) == [101, 101, 102, 102, 103, 103]
    assert numbers(strips["sequence 101.001"]) == [101, 101, 101, 104, 104, 104]


def test_a_scene_of_another_rate_has_them_at_the_same_time(scene: object, show: Path) -> None:
    scene.render.fps, scene.render.fps_base = 48, 1.001
    bring_in(write(show, timeline(track(gap(10), sequence(103, 4), still("key one.png", 2)))))
    assert placed(scene) == [("sequence 103", 1, 20, 28), ("key one", 1, 28, 32)]
    strip = scene.sequence_editor.strips["sequence 103"]
    assert numbers(strip) == [103, 103, 104, 104, 105, 105, 106, 106]
    assert (scene.render.fps, round(scene.render.fps_base, 3)) == (48, 1.001)


def test_the_scene_can_take_the_timelines_rate(scene: object, show: Path) -> None:
    scene.render.fps, scene.render.fps_base = 25, 1
    bring_in(write(show, two_tracks()), take_rate=True)
    assert placed(scene)[1] == ("sequence 103", 1, BEGIN + 6, BEGIN + 18)
    assert (scene.render.fps, scene.render.fps_base) == (24, pytest.approx(1.001, abs=1e-6))


def test_what_is_there_stays_and_channels_are_free(
    at_film_rate: object, show: Path, strip_at: Callable[..., Any]
) -> None:
    own = strip_at(BEGIN + 12, 1, 4)
    at_film_rate.sequence_editor.channels[2].lock = True
    bring_in(write(show, two_tracks()))
    assert [row[1] for row in placed(at_film_rate)] == [1, 3, 3, 3, 4]
    assert not own.select
    assert own.channel == 1


def test_films_and_transitions_are_left_out_and_the_off_are_muted(at_film_rate: object, show: Path) -> None:
    slow = sequence(101, 4)
    slow["effects"] = [{"OTIO_SCHEMA": "LinearTimeWarp.1", "time_scalar": 0.5}]
    nested = {"OTIO_SCHEMA": "Stack.1", "name": "inner", "children": [track(gap(2), gap(3))]}
    items = [still("film.mov", 4), slow, {"OTIO_SCHEMA": "Transition.1", "name": "", "in_offset": time(1)}]
    items += [nested, still("key one.png", 2, enabled=False)]
    bring_in(write(show, timeline(track(*items), track(gap(3), kind="Audio"))))
    assert placed(at_film_rate) == [("key one", 1, 13, 15)]
    assert at_film_rate.sequence_editor.strips[0].mute


def test_undo_takes_all_of_it_away(at_film_rate: object, show: Path) -> None:
    bpy.ops.ed.undo_push(message="Before")
    bring_in(write(show, two_tracks()), take_rate=True)
    bpy.ops.ed.undo()
    scene = bpy.context.scene
    assert not len(scene.sequence_editor.strips)
    assert scene.sequence_editor.channels[2].name == "Channel 2"


def test_missing_files_are_named_and_nothing_is_inserted(at_film_rate: object, show: Path) -> None:
    for number in (121, 122):
        (show / "pictures é" / f"a b.{number:05d}.png").unlink()
    with pytest.raises(RuntimeError, match=r"lacks 2 of its pictures: .*a b\.00121\.png, .*00122.*KT-612"):
        bring_in(write(show, two_tracks()))
    assert placed(at_film_rate) == []
    assert json.loads(at_film_rate.keytween.error)["code"] == "KT-612"


def odd(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """A timeline with something wrong in it."""
    whole = two_tracks()
    change(whole)
    return whole


def first(whole: dict[str, Any]) -> dict[str, Any]:
    """The first clip."""
    return whole["tracks"]["children"][0]["children"][0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no OpenTimelineIO"),
        ("\udcff", "no OpenTimelineIO"),
        ("[" * 100_000, "nested too deeply"),
        ('{"OTIO_SCHEMA": "Timeline.1", "tracks": NaN}', "NaN"),
        ("[1, 2]", "no timeline"),
        ('{"OTIO_SCHEMA": "Clip.1"}', "no timeline"),
        ('{"OTIO_SCHEMA": "Timeline.1", "tracks": []}', "no stack"),
        (json.dumps(timeline()), "no video track has a clip of pictures"),
        (json.dumps(timeline(track(), begin=time(1, 0))), "no rate"),
        (json.dumps(timeline(track(), begin=time(1e308 * 10))).replace("Infinity", "1e999"), "no time"),
        (json.dumps(odd(lambda w: first(w).update(source_range=None))), "key one has no length"),
        (json.dumps(odd(lambda w: first(w).update(source_range=extent(0, -3)))), "below zero"),
        (json.dumps(odd(lambda w: first(w)["source_range"].update(duration="1s"))), "a time is missing"),
        (json.dumps(odd(lambda w: w["tracks"].update(children={"a": 1}))), "no list"),
        (json.dumps(odd(lambda w: w["tracks"].update(source_range=extent(3, 9)))), "cut as a whole"),
        (json.dumps(odd(lambda w: w.update(global_start_time=time(2e6)))), "Blender has 1048574"),
        (json.dumps(timeline(track(sequence(101, 10**6)))), "20000 can be opened"),
        (json.dumps(timeline(track(sequence(101, 4, frame_zero_padding="5")))), "no whole number"),
        (json.dumps(odd(lambda w: first(w).update(source_range=7))), "no range of time"),
        (
            json.dumps(odd(lambda w: first(w).update(name="\ud800\0", source_range=None))),
            r"\?\? has no length",
        ),
        (json.dumps(timeline(track(still("key%00.png", 4)))), "no video track has a clip of pictures"),
    ],
)
def test_a_malformed_file_is_refused(at_film_rate: object, show: Path, text: str, said: str) -> None:
    path = show / "cut.otio"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RuntimeError, match=rf"(?s){said}.*KT-611"):
        bring_in(str(path))
    assert placed(at_film_rate) == []


def test_a_file_that_is_not_there_is_named(at_film_rate: object, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nowhere\.otio cannot be opened.*KT-611"):
        bring_in(str(tmp_path / "nowhere.otio"))


def test_the_add_menu_opens_the_chooser(extension: SimpleNamespace) -> None:
    module = importlib.import_module(f"{PACKAGE}.import_tweens")
    said: list[tuple[str, str]] = []
    layout = SimpleNamespace(
        separator=lambda: None,
        operator=lambda name, icon: said.append((name, layout.operator_context)),
    )
    module.draw_add_menu(SimpleNamespace(layout=layout), None)
    assert said == [("keytween.import_tweens", "INVOKE_DEFAULT")]
    assert module.draw_add_menu in bpy.types.SEQUENCER_MT_add.draw._draw_funcs


def test_what_a_batch_leaves_opens_at_its_frames(
    at_film_rate: object, show: Path, daemon_command: list[str]
) -> None:
    """The real batch fills the gap; the first and last drawings are beside their stills."""
    base = quote("key one.png"), quote("key two.png")
    items = [still(base[0], 2), gap(5), still(base[1], 4)]
    told = {"metadata": {"keytween": {"engine": "dissolve"}}}
    source = write(show, timeline(track(*items, **told), begin=time(BEGIN, WRITTEN)))
    output = show / "out"
    command = [*daemon_command, "batch", source, "--output", str(output), "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    bring_in(str(output / "cut.otio"))
    shot = f"V1_{BEGIN + 2}"
    assert placed(at_film_rate) == [
        ("key one", 1, BEGIN, BEGIN + 2),
        (shot, 1, BEGIN + 2, BEGIN + 7),
        ("key two", 1, BEGIN + 7, BEGIN + 11),
    ]
    strip = at_film_rate.sequence_editor.strips[shot]
    assert elements(strip) == [f"{shot}.{BEGIN + 2 + i}.png" for i in range(5)]
