"""The porter: takes connections at the daemon's address, and lets few strangers stand there at a time.

ZeroMQ reads what a peer announces before it knows whose key it has: hundreds of megabytes, from anybody. So
its own socket is in a folder that only this user may enter, and this passes bytes on to it: next to nothing
from a peer that it has not answered as one with a key, as much as comes from all others.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from keytween.address import Address
from keytween.logs import warn
from keytween_wire.errors import NotListening

MOST_STRANGERS = 32
"""How many connections may be without a key at a time."""
PATIENCE_S = 3.0
"""How long one may take to show its key, as ZeroMQ's own handshake."""
MAKE_ROOM_AFTER_S = 0.3
"""Who has waited for so long goes when others wait outside. A handshake takes a twentieth of it."""
STRANGER_BYTES = 2048
"""What a peer may send before it is known. CURVE's HELLO and INITIATE are a quarter of that."""
ANSWERED_BYTES = 270
"""What a CURVE server sends a peer whose key it refuses is less; with READY it is more."""
BUFFER_BYTES = 256 << 10
"""What is read from one end before the other end has taken it."""
WAITING_OUTSIDE = 64
_WHY = {
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EADDRINUSE: "another program has that port",
    errno.EACCES: "this user may not take that port",
}


def listen_at(address: Address) -> socket.socket:
    """A socket that takes connections there; raises NotListening."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        taken = socket.create_server((address.host, address.port), family=family, backlog=WAITING_OUTSIDE)
    except OSError as error:
        detail = _WHY.get(error.errno or 0, error.strerror or str(error))
        raise NotListening(address=address, detail=detail) from error
    taken.setblocking(False)
    return taken


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection: its two ends, what is under way to each, and how much each has sent."""

    outer: socket.socket
    inner: socket.socket
    came: float = field(default_factory=time.monotonic)
    inwards: bytearray = field(default_factory=bytearray)
    outwards: bytearray = field(default_factory=bytearray)
    taken: int = 0
    answered: int = 0
    leaving: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it was answered as only a peer with a key is."""
        return self.answered > ANSWERED_BYTES

    @property
    def room(self) -> int:
        """How much may be read from it now."""
        if self.is_known:
            return BUFFER_BYTES - len(self.inwards)
        return STRANGER_BYTES - self.taken


class Porter:
    """Passes on what comes to `listening` to the UNIX socket `inside`. One thread, no ZeroMQ in it."""

    def __init__(self, listening: socket.socket, inside: str) -> None:
        self._listening = listening
        self._inside = inside
        self._guests: set[_Guest] = set()
        self._selector = selectors.DefaultSelector()
        self._told, self._tell = socket.socketpair()
        self._selector.register(self._told, selectors.EVENT_READ)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._open = True
        self._stopping = False
        self._hanging_up = False
        self.turned_away = 0
        self._thread = threading.Thread(target=self._serve, name="porter", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(*self._listening.getsockname()[:2])

    @property
    def is_there(self) -> bool:
        """Whether it does its work; without it nobody can come in."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends every connection, and takes no more."""
        self._stopping = True
        self._wake()
        self._thread.join(2)

    def hang_up(self) -> None:
        """Ends every connection; who may come in comes again."""
        self._hanging_up = True
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):
            self._tell.send(b"x")

    # ---- the thread

    def _serve(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self._until()):
                    if key.fileobj is self._told:
                        self._heed()
                    elif key.fileobj is self._listening:
                        self._take()
                    elif isinstance(key.data, _Guest):
                        self._pass_on(key.data, key.fileobj, events)
                self._look_round()
        finally:
            for guest in list(self._guests):
                self._end(guest)
            for one in (self._listening, self._told, self._tell):
                one.close()
            self._selector.close()

    def _heed(self) -> None:
        self._told.recv(64)
        if self._hanging_up:
            self._hanging_up = False
            for guest in list(self._guests):
                self._end(guest)

    def _until(self) -> float | None:
        """Seconds until a stranger's time is up."""
        strangers = [guest.came for guest in self._guests if not guest.is_known]
        if not strangers:
            return None
        patience = PATIENCE_S if len(strangers) < MOST_STRANGERS else MAKE_ROOM_AFTER_S
        return max(0.0, min(strangers) + patience - time.monotonic())

    def _look_round(self) -> None:
        """Ends strangers whose time is up, and opens the door when there is room."""
        now = time.monotonic()
        strangers = sorted((g for g in self._guests if not g.is_known), key=lambda guest: guest.came)
        for guest in strangers:
            if now - guest.came >= PATIENCE_S:
                self._turn_away(guest)
        if len(strangers) >= MOST_STRANGERS and now - strangers[0].came >= MAKE_ROOM_AFTER_S:
            self._turn_away(strangers[0])
        self._open_or_close(sum(not guest.is_known for guest in self._guests) < MOST_STRANGERS)

    def _open_or_close(self, wanted: bool) -> None:
        if wanted is self._open:
            return
        self._open = wanted
        if wanted:
            self._selector.register(self._listening, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._listening)

    def _take(self) -> None:
        """Lets one in, and leads it to the socket inside."""
        try:
            outer, _ = self._listening.accept()
        except OSError:
            # Gone again, or this process may open no more: a moment later there is room.
            time.sleep(0.01)
            return
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inner.connect(self._inside)
        except OSError:
            outer.close()
            inner.close()
            return
        with suppress(OSError):
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        guest = _Guest(outer, inner)
        self._guests.add(guest)
        for end in (outer, inner):
            end.setblocking(False)
            self._selector.register(end, selectors.EVENT_READ, guest)

    def _pass_on(self, guest: _Guest, end: object, events: int) -> None:
        if guest not in self._guests:
            return
        try:
            if events & selectors.EVENT_READ:
                self._read(guest, end)
            self._write(guest)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._end(guest)
            return
        if guest.leaving and not guest.outwards and not guest.inwards:
            self._end(guest)
        elif not guest.is_known and guest.room <= 0:
            self._turn_away(guest)
        else:
            self._want(guest)

    def _read(self, guest: _Guest, end: object) -> None:
        from_outside = end is guest.outer
        source = guest.outer if from_outside else guest.inner
        data = source.recv(max(1, guest.room if from_outside else BUFFER_BYTES - len(guest.outwards)))
        if not data:
            guest.leaving = True
        elif from_outside:
            guest.inwards += data
            guest.taken += len(data)
        else:
            guest.outwards += data
            guest.answered += len(data)

    def _write(self, guest: _Guest) -> None:
        for buffer, end in ((guest.inwards, guest.inner), (guest.outwards, guest.outer)):
            if buffer:
                with suppress(BlockingIOError, InterruptedError):
                    del buffer[: end.send(buffer)]

    def _want(self, guest: _Guest) -> None:
        """Listens to each end for what can be done: what one has not taken is not read from the other."""
        for end, going_out, room in (
            (guest.outer, guest.outwards, guest.room),
            (guest.inner, guest.inwards, BUFFER_BYTES - len(guest.outwards)),
        ):
            wanted = (selectors.EVENT_READ if room > 0 and not guest.leaving else 0) | (
                selectors.EVENT_WRITE if going_out else 0
            )
            self._listen_for(end, wanted, guest)

    def _listen_for(self, end: socket.socket, wanted: int, guest: _Guest) -> None:
        known = self._selector.get_map().get(end.fileno())
        if known is None and wanted:
            self._selector.register(end, wanted, guest)
        elif known is not None and not wanted:
            self._selector.unregister(end)
        elif known is not None and known.events != wanted:
            self._selector.modify(end, wanted, guest)

    def _turn_away(self, guest: _Guest) -> None:
        self.turned_away += 1
        warn("stranger-turned-away")
        self._end(guest)

    def _end(self, guest: _Guest) -> None:
        self._guests.discard(guest)
        for end in (guest.outer, guest.inner):
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()
