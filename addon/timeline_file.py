# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenTimelineIO -> which picture stands at which frame. Blender has no library for it; no bpy here.

Read is the plain schema: tracks of clips and gaps, image sequences and single files. Whatever else takes
time keeps its time and is counted as left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from keytween_wire.errors import TimelineUnusable

MOST_BYTES = 64 << 20
MOST_IN_CLIP = 20_000
"""Blender takes ever longer for each further picture of a strip: about 15 seconds for so many."""
MOST_IN_ALL = 100_000
FURTHEST = 1_048_574
"""The last frame that Blender has."""
NTSC = Fraction(1000, 1001)
SAME_RATE = Fraction(1, 4000)
"""Rates closer than this are one: 23.976 and 24000/1001 are, 23.976 and 24 are not."""
CLOSE = Fraction(1, 1000)
"""What a time may be short of a frame's beginning and still belong to it: files keep decimals."""

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cut:
    """A clip of pictures: the timeline's frames that it covers, and their files; one file is a still."""

    name: str
    start: int
    end: int
    files: tuple[Path, ...]
    muted: bool


@dataclass(frozen=True, slots=True)
class Track:
    """A video track and its clips of pictures."""

    name: str
    cuts: tuple[Cut, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a file holds, from its lowest track up; `left_out` counts films, transitions and the like."""

    source: Path
    rate: Fraction
    tracks: tuple[Track, ...]
    left_out: int


class _Odd(Exception):
    """What is wrong with the file, in words."""


def read(source: Path, suffixes: Collection[str]) -> Timeline:
    """The timeline in a `.otio`; `suffixes` says which files are pictures. Raises TimelineUnusable."""
    try:
        reading = _Reading(_timeline(_parsed(source)), Path(os.path.abspath(source)).parent, suffixes)
        found = Timeline(source, reading.rate, tuple(reading.tracks()), reading.left_out)
        if not any(track.cuts for track in found.tracks):
            raise _Odd("no video track has a clip of pictures")
    except (_Odd, RecursionError) as error:
        detail = str(error) if isinstance(error, _Odd) else "it is nested too deeply"
        raise TimelineUnusable(name=source, detail=detail) from error
    return found


def at_rate(found: Timeline, rate: Fraction) -> Timeline:
    """The same timeline counted in another rate: each frame shows what the timeline shows at its time.

    A clip that takes no whole frame then is dropped. Raises TimelineUnusable.
    """
    pace = rate / found.rate
    try:
        tracks = [
            Track(track.name, tuple(c for c in (_paced(cut, pace) for cut in track.cuts) if c.end > c.start))
            for track in found.tracks
        ]
        if sum(len(cut.files) for track in tracks for cut in track.cuts) > MOST_IN_ALL:
            raise _Odd(f"at the scene's rate it has more than {MOST_IN_ALL} pictures")
    except _Odd as error:
        raise TimelineUnusable(name=found.source, detail=error) from error
    return replace(found, rate=rate, tracks=tuple(tracks))


def _paced(cut: Cut, pace: Fraction) -> Cut:
    start, end = _frame(cut.start * pace), _frame(cut.end * pace)
    _check(cut.name, start, end, sequence=len(cut.files) > 1)
    files = cut.files
    if len(files) > 1:
        last = len(files) - 1
        shown = (math.floor(frame / pace) - cut.start for frame in range(start, end))
        files = tuple(files[min(max(0, index), last)] for index in shown)
    return replace(cut, start=start, end=end, files=files)


def _check(name: str, start: int, end: int, *, sequence: bool) -> None:
    """Whether Blender has these frames, and takes so many pictures in one strip."""
    if abs(start) > FURTHEST or abs(end) > FURTHEST:
        raise _Odd(f"the clip {name} goes from frame {start} to {end}, and Blender has {FURTHEST}")
    if sequence and end - start > MOST_IN_CLIP:
        raise _Odd(f"the clip {name} has {end - start} pictures, and {MOST_IN_CLIP} can be opened")


def _parsed(source: Path) -> Any:
    try:
        with source.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise _Odd(f"it has more than {MOST_BYTES >> 20} MB")
        return json.loads(data, parse_constant=_refuse)
    except OSError as error:
        raise _Odd(error.strerror or str(error)) from error
    except ValueError as error:
        raise _Odd(f"it is no OpenTimelineIO ({error})") from error


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _timeline(root: Any) -> Node:
    if _kind(root) == "SerializableCollection":
        root = next((each for each in _list(root, "children") if _kind(each) == "Timeline"), None)
    if _kind(root) != "Timeline":
        raise _Odd("it holds no timeline")
    return root


class _Reading:
    """One timeline on its way into tracks; counts what it leaves out."""

    def __init__(self, whole: Node, root: Path, suffixes: Collection[str]) -> None:
        self._root, self._suffixes = root, suffixes
        stack = whole.get("tracks")
        if stack is None or _kind(stack) != "Stack":
            raise _Odd("its tracks are no stack")
        self._stack: Node = stack
        self._tracks = [t for t in _list(self._stack, "children") if t.get("kind", "Video") == "Video"]
        began = _time(whole["global_start_time"]) if whole.get("global_start_time") else None
        self.rate = began[1] if began else self._first_rate()
        self._offset = _frame(began[0] * self.rate) if began else 0
        self.left_out = 0
        self._count = 0

    def _first_rate(self) -> Fraction:
        for track in self._tracks:
            for item in _list(track, "children"):
                extent = _extent(item, "source_range")
                if extent is not None:
                    return _time(extent.get("duration"))[1]
        return Fraction(24)

    def tracks(self) -> Iterator[Track]:
        """The video tracks with their clips of pictures, the lowest first."""
        _uncut(self._stack, "the timeline")
        for number, track in enumerate(self._tracks, start=1):
            name = _name(track) or f"V{number}"
            if _kind(track) != "Track":
                raise _Odd(f"{name} is no track")
            _uncut(track, f"the track {name}")
            yield Track(name, tuple(self._cuts(track)))

    def _cuts(self, track: Node) -> Iterator[Cut]:
        at = Fraction(0)
        for item in _list(track, "children"):
            kind = _kind(item)
            if kind == "Transition":
                self.left_out += 1
                continue
            after = at + _length(item)
            start, end = (_frame(time * self.rate) + self._offset for time in (at, after))
            at = after
            if kind == "Gap" or end <= start:
                continue
            files = self._files(item, start, end) if kind == "Clip" else ()
            if files:
                muted = item.get("enabled") is False or track.get("enabled") is False
                yield Cut(_name(item) or files[0].stem, start, end, files, muted)
            else:
                self.left_out += 1

    def _files(self, clip: Node, start: int, end: int) -> tuple[Path, ...]:
        """The clip's files, one for each frame or one for all; none where it shows no pictures."""
        media = _media(clip)
        kind = _kind(media)
        _check(_name(clip), start, end, sequence=kind == "ImageSequenceReference")
        if any(_kind(e) in ("LinearTimeWarp", "FreezeFrame", "TimeEffect") for e in _list(clip, "effects")):
            return ()
        if kind == "ExternalReference":
            path = _path(_text(media, "target_url"), self._root)
            return (path,) if path is not None and path.suffix.lower() in self._suffixes else ()
        if kind != "ImageSequenceReference":
            return ()
        if _text(media, "name_suffix").lower() not in self._suffixes:
            return ()
        self._count += end - start
        if self._count > MOST_IN_ALL:
            raise _Odd(f"it has more than {MOST_IN_ALL} pictures")
        paths = [_numbered(media, n, self._root) for n in _numbers(clip, media, end - start, self.rate)]
        found = tuple(path for path in paths if path is not None)
        return found if len(found) == len(paths) else ()


# ---- pictures


def _numbers(clip: Node, media: Node, length: int, rate: Fraction) -> Iterator[int]:
    """The number in the file's name at each frame; numbers that a step leaves out show the one before."""
    extent = _extent(media, "available_range")
    shown = _extent(clip, "source_range") or extent
    time = _time(shown.get("start_time") if shown else None)[0]
    began = _time(extent.get("start_time"))[0] if extent else time
    pace = _rate(media.get("rate", 1))
    first, step = _whole(media, "start_frame", 1), max(1, _whole(media, "frame_step", 1))
    for index in range(length):
        passed = math.floor((time + index / rate - began) * pace + CLOSE)
        yield first + passed // step * step


def _numbered(media: Node, number: int, root: Path) -> Path | None:
    """The file of a number; the zeros do not count its sign."""
    padding = min(max(0, _whole(media, "frame_zero_padding", 0)), 64)
    digits = ("-" if number < 0 else "") + f"{abs(number):0{padding}d}"
    base = _text(media, "target_url_base")
    joint = "" if not base or base.endswith("/") else "/"
    return _path(f"{base}{joint}{_text(media, 'name_prefix')}{digits}{_text(media, 'name_suffix')}", root)


def _path(url: str, root: Path) -> Path | None:
    """The file that an address names: a plain path, a `file:` address or a relative one; else None."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme == "file":
        host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
        return _absolute(Path(url2pathname(host + parts.path)))
    if len(parts.scheme) > 1 or not url:
        return None
    plain = root / url
    # Tools differ in whether a relative path is written as an address: what is there decides.
    return _absolute(plain if "%" not in url or os.path.exists(plain) else root / unquote(url))


def _absolute(path: Path) -> Path | None:
    if "\0" in str(path):
        return None
    text = os.path.normpath(path)
    # Two slashes mean the blend file's folder to Blender, and a server to Windows alone.
    return Path("/" + text.lstrip("/") if os.name == "posix" else text)


# ---- the file's parts


def _kind(node: Any) -> str:
    """The schema's name without its version."""
    return _text(node, "OTIO_SCHEMA").partition(".")[0] if isinstance(node, Mapping) else ""


def _name(node: Node) -> str:
    return _text(node, "name")


def _list(node: Node, name: str) -> list[Node]:
    found = node.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise _Odd(f"{_name(node) or _kind(node)} has {name} that are no list")
    return found


def _text(node: Node, name: str) -> str:
    # JSON can hold half characters and noughts, which no file and no report can.
    return str(node.get(name) or "").encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


def _extent(node: Node, name: str) -> Node | None:
    """A TimeRange, where there is one."""
    found = node.get(name)
    if found is not None and _kind(found) != "TimeRange":
        raise _Odd(f"{_name(node) or _kind(node)} has a {name} that is no range of time")
    return found


def _whole(node: Node, name: str, default: int) -> int:
    found = node.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or abs(found) > 10**12:
        raise _Odd(f"{name} is {found!r:.40}, which is no whole number")
    return found


def _number(found: Any) -> Fraction:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _Odd(f"{found!r:.40} stands where a time should be")
    if not math.isfinite(found) or abs(found) > 10**12:
        raise _Odd(f"{found!r:.40} is no time")
    return Fraction(found)


def _rate(found: Any) -> Fraction:
    """A rate as it is meant: 23.976 and 23.98 are 24000/1001."""
    rate = _number(found)
    if not 0 < rate <= 100_000:
        raise _Odd(f"{found!r:.40} is no rate")
    whole = Fraction(max(1, round(rate)))
    meant = (each for each in (whole, whole * NTSC) if same_rate(rate, each))
    return next(meant, rate)


def same_rate(one: Fraction, other: Fraction) -> bool:
    """Whether two rates are one rate, written in different ways."""
    return abs(one - other) <= other * SAME_RATE


def _time(node: Any) -> tuple[Fraction, Fraction]:
    """A RationalTime in seconds, and its rate."""
    if _kind(node) != "RationalTime":
        raise _Odd("a time is missing")
    rate = _rate(node.get("rate"))
    return _number(node.get("value")) / rate, rate


def _frame(time: Fraction) -> int:
    return math.floor(time + Fraction(1, 2))


def _media(clip: Node) -> Node:
    """What the clip points at: the second version of the schema has several under keys."""
    several = clip.get("media_references")
    if isinstance(several, Mapping):
        found = several.get(_text(clip, "active_media_reference_key") or "DEFAULT_MEDIA")
    else:
        found = clip.get("media_reference")
    return found if isinstance(found, Mapping) else {}


def _length(item: Node) -> Fraction:
    """Seconds that an item of a track takes."""
    extent = _extent(item, "source_range") or _extent(_media(item), "available_range")
    if extent is not None:
        _time(extent.get("start_time"))
        length = _time(extent.get("duration"))[0]
        if length < 0:
            raise _Odd(f"{_name(item) or _kind(item)} has a length below zero")
        return length
    inside = [each for each in _list(item, "children") if _kind(each) != "Transition"]
    if _kind(item) == "Track":
        return sum((_length(each) for each in inside), Fraction(0))
    if _kind(item) == "Stack":
        return max((_length(each) for each in inside), default=Fraction(0))
    raise _Odd(f"{_name(item) or _kind(item) or 'an item'} has no length")


def _uncut(node: Node, said: str) -> None:
    """A stack or track that is itself cut would move all that is in it."""
    if node.get("source_range"):
        raise _Odd(f"{said} is cut as a whole (source_range); export it flat")
