"""The daemon's doors: a socket for clients, one for its workers, and the list of keys that open them."""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import zmq

from keytween.address import Address
from keytween.authorised import AuthorisedKeys
from keytween.config import LOOPBACK, Config
from keytween.jobs.link import LinkKeys, worker_keys
from keytween.keys import CLIENTS, SERVER_KEY, WORKERS, AllowList, KeyPair, new_connection
from keytween.logs import note, warn
from keytween.porter import Porter, listen_at
from keytween_wire.errors import KeytweenError, NotListening
from keytween_wire.messages import Limits

HAS_UNIX_SOCKETS = sys.platform != "win32"
"""ZeroMQ's wheels for Windows have none; there the sockets are on the loopback address themselves."""


class Doors:
    """Two ROUTER sockets with CURVE. Whoever is not on the list gets in nowhere, also when nobody answers."""

    def __init__(self, config: Config, limits: Limits) -> None:
        self._limits = limits
        self.refused = 0
        self._authorised = AuthorisedKeys(config.state)
        self._authorised.has_changed()
        self._listed = self._authorised.keys()
        address = Address.to_listen_at(config.bind)
        # What may be refused comes first, before anything is open.
        listening = _listen(address, self._listed)
        # Who has the address in a file must find the same key there after the next start.
        server = KeyPair.kept(config.state / SERVER_KEY) if address.port else KeyPair.new()
        client, worker, for_workers = KeyPair.new(), KeyPair.new(), KeyPair.new()
        self._context: zmq.Context[Any] = zmq.Context()
        self._folder = _private_folder(config.state) if HAS_UNIX_SOCKETS else None
        self._own = client.public
        self._allowed = AllowList()
        self._allowed.allow_only(CLIENTS, {self._own, *self._listed})
        self._allowed.allow(WORKERS, worker.public)
        self.zap = self._context.socket(zmq.REP)
        self.zap.linger = 0
        self.zap.bind("inproc://zeromq.zap.01")
        self.clients = self._bind(server, CLIENTS, address)
        self.workers = self._bind(for_workers, WORKERS, Address.to_listen_at(LOOPBACK))
        # A worker comes back under its old name before its old connection is known to be dead.
        self.workers.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._porters = tuple(Porter(one, str(self._inside(CLIENTS))) for one in listening)
        self.connection = new_connection(self._endpoint(), server, client)
        self.worker_keys: LinkKeys = worker_keys(_endpoint(self.workers), for_workers, worker)

    def _bind(self, server: KeyPair, domain: bytes, address: Address) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.curve_server = 1
        socket.curve_secretkey = server.secret.encode()
        socket.zap_domain = domain
        # Without this, a missing allow-list lets every key in.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.linger = 200
        socket.router_mandatory = 1
        socket.maxmsgsize = self._limits.blob_bytes
        socket.handshake_ivl = 3000
        socket.heartbeat_ivl = 5000
        socket.heartbeat_timeout = 15000
        socket.sndhwm = 32
        socket.bind(f"ipc://{self._inside(domain)}" if self._folder else _any_port(address))
        return socket

    def _inside(self, domain: bytes) -> Path:
        """The UNIX socket that a porter leads to."""
        assert self._folder is not None
        return self._folder / domain.decode()

    def _endpoint(self) -> str:
        """Where clients of this machine connect."""
        return self._porters[0].address.endpoint if self._porters else _endpoint(self.clients)

    @property
    def beyond(self) -> str:
        """Where clients of other machines connect; empty when none can."""
        return self._porters[1].address.endpoint if len(self._porters) > 1 else ""

    @property
    def turned_away(self) -> int:
        """How many strangers the porters have sent away."""
        return sum(porter.turned_away for porter in self._porters)

    def answer(self) -> None:
        """Answers one question whether a key may enter."""
        self.refresh()
        reply = self._allowed.answer(self.zap.recv_multipart())
        self.zap.send_multipart(reply)
        if reply[2] != b"200":
            self.refused += 1
            warn("key-refused")

    def refresh(self) -> None:
        """Heeds a changed `authorised_keys`: who was allowed may come, who was forgotten is out at once."""
        if not self._authorised.has_changed():
            return
        before, self._listed = self._listed, self._read_list()
        self._allowed.allow_only(CLIENTS, {self._own, *self._listed})
        note("keys-listed", keys=len(self._listed))
        if before - self._listed:
            # A key is asked for when a connection begins: all begin anew, and one that is gone is refused.
            for porter in self._porters:
                porter.hang_up()

    def _read_list(self) -> set[str]:
        try:
            return self._authorised.keys()
        except (KeytweenError, OSError, ValueError) as error:
            warn("keys-unreadable", error=error)
            return set()

    @property
    def are_kept(self) -> bool:
        """Whether everybody with a key can come in."""
        return all(porter.is_there for porter in self._porters)

    def close(self) -> None:
        """Closes all of them, and gives what was said last a moment to arrive."""
        for door in (self.clients, self.workers, self.zap):
            door.close()
        self._context.destroy(linger=200)
        for porter in self._porters:
            porter.stop()
        for name in (CLIENTS, WORKERS) if self._folder else ():
            with suppress(OSError):
                self._inside(name).unlink()
        if self._folder is not None:
            with suppress(OSError):
                self._folder.rmdir()


def _listen(address: Address, listed: set[str]) -> list[socket.socket]:
    """Sockets for the porters: this machine's, and beyond it only where a key is listed. NotListening."""
    if address.is_loopback:
        return [listen_at(address)] if HAS_UNIX_SOCKETS else []
    if not HAS_UNIX_SOCKETS:
        raise NotListening(address=address, detail="on Windows it listens to this machine alone")
    if not listed:
        detail = "no key of another machine is allowed yet (`keytween keys allow`)"
        raise NotListening(address=address, detail=detail)
    beyond = listen_at(address)
    # A door of its own: a crowd of strangers outside does not stand in the way of this machine's clients.
    return [listen_at(Address.to_listen_at(LOOPBACK)), beyond]


def _any_port(address: Address) -> str:
    return address.endpoint if address.port else f"tcp://{address.host}:*"


def _private_folder(state: Path) -> Path:
    """A folder with a short name that only this user may enter: the same for each start with this state.

    A socket's path may have about a hundred characters, which a state folder's own path may exceed.
    """
    name = f"keytween-{os.getuid()}-{sha256(os.fsencode(state.absolute())).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    seen = folder.lstat()
    if stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and stat.S_IMODE(seen.st_mode) == 0o700:
        return folder
    # Somebody took the name: any other will do.
    return Path(tempfile.mkdtemp(prefix="keytween-"))


def _endpoint(socket: zmq.Socket[bytes]) -> str:
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
