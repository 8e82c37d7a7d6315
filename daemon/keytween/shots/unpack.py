"""A `.otioz` archive -> a folder, with nothing written outside it, whatever the archive's names say."""

from __future__ import annotations

import json
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from keytween.placing import place
from keytween_wire.errors import OutputUnwritable, ShotsUnreadable

CONTENT = "content.otio"
_DRIVE = re.compile(r"[A-Za-z]:")


def unpack(source: Path, folder: Path) -> Path:
    """The timeline in the archive, unpacked with its media; what lies there already is not written again.

    Raises ShotsUnreadable for an archive that is no such one or wants out of the folder, OutputUnwritable.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = [_checked(member, source) for member in archive.infolist() if not member.is_dir()]
            if CONTENT not in {member.filename for member in members}:
                raise ShotsUnreadable(name=source, detail=f"it holds no {CONTENT}")
            # Tasks of an array all unpack, and all at once.
            with _alone(folder):
                _write(archive, members, source, folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ShotsUnreadable(name=source, detail=error) from error
    except FileNotFoundError as error:
        raise ShotsUnreadable(name=source, detail=error.strerror or error) from error
    return folder / CONTENT


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
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
    astray = name.startswith("/") or "\\" in name or _DRIVE.match(name) or {"", ".", ".."} & set(parts)
    if astray or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise ShotsUnreadable(name=source, detail=f"it holds {name!r}, which is no plain file inside it")
    return member


def _write(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], source: Path, folder: Path) -> None:
    marker = folder / ".unpacked.json"
    state = json.dumps([[m.filename, m.file_size, m.CRC] for m in members])
    try:
        if marker.is_file() and marker.read_text("utf-8") == state:
            return
        needed, free = sum(m.file_size for m in members), shutil.disk_usage(folder).free
        if needed > free:
            detail = f"{source.name} needs {needed / 1e6:.0f} MB unpacked, and {free / 1e6:.0f} MB are free"
            raise OutputUnwritable(name=folder, detail=detail)
        for member in members:
            target = folder / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            # Not extract(): it would tidy a name where we have refused it.
            with archive.open(member) as packed, target.open("xb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        place(state.encode(), marker)
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
