"""The child process: opens the engine, drives render(), reports, cleans up."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import psutil
import zmq

from keytween.cover import words_of
from keytween.jobs.folder import FrameFile, JobFolder
from keytween.jobs.link import (
    Abandon,
    Ended,
    Found,
    FrameReady,
    LinkKeys,
    Open,
    Ready,
    Run,
    Said,
    Working,
    call_home,
    hear,
    say,
)
from keytween.logs import COVER, begin, note, warn
from keytween_wire.codec import error_info
from keytween_wire.errors import EngineFailed, JobError, KeytweenError, OutOfMemory
from keytween_wire.messages import MorphRequest

if TYPE_CHECKING:
    from keytween.engines.base import Engine

_PR_SET_PDEATHSIG = 1
LOCK_TIMEOUT_S = 15.0
REPORT_EVERY_S = 0.1
SAY_READY_EVERY_S = 5


class Engines:
    """The engines of this process: one that is open stays open, with its checkpoint, for the next job."""

    def __init__(self, fits: Path) -> None:
        self._fits = fits
        self._open: dict[str, Engine] = {}

    def get(self, name: str, *, lean: int = 0) -> Engine:
        """The engine that `name` means, using less memory the more `lean`.

        Raises UnknownEngine or EngineUnavailable.
        """
        # Imported here: a job with nothing left to do needs no engine.
        from keytween.engines import open_engine
        from keytween.engines.base import Frugal

        if name not in self._open:
            self._open.clear()
            self._open[name] = open_engine(name, fits=self._fits)
        engine = self._open[name]
        if isinstance(engine, Frugal):
            engine.make_do(lean)
        return engine


def compute(
    folder: JobFolder,
    request: MorphRequest,
    engines: Engines,
    *,
    max_megapixels: float,
    lean: int = 0,
    tell: Callable[[Said], None],
) -> Generator[None, None, None]:
    """Computes what the job lacks, a step at a time: the caller may close it between any two."""
    with _sole_worker(folder):
        finished = folder.finished()
        for frame in finished.values():
            tell(_ready(folder, frame, computed=False))
        tell(Found(folder.job_id, tuple(sorted(finished))))
        yield
        if len(finished) < request.total:
            keyframes = folder.keyframes(request)
            engine = engines.get(request.engine, lean=lean)
            yield from _compute_rest(folder, request, keyframes, engine, finished, max_megapixels, tell)


def _compute_rest(
    folder: JobFolder,
    request: MorphRequest,
    blobs: Sequence[bytes],
    engine: Engine,
    finished: Mapping[int, FrameFile],
    max_megapixels: float,
    tell: Callable[[Said], None],
) -> Iterator[None]:
    # Imported here: the engines' libraries are heavy, and a job with nothing left to do needs none.
    from keytween.engines.base import Frame
    from keytween.images import encode
    from keytween.render import open_keyframes, render

    keyframes = open_keyframes(request, blobs, max_megapixels=max_megapixels)
    last_report = 0.0
    for made in render(request, keyframes, engine, skip=frozenset(finished)):
        if isinstance(made, Frame):
            data, suffix = encode(made.picture, request.file_format)
            frame = folder.store(made.index, data, suffix)
            tell(_ready(folder, frame, computed=True, note=made.note))
        elif time.monotonic() - last_report >= REPORT_EVERY_S:
            last_report = time.monotonic()
            step = made.progress
            tell(Working(folder.job_id, step.phase, step.step, step.steps, made.eta_s))
        yield


def _ready(folder: JobFolder, frame: FrameFile, *, computed: bool, note: str = "") -> FrameReady:
    return FrameReady(folder.job_id, frame.index, frame.digest, frame.suffix, frame.size, computed, note)


@contextmanager
def _sole_worker(folder: JobFolder) -> Iterator[None]:
    """Waits for a worker of an earlier daemon that has not noticed yet that it is alone."""
    lock = filelock.FileLock(folder.lock, timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise JobError(detail="another worker still holds it") from error
    try:
        yield
    finally:
        lock.release()


class Worker:
    """Takes one job at a time from the daemon."""

    def __init__(self, keys: LinkKeys) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = call_home(self._context, keys)
        self._engines: Engines | None = None
        self._drawings = 0

    def serve(self) -> None:
        """Works until the daemon is gone (the watcher of standard input ends the process)."""
        self._tell(Ready(os.getpid()))
        while True:
            if not self._socket.poll(SAY_READY_EVERY_S * 1000):
                self._tell(Ready(os.getpid()))
                continue
            message = hear(self._socket.recv_multipart())
            if isinstance(message, Run):
                self._tell(self._run(message))
            elif isinstance(message, Open):
                self._open(message)

    def _open(self, message: Open) -> None:
        """Loads what a first job would have to load; what goes wrong here, that job will tell."""
        from keytween import render

        began = time.monotonic()
        with suppress(KeytweenError):
            self._engines_in(Path(message.jobs)).get(message.engine)
        note("engine-ready", engine=message.engine, through=render.__name__, seconds=time.monotonic() - began)

    def _run(self, run: Run) -> Ended:
        """Does a job, and notes how it went without a word that the artist wrote."""
        with COVER.hiding(words_of(run.request)):
            began, self._drawings = time.monotonic(), 0
            note("job-begun", job=run.job_id, engine=run.request.engine, lean=run.lean)
            ended = self._work(run)
            note(
                "job-left",
                job=run.job_id,
                seconds=time.monotonic() - began,
                drawings=self._drawings,
                memory_mb=psutil.Process().memory_info().rss / 1e6,
                abandoned=ended.abandoned,
                error_code=ended.error.code if ended.error else None,
            )
            return ended

    def _work(self, run: Run) -> Ended:
        folder = JobFolder(Path(run.folder).parent, run.job_id)
        engines, most = self._engines_in(folder.jobs), run.max_megapixels
        steps = compute(folder, run.request, engines, max_megapixels=most, lean=run.lean, tell=self._tell)
        try:
            for _ in steps:
                if self._told_to_abandon(run.job_id):
                    return Ended(run.job_id, abandoned=True)
        except OutOfMemory as error:
            warn("memory-short", job=run.job_id, error=error)
            return Ended(run.job_id, error=error_info(error), starved=True)
        except MemoryError as error:
            warn("memory-short", job=run.job_id, error=error, left=memory_left())
            return Ended(run.job_id, error=error_info(OutOfMemory(detail=memory_left())), starved=True)
        except KeytweenError as error:
            _note_refusal(run.job_id, error)
            return Ended(run.job_id, error=error_info(error))
        except Exception as error:  # noqa: BLE001  the worker's boundary: whatever it is, the job must end
            failed = EngineFailed(name=run.request.engine, detail=f"{type(error).__name__}: {error}")
            _note_refusal(run.job_id, failed.with_traceback(error.__traceback__))
            return Ended(run.job_id, error=error_info(failed))
        finally:
            steps.close()
        return Ended(run.job_id)

    def _engines_in(self, jobs: Path) -> Engines:
        if self._engines is None:
            self._engines = Engines(jobs.parent / "fits")
        return self._engines

    def _told_to_abandon(self, job_id: str) -> bool:
        while self._socket.poll(0):
            message = hear(self._socket.recv_multipart())
            if isinstance(message, Abandon) and message.job_id == job_id:
                return True
        return False

    def _tell(self, message: Said) -> None:
        self._drawings += isinstance(message, FrameReady) and message.computed
        self._socket.send_multipart(say(message))


def _note_refusal(job_id: str, error: KeytweenError) -> None:
    """A mistake in an engine is an error; what an artist can mend is not."""
    if isinstance(error, EngineFailed):
        note("engine-failed", level=logging.ERROR, job=job_id, error=error)
    else:
        warn("job-refused", job=job_id, error=error)


def memory_left() -> str:
    """How much of the machine's memory is free, as a sentence's part."""
    memory = psutil.virtual_memory()
    return f"{memory.available / 1e9:.1f} GB of {memory.total / 1e9:.1f} GB were free"


def _die_with_parent() -> None:
    """Has Linux kill us with the daemon: what hangs in a driver's call never gets to see a closed input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave_with_parent() -> None:
    """Ends the process when the daemon's end of our standard input closes, however it died."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def main() -> None:
    """The child's entry: keys and log on the first line of standard input, then work."""
    _die_with_parent()
    # A crash in a library's own code says where it was on the error output, which goes beside the log.
    faulthandler.enable()
    told = json.loads(sys.stdin.buffer.readline())
    keys = LinkKeys(**told["keys"])
    if told["log"]:
        begin(Path(told["log"]), process="worker", device=told["device"])
        COVER.words |= {keys.secret}
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        Worker(keys).serve()
    except Exception as error:
        note("worker-failed", level=logging.ERROR, error=error)
        raise


if __name__ == "__main__":
    main()
