# SPDX-License-Identifier: Apache-2.0
"""Makes a store again: from what can still be read of it, and from the jobs' own folders.

A job's folder holds what was asked for, its keyframes and its finished frames. The store adds how the job
ended and in which order jobs wait; where that is lost, a job that lacks frames waits again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from keytween.jobs.folder import UNFINISHED, JobFolder, Order, sync_folder
from keytween.jobs.job import check_job_id
from keytween.jobs.store import DAMAGED, STORE, JobStore, Rebuilt
from keytween.logs import note, warn
from keytween_wire.codec import unpack_dataclass
from keytween_wire.errors import BadSetting, MessageError, StoreUnusable
from keytween_wire.messages import ErrorInfo, FrameMade, JobState, MorphRequest

ASIDE = "damaged-jobs"
"""Where a job's folder goes when nothing says what was asked for."""
_BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite's files are called, after the store's name."""
_MOST_MISSES = 100_000
"""So many row numbers in a row that cannot be read mean that there is nothing more."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """A job that is in the store again: how it is now, and how many drawings it keeps and has lost."""

    job_id: str
    label: str
    state: JobState
    kept: int
    lost: int
    total: int
    by_row: bool
    """Whether its row could be read; otherwise its folder alone tells of it."""

    def __str__(self) -> str:
        known = "" if self.by_row else ", known by its folder alone"
        lost = f", {self.lost} of them lost and made again" if self.lost else ""
        return (
            f"  {self.job_id[:8]} {self.label or '-'}: {self.state.value}, "
            f"{self.kept} of {self.total} drawings{lost}{known}"
        )


@dataclass(frozen=True, slots=True)
class Repair:
    """What was wrong, and what was done. `fault` is empty when the store was whole."""

    store: Path
    fault: str = ""
    kept_as: Path | None = None
    put_back: tuple[PutBack, ...] = ()
    aside: tuple[Path, ...] = ()

    def lines(self) -> Iterator[str]:
        """The same in sentences."""
        idle = "" if self.put_back or self.aside else " Nothing was done."
        found = f"was damaged: {self.fault}." if self.fault else f"is whole.{idle}"
        yield f"The list of jobs {self.store} {found}"
        if self.kept_as:
            yield f"It is kept as {self.kept_as}, and made again with {len(self.put_back)} jobs."
        for job in self.put_back:
            yield str(job)
        for path in self.aside:
            yield f"Nothing says what was asked of the job in {path}; its files are kept there."


@dataclass(slots=True)
class _Remains:
    """What a damaged store still says of one job; None or nothing where it cannot be read."""

    row: int
    job_id: str
    order: Order | None
    state: JobState | None
    error: ErrorInfo | None
    lean: int
    last_event: int
    notes: dict[int, str] = field(default_factory=dict[int, str])


# ---- looking, without touching


def fault_of(store: Path) -> StoreUnusable | None:
    """What is wrong with a store that no daemon has open; None for nothing. It is read, and nothing else."""
    with _copy(store) as copy:
        try:
            _open_whole(copy).close()
        except StoreUnusable as error:
            return StoreUnusable(**{**error.values, "name": store})
    return None


def _open_whole(store: Path) -> JobStore:
    """The store, every value of it looked at; raises StoreUnusable."""
    opened = JobStore(store)
    try:
        opened.check_all()
    except StoreUnusable:
        opened.close()
        raise
    return opened


@contextmanager
def _copy(store: Path) -> Iterator[Path]:
    """A copy that may be opened, which changes a store; an unreadable part is left out."""
    with tempfile.TemporaryDirectory(prefix="keytween-store-") as folder:
        for end in _BESIDE[:2]:
            with suppress(OSError):
                shutil.copyfile(f"{store}{end}", Path(folder) / f"{STORE}{end}")
        yield Path(folder) / STORE


# ---- at the daemon's start


def tidy(store: JobStore, state: Path) -> None:
    """What a kill or a power loss left behind: half-made job folders go, running jobs wait again.

    A whole folder that the store does not know is a job that the store has lost: it goes on.
    """
    for path in (state / "jobs").glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    for job in adopt(store, state / "jobs"):
        warn("job-found-again", job=job.job_id, state=job.state.value)
    for path in set_aside(store, state):
        warn("folder-kept", folder=path.name)
    for job_id in store.requeue_running():
        note("job-goes-on", job=job_id)


# ---- jobs without a row


def adopt(store: JobStore, jobs: Path) -> tuple[PutBack, ...]:
    """Puts every job back whose folder is there and whose row is not; oldest first."""
    return _put_back(store, _folders(jobs, but=store.job_ids()), {})


def set_aside(store: JobStore, state: Path) -> tuple[Path, ...]:
    """Moves folders of jobs that are in no store and say nothing to `damaged-jobs`: nothing is deleted."""
    moved = list[Path]()
    for folder in _folders(state / "jobs", but=store.job_ids()):
        target = state / ASIDE / f"{folder.job_id}-{_now()}"
        target.parent.mkdir(exist_ok=True, mode=0o700)
        folder.path.rename(target)
        moved.append(target)
    return tuple(moved)


def _folders(jobs: Path, *, but: Collection[str] = ()) -> list[JobFolder]:
    """The jobs' folders, in the order of their names, without those of known ids: of those there are many."""
    found = list[JobFolder]()
    for name in sorted({*(os.listdir(jobs) if jobs.is_dir() else ())} - {*but}):
        with suppress(BadSetting):
            if (jobs / name).is_dir():
                found.append(JobFolder(jobs, name))
    return found


