"""Client: submit, watch, cancel, list and close, blocking or by non-blocking poll. No thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import zmq
import zmq.utils.monitor

from keytween_wire import OLDEST, PROTOCOL, __version__
from keytween_wire.codec import Received, decode, encode
from keytween_wire.connection import Connection
from keytween_wire.errors import (
    DaemonError,
    DaemonNotOurs,
    DaemonTimeout,
    DaemonUnreachable,
    KeyRefused,
    KeytweenError,
    MessageError,
    MessageTooLarge,
    from_wire,
)
from keytween_wire.messages import (
    Accepted,
    Cancel,
    Clear,
    Event,
    Failed,
    FrameMade,
    Hello,
    JobChanged,
    JobInfo,
    Jobs,
    Limits,
    ListJobs,
    MorphRequest,
    Ping,
    Progressed,
    Reply,
    Request,
    Retry,
    Submit,
    Watch,
    Welcome,
)

CREDIT = 64
"""How many events the daemon may send before it hears from us again: a slow client costs it nothing."""
_LINGER_MS = 100
_NO_HANDSHAKE = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)


@dataclass(slots=True)
class _Watched:
    """A job whose events we asked for: the newest number seen, and how many may still come."""

    number: int
    credit: int
    have: tuple[int, ...]


class Client:
    """A connection to the daemon.

    `post` and `poll` never block: they are for Blender's timer. `hello`, `ask` and `events` block up to
    their timeout: they are for scripts. Not for use from several threads.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.limits = Limits()
        self._protocol = PROTOCOL
        # A context of our own: another add-on may end the shared one.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._open_socket()
        self._monitor = self._open_monitor()
        self._connect()
        self._number = 0
        self._silent: set[int] = set()
        self._watched: dict[str, _Watched] = {}
        self._waiting: deque[Received] = deque()
        self._trouble: KeytweenError | None = None
        self._connected = False
        self._heard = time.monotonic()

    def _connect(self) -> None:
        try:
            self._socket.connect(self.connection.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise DaemonError(detail=f"{self.connection.endpoint} is no address") from error

    def _open_socket(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.curve_serverkey = self.connection.server_key.encode()
        socket.curve_publickey = self.connection.client_key.encode()
        socket.curve_secretkey = self.connection.client_secret.encode()
        socket.linger = 0
        socket.maxmsgsize = self.limits.blob_bytes + 1
        socket.handshake_ivl = 3000
        socket.reconnect_ivl = 200
        socket.ipv6 = "[" in self.connection.endpoint
        return socket

    def _open_monitor(self) -> zmq.Socket[bytes]:
        events = (
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED
        )
        monitor = self._socket.get_monitor_socket(events)
        monitor.linger = 0
        return monitor

    # ---- never blocking

    def post(self, message: Request, blobs: Sequence[bytes] = ()) -> int:
        """Queues a message and returns its request number; raises MessageTooLarge or DaemonUnreachable."""
        self._number += 1
        frames = [*encode(message, number=self._number, protocol=self._protocol), *blobs]
        self._check_sizes(frames[1], blobs)
        try:
            self._socket.send_multipart(frames, flags=zmq.DONTWAIT, copy=True)
        except zmq.Again as error:
            raise DaemonUnreachable(endpoint=self.connection.endpoint) from error
        if isinstance(message, Watch):
            self._watched[message.job_id] = _Watched(message.since, message.credit, message.have)
        return self._number

    def _check_sizes(self, body: bytes, blobs: Sequence[bytes]) -> None:
        for name, frame, limit in (
            ("The request", body, self.limits.body_bytes),
            *(("A keyframe", blob, self.limits.blob_bytes) for blob in blobs),
        ):
            if len(frame) > limit:
                raise MessageTooLarge(name=name, size=len(frame), limit=limit)

    def poll(self, *, budget_s: float = 0.003, most: int = 64) -> Iterator[Received]:
        """What has arrived, until nothing is left, `most` messages are out or `budget_s` has passed."""
        deadline = time.monotonic() + budget_s
        for _ in range(most):
            received = self._next()
            if received is None:
                return
            yield received
            if time.monotonic() >= deadline:
                return

    def trouble(self) -> KeytweenError | None:
        """Why it does not work just now: KeyRefused, DaemonNotOurs, DaemonUnreachable, or None."""
        while self._monitor.poll(0):
            self._note(int(zmq.utils.monitor.recv_monitor_message(self._monitor)["event"]))
        return self._trouble

    def _note(self, event: int) -> None:
        endpoint = self.connection.endpoint
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._trouble = None
            if self._connected:
                self._watch_again()
            self._connected = True
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._trouble = KeyRefused(endpoint=endpoint)
        elif event in _NO_HANDSHAKE and not self._connected:
            # ZeroMQ says no more: a CURVE server hangs up on whoever takes it for another.
            self._trouble = DaemonNotOurs(endpoint=endpoint)
        elif not isinstance(self._trouble, KeyRefused | DaemonNotOurs):
            self._trouble = DaemonUnreachable(endpoint=endpoint)

    def _watch_again(self) -> None:
        """After a connection was lost and made anew: the daemon takes us for somebody else."""
        for job_id, watched in self._watched.items():
            self._silent.add(self.post(Watch(job_id, watched.number, CREDIT, watched.have)))

    def _next(self) -> Received | None:
        if self._waiting:
            return self._waiting.popleft()
        while True:
            try:
                frames = self._socket.recv_multipart(flags=zmq.DONTWAIT)
            except zmq.Again:
                return None
            self._heard = time.monotonic()
            received = decode(frames, limits=self.limits, strict=False)
            if received.number in self._silent and not isinstance(received.message, Failed):
                self._silent.discard(received.number)
                continue
            self._count(received)
            return received

    def _count(self, received: Received) -> None:
        """Gives the daemon new credit before the old is used up."""
        message = received.message
        if not isinstance(message, JobChanged | Progressed | FrameMade):
            return
        watched = self._watched.get(message.job_id)
        if watched is None:
            return
        watched.number = max(watched.number, message.number)
        watched.credit -= 1
        if isinstance(message, JobChanged) and message.state.ended:
            del self._watched[message.job_id]
        elif watched.credit <= CREDIT // 2:
            self._silent.add(self.post(Watch(message.job_id, watched.number, CREDIT, watched.have)))

    # ---- blocking

    def hello(self, *, timeout: float = 2.0, name: str = "") -> Welcome:
        """Introduces us; raises DaemonUnreachable, KeyRefused or ProtocolMismatch."""
        try:
            reply = self.ask(Hello(OLDEST, PROTOCOL, name, __version__), timeout=timeout)
        except DaemonTimeout as error:
            raise self.trouble() or DaemonUnreachable(endpoint=self.connection.endpoint) from error
        if not isinstance(reply, Welcome):
            raise MessageError(detail=f"hello was answered by {type(reply).__name__}")
        self.heed(reply)
        return reply

    def heed(self, welcome: Welcome) -> None:
        """From now on keeps to what the daemon said: its limits, and the protocol that both speak."""
        self.limits, self._protocol = welcome.limits, welcome.protocol

    def ask(self, message: Request, blobs: Sequence[bytes] = (), *, timeout: float = 10.0) -> Reply:
        """The reply to a message; raises the error that came back, or DaemonTimeout."""
        number = self.post(message, blobs)
        deadline = time.monotonic() + timeout
        kept: list[Received] = []
        try:
            while (remaining := deadline - time.monotonic()) > 0:
                received = self._wait(min(remaining, 0.1))
                if received is None:
                    self._raise_refusal()
                elif received.number == number:
                    return _reply(received)
                else:
                    kept.append(received)
        finally:
            self._waiting.extend(kept)
        raise DaemonTimeout(seconds=timeout)

    def submit(
        self, job_id: str, request: MorphRequest, blobs: Sequence[bytes], *, label: str = ""
    ) -> JobInfo:
        """Hands a job to the daemon; it is in its store when this returns. Twice is the same as once."""
        request.check()
        if len(request.keyframes) > self.limits.keyframes:
            raise MessageError(detail=f"it has more than {self.limits.keyframes} keyframes")
        reply = self.ask(Submit(job_id, request, label), blobs, timeout=30.0)
        if not isinstance(reply, Accepted):
            raise MessageError(detail=f"submit was answered by {type(reply).__name__}")
        return reply.job

    def events(
        self, job_id: str, *, since: int = 0, have: tuple[int, ...] = (), timeout: float = 30.0
    ) -> Iterator[Received]:
        """A job's events until it has ended. `timeout` is how long the daemon itself may be silent."""
        number = self.post(Watch(job_id, since, CREDIT, have))
        pinged = 0.0
        while True:
            received = self._wait(0.25)
            if received is None:
                pinged = self._prod(pinged, timeout)
                continue
            message = received.message
            if isinstance(message, Failed) and received.number == number:
                raise from_wire(message.error.code, message.error.values)
            if isinstance(message, Event) and message.job_id == job_id:
                yield received
                if isinstance(message, JobChanged) and message.state.ended:
                    return

    def _prod(self, pinged: float, timeout: float) -> float:
        """Asks a silent daemon whether it is there, and gives up when it stays silent."""
        self._raise_refusal()
        now = time.monotonic()
        if now - self._heard > timeout:
            raise self.trouble() or DaemonTimeout(seconds=timeout)
        if now - max(self._heard, pinged) > timeout / 4:
            self._silent.add(self.post(Ping()))
            return now
        return pinged

    def _raise_refusal(self) -> None:
        trouble = self.trouble()
        if isinstance(trouble, KeyRefused):
            raise trouble

    def _wait(self, seconds: float) -> Received | None:
        received = self._next()
        if received is None and self._socket.poll(int(seconds * 1000)):
            received = self._next()
        return received

    def cancel(self, job_id: str) -> None:
        """Cancels a job; one that has ended stays as it is. Raises UnknownJob."""
        self.ask(Cancel(job_id))

    def retry(self, job_id: str) -> bool:
        """Lets a job that failed or was cancelled go on; false for any other. Raises UnknownJob."""
        return bool(getattr(self.ask(Retry(job_id)), "count", 0))

    def jobs(self, job_id: str = "") -> tuple[JobInfo, ...]:
        """The jobs the daemon knows, newest first; with `job_id` that one (raises UnknownJob)."""
        reply = self.ask(ListJobs(job_id))
        return reply.jobs if isinstance(reply, Jobs) else ()

    def clear(self, job_id: str = "") -> int:
        """Forgets ended jobs and their files; returns how many."""
        reply = self.ask(Clear(job_id))
        return getattr(reply, "count", 0)

    def close(self) -> None:
        """Closes within a moment; what is still queued then is dropped. Closing twice is the same as once."""
        if self._context.closed:
            return
        # The monitor must go first: a context with an open monitor never ends.
        self._socket.disable_monitor()
        self._monitor.close(0)
        # libzmq ends the whole process, or waits without end, where a socket with nothing to wait for is
        # closed while its connection breaks in the middle of a message: so it has a moment.
        self._socket.close(_LINGER_MS)
        self._context.destroy(linger=_LINGER_MS)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reply(received: Received) -> Reply:
    message = received.message
    if isinstance(message, Failed):
        raise from_wire(message.error.code, message.error.values)
    if not isinstance(message, Reply):
        raise MessageError(detail=f"a request was answered by {type(message).__name__}")
    return message


__all__ = ["CREDIT", "Client", "Received"]
