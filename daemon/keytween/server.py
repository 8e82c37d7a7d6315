"""The daemon: a ROUTER loop that decodes, asks the store, and encodes. Never blocks, never imports torch."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import filelock
import psutil
import zmq

from keytween import __version__
from keytween.config import Config
from keytween.devices import visible
from keytween.doors import Doors
from keytween.engines import AUTO, choose, engine_infos
from keytween.jobs.dispatch import Dispatch, Patience
from keytween.jobs.folder import FrameFile, JobFolder, Order, remove, sync_folder
from keytween.jobs.link import Said, hear, say
from keytween.jobs.repair import tidy
from keytween.jobs.store import STORE, JobStore
from keytween.logs import COVER, note, warn
from keytween.models import KNOWN, registered, resolve
from keytween.private import own_folder
from keytween_wire import OLDEST, PROTOCOL
from keytween_wire.codec import Received, decode, encode, error_info, number_of
from keytween_wire.connection import Connection
from keytween_wire.errors import (
    BadSetting,
    DaemonAlreadyRunning,
    DaemonError,
    DiskFull,
    EngineUnavailable,
    KeytweenError,
    MessageError,
    OutputUnwritable,
    ProtocolMismatch,
    StateUnwritable,
    StoreUnusable,
    UnknownEngine,
    UnknownMessage,
)
from keytween_wire.messages import (
    Accepted,
    Cancel,
    CheckpointInfo,
    Clear,
    Diffusion,
    Done,
    EngineInfo,
    Failed,
    FrameMade,
    FreeMemory,
    Hello,
    Jobs,
    Limits,
    ListJobs,
    Message,
    MorphRequest,
    Ping,
    Prepare,
    PresetInfo,
    Reply,
    Retry,
    Stop,
    Submit,
    Unwatch,
    Watch,
    Welcome,
)

if TYPE_CHECKING:
    from keytween.metrics import Metrics

TICK_MS = 50
RETRY_MS = 5
COMPLAIN_EVERY_S = 60.0
TELL_EVERY_S = 1.0
MOST_WATCHERS = 4096
PRESETS = {
    "final": "For the result: a true inversion and an even pace",
    "draft": "A first look, at about half the work",
    "paper": "As the method was published, for comparison; the slowest",
}
BURST = 8
"""Events sent to one watcher before the loop looks at everything else again."""


@dataclass(slots=True)
class _Watcher:
    """A client that watches a job: the newest event sent, and how many more it will take."""

    number: int
    credit: int
    have: frozenset[int]
    protocol: int = PROTOCOL


class Server:
    """One daemon. `serve` runs until it is told to stop."""

    def __init__(self, config: Config, *, parent: int = 0) -> None:
        self._config = config
        self._limits = Limits(queued_jobs=config.queued_jobs)
        # Looked for once: finding engines of other packages takes milliseconds.
        self._engines = {info.name: info for info in engine_infos()}
        self._default_engine = choose(AUTO)[0]
        self._parent = _find_parent(parent)
        self._jobs_folder = config.state / "jobs"
        self._watchers: dict[tuple[bytes, str], _Watcher] = {}
        self._pending: set[str] = set()
        self._heard: deque[tuple[bytes, Said]] = deque()
        self._complaint, self._complained_at = "", 0.0
        self._stopping, self._stopped_by = False, ""
        self._stop_when_idle = False
        _refuse_joined(config)
        self._lock = sole_daemon(config)
        self._metrics = _open_metrics(config.metrics)
        self._told_at = 0.0
        self._store = JobStore(config.state / STORE)
        self._doors = Doors(config, self._limits)
        self.connection = self._doors.connection
        COVER.words |= {self.connection.client_secret, self._doors.worker_keys.secret}
        self._dispatch = Dispatch(
            self._store,
            self._jobs_folder,
            self._doors.worker_keys,
            send=self._to_worker,
            changed=self._pending.add,
            patience=Patience(config.max_attempts, config.idle_s, config.hang_s),
            devices=_devices(config.devices),
            max_megapixels=config.max_megapixels,
            log_file=config.log,
        )

    # ---- the loop

    def serve(self, *, ready: Callable[[Connection], None] | None = None) -> None:
        """Runs until told to stop; `ready` is called once clients can connect."""
        tidy(self._store, self._config.state)
        poller = zmq.Poller()
        for socket in (self._doors.zap, self._doors.clients, self._doors.workers):
            poller.register(socket, zmq.POLLIN)
        self.connection.save(self._config.connection)
        note("daemon-ready", version=__version__, protocol=PROTOCOL, endpoint=self.connection.endpoint)
        if self._doors.beyond:
            note("open-to-other-machines", address=str(self._doors.beyond))
        if ready:
            ready(self.connection)
        try:
            while not self._finished():
                if not self._doors.are_kept:
                    note("porter-gone", level=logging.ERROR)
                    raise DaemonError(detail="its porter is gone, so that nobody could come in")
                found = dict(poller.poll(RETRY_MS if self._pending else TICK_MS))
                self._turn(found)
        finally:
            self._close()

    def _turn(self, found: dict[Any, int]) -> None:
        self._doors.refresh()
        if self._doors.zap in found:
            self._doors.answer()
        if self._doors.clients in found:
            self._hear_client()
        try:
            if self._doors.workers in found:
                self._hear_worker()
            self._take_in()
            self._dispatch.tick()
            self._pump()
            self._tell_metrics()
        except Exception as error:  # noqa: BLE001  the loop's boundary: a full disk must not end the daemon
            self._complain(error)
            time.sleep(RETRY_MS / 1000)

    def _finished(self) -> bool:
        if self._stopping:
            return True
        orphaned = self._parent is not None and not self._parent.is_running()
        return (orphaned or self._stop_when_idle) and not self._store.busy()

    def stop(self, *, by: str = "") -> None:
        """Leaves the loop at its next turn."""
        self._stopping, self._stopped_by = True, by

    def _close(self) -> None:
        self._dispatch.stop()
        if self._metrics is not None:
            self._metrics.close()
        with suppress(OSError, KeytweenError):
            if Connection.load(self._config.connection).boot_id == self.connection.boot_id:
                self._config.connection.unlink()
        self._doors.close()
        self._store.close()
        self._lock.release()
        note("daemon-stopped", by=self._stopped_by or None)

    # ---- workers

    def _to_worker(self, identity: bytes, message: Said) -> None:
        with suppress(zmq.ZMQError):  # a worker that just died: the next tick notices
            self._doors.workers.send_multipart([identity, *say(message)], flags=zmq.DONTWAIT)

    def _hear_worker(self) -> None:
        identity, *frames = self._doors.workers.recv_multipart()
        self._heard.append((identity, hear(frames)))

    def _take_in(self) -> None:
        """Heeds what workers said. What cannot be written down is heard again later: it is not lost."""
        while self._heard:
            try:
                self._dispatch.hear(*self._heard[0])
            except (DiskFull, OutputUnwritable, StoreUnusable):
                raise
            except Exception:
                self._heard.popleft()
                raise
            self._heard.popleft()

    def _complain(self, error: Exception) -> None:
        """Logs why the queue cannot go on: once, and again after a while, however often it is tried."""
        said, now = f"{type(error).__name__}: {error}", time.monotonic()
        if said != self._complaint or now > self._complained_at + COMPLAIN_EVERY_S:
            self._complaint, self._complained_at = said, now
            note("queue-stands", level=logging.ERROR, error=error)

    def _tell_metrics(self) -> None:
        """Once a second; nothing unless the settings want them."""
        now = time.monotonic()
        if self._metrics is None or now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        tally, workers = self._dispatch.tally, self._dispatch.processes
        figures = dict[str, Any](
            jobs=self._store.states(),
            frames=tally.frames,
            workers=len(workers),
            workers_started=tally.started,
            workers_lost=tally.lost,
            refused_keys=self._doors.refused,
            refused_strangers=self._doors.turned_away,
            memory={"daemon": _resident(os.getpid()), "workers": sum(map(_resident, workers))},
        )
        self._metrics.tell(figures, [tally.seconds.popleft() for _ in range(len(tally.seconds))])

    # ---- clients

    def _hear_client(self) -> None:
        identity, *frames = self._doors.clients.recv_multipart()
        number, protocol = number_of(frames), PROTOCOL
        try:
            received = decode(frames, limits=self._limits)
            protocol = min(received.protocol, PROTOCOL)
            reply = self._answer(identity, received)
        except KeytweenError as error:
            warn("message-refused", error_code=error.code)
            reply = Failed(error_info(error))
        except Exception as error:  # noqa: BLE001  the loop's boundary: one bad message never ends the daemon
            # Its text may be anything that the message held.
            said = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
            note("message-unanswered", level=logging.ERROR, error=said)
            reply = Failed(error_info(KeytweenError(detail=f"{type(error).__name__}: {error}")))
        if isinstance(reply, Welcome):
            protocol = reply.protocol
        self._send(identity, encode(reply, number=number, protocol=protocol))

    def _send(self, identity: bytes, frames: list[bytes]) -> bool:
        """Whether it went out: not to a client that is gone or does not read."""
        try:
            self._doors.clients.send_multipart([identity, *frames], flags=zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            self._forget(identity)
            return False
        return True

    def _forget(self, identity: bytes) -> None:
        self._watchers = {key: w for key, w in self._watchers.items() if key[0] != identity}

    def _answer(self, identity: bytes, received: Received) -> Reply:
        match message := received.message:
            case Hello():
                return self._welcome(message)
            case Submit():
                return self._submit(message, received.blobs)
            case Watch():
                return self._watch(identity, message, received.protocol)
            case Unwatch():
                return Done(int(self._watchers.pop((identity, message.job_id), None) is not None))
            case Cancel():
                return Done(int(self._dispatch.cancel(message.job_id)))
            case Retry():
                return Done(int(self._retry(message.job_id)))
            case ListJobs():
                job_id = message.job_id
                return Jobs((self._store.job(job_id),) if job_id else self._store.jobs())
            case Clear():
                return self._clear(message)
            case _:
                return Done(self._control(message))

    def _control(self, message: Message) -> int:
        """What concerns the daemon rather than a job; how many workers it touched."""
        match message:
            case Ping():
                return 0
            case Prepare():
                return int(self._dispatch.prepare(self._default_engine))
            case FreeMemory():
                return self._dispatch.rest()
            case Stop():
                self._stop_when_idle, self._stopping = True, not message.when_idle
                self._stopped_by = "a client"
                return 0
            case _:
                raise UnknownMessage(name=type(message).__name__)

    def _welcome(self, hello: Hello) -> Welcome:
        protocol = min(hello.newest, PROTOCOL)
        if protocol < max(hello.oldest, OLDEST):
            raise ProtocolMismatch(
                ours=f"{hello.oldest}..{hello.newest}",
                theirs=PROTOCOL,
                client_version=hello.version,
                daemon_version=__version__,
            )
        return Welcome(
            protocol,
            __version__,
            pid=os.getpid(),
            boot_id=self.connection.boot_id,
            default_engine=self._default_engine,
            engines=tuple(self._engines.values()),
            limits=self._limits,
            checkpoints=tuple(_checkpoints(self._config)),
            presets=tuple(
                PresetInfo(name, PRESETS.get(name, ""), Diffusion(**settings))  # type: ignore[arg-type]
                for name, settings in Diffusion.PRESETS.items()
            ),
            log=str(self._config.log.absolute()),
        )

    def _submit(self, message: Submit, blobs: tuple[bytes, ...]) -> Accepted:
        message = replace(message, request=_with_folder(self._config, message.request))
        known = self._store.known(message.job_id, message.request)
        if known is not None:
            return Accepted(known, existing=True)
        self._check(message.request)
        engine = self._engine(message.request.engine)
        device = engine.device or message.request.may_diffuse
        order = Order(message.request, engine.name, device, message.label[:200], time.time())
        self._store.check_room(self._limits.queued_jobs, retry_s=self._dispatch.usual_s)
        folder = JobFolder(self._jobs_folder, message.job_id)
        folder.create(order, blobs)
        try:
            job = self._store.submit(message.job_id, order)
        except KeytweenError:
            folder.remove()
            raise
        self._pending.add(message.job_id)
        note(
            "job-queued",
            job=message.job_id,
            engine=engine.name,
            keyframes=len(message.request.keyframes),
            drawings=message.request.total,
            bytes=sum(map(len, blobs)),
            wants_device=device,
        )
        return Accepted(job)

    def _check(self, request: MorphRequest) -> None:
        request.check()
        for name, value, limit in (
            ("keyframes", len(request.keyframes), self._limits.keyframes),
            ("in-betweens", request.total, self._limits.drawings),
        ):
            if value > limit:
                raise BadSetting(name=name, value=value, detail=f"one job may have {limit}")

    def _engine(self, name: str) -> EngineInfo:
        info = self._engines.get(self._default_engine if name == AUTO else name)
        if info is None:
            raise UnknownEngine(name=name, choices=", ".join([AUTO, *self._engines]))
        if not info.available:
            raise EngineUnavailable(name=name, detail=info.reason, fix="Choose another engine.")
        return info

    def _watch(self, identity: bytes, message: Watch, protocol: int) -> Done:
        last = self._store.job(message.job_id).last_event
        if message.credit < 1:
            raise MessageError(detail="a watch needs credit")
        # Whoever knows of more than the store does has seen what a disk has lost since: all is told again.
        since = message.since if message.since <= last else 0
        watcher = _Watcher(since, min(message.credit, 1024), frozenset(message.have), protocol)
        self._watchers.pop((identity, message.job_id), None)
        self._watchers[identity, message.job_id] = watcher
        if len(self._watchers) > MOST_WATCHERS:
            # Clients that are gone are noticed when something is sent to them, which may be never.
            del self._watchers[next(iter(self._watchers))]
        self._pending.add(message.job_id)
        return Done(1)

    def _retry(self, job_id: str) -> bool:
        if not self._store.retry(job_id):
            return False
        self._pending.add(job_id)
        note("job-retried", job=job_id)
        return True

    def _clear(self, message: Clear) -> Done:
        cleared = self._store.clear(message.job_id)
        remove(self._jobs_folder, cleared)
        for job_id in cleared:
            note("job-cleared", job=job_id)
        return Done(len(cleared))

    # ---- events

    def _pump(self) -> None:
        """Sends what watchers lack. A job stays pending while one of them could take more at once."""
        pending = set(self._pending)
        self._pending.clear()
        for (identity, job_id), watcher in list(self._watchers.items()):
            if job_id in pending and self._feed(identity, job_id, watcher):
                self._pending.add(job_id)

    def _feed(self, identity: bytes, job_id: str, watcher: _Watcher) -> bool:
        """Sends a burst of events; whether there is more to send."""
        if watcher.credit < 1:
            return False
        events = self._store.events(job_id, watcher.number, most=min(BURST, watcher.credit))
        for event in events:
            frames = encode(event, protocol=watcher.protocol)
            if isinstance(event, FrameMade) and event.index not in watcher.have:
                blob = self._frame_bytes(event)
                if blob is None:
                    # It is made again, and what comes after it in these events may be no more.
                    self._store.make_again(job_id, event.index)
                    return True
                frames.append(blob)
            if not self._send(identity, frames):
                return (identity, job_id) in self._watchers
            watcher.number, watcher.credit = event.number, watcher.credit - 1
        if len(events) == BURST:
            return True
        if self._store.job(job_id).state.ended:
            # Nothing more will happen; who wants to know again asks again.
            self._watchers.pop((identity, job_id), None)
        return False

    def _frame_bytes(self, event: FrameMade) -> bytes | None:
        frame = FrameFile(event.index, event.digest, event.suffix, event.size)
        blob = JobFolder(self._jobs_folder, event.job_id).read(frame)
        if blob is None:
            warn("frame-lost", job=event.job_id, drawing=event.index)
        return blob


def _checkpoints(config: Config) -> Iterator[CheckpointInfo]:
    """The checkpoints that have a name or can be pulled; none where their list is damaged."""
    with suppress(KeytweenError):
        models = registered(config)
        for model in models.values():
            yield CheckpointInfo(model.name, model.source, model.there)
        for name in KNOWN.keys() - models.keys():
            yield CheckpointInfo(name, KNOWN[name][0], available=False, pullable=True)


def _with_folder(config: Config, request: MorphRequest) -> MorphRequest:
    """The request with the folder in place of a checkpoint's name; raises CheckpointUnusable."""
    # Blender ends what it takes for a folder with a slash.
    name = request.diffusion.checkpoint.rstrip("/\\")
    if not name or Path(name).is_absolute():
        return request
    return replace(request, diffusion=replace(request.diffusion, checkpoint=resolve(config, name)))


