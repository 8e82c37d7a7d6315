"""What is known of a shot on disk: its record, the journal of its frames, the lock that it is made under.

A record is written whole or not at all, so that any reader at any moment sees a true one. The journal grows
by a line for every picture that is in place; a line that a kill cut off is not one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from keytween.placing import place
from keytween_wire.errors import ShotBusy

SCHEMA = 1
RUNNING, DONE, FAILED = "running", "done", "failed"

Record = dict[str, Any]
"""A result manifest; `docs/batch.md` has the table of its fields."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it was written: enough to say later whether it still is the same."""

    file: str
    sha256: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, data: bytes | None = None) -> Stored:
        """The file as it is now; `data` where its bytes are known already."""
        found = path.stat()
        digest = _digest(path) if data is None else hashlib.sha256(data).hexdigest()
        return cls(str(path), digest, found.st_size, found.st_mtime_ns)

    @property
    def intact(self) -> bool:
        """Whether the file is there with these bytes; they are read only if its time has changed."""
        try:
            found = os.stat(self.file)
            if found.st_size != self.bytes:
                return False
            return found.st_mtime_ns == self.mtime_ns or self._same_bytes()
        except (OSError, ValueError):
            return False

    def _same_bytes(self) -> bool:
        return _digest(Path(self.file)) == self.sha256

    def as_json(self, root: Path | None = None) -> dict[str, Any]:
        """The four fields by name; a file below `root` by its way from there, so that the folder may move."""
        path = Path(self.file)
        file = path.relative_to(root).as_posix() if root and path.is_relative_to(root) else self.file
        return {"file": file, "sha256": self.sha256, "bytes": self.bytes, "mtime_ns": self.mtime_ns}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], root: Path) -> Stored:
        """What `as_json` gave these values for."""
        return cls(str(root / values["file"]), values["sha256"], values["bytes"], values["mtime_ns"])


def _digest(path: Path) -> str:
    """The SHA-256 of a file, a piece at a time: a shot may name one of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Shelf:
    """The files that are kept of one shot, in a folder of its own below the batch's `results`."""

    results: Path
    shot: str

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return self.results / self.shot

    @property
    def root(self) -> Path:
        """The batch's output, from which the record names files."""
        return self.results.parent

    def named(self, file: str | Path) -> str:
        """A file as records name it."""
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @property
    def record_file(self) -> Path:
        """The result manifest."""
        return self.folder / "result.json"

    @property
    def sheet(self) -> Path:
        """The contact sheet for the report."""
        return self.folder / "sheet.jpg"

    def film(self, suffix: str) -> Path:
        """The film of the frames."""
        return self.folder / f"film{suffix}"

    @property
    def journal(self) -> Path:
        """One JSON line for each picture that is in place, after a first line with the request's hash."""
        return self.folder / "pictures.jsonl"

    def load(self) -> Record | None:
        """The record, None where there is none or another version's."""
        try:
            found = json.loads(self.record_file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None

    def save(self, record: Record) -> None:
        """Leaves the record whole or not at all. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place(json.dumps(record, indent=1).encode(), self.record_file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the shot's lock, which ends with the process however it dies. Raises ShotBusy, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ShotBusy(shot=self.shot, detail=self._holder()) from error
        try:
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        record = self.load() or {}
        return f"process {record.get('pid', '?')} on {record.get('host', 'an unknown machine')}"

    @property
    def busy(self) -> bool:
        """Whether somebody is making it now; only a glance, it may change at once."""
        if not (self.folder / "lock").exists():
            return False
        try:
            with self.locked():
                return False
        except (ShotBusy, OSError):
            return True

    # ---- the journal

    def begin_journal(self, request: str) -> dict[str, Stored]:
        """The pictures that a run of the same request has left, by cel; otherwise the journal starts anew."""
        found = self.read_journal(request)
        lines = [json.dumps({"request": request})]
        lines += [json.dumps({"cel": cel, **stored.as_json(self.root)}) for cel, stored in found.items()]
        place(("\n".join(lines) + "\n").encode(), self.journal)
        return found

    def read_journal(self, request: str) -> dict[str, Stored]:
        """The journal's pictures by cel, where it belongs to this request."""
        try:
            lines = self.journal.read_text("utf-8").splitlines()
            if not lines or json.loads(lines[0]).get("request") != request:
                return {}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}
        found: dict[str, Stored] = {}
        for line in lines[1:]:
            try:
                values = json.loads(line)
                found[values["cel"]] = Stored.from_json(values, self.root)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return found

    def note(self, cel: str, stored: Stored) -> None:
        """Adds a picture to the journal. Raises OSError."""
        with self.journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"cel": cel, **stored.as_json(self.root)}) + "\n")


def here() -> Record:
    """Which process this is, and on which machine."""
    return {"host": platform.node(), "pid": os.getpid()}
