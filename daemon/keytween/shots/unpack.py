"""A `.otioz` archive -> a folder, with nothing written outside it, whatever the archive's names say."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from keytween.placing import place
from keytween.shots.shot import is_device
from keytween_wire.errors import OutputUnwritable, ShotsUnreadable

CONTENT = "content.otio"
LOCK, MARKER = ".lock", ".unpacked.json"
"""What lies beside an archive's files and is ours."""
MOST_TIMES, HARMLESS = 50, 1 << 30
"""How many times its size an archive may be unpacked (pictures are packed already), and bytes let through."""


def unpack(source: Path, folder: Path) -> Path:
    """The timeline in the archive, unpacked with its media; what lies there already is not written again.

    Raises ShotsUnreadable for an archive that is no such one or wants out of the folder, OutputUnwritable.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = [
                _checked(member, source) for member in archive.infolist() if not member.filename.endswith("/")
            ]
            if CONTENT not in {member.filename for member in members}:
                raise ShotsUnreadable(name=source, detail=f"it holds no {CONTENT}")
            # Tasks of an array all unpack, and all at once.
            with _alone(folder):
                _write(archive, members, source, folder)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise ShotsUnreadable(name=source, detail=error) from error
    except FileNotFoundError as error:
        raise ShotsUnreadable(name=source, detail=error.strerror or error) from error
    return folder / CONTENT


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire()
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
    try:
        yield
    finally:
        lock.release()


def _checked(member: zipfile.ZipInfo, source: Path) -> zipfile.ZipInfo:
    """Refuses whatever would not lie below the folder as a plain file."""
    name, mode = member.filename, member.external_attr >> 16
    parts = name.split("/")
    # A colon names a drive on Windows, or a second stream of a file.
    astray = "\\" in name or ":" in name or {"", ".", ".."} & set(parts) or any(map(is_device, parts))
    ours = parts[0].rstrip(". ").casefold() in (LOCK, MARKER)
    if astray or ours or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise ShotsUnreadable(name=source, detail=f"it holds {name!r:.300}, which is no plain file inside it")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ShotsUnreadable(
            name=source, detail=f"{name!r:.300} is packed in a way that .otioz does not have"
        )
    return member


def _write(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], source: Path, folder: Path) -> None:
    marker = folder / MARKER
    state = json.dumps([[m.filename, m.file_size, m.CRC] for m in members])
    try:
        if marker.is_file() and marker.read_text("utf-8") == state:
            return
        needed, free = sum(m.file_size for m in members), shutil.disk_usage(folder).free
        if needed > max(HARMLESS, source.stat().st_size * MOST_TIMES):
            detail = f"it would be {needed / 1e6:.0f} MB unpacked, more than {MOST_TIMES} times its size"
            raise ShotsUnreadable(name=source, detail=detail)
        if needed > free:
            detail = f"{source.name} needs {needed / 1e6:.0f} MB unpacked, and {free / 1e6:.0f} MB are free"
            raise OutputUnwritable(name=folder, detail=detail)
        # First of all: should this fail halfway, what lies here is neither this archive nor the one before.
        marker.unlink(missing_ok=True)
        for member in members:
            target = folder / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(folder.resolve()):
                raise OutputUnwritable(name=target.parent, detail="it is a link that leads out of its folder")
            target.unlink(missing_ok=True)
            # Not extract(): it would tidy a name where we have refused it.
            with archive.open(member) as packed, target.open("xb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        place(state.encode(), marker)
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
