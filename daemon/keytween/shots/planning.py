"""A shot -> the request, the timeline and the files that it means, checked before any work is done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytween.shots.records import Shelf, Stored
from keytween.shots.shot import LONGEST_NAME, Shot, is_device
from keytween_wire.easing import Easing
from keytween_wire.errors import (
    BadSetting,
    NotAPicture,
    OutputUnwritable,
    PictureEmpty,
    PictureError,
    PictureMissing,
    PictureSizesDiffer,
    TooFewKeyframes,
)
from keytween_wire.messages import Colour, KeyframeImage, MorphRequest
from keytween_wire.timeline import Keyframe, Plan, plan, spaced

if TYPE_CHECKING:
    from keytween.config import Config

MOST_FRAMES = 250_000
"""Almost three hours at 24 frames a second; a longer shot is a mistake, or made to fill all memory."""
SUFFIXES = (".png", ".exr")
"""What frames may be called at their end."""

_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclass(frozen=True, slots=True)
class Planned:
    """A shot with all that its pictures depend on.

    `request_hash` names the request with its timeline, its files' places and the content of every file that
    it reads; as long as it stays the same, so would the frames. `size` is in pixels, (0, 0) where the header
    does not say.
    """

    shot: Shot
    output: Path
    paths: tuple[Path, ...]
    sources: tuple[Stored, ...]
    request: MorphRequest
    plan: Plan
    request_hash: str
    size: tuple[int, int]

    def file(self, frame: int) -> Path:
        """Where a timeline frame's picture goes, still without suffix."""
        return self.shot.file(self.output, frame)

    def frames(self) -> Iterator[tuple[int, str]]:
        """Every timeline frame with the cel that it shows: `k0` is a keyframe, `d3` a drawing."""
        for frame, cel in enumerate(self.plan.cels, start=self.plan.first_frame):
            yield frame, f"k{cel.keyframe}" if cel.drawing is None else f"d{cel.drawing}"

    @property
    def megapixels(self) -> float:
        """How large the pictures are."""
        return self.size[0] * self.size[1] / 1e6


def prepare(shot: Shot, output: Path, config: Config, *, known: Sequence[Mapping[str, Any]] = ()) -> Planned:
    """The shot, planned into the batch's output; `known` keyframes' files of a record are not read again.

    Raises PictureError, RequestError: whatever can be known from files' heads, names and the timeline.
    """
    from keytween.engines import choose

    paths = _keyframes(shot)
    sources = tuple(_source(path, known) for path in paths)
    size = _one_size(paths)
    timeline = _timeline(shot, paths)
    planned = plan(timeline)
    if not planned.drawings:
        raise BadSetting(name="frames", value=list(shot.frames), detail="nothing lies between the keyframes")
    request = _request(shot, paths, sources, timeline, planned, config)
    request = replace(request, engine=choose(shot.engine)[0])
    request.check()
    whole = Planned(shot, output, paths, sources, request, planned, "", size)
    _check_names(whole)
    return replace(whole, request_hash=_hash(whole))


# ---- keyframes


def _keyframes(shot: Shot) -> tuple[Path, ...]:
    from keytween.images import is_pattern, sequence

    paths: list[Path] = []
    for name in shot.keyframes:
        with _picture_errors(name):
            paths += sequence(name) if is_pattern(name) else [Path(name)]
    if len(paths) < 2:
        raise TooFewKeyframes(count=len(paths))
    return tuple(paths)


@contextmanager
def _picture_errors(name: object) -> Iterator[None]:
    """What a file system says of a path, as the picture errors say it."""
    try:
        yield
    except FileNotFoundError as error:
        raise PictureMissing(name=name) from error
    except ValueError as error:
        raise PictureError(name=name, detail=error) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PictureError(name=name, detail="its links lead round in a circle") from error
        raise PictureError(name=name, detail=error.strerror or error) from error


