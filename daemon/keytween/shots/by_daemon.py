"""A shot's drawings from the running daemon: one queue for its devices, whoever asks, Blender or a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from keytween.config import Config
from keytween_wire.client import Client, Received
from keytween_wire.connection import Connection
from keytween_wire.errors import (
    Cancelled,
    DaemonNotRunning,
    DaemonTimeout,
    DaemonUnreachable,
    KeyRefused,
    KeytweenError,
    UnknownJob,
    from_wire,
)
from keytween_wire.messages import FrameMade, JobChanged, JobState, MorphRequest, Progressed

RETURN_WITHIN_S = 60.0
"""A daemon that is gone for longer than this does not come back, as far as a shot is concerned."""
LOOK_EVERY_S = 0.5
SILENT_S = 5.0
"""A daemon that answers no ping for so long is taken for gone, and looked for again."""
_AWAY = (DaemonNotRunning, DaemonUnreachable, DaemonTimeout, KeyRefused)
"""What a daemon that is being restarted looks like; its successor has other keys."""


def job_of(request_hash: str) -> str:
    """The job's id: a batch that was killed and goes on finds the job that it had handed over."""
    return request_hash[:32]


@dataclass(slots=True)
class Handed:
    """A request in the daemon's hands. `have` are the drawings that are in place already."""

    config: Config
    job_id: str
    request: MorphRequest
    blobs: Sequence[bytes]
    label: str
    have: set[int]
    _since: int = 0
    _lost_at: float = field(default=0.0)

    def drawings(self) -> Iterator[tuple[FrameMade, bytes] | Progressed]:
        """What the daemon makes, until all is there; one that is restarted meanwhile is waited for.

        Raises Cancelled, what the job failed with, and DaemonError when nobody answers any more.
        """
        while True:
            try:
                yield from self._listened()
                return
            except _AWAY:
                now = time.monotonic()
                self._lost_at = self._lost_at or now
                if now - self._lost_at > RETURN_WITHIN_S:
                    raise
                time.sleep(LOOK_EVERY_S)

    def _listened(self) -> Iterator[tuple[FrameMade, bytes] | Progressed]:
        with Client(Connection.load(self.config.connection)) as client:
            client.hello(name="keytween batch")
            self._hand_over(client)
            self._lost_at = 0.0
            have = tuple(sorted(self.have))
            for received in client.events(self.job_id, since=self._since, have=have, timeout=SILENT_S):
                yield from self._heard(received)
            # The frames are ours now; the daemon need not keep them.
            client.clear(self.job_id)

    def _hand_over(self, client: Client) -> None:
        """Hands the job over, or finds it there; one that had failed or was cancelled begins anew."""
        job = client.submit(self.job_id, self.request, self.blobs, label=self.label)
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            client.clear(self.job_id)
            client.submit(self.job_id, self.request, self.blobs, label=self.label)
            self._since = 0

    def _heard(self, received: Received) -> Iterator[tuple[FrameMade, bytes] | Progressed]:
        message = received.message
        match message:
            case FrameMade(index=index) if received.blobs and index not in self.have:
                yield message, received.blobs[0]
                self.have.add(index)
            case Progressed():
                yield message
            case JobChanged(state=JobState.CANCELLED):
                raise Cancelled()
            case JobChanged(state=JobState.FAILED, error=error) if error:
                raise from_wire(error.code, error.values)
            case _:
                pass
        self._since = max(self._since, getattr(message, "number", 0))


def give_up(config: Config, job_id: str) -> None:
    """Cancels a job that nobody waits for any more; a daemon that is gone has nothing to cancel."""
    with suppress(KeytweenError), Client(Connection.load(config.connection)) as client:
        client.hello(name="keytween batch")
        with suppress(UnknownJob):
            client.cancel(job_id)


def check(config: Config) -> None:
    """Raises DaemonError when no daemon answers."""
    with Client(Connection.load(config.connection)) as client:
        client.hello(name="keytween batch")
