"""OpenTimelineIO -> shots: every gap between two clips of pictures is a stretch to fill.

A still on both sides of gaps chains them into one shot. What the artist wants is read from markers and from
metadata under `keytween`; `docs/batch.md` has the words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from keytween.headers import SUFFIXES
from keytween.shots import tables
from keytween.shots.schemas import sound
from keytween.shots.shot import Batch
from keytween.shots.unpack import unpack
from keytween_wire.errors import ExtraMissing, ShotsUnreadable

if TYPE_CHECKING:
    import opentimelineio as otio

FRAMES = "frames/{shot}/{shot}.{frame:04d}"
"""How frames are called, so that image sequences can name them; DIGITS are the number's."""
DIGITS = 4
MOST_DIGITS = 99
MEDIA = "unpacked"
"""Where an archive's pictures go, below the output."""
KEY = "keytween"
"""Where metadata tells of tweens."""

_PICTURES = {suffix for each in SUFFIXES.values() for suffix in each}
_SAID = re.compile(r"^\s*([a-z_-]+)\s*[:=]\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_WORDS = {
    "prompt",
    "ease",
    "exposure",
    "engine",
    "seed",
    "path",
    "film",
    "format",
    "priority",
    "shot",
    "preset",
}
"""What a marker may say in words; any other line is the artist's own note."""


@dataclass(frozen=True, slots=True)
class Still:
    """A clip of pictures: its first and last one, and which frames of the track it covers."""

    first: Path
    last: Path
    start: int
    duration: int
    said: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        """Whether it shows one picture all the time."""
        return self.first == self.last


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap to fill: its place among the track's children, and the frames that it covers."""

    child: int
    start: int
    duration: int
    said: Mapping[str, Any]


@dataclass(slots=True)
class Chain:
    """The stills and gaps that become one shot, in turn; one more still than gaps."""

    track: int
    stills: list[Still]
    gaps: list[Gap] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def shot(self) -> str:
        """The shot's id: as a marker calls it, else the track and the frame of its first gap."""
        named = next((g.said["shot"] for g in self.gaps if "shot" in g.said), None)
        return str(named) if named else f"V{self.track}_{self.gaps[0].start:05d}"


def read(source: Path, output: Path | None) -> Batch:
    """The batch in a `.otio` or `.otioz`; raises ShotsUnreadable."""
    place = tables.Place.of(source, None, FRAMES, output)
    _, whole, root = load(source, place.output)
    with sense(source):
        rows = [_row(chain, rate_of(whole)) for chain in chains(whole, root)]
    if not rows:
        detail = "no track has a gap between two clips of pictures"
        raise ShotsUnreadable(name=source, detail=detail)
    return tables.gather(place, rows)


