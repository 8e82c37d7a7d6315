"""A shot: keyframes, timing and engine of one tween, and the batch that it belongs to. Pure."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

from keytween_wire.errors import BadSetting, KeytweenError
from keytween_wire.messages import Diffusion

FILMS = ("none", "mp4", "prores")
"""What may be made of the frames besides."""

LONGEST_NAME = 255
"""Bytes of a file's name that every file system takes."""

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One tween of a batch, with everything that its pictures depend on.

    `keyframes` are files or number patterns, with full paths. `frames` are the timeline frames of the
    keyframes, and none where `in_betweens` spaces them. `holds`, `ease` and `exposure` have one value for
    all, or one for each keyframe. `output` is the template of the frames' files without suffix, counted from
    the batch's output; `deadline` is in seconds, 0 for none; shots of higher `priority` are made first.
    """

    id: str
    keyframes: tuple[str, ...]
    output: str
    frames: tuple[int, ...] = ()
    from_names: bool = False
    holds: tuple[int, ...] = (1,)
    in_betweens: int = 7
    exposure: tuple[int, ...] = (1,)
    ease: tuple[str, ...] = ("linear",)
    path: str = "straight"
    first_frame: int = 1
    fps: float = 24.0
    engine: str = "auto"
    seed: int = 0
    colour: str = "auto"
    format: str = "auto"
    film: str = "none"
    priority: int = 0
    deadline: float = 0.0
    diffusion: Diffusion = field(default_factory=Diffusion)

    LISTS: ClassVar[tuple[str, ...]] = ("keyframes", "frames", "holds", "exposure", "ease")

    @property
    def may_diffuse(self) -> bool:
        """Whether `diffmorpher` draws it, or some of it."""
        return self.diffusion.serves(self.engine)

    def as_json(self) -> dict[str, Any]:
        """The shot as plain values; `from_json` makes an equal one of them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Shot:
        """The shot that `as_json` gave these values for."""
        whole = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        diffusion: dict[str, Any] = dict(values["diffusion"])
        diffusion |= {n: tuple(v) for n, v in diffusion.items() if isinstance(v, list)}
        return cls(**{**whole, "diffusion": Diffusion(**diffusion)})

    def file(self, output: Path, frame: int) -> Path:
        """Where a timeline frame's picture goes below the batch's output, still without suffix."""
        return output / self.output.format(shot=self.id, frame=frame)


@dataclass(frozen=True, slots=True)
class Fault:
    """A shot that cannot be made, and why."""

    shot: str
    error: KeytweenError


@dataclass(frozen=True, slots=True)
class Batch:
    """The shots of a file, in its order, and those that could not be read.

    `output` is the folder of everything that is made, records and report included.
    """

    source: Path
    output: Path
    shots: tuple[Shot, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def results(self) -> Path:
        """Where a folder for each shot keeps its record, lock and contact sheet."""
        return self.output / "results"


def is_device(name: str) -> bool:
    """Whether Windows would open a device of this name in place of a file, whatever the suffix."""
    return name.partition(".")[0].rstrip(" ").casefold() in _DEVICES


def check_id(shot: str) -> str:
    """The id, fit to be a file's name on any system; raises BadSetting."""
    detail = ""
    if not shot or shot != shot.strip() or shot in (".", "..") or shot.endswith("."):
        detail = "it must be a name, without blanks around it and no dot at its end"
    elif any(c in '/\\:*?"<>|' or not c.isprintable() for c in shot):
        detail = 'it names a folder, so it may hold none of / \\ : * ? " < > |'
    elif is_device(shot):
        detail = "Windows keeps this name for a device"
    elif len(os.fsencode(shot)) > LONGEST_NAME:
        detail = f"it has {len(os.fsencode(shot))} bytes, and a file's name at most {LONGEST_NAME}"
    if detail:
        raise BadSetting(name="id", value=shot, detail=detail)
    return shot


def folded(shot: str) -> str:
    """The id as a file system sees it that knows no capitals; two shots must differ in it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", shot).casefold())


def check_output(template: str) -> str:
    """A template for frames' files that keeps shots and frames apart; raises BadSetting."""
    try:
        fields = [
            f"{name}:{form}{kind or ''}"
            for _, name, form, kind in Formatter().parse(template)
            if name is not None
        ]
        # Nothing else: a width of its own choosing would fill all memory, and {shot.x} looks too far.
        odd = [field for field in fields if not _FIELD.fullmatch(field)]
    except ValueError as error:
        raise BadSetting(
            name="frames", value=template, detail=f"its braces do not match ({error})"
        ) from error
    if odd:
        detail = "it may hold {shot}, and {frame} with up to 99 digits as {frame:04d}"
        raise BadSetting(name="frames", value=template, detail=detail)
    if not {"shot", "frame"} <= {field.partition(":")[0] for field in fields}:
        raise BadSetting(name="frames", value=template, detail="it must hold {shot} and {frame}")
    return template


_FIELD = re.compile(r"shot:|frame:([0-9]{0,2}|0[0-9]{1,2})d?")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises BadSetting unless the value is a number from `low` to `high`."""
    if not low <= value <= high:
        raise BadSetting(name=name, value=value, detail=f"it must lie between {low:g} and {high:g}")


SETTINGS = tuple(f.name for f in fields(Shot) if f.name not in ("output", "from_names"))
"""What a shots file may say of a shot, besides what only the reader knows."""