def _put_back(
    store: JobStore, folders: Sequence[JobFolder], remains: dict[str, _Remains]
) -> tuple[PutBack, ...]:
    put = list[PutBack]()
    rebuilt = [
        (folder, made)
        for folder in folders
        if (made := _rebuild(folder, remains.get(folder.job_id))) is not None
    ]
    for folder, job in _in_order(rebuilt, remains):
        store.restore(folder.job_id, job)
        journal = folder.journaled()
        put.append(
            PutBack(
                folder.job_id,
                job.order.label,
                job.state,
                kept=len(job.frames),
                lost=len(journal.keys() - job.frames.keys()),
                total=job.order.request.total,
                by_row=folder.job_id in remains,
            )
        )
    return tuple(put)


def _rebuild(folder: JobFolder, remains: _Remains | None) -> Rebuilt | None:
    """The job as its folder and its row's remains tell it; None when neither says what was asked for."""
    order = folder.order() or (remains.order if remains else None)
    if order is None:
        return None
    frames = {i: frame for i, frame in folder.whole_frames().items() if i < order.request.total}
    complete = len(frames) == order.request.total
    state = remains.state if remains and remains.state else None
    if state not in (JobState.FAILED, JobState.CANCELLED):
        was_done = state is JobState.DONE or state is None
        state = JobState.DONE if complete and was_done else JobState.QUEUED
    return Rebuilt(
        order,
        frames,
        state,
        error=remains.error if remains and state is JobState.FAILED else None,
        lean=remains.lean if remains else 0,
        # Beyond whatever a client has seen of it, so that it is told of all that comes.
        last_event=max(int(time.time()), remains.last_event if remains else 0),
        notes=remains.notes if remains else {},
    )


def _in_order(
    rebuilt: Sequence[tuple[JobFolder, Rebuilt]], remains: dict[str, _Remains]
) -> list[tuple[JobFolder, Rebuilt]]:
    """By their rows; a job without one comes before the first that was handed over after it."""
    with_row = [pair for pair in rebuilt if pair[0].job_id in remains]
    ordered = sorted(with_row, key=lambda pair: remains[pair[0].job_id].row)
    others = [pair for pair in rebuilt if pair[0].job_id not in remains]
    for pair in sorted(others, key=lambda pair: pair[1].order.created):
        created = pair[1].order.created
        place = next((i for i, (_, job) in enumerate(ordered) if job.order.created > created), len(ordered))
        ordered.insert(place, pair)
    return ordered


# ---- a damaged store


