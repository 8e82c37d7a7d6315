"""A user's own pictures as scenes: folders of three, or a sequence with every k-th frame as a keyframe."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

from keytween import images
from keytween.bench.scenes import Scene
from keytween.headers import SUFFIXES
from keytween.images import Picture
from keytween_wire.errors import BadSetting, PictureSizesDiffer, SequenceEmpty, TooFewKeyframes

_ENDINGS = tuple(suffix for names in SUFFIXES.values() for suffix in names)


def triplets(folder: Path) -> tuple[Scene, ...]:
    """A scene for each folder in a folder: first, true middle and last picture, in the order of their names.

    The folder itself may hold the three. Raises SequenceEmpty, BadSetting where a folder does not hold
    three pictures, PictureSizesDiffer.
    """
    if not folder.is_dir():
        raise SequenceEmpty(name=folder)
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    holders = [path for path in inner if pictures(path)] or [folder]
    found = {holder: pictures(holder) for holder in holders}
    if not any(found.values()):
        raise SequenceEmpty(name=folder)
    return tuple(_triplet(holder, paths) for holder, paths in found.items())


def _triplet(holder: Path, paths: list[Path]) -> Scene:
    if len(paths) != 3:
        raise BadSetting(
            name="triplets", value=holder.name, detail=f"it holds {len(paths)} pictures, and must hold three"
        )
    return stills(holder.name, "own", paths)


def sequence(pattern: str, every: int) -> tuple[Scene, ...]:
    """A scene for each pair of neighbouring keyframes, every k-th frame of a numbered sequence.

    Raises SequenceEmpty, BadSetting where nothing would lie between, TooFewKeyframes, PictureSizesDiffer.
    """
    if every < 2:
        raise BadSetting(name="every", value=every, detail="it must be 2 or more, so that frames lie between")
    paths = images.sequence(pattern)
    starts = range(0, len(paths) - every, every)
    if not starts:
        raise TooFewKeyframes(count=len(paths[::every]))
    return tuple(stills(f"{paths[n].stem} +{every}", "own", paths[n : n + every + 1]) for n in starts)


def rendered() -> tuple[Scene, ...]:
    """The scenes that were rendered in Blender and come with the bench: one folder of frames each."""
    with as_file(files("keytween.bench") / "rendered") as folder:
        if not folder.is_dir():
            return ()
        found = sorted(path for path in folder.iterdir() if path.is_dir())
        return tuple(
            stills(f"rendered-{p.name}", "rendered", pictures(p), textured=False)
            for p in found
            if pictures(p)
        )


def stills(name: str, group: str, paths: list[Path], *, textured: bool = True) -> Scene:
    """A scene of pictures that are equally far apart; the first and the last are its keyframes.

    Raises PictureSizesDiffer.
    """
    _check_sizes(paths)
    last = len(paths) - 1

    def draw(position: float) -> Picture:
        return _read(paths[round(position * last)])

    return Scene(name, group, textured, draw, tuple(n / last for n in range(1, last)))


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS and not p.name.startswith("."))
    return sorted(path for path in found if path.is_file())


@lru_cache(maxsize=4)
def _read(path: Path) -> Picture:
    return images.read(path)


def _check_sizes(paths: list[Path]) -> None:
    first = _read(paths[0]).size
    for path in paths[1:]:
        size = _read(path).size
        if size != first:
            shown = "{} x {}".format(*first), "{} x {}".format(*size)
            raise PictureSizesDiffer(first=paths[0].name, first_size=shown[0], name=path.name, size=shown[1])
