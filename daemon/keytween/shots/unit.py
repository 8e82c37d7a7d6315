"""One shot, made: the unit that every executor runs. Run again, it does what is missing and nothing else."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytween.placing import place
from keytween.shots import film, footprint
from keytween.shots.by_daemon import Handed, job_of
from keytween.shots.planning import SUFFIXES, Planned, check_places, prepare
from keytween.shots.records import DONE, FAILED, RUNNING, SCHEMA, Record, Shelf, Stored, here
from keytween.shots.shot import Shot
from keytween_wire import __version__
from keytween_wire.errors import DiskFull, EngineFailed, JobError, KeytweenError, OutputUnwritable, ShotBusy

if TYPE_CHECKING:
    from keytween.config import Config
    from keytween.engines.base import Engine
    from keytween.images import Picture

Advance = Callable[[float, str], None]
"""Called with the share that is done, 0..1, and the phase in the artist's words."""

SHEET_PICTURES = 7
"""How many pictures a contact sheet shows at most; the first and the last are always among them."""

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""What `placing` calls a file until it is whole."""

_LIBRARIES = ("numpy", "opencv-python-headless", "openimageio", "torch", "diffusers")


@dataclass(slots=True)
class Maker:
    """Makes shots one after the other in this process; engines stay open between them.

    `results` is the batch's folder of records. `fresh` makes everything again, `overwrite` replaces files
    that are not the batch's own, `daemon` has the running daemon draw.
    """

    config: Config
    results: Path
    overwrite: bool = False
    fresh: bool = False
    daemon: bool = False
    _engines: dict[str, Engine] = field(default_factory=dict)

    def make(self, shot: Shot, advance: Advance) -> tuple[Record, bool]:
        """The shot's record, and whether anything had to be done for it.

        Raises ShotBusy when another process makes it, and what keeps it from being made; the record on disk
        says that too.
        """
        shelf = Shelf(self.results, shot.id)
        try:
            with shelf.locked():
                return self._under_lock(shot, shelf, advance)
        except OSError as error:
            raise _translated(error, shelf.folder) from error

    def _under_lock(self, shot: Shot, shelf: Shelf, advance: Advance) -> tuple[Record, bool]:
        old = shelf.load() or {}
        began = time.time()
        try:
            planned = prepare(shot, shelf.root, self.config, known=old.get("keyframes", ()))
            if not self.fresh and is_done(old, planned):
                return old, False
            check_places(planned, shelf, overwrite=self.overwrite)
            job = job_of(planned.request_hash) if self.daemon else ""
            run = _Run(planned, shelf, old, fresh=self.fresh, advance=advance, job=job)
            run.begin()
            return run.finish(self._drawn(run)), True
        except (KeytweenError, MemoryError, OSError) as error:
            known = _known(error, shot, shelf)
            _note_failure(shelf, shot, known, began)
            raise known from error

    def _drawn(self, run: _Run) -> _Run:
        from keytween.render import open_keyframes

        request = run.planned.request
        blobs = [path.read_bytes() for path in run.planned.paths]
        keyframes = open_keyframes(request, blobs, max_megapixels=self.config.max_megapixels)
        if len(run.skip) < request.total and self.daemon:
            self._draw_by_daemon(run, blobs)
        elif len(run.skip) < request.total:
            self._draw_here(run, keyframes)
        run.add_keyframes(keyframes, blobs)
        return run

    def _draw_here(self, run: _Run, keyframes: Sequence[Picture]) -> None:
        from keytween.engines.base import Frame
        from keytween.images import encode
        from keytween.render import render

        request = run.planned.request
        made: Any = render(request, keyframes, self._engine(request.engine), skip=run.skip)
        with _study_once(run.planned, self.config.state / "fits") as learnt, closing(made):
            for step in made:
                if isinstance(step, Frame):
                    data, suffix = encode(step.picture, request.file_format)
                    run.add(step.index, data, suffix, note=step.note)
                else:
                    run.tell(step.progress.phase, step.progress.step, step.progress.steps)
                if isinstance(step, Frame) or step.progress.phase == "drawing":
                    learnt()

    def _draw_by_daemon(self, run: _Run, blobs: Sequence[bytes]) -> None:
        shot, request = run.planned.shot, run.planned.request
        handed = Handed(self.config, run.job, request, blobs, f"Shot {shot.id}", set(run.skip))
        with closing(handed.drawings()) as drawings:  # type: ignore[type-var]
            for made in drawings:
                if isinstance(made, tuple):
                    frame, data = made
                    run.add(frame.index, data, frame.suffix, note=frame.note)
                else:
                    run.tell(made.phase, made.step, made.steps)

    def _engine(self, name: str) -> Engine:
        from keytween.engines import open_engine

        if name not in self._engines:
            self._engines[name] = open_engine(name, fits=self.config.state / "fits")
        return self._engines[name]


def is_done(record: Record, planned: Planned) -> bool:
    """Whether the record is of this very request, finished, with every file still as it was written."""
    if record.get("state") != DONE or record.get("request") != planned.request_hash:
        return False
    stored = [Stored.from_json(frame, planned.output) for frame in record["frames"]]
    others = [planned.output / record[name] for name in ("sheet", "film") if record.get(name)]
    return all(s.intact for s in stored) and all(path.is_file() for path in others)


@contextmanager
def _study_once(planned: Planned, fits: Path) -> Iterator[Callable[[], None]]:
    """While another process studies one of these keyframes, waits: what it learns serves both shots.

    Gives what lets the others go on, for when the study is over.
    """
    from filelock import FileLock

    with ExitStack() as held:
        if planned.request.may_diffuse:
            folder = fits / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            # In one order everywhere, so that no two processes wait for each other.
            for digest in sorted({source.sha256 for source in planned.sources}):
                held.enter_context(FileLock(folder / digest))
        yield held.close


@dataclass(slots=True)
class _Run:
    """One making of a shot: what was there before, what is in place now, and what the record will say."""

    planned: Planned
    shelf: Shelf
    old: Record
    fresh: bool
    advance: Advance
    job: str = ""
    began: float = field(default_factory=time.time)
    placed: dict[str, Stored] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    drawn: int = 0
    said: float = 0.0

    def begin(self) -> None:
        """Takes over what is whole, and says on disk that the shot is made, with every file it may leave."""
        footprint.forget()
        self._sweep_unfinished()
        request = self.planned.request_hash
        if self.fresh:
            self.shelf.journal.unlink(missing_ok=True)
        same = self.old.get("request") == request
        found = self.shelf.begin_journal(request)
        self.placed = {cel: stored for cel, stored in found.items() if stored.intact}
        self.notes = dict.fromkeys(self.old.get("notes", ())) if same else {}
        self.shelf.save(
            {**self._head(), "state": RUNNING, "files": sorted({*self._old_files(), *self._files()})}
        )

    def _sweep_unfinished(self) -> None:
        """Removes what a kill left half written, in folders that are this shot's alone."""
        folders = {self.shelf.folder}
        if "{shot" in str(Path(self.planned.shot.output).parent):
            folders |= {self.planned.file(frame).parent for frame, _ in self.planned.frames()}
        for folder in folders:
            for path in folder.glob(".*.tmp"):
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _head(self) -> Record:
        same = self.old.get("request") == self.planned.request_hash
        return {
            "schema": SCHEMA,
            "shot": self.planned.shot.id,
            "request": self.planned.request_hash,
            "engine": self.planned.request.engine,
            "keyframes": [source.as_json() for source in self.planned.sources],
            "attempts": self.old.get("attempts", 0) + 1 if same else 1,
            **({"job": self.job} if self.job else {}),
            "drawings": self.planned.request.total,
            "megapixels": round(self.planned.megapixels, 4),
            "fps": self.planned.shot.fps,
            "versions": versions(),
            "started": self.began,
            **here(),
        }

    def _old_files(self) -> Sequence[str]:
        return self.old.get("files", ())

    def _files(self) -> Iterator[str]:
        """Every name that a frame may get; which suffix it will be is known once one is drawn."""
        for frame, _ in self.planned.frames():
            yield from (self.shelf.named(f"{self.planned.file(frame)}{suffix}") for suffix in SUFFIXES)

    @property
    def skip(self) -> frozenset[int]:
        """The drawings that are in place already."""
        return frozenset(int(cel[1:]) for cel in self.placed if cel.startswith("d"))

    def tell(self, phase: str, step: int, steps: int) -> None:
        """Says how far the shot is: by drawings, and within the first one by the phase's steps."""
        within = step / steps if steps and not self.drawn else 0.0
        total = self.planned.request.total + 1
        # An estimate within the first drawing may have run ahead; nobody likes to see a bar go back.
        self.said = max(self.said, min(1.0, (len(self.skip) + 0.9 * within) / total))
        self.advance(self.said, phase)

    def add(self, index: int, data: bytes, suffix: str, *, note: str) -> None:
        """Puts a drawing's file in place, under the first timeline frame that shows it."""
        if note:
            self.notes[note] = None
        self.drawn += 1
        self._place(f"d{index}", data, suffix)
        self.tell("drawing", 0, 0)

    def add_keyframes(self, keyframes: Sequence[Picture], blobs: Sequence[bytes]) -> None:
        """Puts the keyframes beside the drawings: their own bytes where the format allows."""
        from keytween.images import encode

        suffix = Path(next(s.file for cel, s in self.placed.items() if cel.startswith("d"))).suffix
        for index, (path, blob) in enumerate(zip(self.planned.paths, blobs, strict=True)):
            cel = f"k{index}"
            kept = self.placed.get(cel)
            if kept is None or Path(kept.file).suffix != suffix:
                own = path.suffix.lower() == suffix
                chosen = self.planned.request.file_format
                if chosen == "auto":
                    chosen = "png8" if suffix == ".png" else "exr-half"
                    chosen = _wide(chosen, keyframes[index])
                data = blob if own else encode(keyframes[index], chosen)[0]
                self._place(cel, data, suffix)

    def _numbers(self, cel: str) -> list[int]:
        return [frame for frame, shown in self.planned.frames() if shown == cel]

    def _place(self, cel: str, data: bytes, suffix: str) -> None:
        numbers = self._numbers(cel)
        if not numbers:
            return
        path = _beside(self.planned.file(numbers[0]), suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        place(data, path)
        stored = Stored.of(path, data)
        self.shelf.note(cel, stored)
        self.placed[cel] = stored

    def finish(self, _drawn: _Run) -> Record:
        """Repeats held drawings, sweeps what an earlier request left, makes sheet and film; the record."""
        frames = self._all_frames()
        self._sweep({frame["file"] for frame in frames})
        self.advance(self.planned.request.total / (self.planned.request.total + 1), "measuring")
        record = {
            **self._head(),
            "state": DONE,
            "frames": frames,
            "files": [f["file"] for f in frames],
        }
        record |= self._looked_at(frames)
        record |= {
            "notes": list(self.notes),
            "drawn": self.drawn,
            "seconds": round(time.time() - self.began, 3),
            "memory_bytes": footprint.peak_bytes(),
            "ended": time.time(),
        }
        self.shelf.save(record)
        self.advance(1.0, "done")
        return record

    def _all_frames(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for frame, cel in self.planned.frames():
            source = self.placed[cel]
            path = _beside(self.planned.file(frame), Path(source.file).suffix)
            stored = source if str(path) == source.file else _repeated(source, path)
            found.append({"frame": frame, "cel": cel, **stored.as_json(self.shelf.root)})
        return found

    def _sweep(self, kept: set[str]) -> None:
        """Removes frames of an earlier request that this one does not have; nothing else."""
        for file in set(self._old_files()) - kept:
            (self.shelf.root / file).unlink(missing_ok=True)

    def _looked_at(self, frames: Sequence[Mapping[str, Any]]) -> Record:
        """Contact sheet, pacing and film, as the record names them."""
        from keytween.report import evenness, strip

        root = self.shelf.root
        first: dict[str, Path] = {}
        for frame in frames:
            first.setdefault(frame["cel"], root / frame["file"])
        pictures = list(first.values())
        shown = _spread(pictures, SHEET_PICTURES)
        place(strip(shown, cell=120), self.shelf.sheet)
        pacing = evenness(pictures)
        record: Record = {
            "sheet": self.shelf.named(self.shelf.sheet),
            "sheet_pictures": len(shown),
            "pacing": {
                "steps": [round(step, 6) for step in pacing.steps],
                "evenness": round(pacing.evenness, 4),
            },
        }
        shot = self.planned.shot
        if shot.film != "none":
            target = self.shelf.film(film.SUFFIXES[shot.film])
            film.write(shot.film, [root / f["file"] for f in frames], target, fps=shot.fps)
            record["film"] = self.shelf.named(target)
        return record


def _wide(chosen: str, picture: Picture) -> str:
    """The format of that suffix that loses nothing of the picture."""
    wide = picture.pixels.dtype.name
    if chosen == "png8":
        return "png8" if wide == "uint8" else "png16"
    return "exr-float" if wide == "float32" else "exr-half"


def _beside(stem: Path, suffix: str) -> Path:
    """The file's name with its suffix; `with_suffix` would take the frame's number for one."""
    return stem.with_name(stem.name + suffix)


def _repeated(source: Stored, path: Path) -> Stored:
    """The same picture under another frame's name: a link where the disk has them, else a copy."""
    kept = replace(source, file=str(path))
    if kept.intact:
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(source.file, path)
    except OSError:
        shutil.copy2(source.file, path)
    return replace(kept, mtime_ns=path.stat().st_mtime_ns)


def _spread(pictures: Sequence[Path], count: int) -> list[Path]:
    if len(pictures) <= count:
        return list(pictures)
    return [pictures[round(i * (len(pictures) - 1) / (count - 1))] for i in range(count)]


def versions() -> dict[str, str]:
    """What made the frames: ours, Python's and the libraries' versions."""
    found = {"keytween": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# ---- failures


def _known(error: Exception, shot: Shot, shelf: Shelf) -> KeytweenError:
    if isinstance(error, MemoryError):
        return JobError(detail="there was not enough memory for it")
    if isinstance(error, OSError):
        return _translated(error, Path(error.filename or shelf.root))
    assert isinstance(error, KeytweenError)
    return error


def _translated(error: OSError, folder: Path) -> KeytweenError:
    from keytween.jobs.folder import translate

    known = translate(error, folder)
    return known if isinstance(known, DiskFull | OutputUnwritable) else EngineFailed(name="?", detail=error)


def _note_failure(shelf: Shelf, shot: Shot, error: KeytweenError, began: float) -> None:
    """Leaves a record of the failure; on a full disk there may be no room even for that."""
    with suppress(OSError):
        shelf.save(failure(shelf.load() or {}, shot.id, error, began))


def failure(old: Record, shot: str, error: KeytweenError, began: float) -> Record:
    """The record of a shot that failed, over what is known of it."""
    ended = time.time()
    said = {"code": error.code, "message": error.message, "next_step": error.advice, "values": error.values}
    kept = {name: value for name, value in old.items() if name not in ("frames", "pacing", "sheet", "film")}
    return {
        **kept,
        "schema": SCHEMA,
        "shot": shot,
        "state": FAILED,
        "error": said,
        "attempts": old.get("attempts", 1),
        "seconds": round(ended - began, 3),
        "memory_bytes": footprint.peak_bytes(),
        "ended": ended,
        **here(),
    }


def note_death(shelf: Shelf, shot: str, error: KeytweenError, began: float) -> None:
    """Leaves the record of a shot whose process died or was ended, unless somebody else makes it now."""
    with suppress(OSError, ShotBusy), shelf.locked():
        shelf.save(failure(shelf.load() or {}, shot, error, began))
