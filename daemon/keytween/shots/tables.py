"""Shots from TOML and CSV: defaults, overrides, one shot for each folder. Rows in, shots and faults out."""

from __future__ import annotations

import csv
import io
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keytween.shots.shot import (
    FILMS,
    SETTINGS,
    Batch,
    Fault,
    Shot,
    check_id,
    check_output,
    check_range,
    folded,
)
from keytween_wire.easing import Easing
from keytween_wire.errors import BadSetting, KeytweenError, RequestError, ShotsUnreadable, ShotUnusable
from keytween_wire.messages import Colour, Diffusion, MorphRequest

FRAMES = "frames/{shot}/{frame:04d}"
_TOP = {"output", "frames", "defaults", "shot"}
_DIFFUSION = {f.name: type(f.default) for f in fields(Diffusion)}

_TEXTS = {"id", "keyframes", "folders", "prompts", "negative_prompt", "checkpoint", "loras"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """What a shots file's rows are read against: the file, the folder of results, the frames' template."""

    source: Path
    output: Path
    frames: str = FRAMES

    @classmethod
    def of(cls, source: Path, output: object, frames: object, chosen: Path | None) -> Place:
        """Paths in the file count from its folder; `chosen` is the command line's output."""
        folder = folder_of(source)
        named = folder / _text("output", output) if output is not None else None
        root = (chosen and Path(os.path.abspath(chosen))) or named or folder / f"{source.stem}-batch"
        template = check_output(_text("frames", frames)) if frames is not None else FRAMES
        return cls(source, root, template)


def folder_of(source: Path) -> Path:
    """The folder from which a shots file's paths count."""
    return Path(os.path.abspath(source)).parent


def from_toml(text: str, source: Path, output: Path | None) -> Batch:
    """The batch in a `shots.toml`; raises ShotsUnreadable, and notes a fault for each bad shot."""
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise ShotsUnreadable(name=source, detail=error) from error
    except RecursionError as error:
        raise ShotsUnreadable(name=source, detail="it is nested too deeply") from error
    unknown = sorted(set(values) - _TOP)
    if unknown:
        detail = f"it has {unknown[0]!r}, and may have {', '.join(sorted(_TOP))}"
        raise ShotsUnreadable(name=source, detail=detail)
    rows, defaults = values.get("shot", []), values.get("defaults", {})
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ShotsUnreadable(name=source, detail="shots are written as [[shot]]")
    if not isinstance(defaults, dict):
        raise ShotsUnreadable(name=source, detail="defaults are written as [defaults]")
    try:
        place = Place.of(source, values.get("output"), values.get("frames"), output)
    except BadSetting as error:
        raise ShotsUnreadable(name=source, detail=error.message) from error
    return gather(place, (_over(defaults, row) for row in rows))


def from_csv(text: str, source: Path, output: Path | None) -> Batch:
    """The batch in a CSV file: a column for each setting, lists separated by semicolons."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        rows = [_from_cells(cells) for cells in reader]
    except (csv.Error, ValueError) as error:
        raise ShotsUnreadable(name=source, detail=f"line {reader.line_num}: {error}") from error
    unknown = sorted({key for row in rows for key in row} - {*SETTINGS, "folders"})
    if unknown:
        detail = f"it has the column {unknown[0]!r}; the columns are {', '.join(SETTINGS)}"
        raise ShotsUnreadable(name=source, detail=detail)
    return gather(Place.of(source, None, None, output), rows)


def _from_cells(cells: Mapping[str | None, Any]) -> Row:
    """A CSV row as TOML would have it; an empty cell says nothing."""
    if None in cells:
        raise ValueError("a row has more cells than the first line")
    row: Row = {}
    for name, cell in cells.items():
        if name is None or not (cell or "").strip():
            continue
        table, _, inner = name.strip().partition(".")
        key, target = (inner, row.setdefault(table, {})) if inner else (table, row)
        if not isinstance(target, dict):
            raise ValueError(f"the columns {table} and {name.strip()} cannot go together")
        # Names and prompts are texts, whatever they look like.
        read = str if key in _TEXTS else _number
        parts = [read(part.strip()) for part in cell.split(";")]
        target[key] = parts if len(parts) > 1 else parts[0]
    return row


def _number(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _over(defaults: Row, row: Row) -> Row:
    """The row's settings over the defaults, diffusion's one by one."""
    merged = {**defaults, **row}
    below, above = defaults.get("diffusion"), row.get("diffusion")
    if isinstance(below, dict) and isinstance(above, dict):
        merged["diffusion"] = {**below, **above}
    return merged


def gather(place: Place, rows: Iterable[Row]) -> Batch:
    """The batch of these rows; what is wrong with a row is a fault of its shot."""
    shots: dict[str, Shot] = {}
    faults: list[Fault] = []
    for number, row in enumerate(rows, start=1):
        shown = _shown(row, f"number {number}")
        try:
            for single in _each_folder(row, place):
                shown = _shown(single, shown)
                shot = _shot(single, place)
                if folded(shot.id) in shots:
                    raise BadSetting(name="id", value=shot.id, detail="another shot has it already")
                shots[folded(shot.id)] = shot
        except KeytweenError as error:
            said = error.values["detail"] if type(error) is RequestError else error.message
            wrapped = ShotUnusable(shot=shown, detail=said.rstrip("."))
            wrapped.__cause__ = error
            faults.append(Fault(shown, wrapped))
    if not shots and not faults:
        raise ShotsUnreadable(name=place.source, detail="it holds no shot")
    return Batch(place.source, place.output, tuple(shots.values()), tuple(faults))


def _shown(row: Row, otherwise: str) -> str:
    """What a row's shot is called in errors."""
    called = row.get("id")
    return called if isinstance(called, str) and called else otherwise


def _each_folder(row: Row, place: Place) -> Iterator[Row]:
    """The row itself, or with `folders` one row for each folder that matches."""
    if "folders" not in row:
        yield {**row, "folder": folder_of(place.source)}
        return
    pattern = _text("folders", row["folders"])
    root, relative = _anchored(folder_of(place.source), pattern)
    try:
        # Path.glob does not follow links down: a link to a folder above never becomes an endless way.
        found = sorted(path for path in root.glob(relative) if path.is_dir())
    except (OSError, ValueError, NotImplementedError, IndexError, RecursionError) as error:
        raise BadSetting(name="folders", value=pattern, detail=error) from error
    if not found:
        raise BadSetting(name="folders", value=pattern, detail="no folder matches")
    naming = _text("id", row.get("id", "{folder}"))
    for folder in found:
        rest = {name: value for name, value in row.items() if name != "folders"}
        yield {**rest, "id": naming.replace("{folder}", folder.name), "folder": folder}


def _anchored(folder: Path, pattern: str) -> tuple[Path, str]:
    path = Path(os.path.expanduser(pattern))
    if path.is_absolute():
        return Path(path.anchor), str(path.relative_to(path.anchor))
    return folder, pattern


# ---- one row


def _shot(row: Row, place: Place) -> Shot:
    row = {name.replace("-", "_"): value for name, value in row.items()}
    folder: Path = row.pop("folder")
    unknown = sorted(set(row) - set(SETTINGS))
    if unknown:
        raise _no_setting(unknown[0], SETTINGS)
    values = {name: _READERS[name](name, value) for name, value in row.items()}
    if "id" not in values:
        raise BadSetting(name="id", value="(none)", detail="every shot needs one")
    if not values.get("keyframes"):
        raise BadSetting(
            name="keyframes", value="(none)", detail="name files or a pattern such as key.####.png"
        )
    frames = values.pop("frames", ())
    shot = Shot(
        **{**values, "keyframes": tuple(str(folder / os.path.expanduser(k)) for k in values["keyframes"])},
        output=place.frames,
        frames=frames if frames != FROM_NAMES else (),
        from_names=frames == FROM_NAMES,
    )
    _check(shot)
    return shot


def _no_setting(name: str, settings: Iterable[str]) -> RequestError:
    """What to say of a setting that there is not, with the one that may be meant."""
    near = get_close_matches(name, list(settings), n=1)
    meant = f"did you mean {near[0]}" if near else f"the settings are {', '.join(settings)}"
    return RequestError(detail=f"there is no setting {name}; {meant}")


def _check(shot: Shot) -> None:
    """Ranges, as `keytween morph` has them; raises BadSetting, UnknownEasing or UnknownEngine."""
    from keytween.engines import choose

    check_id(shot.id)
    choose(shot.engine)
    for ease in shot.ease:
        Easing.parse(ease)
    for name, value, choices in (
        ("path", shot.path, MorphRequest.PATHS),
        ("format", shot.format, MorphRequest.FILE_FORMATS),
        ("colour", shot.colour, [c.value for c in Colour]),
        ("film", shot.film, FILMS),
    ):
        if value not in choices:
            raise BadSetting(name=name, value=value, detail=f"choose one of {', '.join(choices)}")
    check_range("in_betweens", shot.in_betweens, 1, 100_000)
    check_range("fps", shot.fps, 0.01, 1000)
    check_range("deadline", shot.deadline, 0, 1e9)
    for name in ("holds", "exposure"):
        for value in getattr(shot, name):
            check_range(name, value, 1, 100_000)
    if any(b <= a for a, b in zip(shot.frames, shot.frames[1:], strict=False)):
        raise BadSetting(name="frames", value=list(shot.frames), detail="they must rise from one to the next")


FROM_NAMES = ("from-names",)
"""In place of frames: the number in each keyframe's file name."""


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadSetting(name=name, value=value, detail="it must be a text")
    if "\0" in value:
        raise BadSetting(name=name, value=value.replace("\0", "\\0"), detail="it holds a zero byte")
    return value


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadSetting(name=name, value=value, detail="it must be a whole number")
    if not -(2**63) <= value < 2**63:
        raise BadSetting(name=name, value=value, detail="it has more than 64 bits")
    return value


def _float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadSetting(name=name, value=value, detail="it must be a number")
    return float(_whole(name, value) if isinstance(value, int) else value)


def _many(single: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    """A list of them, where one alone may stand without brackets."""

    def read(name: str, value: object) -> Any:
        given = value if isinstance(value, list) else [value]
        if not given:
            raise BadSetting(name=name, value="[]", detail="it must not be empty")
        return tuple(single(name, item) for item in given)

    return read


def _frames(name: str, value: object) -> Any:
    return FROM_NAMES if value == FROM_NAMES[0] else _many(_whole)(name, value)


def _diffusion(name: str, value: object) -> Diffusion:
    """A preset, and the settings over it; the names are those of the protocol's Diffusion."""
    if not isinstance(value, dict):
        raise BadSetting(name=name, value=value, detail="it is a table: [shot.diffusion]")
    given = dict(value)
    preset = given.pop("preset", "final")
    if not isinstance(preset, str) or preset not in Diffusion.PRESETS:
        raise BadSetting(name="preset", value=preset, detail=f"choose one of {', '.join(Diffusion.PRESETS)}")
    chosen: dict[str, Any] = dict(Diffusion.PRESETS[preset])
    for key, setting in given.items():
        if key not in _DIFFUSION:
            raise _no_setting(key, ("preset", *_DIFFUSION))
        kind = _DIFFUSION[key]
        if kind is tuple:
            chosen[key] = _many(_text)(key, setting)
        elif kind in (float, int):
            chosen[key] = (_float if kind is float else _whole)(key, setting)
        elif not isinstance(setting, kind):
            raise BadSetting(name=key, value=setting, detail=f"it must be of the kind {kind.__name__}")
        else:
            chosen[key] = setting
    return Diffusion(**chosen)


_READERS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(("id", "path", "engine", "colour", "format", "film"), _text),
    **dict.fromkeys(("in_betweens", "first_frame", "seed", "priority"), _whole),
    **dict.fromkeys(("fps", "deadline"), _float),
    **dict.fromkeys(("keyframes", "ease"), _many(_text)),
    **dict.fromkeys(("holds", "exposure"), _many(_whole)),
    "frames": _frames,
    "diffusion": _diffusion,
}