def _devices(chosen: str) -> tuple[str, ...]:
    """The devices that get a worker each: every GPU, or those that the settings name; never none."""
    if chosen == AUTO:
        return visible() or ("",)
    return tuple(name.strip() for name in chosen.split(",") if name.strip()) or ("",)


def _open_metrics(setting: str) -> Metrics | None:
    """The figures for Prometheus, where the settings want them. Raises BadSetting."""
    if not setting:
        return None
    try:
        from keytween.metrics import Metrics
    except ImportError as error:
        raise BadSetting(name="metrics", value=setting, detail="it needs the extra `metrics`") from error
    return Metrics(setting)


def _resident(pid: int) -> int:
    """A process's memory in bytes; none when it has just ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss
    return 0


def _find_parent(pid: int) -> psutil.Process | None:
    """The process to outlive; one that is gone already counts as gone, not as never named."""
    if not pid:
        return None
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise BadSetting(name="parent", value=pid, detail="there is no such process") from error


def _refuse_joined(config: Config) -> None:
    """Raises BadSetting rather than write over the way to a daemon on another machine."""
    with suppress(DaemonError):
        if Connection.load(config.connection).is_joined:
            detail = "it leads to a daemon on another machine; name another file, or none, for one here"
            raise BadSetting(name="connection", value=config.connection, detail=detail)


def open_state(config: Config) -> None:
    """The daemon's folders are there and can be written to; raises StateUnwritable or FileUnsafe."""
    try:
        own_folder(config.state)
        (config.state / "jobs").mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=config.state):
            pass
        sync_folder(config.state.parent)
    except OSError as error:
        raise StateUnwritable(name=config.state, detail=error.strerror or str(error)) from error


def sole_daemon(config: Config) -> filelock.BaseFileLock:
    """The lock of the one daemon on a state folder; raises DaemonAlreadyRunning or StateUnwritable."""
    open_state(config)
    lock = filelock.FileLock(config.state / "daemon.lock", timeout=0.2)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        pid, endpoint = "?", "?"
        with suppress(KeytweenError):
            other = Connection.load(config.connection)
            pid, endpoint = str(other.pid), other.endpoint
        raise DaemonAlreadyRunning(pid=pid, endpoint=endpoint) from error
    return lock


def serve(config: Config, *, parent: int = 0, announce: Callable[[Connection], None] | None = None) -> None:
    """Runs the daemon in this process until SIGINT, SIGTERM or Stop. Raises DaemonAlreadyRunning."""
    server = Server(config, parent=parent)

    def stop(number: int, _frame: FrameType | None) -> None:
        # Noted later: the signal may have come in the middle of a line.
        server.stop(by=signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.serve(ready=announce)
