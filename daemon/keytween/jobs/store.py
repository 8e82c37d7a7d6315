"""JobStore: jobs, frames and events in SQLite. The queue is a query, and the store is its one owner.

One connection in one thread: SQLite's WAL-reset bug (fixed in 3.51.3) needs two. It keeps the file to itself
while it is open, so that no other program can make the daemon wait.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from keytween.jobs.folder import FrameFile, Order
from keytween.jobs.job import check_job_id, check_move
from keytween_wire.codec import check_packed, error_info, pack_dataclass, unpack_dataclass
from keytween_wire.errors import (
    BadSetting,
    DiskFull,
    JobIdTaken,
    KeytweenError,
    MessageError,
    OutputUnwritable,
    QueueFull,
    StateUnwritable,
    StoreUnusable,
    UnknownJob,
)
from keytween_wire.messages import (
    ErrorInfo,
    Event,
    FrameMade,
    JobChanged,
    JobInfo,
    JobState,
    MorphRequest,
    Progressed,
)

STORE = "jobs.sqlite"
"""What the file is called, in the state folder."""
SCHEMA = 2
COPIES = 3
DAMAGED, IN_USE, NEWER = "damaged", "in use", "newer"
"""Why a store cannot be used."""
OPEN_WITHIN_S = 2.0
"""How long another program may still have the file open at the daemon's start."""
_TABLES = """
CREATE TABLE jobs (
    row INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    engine TEXT NOT NULL,
    label TEXT NOT NULL,
    request BLOB NOT NULL,
    created REAL NOT NULL,
    total INTEGER NOT NULL,
    device INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lean INTEGER NOT NULL DEFAULT 0,
    last_event INTEGER NOT NULL DEFAULT 0,
    error BLOB
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, device, row);
CREATE TABLE frames (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    drawing INTEGER NOT NULL,
    digest TEXT NOT NULL,
    suffix TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (job_id, drawing)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;
"""
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_STEPS = {
    1: """
ALTER TABLE jobs ADD COLUMN device INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lean INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET device = 1 WHERE engine = 'diffmorpher';
DROP INDEX jobs_by_state;
CREATE INDEX jobs_by_state ON jobs (state, device, row);
""",
}
"""What leads from each older schema to the next one."""
_KINDS: dict[str, type[Event]] = {
    "job-changed": JobChanged,
    "progressed": Progressed,
    "frame-made": FrameMade,
}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A job whose row was lost: what was asked for, what is finished, and what else is still known of it.

    `last_event` is a number that no client has seen an event beyond; `notes` are the frames' by index.
    """

    order: Order
    frames: Mapping[int, FrameFile]
    state: JobState = JobState.QUEUED
    error: ErrorInfo | None = None
    lean: int = 0
    last_event: int = 0
    notes: Mapping[int, str] = field(default_factory=dict[int, str])


class JobStore:
    """The jobs on disk. Every method is one transaction, durable when it returns.

    Raises StoreUnusable for a file that is damaged, in use, or of a newer Keytween (`why` among its values
    says which), DiskFull, or StateUnwritable where it may only be read.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=OPEN_WITHIN_S)
        except sqlite3.DatabaseError as error:
            raise self._unopened(error) from error
        self._db.row_factory = sqlite3.Row
        try:
            # First of all, so that SQLite's shared memory beside the file is not needed either.
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate(path)
            self._check()
        except (sqlite3.DatabaseError, KeytweenError) as error:
            with suppress(sqlite3.Error):
                self._db.close()
            if isinstance(error, KeytweenError):
                raise
            raise self._unopened(error) from error

    def _check(self) -> None:
        """Whether SQLite finds the file whole and every row can be read; quick: each start waits for it."""
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(str(found).splitlines()[-1])
        with self._looking():
            for job_id, state, request, error in self._db.execute(
                "SELECT job_id, state, request, error FROM jobs"
            ):
                check_job_id(job_id)
                JobState(state)
                check_packed(request)
                if error:
                    check_packed(error)
            for kind, body in self._db.execute("SELECT kind, body FROM events"):
                _KINDS[kind]
                check_packed(body)

    def check_all(self) -> None:
        """Whether every row is what was written, down to its last value; raises StoreUnusable."""
        with self._looking():
            for row in self._db.execute("SELECT request, error FROM jobs"):
                unpack_dataclass(MorphRequest, row["request"])
                if row["error"]:
                    unpack_dataclass(ErrorInfo, row["error"])
            for row in self._db.execute("SELECT kind, body FROM events"):
                unpack_dataclass(_KINDS[row["kind"]], row["body"])

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Raises in the artist's words what SQLite says, or a row that is not what was written."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error
        except (MessageError, BadSetting, KeyError, ValueError) as error:
            detail = "a job in it is not what was written"
            raise StoreUnusable(name=self._path, detail=detail, why=DAMAGED) from error

    def _unopened(self, error: sqlite3.DatabaseError) -> KeytweenError:
        """Why the file could not be opened."""
        translated = self._translated(error)
        if isinstance(translated, OutputUnwritable):
            return StateUnwritable(name=Path(self._path).parent, detail=str(error))
        return translated

    def _migrate(self, path: Path | str) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise StoreUnusable(name=path, detail="a newer Keytween wrote it", why=NEWER)
        if version == SCHEMA:
            return
        if version:
            self._back_up(Path(path), version)
        steps = "".join(_STEPS[older] for older in range(version, SCHEMA)) if version else _TABLES
        self._db.executescript(f"BEGIN IMMEDIATE;{steps}PRAGMA user_version={SCHEMA};COMMIT;")

    def _back_up(self, path: Path, version: int) -> None:
        """Keeps the file as it is, beside it: an older Keytween could go on from there."""
        kept = path.with_name(f"{path.name}.schema-{version}")
        with closing(sqlite3.connect(kept)) as target:
            self._db.backup(target)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; raises DiskFull, OutputUnwritable or StoreUnusable for what SQLite says."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError):
                raise self._translated(error) from error
            raise

    def _translated(self, error: sqlite3.DatabaseError) -> KeytweenError:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            return DiskFull(name=self._path)
        if name.startswith(("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
            return OutputUnwritable(name=self._path, detail=str(error))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreUnusable(name=self._path, detail="another program has it open", why=IN_USE)
        return StoreUnusable(name=self._path, detail=str(error), why=DAMAGED)

    # ---- coming in

    def known(self, job_id: str, request: MorphRequest) -> JobInfo | None:
        """The job when the same one is in the store already; raises JobIdTaken when another has its id."""
        check_job_id(job_id)
        with self._looking():
            row = self._row(job_id)
            if row is None:
                return None
            if unpack_dataclass(MorphRequest, row["request"]) != request:
                raise JobIdTaken(job_id=job_id)
            return self._info(row)

    def check_room(self, limit: int, *, retry_s: float) -> None:
        """Raises QueueFull where `limit` jobs wait; after `retry_s` there may be room."""
        with self._looking():
            waiting = self._db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
        if waiting >= limit:
            raise QueueFull(limit=limit, retry_s=f"{max(1.0, retry_s):.0f}")

    def submit(self, job_id: str, order: Order) -> JobInfo:
        """Queues a new job, for a worker on the processor or on a device."""
        with self._transaction() as db:
            self._insert(db, job_id, order)
            self._append(JobChanged(job_id, self._next_number(job_id), JobState.QUEUED), "job-changed")
        return self.job(job_id)

    def restore(self, job_id: str, rebuilt: Rebuilt) -> None:
        """Puts a job back whose row was lost, with events that tell all of it from the beginning."""
        state = rebuilt.state
        with self._transaction() as db:
            self._insert(db, job_id, rebuilt.order)
            packed = pack_dataclass(rebuilt.error) if rebuilt.error else None
            db.execute(
                "UPDATE jobs SET state = ?, error = ?, lean = ?, last_event = ? WHERE job_id = ?",
                (state.value, packed, rebuilt.lean, rebuilt.last_event, job_id),
            )
            self._append(JobChanged(job_id, self._next_number(job_id), JobState.QUEUED), "job-changed")
            for index, frame in sorted(rebuilt.frames.items()):
                self._insert_frame(db, job_id, frame, rebuilt.order.request, rebuilt.notes.get(index, ""))
            if state.ended:
                event = JobChanged(job_id, self._next_number(job_id), state, rebuilt.error)
                self._append(event, "job-changed")

    def _insert(self, db: sqlite3.Connection, job_id: str, order: Order) -> None:
        request = order.request
        db.execute(
            "INSERT INTO jobs (job_id, state, engine, device, label, request, created, total)"
            " VALUES (?,'queued',?,?,?,?,?,?)",
            (
                job_id,
                order.engine,
                order.device,
                order.label,
                pack_dataclass(request),
                order.created,
                request.total,
            ),
        )

    # ---- moving on

    def next_queued(self, *, device: bool = False) -> str | None:
        """The id of the job that has waited longest, of those that need a device or of those that do not."""
        asked = "SELECT job_id FROM jobs WHERE state = 'queued' AND device = ? ORDER BY row LIMIT 1"
        with self._looking():
            row = self._db.execute(asked, (device,)).fetchone()
        return row["job_id"] if row else None

    def move(self, job_id: str, state: JobState, *, error: KeytweenError | None = None) -> JobChanged:
        """Moves a job and tells of it; raises UnknownJob or MoveRefused."""
        info = None if error is None else error_info(error)
        with self._transaction() as db:
            row = self._existing(job_id)
            check_move(JobState(row["state"]), state)
            packed = None if info is None else pack_dataclass(info)
            if JobState(row["state"]).ended:
                self._forget_end(db, job_id)
            db.execute("UPDATE jobs SET state = ?, error = ? WHERE job_id = ?", (state.value, packed, job_id))
            if state.ended:
                db.execute("DELETE FROM events WHERE job_id = ? AND kind = 'progressed'", (job_id,))
            event = JobChanged(job_id, self._next_number(job_id), state, info)
            self._append(event, "job-changed")
        return event

    def requeue_running(self) -> tuple[str, ...]:
        """At the daemon's start: whatever ran when it died waits again, in its old place."""
        with self._looking():
            rows = self._db.execute("SELECT job_id FROM jobs WHERE state = 'running' ORDER BY row").fetchall()
        for row in rows:
            self.move(row["job_id"], JobState.QUEUED)
        return tuple(row["job_id"] for row in rows)

    def count_attempt(self, job_id: str) -> int:
        """Notes that a worker died on the job; returns how often since its last new frame."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET attempts = attempts + 1 WHERE job_id = ?", (job_id,))
            return self._existing(job_id)["attempts"]

    def add_frame(self, job_id: str, frame: FrameFile, *, note: str = "") -> FrameMade | None:
        """Notes a finished frame; None when it was known. A new frame forgives earlier attempts."""
        with self._transaction() as db:
            request = unpack_dataclass(MorphRequest, self._existing(job_id)["request"])
            event = self._insert_frame(db, job_id, frame, request, note)
            if event is not None:
                db.execute("UPDATE jobs SET attempts = 0 WHERE job_id = ?", (job_id,))
        return event

    def _insert_frame(
        self, db: sqlite3.Connection, job_id: str, frame: FrameFile, request: MorphRequest, note: str
    ) -> FrameMade | None:
        added = db.execute(
            "INSERT OR IGNORE INTO frames VALUES (?,?,?,?,?)",
            (job_id, frame.index, frame.digest, frame.suffix, frame.size),
        )
        if added.rowcount == 0:
            return None
        event = replace(_frame_made(job_id, self._next_number(job_id), frame, request), note=note)
        self._append(event, "frame-made")
        return event

    def drop_frame(self, job_id: str, index: int) -> None:
        """Forgets a frame whose file is gone or damaged, and that it was ever told of."""
        with self._transaction() as db:
            self._drop_frame(db, job_id, index)

    def _drop_frame(self, db: sqlite3.Connection, job_id: str, index: int) -> None:
        db.execute("DELETE FROM frames WHERE job_id = ? AND drawing = ?", (job_id, index))
        rows = db.execute(
            "SELECT number, body FROM events WHERE job_id = ? AND kind = 'frame-made'", (job_id,)
        )
        for row in rows.fetchall():
            if unpack_dataclass(FrameMade, row["body"]).index == index:
                db.execute("DELETE FROM events WHERE job_id = ? AND number = ?", (job_id, row["number"]))

    def make_again(self, job_id: str, index: int) -> None:
        """Forgets a frame whose file is gone or damaged; a job that was done waits again to make it.

        The event that it was done goes as well: whoever asks for its events waits for the frame.
        """
        with self._transaction() as db:
            self._drop_frame(db, job_id, index)
            if self._existing(job_id)["state"] == JobState.DONE.value:
                self._requeue(db, job_id)

    def retry(self, job_id: str) -> bool:
        """Lets a job that failed or was cancelled wait again, with its frames; raises UnknownJob."""
        with self._transaction() as db:
            state = JobState(self._existing(job_id)["state"])
            if state not in (JobState.FAILED, JobState.CANCELLED):
                return False
            db.execute("UPDATE jobs SET attempts = 0, lean = 0 WHERE job_id = ?", (job_id,))
            self._requeue(db, job_id)
        return True

    def _requeue(self, db: sqlite3.Connection, job_id: str) -> None:
        """An ended job waits again."""
        self._forget_end(db, job_id)
        db.execute("UPDATE jobs SET state = 'queued', error = NULL WHERE job_id = ?", (job_id,))
        self._append(JobChanged(job_id, self._next_number(job_id), JobState.QUEUED), "job-changed")

    def _forget_end(self, db: sqlite3.Connection, job_id: str) -> None:
        """That the job had ended is no event any more: whoever reads its events would stop there."""
        rows = db.execute(
            "SELECT number, body FROM events WHERE job_id = ? AND kind = 'job-changed'", (job_id,)
        )
        for row in rows.fetchall():
            if unpack_dataclass(JobChanged, row["body"]).state.ended:
                db.execute("DELETE FROM events WHERE job_id = ? AND number = ?", (job_id, row["number"]))

    def make_lean(self, job_id: str) -> int:
        """Notes that the job had too little memory and is to make do with less; returns how often so far."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET lean = lean + 1 WHERE job_id = ?", (job_id,))
            return self._existing(job_id)["lean"]

    def progress(self, job_id: str, *, phase: str, step: int, steps: int, eta_s: float) -> Progressed:
        """Notes how far the job is; only the newest is kept."""
        with self._transaction() as db:
            row = self._existing(job_id)
            db.execute("DELETE FROM events WHERE job_id = ? AND kind = 'progressed'", (job_id,))
            done, number = self._frames_done(job_id), self._next_number(job_id)
            event = Progressed(job_id, number, phase, step, steps, eta_s, done, row["total"])
            self._append(event, "progressed")
        return event

    def clear(self, job_id: str = "") -> tuple[str, ...]:
        """Forgets ended jobs, one or all; returns their ids. Raises UnknownJob for one that is not there."""
        if job_id:
            self._existing(job_id)
        with self._transaction() as db:
            rows = db.execute(
                "DELETE FROM jobs WHERE state IN ('done','failed','cancelled')"
                " AND ? IN ('', job_id) RETURNING job_id",
                (job_id,),
            ).fetchall()
        return tuple(row["job_id"] for row in rows)

    # ---- looking

    def job(self, job_id: str) -> JobInfo:
        """One job; raises UnknownJob."""
        with self._looking():
            return self._info(self._existing(job_id))

    def jobs(self, *, most: int = 1000) -> tuple[JobInfo, ...]:
        """The jobs, newest first."""
        with self._looking():
            rows = self._db.execute("SELECT * FROM jobs ORDER BY row DESC LIMIT ?", (most,)).fetchall()
            return tuple(self._info(row) for row in rows)

    def job_ids(self) -> frozenset[str]:
        """The ids of all jobs."""
        with self._looking():
            return frozenset(row["job_id"] for row in self._db.execute("SELECT job_id FROM jobs"))

    def request(self, job_id: str) -> MorphRequest:
        """What a job was asked to do; raises UnknownJob."""
        with self._looking():
            return unpack_dataclass(MorphRequest, self._existing(job_id)["request"])

    def frames(self, job_id: str) -> dict[int, FrameFile]:
        """A job's finished frames by index."""
        with self._looking():
            rows = self._db.execute("SELECT * FROM frames WHERE job_id = ? ORDER BY drawing", (job_id,))
            return {r["drawing"]: FrameFile(r["drawing"], r["digest"], r["suffix"], r["size"]) for r in rows}

    def events(self, job_id: str, since: int, *, most: int) -> tuple[Event, ...]:
        """A job's events after number `since`, oldest first."""
        asked = "SELECT kind, body FROM events WHERE job_id = ? AND number > ? ORDER BY number LIMIT ?"
        with self._looking():
            rows = self._db.execute(asked, (job_id, since, most))
            return tuple(unpack_dataclass(_KINDS[row["kind"]], row["body"]) for row in rows)

    def busy(self) -> bool:
        """Whether any job waits or runs."""
        asked = "SELECT 1 FROM jobs WHERE state IN ('queued','running') LIMIT 1"
        with self._looking():
            return self._db.execute(asked).fetchone() is not None

    def states(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        found = {state.value: 0 for state in JobState}
        found.update(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return found

    def sight(self, schema: int) -> Sight:
        """All of it at a glance, for a report."""
        rows = {
            table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("jobs", "frames", "events")
        }
        return Sight(
            schema, rows, tuple((job, self._readable_request(job.job_id)) for job in self.jobs(most=-1))
        )

    def _readable_request(self, job_id: str) -> MorphRequest | None:
        with suppress(MessageError):
            return self.request(job_id)
        return None

    # ---- inside a transaction

    def _row(self, job_id: str) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()

    def _existing(self, job_id: str) -> sqlite3.Row:
        row = self._row(job_id)
        if row is None:
            raise UnknownJob(job_id=job_id)
        return row

    def _next_number(self, job_id: str) -> int:
        row = self._db.execute(
            "UPDATE jobs SET last_event = last_event + 1 WHERE job_id = ? RETURNING last_event", (job_id,)
        ).fetchone()
        return row["last_event"]

    def _append(self, event: Event, kind: str) -> None:
        self._db.execute(
            "INSERT INTO events VALUES (?,?,?,?)", (event.job_id, event.number, kind, pack_dataclass(event))
        )

    def _frames_done(self, job_id: str) -> int:
        return self._db.execute("SELECT count(*) FROM frames WHERE job_id = ?", (job_id,)).fetchone()[0]

    def _info(self, row: sqlite3.Row) -> JobInfo:
        job_id = row["job_id"]
        found = self._db.execute(
            "SELECT body FROM events WHERE job_id = ? AND kind = 'progressed'", (job_id,)
        ).fetchone()
        now = unpack_dataclass(Progressed, found["body"]) if found else Progressed(job_id, 0, "", 0, 0)
        return JobInfo(
            job_id=job_id,
            state=JobState(row["state"]),
            engine=row["engine"],
            label=row["label"],
            created=row["created"],
            frames_done=self._frames_done(job_id),
            frames_total=row["total"],
            phase=now.phase,
            step=now.step,
            steps=now.steps,
            eta_s=now.eta_s,
            last_event=row["last_event"],
            attempts=row["attempts"],
            lean=row["lean"],
            error=unpack_dataclass(ErrorInfo, row["error"]) if row["error"] else None,
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """What a store holds: its schema, rows by table, and jobs, newest first, with requests where readable."""

    schema: int
    rows: dict[str, int]
    jobs: tuple[tuple[JobInfo, MorphRequest | None], ...]


def look(path: Path) -> Sight | None:
    """What is in the file, read from a copy: a daemon keeps the file to itself. None when there is none.

    Raises StoreUnusable.
    """
    for attempt in range(COPIES):
        try:
            with TemporaryDirectory(prefix="keytween-") as folder:
                return _look(path, Path(folder) / path.name)
        except StoreUnusable:
            # The daemon may have written between two parts of the copy.
            if attempt == COPIES - 1:
                raise
    return None


def _look(path: Path, copy: Path) -> Sight | None:
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    except OSError as error:
        raise StoreUnusable(name=path, detail=error.strerror or str(error)) from error
    if not copy.is_file():
        return None
    with closing(sqlite3.connect(copy)) as db:
        try:
            schema = db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StoreUnusable(name=path, detail=str(error)) from error
    with closing(JobStore(copy)) as store:
        return store.sight(schema)


def _frame_made(job_id: str, number: int, frame: FrameFile, request: MorphRequest) -> FrameMade:
    index = frame.index
    for segment, positions in enumerate(request.positions):
        if index < len(positions):
            return FrameMade(
                job_id, number, frame.index, segment, positions[index], frame.digest, frame.suffix, frame.size
            )
        index -= len(positions)
    raise UnknownJob(job_id=f"{job_id}, drawing {frame.index}")