def _source(path: Path, known: Sequence[Mapping[str, Any]]) -> Stored:
    with _picture_errors(path):
        found = path.stat()
        if not path.is_file():
            raise NotAPicture(name=path)
        if not found.st_size:
            raise PictureEmpty(name=path)
        before = next((k for k in known if k["file"] == str(path)), None)
        if before and (before["bytes"], before["mtime_ns"]) == (found.st_size, found.st_mtime_ns):
            return Stored.from_json(before, Path())
        return Stored.of(path)


def _one_size(paths: Sequence[Path]) -> tuple[int, int]:
    """The keyframes' size from their heads; what only decoding shows is found when the shot is made."""
    sizes = [_size(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if (0, 0) not in (size, sizes[0]) and sorted(size) != sorted(sizes[0]):
            shown = ["{} x {}".format(*s) for s in (sizes[0], size)]
            raise PictureSizesDiffer(first=paths[0], first_size=shown[0], name=path, size=shown[1])
    return sizes[0]


def _size(path: Path) -> tuple[int, int]:
    from keytween import headers

    with _picture_errors(path), path.open("rb") as file:
        head = file.read(1 << 16)
        if headers.sniff(head) is None:
            raise NotAPicture(name=path)
        if headers.sniff(head) == ".tif":
            # Its directory may lie anywhere.
            head += file.read()
    try:
        header = headers.parse(head)
    except ValueError:
        return 0, 0
    return (header.width, header.height) if header.suffix != ".exr" else (0, 0)


# ---- timeline and request


def _timeline(shot: Shot, paths: Sequence[Path]) -> tuple[Keyframe, ...]:
    count = len(paths)
    frames = _numbers(paths) if shot.from_names else shot.frames
    if frames and len(frames) != count:
        detail = f"there are {count} keyframes"
        raise BadSetting(name="frames", value=list(frames), detail=detail)
    holds, easings = _each("holds", shot.holds, count), _each("ease", shot.ease, count)
    exposures = _each("exposure", shot.exposure, count)
    if not frames:
        strides = [(shot.in_betweens + 1) * e + h - 1 for e, h in zip(exposures, holds, strict=True)]
        first = spaced(1, in_betweens=shot.in_betweens, first=shot.first_frame)[0].frame
        frames = tuple(accumulate(strides[:-1], initial=first))
    if frames[-1] - frames[0] > MOST_FRAMES:
        detail = f"a shot may go on for {MOST_FRAMES} frames"
        raise BadSetting(name="frames", value=f"{frames[0]} to {frames[-1]}", detail=detail)
    columns = zip(frames, holds, easings, exposures, strict=True)
    return tuple(Keyframe(f, hold=h, easing=Easing.parse(e), exposure=x) for f, h, e, x in columns)


def _numbers(paths: Sequence[Path]) -> tuple[int, ...]:
    """The last number in each file's name."""
    numbers: list[int] = []
    for path in paths:
        hit = _LAST_NUMBER.search(path.stem)
        if hit is None or (numbers and int(hit[1]) <= numbers[-1]):
            detail = f"{path.name} has no number that is above the one before"
            raise BadSetting(name="frames", value="from-names", detail=detail)
        numbers.append(int(hit[1]))
    return tuple(numbers)


def _each(name: str, values: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """One value for each keyframe; the last one's does not matter, so it may be left out."""
    if len(values) == 1:
        return values * count
    if len(values) not in (count - 1, count):
        detail = f"give one for all, or one for each of the {count} keyframes"
        raise BadSetting(name=name, value=list(values), detail=detail)
    return (*values, values[-1])[:count]


def _request(
    shot: Shot,
    paths: Sequence[Path],
    sources: Sequence[Stored],
    timeline: Sequence[Keyframe],
    planned: Plan,
    config: Config,
) -> MorphRequest:
    from keytween.models import check, resolve

    diffusion = shot.diffusion
    if shot.may_diffuse:
        diffusion = replace(diffusion, checkpoint=resolve(config, diffusion.checkpoint))
        # Before all that lies below is looked through: the folder might be the whole disk.
        check(Path(diffusion.checkpoint))
    images = tuple(
        KeyframeImage(source.sha256, path.suffix.lower(), key.frame, Colour(shot.colour), str(path))
        for path, source, key in zip(paths, sources, timeline, strict=True)
    )
    return MorphRequest(
        images,
        planned.positions(len(paths) - 1),
        engine=shot.engine,
        seed=shot.seed,
        file_format=shot.format,
        diffusion=diffusion,
        path=shot.path,
    )


def _hash(planned: Planned) -> str:
    """SHA-256 of all that changes the shot's files, names of keyframes and priorities left out."""
    request = asdict(planned.request)
    for image in request["keyframes"]:
        image["name"], image["colour"] = "", image["colour"].value
    shot = planned.shot
    whole = {
        "request": request,
        "frames": list(planned.frames()),
        "output": shot.output,
        "film": [shot.film, shot.fps if shot.film != "none" else 0],
        "files": _content(planned.request) if planned.request.may_diffuse else [],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _content(request: MorphRequest) -> list[list[Any]]:
    """What tells a checkpoint's and LoRAs' files from others, without reading gigabytes."""
    found: list[list[Any]] = []
    root = Path(request.diffusion.checkpoint)
    for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else ():
        text = file.read_text("utf-8", errors="replace") if file.suffix == ".json" else ""
        found.append([file.relative_to(root).as_posix(), file.stat().st_size, text])
    loras = (Path(lora) for lora in request.diffusion.loras)
    return found + [[lora.name, Stored.of(lora).sha256] for lora in loras if lora.is_file()]


# ---- where the frames go


def _check_names(planned: Planned) -> None:
    longest = planned.file(planned.plan.last_frame)
    for part in longest.parts[1:-1]:
        _check_length(part)
    _check_length(longest.name + SUFFIXES[0])
    for part in Path(planned.shot.file(Path(), planned.plan.last_frame)).parts:
        _check_portable(part)


def _check_length(name: str) -> None:
    length = len(os.fsencode(name))
    if length > LONGEST_NAME:
        detail = f"{length} bytes are too long for a file's name, which may have {LONGEST_NAME}"
        raise OutputUnwritable(name=name, detail=detail)


def _check_portable(name: str) -> None:
    """A farm's machines share a disk, whatever their system."""
    if is_device(name):
        raise OutputUnwritable(name=name, detail="Windows keeps this name for a device")
    if name not in (".", "..") and name.endswith((".", " ")):
        raise OutputUnwritable(name=name, detail="Windows drops a dot or a blank at a name's end")


def check_places(planned: Planned, shelf: Shelf, *, overwrite: bool = False) -> None:
    """Raises OutputUnwritable where the frames cannot go, or where files lie that are not this batch's."""
    numbers = [frame for frame, _ in planned.frames()]
    folders = {planned.file(frame).parent for frame in numbers} | {shelf.folder}
    for folder in folders:
        _check_writable(folder)
    own = {str(shelf.root / file) for file in (shelf.load() or {}).get("files", ())}
    keys = {os.path.realpath(path) for path in planned.paths}
    for file in (f"{planned.file(frame)}{suffix}" for frame in numbers for suffix in SUFFIXES):
        if os.path.realpath(file) in keys:
            raise OutputUnwritable(name=file, detail="it is a keyframe of the shot")
        if not overwrite and file not in own and os.path.lexists(file):
            detail = "it is there already, from something else; add --overwrite to replace it"
            raise OutputUnwritable(name=file, detail=detail)


def _check_writable(folder: Path) -> None:
    """Looks at the nearest folder that is there already: nothing is made by a look."""
    with _output_errors(folder):
        nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not nearest.stat() or not nearest.is_dir():
            raise OutputUnwritable(name=folder, detail=f"{nearest} is no folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise OutputUnwritable(name=folder, detail=f"{nearest} cannot be written to")
        if hasattr(os, "statvfs") and not os.statvfs(nearest).f_bavail:
            raise OutputUnwritable(name=folder, detail="the disk is full")


@contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        detail = "its links lead round in a circle" if error.errno == errno.ELOOP else error.strerror or error
        raise OutputUnwritable(name=folder, detail=detail) from error