@contextmanager
def sense(source: Path) -> Iterator[None]:
    """What its times, rates and names lead to; raises ShotsUnreadable where that is nowhere."""
    import opentimelineio as otio

    try:
        yield
    except (
        otio.exceptions.OTIOError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        detail = f"its times or names make no sense ({str(error)[:200]})"
        raise ShotsUnreadable(name=source, detail=detail) from error


def load(source: Path, output: Path) -> tuple[Any, otio.schema.Timeline, Path]:
    """OpenTimelineIO, the timeline in the file, and the folder from which its media are counted."""
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise ExtraMissing(name="OpenTimelineIO", detail=error, extra="otio") from error

    path = unpack(source, output / MEDIA) if source.suffix.lower() == ".otioz" else source
    try:
        # Not its adapters, which look for plug-ins wherever the environment says.
        found = otio.core.deserialize_json_from_string(sound(path.read_text("utf-8-sig")))
    except OSError as error:
        raise ShotsUnreadable(name=source, detail=error.strerror or error) from error
    except (otio.exceptions.OTIOError, ValueError, TypeError, KeyError, RuntimeError) as error:
        detail = f"it is no OpenTimelineIO ({str(error).splitlines()[0] if str(error) else 'nothing'})"
        raise ShotsUnreadable(name=source, detail=detail) from error
    if isinstance(found, otio.schema.SerializableCollection):
        found = next((each for each in found if isinstance(each, otio.schema.Timeline)), found)
    if not isinstance(found, otio.schema.Timeline):
        raise ShotsUnreadable(name=source, detail="it holds no timeline")
    return otio, found, path.absolute().parent


def rate_of(whole: otio.schema.Timeline) -> float:
    """The timeline's rate: that of its start, otherwise of its first clip or gap."""
    if whole.global_start_time is not None:
        return whole.global_start_time.rate
    for track in whole.video_tracks():
        for item in track:
            if hasattr(item, "source_range"):
                return item.duration().rate
    return 24.0


def offset_of(whole: otio.schema.Timeline) -> int:
    """The number of the timeline's first frame."""
    start = whole.global_start_time
    return round(start.value) if start is not None else 0


def chains(whole: otio.schema.Timeline, root: Path) -> Iterator[Chain]:
    """The shots of a timeline, track by track."""
    rate, offset = rate_of(whole), offset_of(whole)
    base = _metadata(whole)
    for number, track in enumerate(whole.video_tracks(), start=1):
        if track.enabled:
            told = {**base, **_metadata(whole.tracks), **_metadata(track)}
            markers = [*whole.tracks.markers, *track.markers]
            items = [_item(track, i, rate, offset, root, markers) for i in range(len(track))]
            yield from _chained(number, [item for item in items if item != "transition"], told)


def _chained(number: int, items: Sequence[Any], told: Mapping[str, Any]) -> Iterator[Chain]:
    chain: Chain | None = None
    for left, gap, right in zip(items, items[1:], items[2:], strict=False):
        fills = isinstance(left, Still) and isinstance(gap, Gap) and isinstance(right, Still)
        if not fills or "skip" in gap.said:
            continue
        goes_on = chain is not None and chain.stills[-1] is left and left.holds and "shot" not in gap.said
        if not goes_on:
            if chain is not None:
                yield chain
            chain = Chain(number, [left], said=dict(told))
        assert chain is not None
        chain.gaps.append(gap)
        chain.stills.append(right)
    if chain is not None:
        yield chain


# ---- items


def _item(track: Any, index: int, rate: float, offset: int, root: Path, above: Sequence[Any]) -> Any:
    """A Still, a Gap, "transition", or None for whatever ends a chain."""
    import opentimelineio as otio

    child = track[index]
    if isinstance(child, otio.schema.Transition):
        return "transition"
    extent = track.range_of_child_at_index(index)
    start, end = (_frame(time, rate) for time in (extent.start_time, extent.end_time_exclusive()))
    over = [m for m in above if start <= _frame(m.marked_range.start_time, rate) < end]
    said = {**_metadata(child), **_markers([*child.markers, *over])}
    if isinstance(child, otio.schema.Gap):
        return Gap(index, start + offset, end - start, said)
    if not isinstance(child, otio.schema.Clip) or end <= start:
        return None
    pictures = _pictures(child, root)
    return pictures and Still(*pictures, start + offset, end - start, said)


def _frame(time: otio.opentime.RationalTime, rate: float) -> int:
    """The frame nearest to a time: 23.976 and 24000/1001 lie less than one apart for days."""
    return round(time.rescaled_to(rate).value)


def _pictures(clip: otio.schema.Clip, root: Path) -> tuple[Path, Path] | None:
    """The files of a clip's first and last frame; None where it shows no pictures."""
    import opentimelineio as otio

    media = clip.media_reference
    if isinstance(media, otio.schema.ExternalReference):
        path = path_of(media.target_url, root)
        return (path, path) if path is not None and path.suffix.lower() in _PICTURES else None
    if not isinstance(media, otio.schema.ImageSequenceReference):
        return None
    if media.name_suffix.lower() not in _PICTURES:
        return None
    extent = clip.trimmed_range()
    files = [_file(media, time, root) for time in (extent.start_time, extent.end_time_inclusive())]
    return (files[0], files[1]) if files[0] and files[1] else None


def _file(
    media: otio.schema.ImageSequenceReference, time: otio.opentime.RationalTime, root: Path
) -> Path | None:
    """The file that a sequence shows at a time; frames that a step leaves out show the one before."""
    began = media.available_range.start_time if media.available_range else time
    passed = round((time - began).rescaled_to(media.rate).value)
    step = max(1, media.frame_step)
    number = media.start_frame + passed // step * step
    sign, digits = (
        ("-" if number < 0 else ""),
        f"{abs(number):0{min(media.frame_zero_padding, MOST_DIGITS)}d}",
    )
    base = media.target_url_base
    joint = "" if not base or base.endswith("/") else "/"
    return path_of(f"{base}{joint}{media.name_prefix}{sign}{digits}{media.name_suffix}", root)


def path_of(url: str, root: Path) -> Path | None:
    """The file that a media reference names: a plain path, a `file:` address or a relative one; else None."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
        return Path(url2pathname(host + parts.path))
    if len(parts.scheme) > 1:
        return None
    plain = root / url
    # Tools differ in whether a relative path is written as an address: what is there decides.
    return plain if os.path.exists(plain) or "%" not in url else root / unquote(url)


# ---- what the artist says


def _metadata(thing: Any) -> dict[str, Any]:
    found = thing.metadata.get(KEY, {}) if hasattr(thing, "metadata") else {}
    return _plain(found) if isinstance(found, Mapping) else {}


def _plain(value: Any) -> Any:
    """OpenTimelineIO's own containers as Python's."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return [_plain(v) for v in value] if hasattr(value, "__iter__") else str(value)


def _markers(markers: Sequence[Any]) -> dict[str, Any]:
    """What markers say: in their metadata, or in words as `prompt: a cat` in name or comment."""
    said: dict[str, Any] = {}
    for marker in markers:
        for name, value in _SAID.findall(f"{marker.name}\n{getattr(marker, 'comment', '')}"):
            key = {"easing": "ease", "id": "shot"}.get(name.lower(), name.lower())
            if key in _WORDS:
                said[key] = int(value) if re.fullmatch(r"-?\d+", value) else value
        if marker.name.strip().lower() in ("skip", "keytween: skip"):
            said["skip"] = True
        said |= _metadata(marker)
    return said


def _row(chain: Chain, rate: float) -> tables.Row:
    """A chain as a row of a shots file, so that the same checks apply."""
    first = chain.gaps[0]
    frames = [first.start - 1] + [still.start for still in chain.stills[1:]]
    files = [chain.stills[0].last] + [still.first for still in chain.stills[1:]]
    holds = [1] + [still.duration for still in chain.stills[1:]]
    row: tables.Row = dict(chain.said)
    for gap in reversed(chain.gaps):
        row |= {name: value for name, value in gap.said.items() if name not in ("shot", "prompt")}
    for name in ("ease", "exposure"):
        default = chain.said.get(name, "linear" if name == "ease" else 1)
        row[name] = [gap.said.get(name, default) for gap in chain.gaps]
    row |= {"id": chain.shot, "keyframes": [str(file) for file in files], "frames": frames, "holds": holds}
    row.setdefault("fps", rate)
    _add_prompts(row, chain)
    return row


def _add_prompts(row: tables.Row, chain: Chain) -> None:
    """Prompts of stills, each going on until the next; and a preset that stands outside its table."""
    told = row.pop("prompt", None)
    found = [still.said.get("prompt") for still in chain.stills]
    diffusion = dict(row.get("diffusion") or {})
    if any(found):
        last = next(prompt for prompt in found if prompt)
        prompts: list[str] = []
        for prompt in found:
            last = prompt or last
            prompts.append(str(last))
        diffusion["prompts"] = prompts
    elif told:
        diffusion["prompts"] = str(told)
    if "preset" in row:
        diffusion["preset"] = row.pop("preset")
    if diffusion:
        row["diffusion"] = diffusion
