# SPDX-License-Identifier: Apache-2.0
"""A daemon's list of jobs, and the ways in which a disk can harm it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def fold_in(store: Path) -> None:
    """Brings what is in SQLite's journal into the file itself, as a daemon's proper end does."""
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")


def overwritten(store: Path) -> None:
    """Two pages in the middle are another file's."""
    data = bytearray(store.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = (b"something else " * 600)[: len(data[middle : middle + 8192])]
    store.write_bytes(bytes(data))


def cut(store: Path) -> None:
    """Its last third is missing."""
    data = store.read_bytes()
    store.write_bytes(data[: len(data) * 2 // 3])


def zeroed(store: Path) -> None:
    """It has its length and nothing else."""
    store.write_bytes(bytes(store.stat().st_size))


def beheaded(store: Path) -> None:
    """Its first page, where SQLite finds all others, is noise."""
    store.write_bytes(b"\xa5" * 4096 + store.read_bytes()[4096:])


def mistold(store: Path) -> None:
    """SQLite finds it whole, but a job's row is not what was written."""
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE jobs SET request = zeroblob(length(request)) WHERE row = 2")


HARM: dict[str, Callable[[Path], None]] = {
    "overwritten": overwritten,
    "cut": cut,
    "zeroed": zeroed,
    "beheaded": beheaded,
    "mistold": mistold,
}