def repair(state: Path) -> Repair:
    """Makes the store below `state` usable; run again, it does nothing more. No daemon may run there.

    Raises StoreUnusable for one that is in use or of a newer Keytween, and DiskFull: then all is as it was.
    """
    store = state / STORE
    _finish_swap(store)
    with _copy(store) as copy:
        try:
            opened = _open_whole(store)
        except StoreUnusable as error:
            if error.values.get("why") != DAMAGED:
                raise
            fault = error.values["detail"]
            remains = {job.job_id: job for job in _salvage(copy)}
            return _rebuild_all(state, store, fault, remains)
    with closing(opened):
        put = adopt(opened, state / "jobs")
        return Repair(store, put_back=put, aside=set_aside(opened, state))


def _rebuild_all(state: Path, store: Path, fault: str, remains: dict[str, _Remains]) -> Repair:
    making = store.with_name(f"{STORE}.repairing")
    _forget(making)
    try:
        with closing(JobStore(making)) as made:
            put = _put_back(made, _folders(state / "jobs"), remains)
            aside = set_aside(made, state)
    except BaseException:
        _forget(making)
        raise
    ready = store.with_name(f"{STORE}.repaired-{_now()}")
    making.rename(ready)
    sync_folder(state)
    kept = _finish_swap(store)
    return Repair(store, fault, kept, put, aside)


def _finish_swap(store: Path) -> Path | None:
    """Puts a store that was made again in the damaged one's place, which keeps its date; where that is.

    A repair that was cut off after its store was ready is finished by the next one.
    """
    ready = next(iter(sorted(store.parent.glob(f"{STORE}.repaired-*"))), None)
    if ready is None:
        return None
    kept = store.with_name(f"{STORE}.damaged-{ready.name.removeprefix(f'{STORE}.repaired-')}")
    for end in _BESIDE:
        # A journal of the damaged store would be taken for one of the new.
        with suppress(FileNotFoundError):
            Path(f"{store}{end}").rename(f"{kept}{end}")
    ready.rename(store)
    sync_folder(store.parent)
    return kept


def _forget(path: Path) -> None:
    for end in _BESIDE:
        Path(f"{path}{end}").unlink(missing_ok=True)


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%dT%H-%M-%S")


# ---- what can still be read


def _salvage(copy: Path) -> Iterator[_Remains]:
    """Row by row, whatever SQLite can still find."""
    if not copy.exists():
        return
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        # A text with a broken letter is no reason to lose the rest of its row.
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for row in _rows(db):
            remains = _read(row)
            if remains is not None:
                remains.notes = _notes(db, remains.job_id)
                yield remains


def _rows(db: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    last = misses = 0
    try:
        db.execute("SELECT row FROM jobs LIMIT 0")
    except sqlite3.DatabaseError:
        return  # its first page is gone, and with it where anything else would be
    while misses < _MOST_MISSES:
        try:
            asked = "SELECT * FROM jobs WHERE row > ? ORDER BY row LIMIT 1"
            row = db.execute(asked, (last,)).fetchone()
        except (sqlite3.DatabaseError, OverflowError):
            last, misses = last + 1, misses + 1  # the next one may lie on another page
            continue
        if row is None:
            return
        last, misses = row["row"], 0
        yield row


def _read(row: sqlite3.Row) -> _Remains | None:
    try:
        check_job_id(row["job_id"])
    except (BadSetting, TypeError):
        return None
    state = error = order = None
    with suppress(ValueError):
        state = JobState(row["state"])
    with suppress(MessageError, TypeError):
        error = unpack_dataclass(ErrorInfo, row["error"])
    with suppress(MessageError, TypeError):
        request = unpack_dataclass(MorphRequest, row["request"])
        order = Order(request, row["engine"], bool(row["device"]), row["label"], row["created"])
    lean, last_event = (n if isinstance(n, int) else 0 for n in (row["lean"], row["last_event"]))
    return _Remains(row["row"], row["job_id"], order, state, error, lean, last_event)


def _notes(db: sqlite3.Connection, job_id: str) -> dict[int, str]:
    """What the engine had to say about frames, which their files do not hold."""
    notes = dict[int, str]()
    with suppress(sqlite3.DatabaseError, MessageError, TypeError):
        asked = "SELECT body FROM events WHERE job_id = ? AND kind = 'frame-made'"
        for row in db.execute(asked, (job_id,)):
            made = unpack_dataclass(FrameMade, row["body"])
            notes[made.index] = made.note
    return notes
