# SPDX-License-Identifier: Apache-2.0
"""A log file that several processes write, a whole line at a time, and that stays small."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

import filelock

from keytween.private import opener

BYTES, KEPT = 2 << 20, 4
"""How large a file of the log may be, and how many older ones are kept beside the newest."""
LOCK_WITHIN_S = 0.2
MOST_ALIKE, ALIKE_EVERY_S = 20, 60.0
"""How many warnings and errors of one kind are written in so many seconds."""


class SharedFile(logging.Handler):
    """Appends records to a file that other processes append to as well, and renames it when it is full.

    The file is open only while a line is written, under a lock: so it can be renamed on every system. A line
    that cannot be written is lost in silence: a full disk must not end what tells of it.
    """

    def __init__(self, path: Path, *, size: int = BYTES, kept: int = KEPT) -> None:
        super().__init__()
        self._path, self._size, self._kept = path, size, kept
        self._lock = filelock.FileLock(path.with_name(f"{path.name}.lock"), mode=0o600)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        with suppress(Exception):
            line = self.format(record).replace("\n", " ").encode("utf-8", "replace") + b"\n"
            try:
                self._lock.acquire(timeout=LOCK_WITHIN_S, poll_interval=0.002)
            except filelock.Timeout:
                # Whoever holds it was stopped in the middle. One write is whole all the same.
                self._append(line)
                return
            try:
                if self._is_full(len(line)):
                    self._rename()
                self._append(line)
            finally:
                self._lock.release()

    def _append(self, line: bytes) -> None:
        # Without a buffer, the line is one write.
        with open(self._path, "ab", buffering=0, opener=opener) as file:
            file.write(line)

    def _is_full(self, more: int) -> bool:
        with suppress(FileNotFoundError):
            return self._path.stat().st_size + more > self._size
        return False

    def _rename(self) -> None:
        """The newest becomes number 1, and so on; the last one goes."""
        for number in range(self._kept, 0, -1):
            source = older(self._path, number - 1)
            with suppress(FileNotFoundError):
                source.replace(older(self._path, number))


class Flood(logging.Filter):
    """Lets so many warnings and errors of one kind through in a while; the next one says how many it kept."""

    def __init__(self, *, most: int = MOST_ALIKE, every_s: float = ALIKE_EVERY_S) -> None:
        super().__init__()
        self._most, self._every_s = most, every_s
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        if record.levelno < logging.WARNING:
            return True
        kind = self._kind(record)
        now = time.monotonic()
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= self._every_s:
            record.left_out = max(0, count - self._most)
            since, count = now, 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[kind] = since, count + 1
        return count < self._most

    def _kind(self, record: logging.LogRecord) -> tuple[object, ...]:
        error = record.exc_info[0] if record.exc_info else None
        event = record.msg if hasattr(record, "figures") else ""
        return record.levelno, record.name, event, getattr(record, "job", ""), error


def older(path: Path, number: int) -> Path:
    """The file that was full that many times ago; the newest is number 0."""
    return path.with_name(f"{path.name}.{number}") if number else path


def files_of(path: Path, *, kept: int = KEPT) -> list[Path]:
    """The files of a log that are there, oldest first."""
    return [file for n in range(kept, -1, -1) if (file := older(path, n)).is_file()]


def trim(path: Path, *, size: int) -> None:
    """Keeps the end of a file that others have open and that has grown beyond `size` bytes."""
    with suppress(OSError):
        if path.stat().st_size <= size:
            return
        with path.open("r+b") as file:
            file.seek(-size // 4, os.SEEK_END)
            end = file.read(size // 4)
            file.seek(0)
            file.write(end)
            file.truncate(len(end))
