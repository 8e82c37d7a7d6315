"""A shots file of any kind -> the batch that it describes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from keytween.shots import tables
from keytween.shots.shot import Batch, Shot
from keytween_wire.errors import ShotsUnreadable, UnknownShot

KINDS = (".toml", ".csv", ".otio", ".otioz")


def read(source: Path, *, output: Path | None = None) -> Batch:
    """The batch in a file; raises ShotsUnreadable where the file as a whole makes no sense.

    What is wrong with one shot is one of the batch's faults. `output` overrides the file's own.
    """
    suffix = source.suffix.lower()
    if suffix not in KINDS:
        detail = f"it ends in {suffix or 'nothing'}, and shots are read from {', '.join(KINDS)}"
        raise ShotsUnreadable(name=source, detail=detail)
    if suffix in (".otio", ".otioz"):
        from keytween.shots import timeline

        return timeline.read(source, output)
    text = _text(source)
    return (
        tables.from_toml(text, source, output) if suffix == ".toml" else tables.from_csv(text, source, output)
    )


def _text(source: Path) -> str:
    try:
        return source.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ShotsUnreadable(name=source, detail="it is no UTF-8 text") from error
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise ShotsUnreadable(name=source, detail=detail) from error


def find(batch: Batch, shot: str) -> Shot:
    """The shot of that id; raises its fault where it has one, otherwise UnknownShot."""
    for fault in batch.faults:
        if fault.shot == shot:
            raise fault.error
    found = next((s for s in batch.shots if s.id == shot), None)
    if found is None:
        some = ", ".join(s.id for s in batch.shots[:5]) + (" ..." if len(batch.shots) > 5 else "")
        raise UnknownShot(shot=shot, name=batch.source, choices=some or "none that can be made")
    return found


def matching(batch: Batch, patterns: tuple[str, ...]) -> set[str]:
    """The ids that any of these names or patterns (`sq010*`) means; raises UnknownShot for one without."""
    known = [*(s.id for s in batch.shots), *(f.shot for f in batch.faults)]
    found: set[str] = set()
    for pattern in patterns:
        hits = {shot for shot in known if shot == pattern or fnmatchcase(shot, pattern)}
        if not hits:
            find(batch, pattern)
        found |= hits
    return found
