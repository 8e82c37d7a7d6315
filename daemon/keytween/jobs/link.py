"""The link between the daemon and its worker: what they say to each other, over CURVE like everything."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import zmq

from keytween.keys import KeyPair
from keytween_wire.codec import pack_dataclass, unpack_dataclass
from keytween_wire.errors import MessageError
from keytween_wire.messages import ErrorInfo, MorphRequest


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """What a worker needs to call home; it gets it on its standard input, where nobody else can read."""

    endpoint: str
    server_key: str
    public: str
    secret: str

    def as_json(self) -> dict[str, str]:
        """Plain text values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker: I am up and idle. It says so again every few seconds, in case that was lost."""

    pid: int


@dataclass(frozen=True, slots=True)
class Run:
    """Daemon: compute this job; `folder` is the job's folder, `lean` how often it had too little memory."""

    job_id: str
    folder: str
    request: MorphRequest
    max_megapixels: float
    lean: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """Daemon: open this engine, jobs for it will come; `jobs` is the folder that they will be in."""

    engine: str
    jobs: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Daemon: leave this job, it was cancelled."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Worker: these drawings were finished before I began."""

    job_id: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Working:
    """Worker: how far I am."""

    job_id: str
    phase: str
    step: int
    steps: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class FrameReady:
    """Worker: this drawing's file is in place. `computed` is false when it was found there."""

    job_id: str
    index: int
    digest: str
    suffix: str
    size: int
    computed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """Worker: I am through with this job; without an error it is done, unless I was told to abandon it.

    `starved` says that memory ran out; the error tells how much there was.
    """

    job_id: str
    abandoned: bool = False
    error: ErrorInfo | None = None
    starved: bool = False


Said = Ready | Run | Open | Abandon | Found | Working | FrameReady | Ended
_KINDS: dict[bytes, type[Any]] = {
    cls.__name__.encode(): cls for cls in (Ready, Run, Open, Abandon, Found, Working, FrameReady, Ended)
}


def say(message: Said) -> list[bytes]:
    """The message as frames."""
    return [type(message).__name__.encode(), pack_dataclass(message)]


def hear(frames: list[bytes]) -> Said:
    """The message in the frames; raises MessageError."""
    if len(frames) != 2 or frames[0] not in _KINDS:
        raise MessageError(detail="the worker link carried something else")
    return unpack_dataclass(_KINDS[frames[0]], frames[1])


def call_home(context: zmq.Context[Any], keys: LinkKeys) -> zmq.Socket[bytes]:
    """The worker's socket."""
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = keys.server_key.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
    socket.linger = 1000
    # The same after every reconnect: the daemon knows its worker by it.
    socket.routing_id = f"worker-{os.getpid()}".encode()
    socket.connect(keys.endpoint)
    return socket


def worker_keys(endpoint: str, server: KeyPair, worker: KeyPair) -> LinkKeys:
    """The keys that one start of the daemon hands to its workers."""
    return LinkKeys(endpoint, server.public, worker.public, worker.secret)
