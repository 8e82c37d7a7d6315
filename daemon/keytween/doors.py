"""The daemon's doors: a socket for clients, one for its workers, and the list of keys that open them."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import zmq

from keytween.config import Config
from keytween.jobs.link import LinkKeys, worker_keys
from keytween.keys import CLIENTS, WORKERS, AllowList, KeyPair, authorised_keys, new_connection
from keytween.logs import warn
from keytween.porter import Porter
from keytween_wire.messages import Limits

HAS_UNIX_SOCKETS = sys.platform != "win32"
"""ZeroMQ's wheels for Windows have none; there the sockets are on the loopback address themselves."""
_LOOPBACK = "127.0.0.1"


class Doors:
    """Two ROUTER sockets with CURVE. Whoever is not on the list gets in nowhere, also when nobody answers."""

    def __init__(self, config: Config, limits: Limits) -> None:
        self._limits = limits
        self.refused = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._folder = _private_folder(config.state) if HAS_UNIX_SOCKETS else None
        server, client, worker = KeyPair.new(), KeyPair.new(), KeyPair.new()
        self._allowed = AllowList()
        for public in {client.public, *authorised_keys(config.state)}:
            self._allowed.allow(CLIENTS, public)
        self._allowed.allow(WORKERS, worker.public)
        self.zap = self._context.socket(zmq.REP)
        self.zap.linger = 0
        self.zap.bind("inproc://zeromq.zap.01")
        self.clients = self._bind(server, CLIENTS)
        self.workers = self._bind(server, WORKERS)
        # A worker comes back under its old name before its old connection is known to be dead.
        self.workers.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.porter = self._employ()
        self.connection = new_connection(self._address(), server, client)
        self.worker_keys: LinkKeys = worker_keys(_endpoint(self.workers), server, worker)

    def _bind(self, server: KeyPair, domain: bytes) -> zmq.Socket[bytes]:
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
        socket.bind(f"ipc://{self._folder / domain.decode()}" if self._folder else f"tcp://{_LOOPBACK}:*")
        return socket

    def _employ(self) -> Porter | None:
        if self._folder is None:
            return None
        return Porter((_LOOPBACK, 0), str(self._folder / CLIENTS.decode()))

    def _address(self) -> str:
        """Where clients connect."""
        if self.porter is None:
            return _endpoint(self.clients)
        host, port = self.porter.address
        return f"tcp://{host}:{port}"

    def answer(self) -> None:
        """Answers one question whether a key may enter."""
        reply = self._allowed.answer(self.zap.recv_multipart())
        self.zap.send_multipart(reply)
        if reply[2] != b"200":
            self.refused += 1
            warn("key-refused")

    @property
    def are_kept(self) -> bool:
        """Whether anybody can come in at all."""
        return self.porter is None or self.porter.is_there

    def close(self) -> None:
        """Closes all of them, and gives what was said last a moment to arrive."""
        for socket in (self.clients, self.workers, self.zap):
            socket.close()
        self._context.destroy(linger=200)
        if self.porter is not None:
            self.porter.stop()
        for name in (CLIENTS, WORKERS) if self._folder else ():
            with suppress(OSError):
                (self._folder / name.decode()).unlink()  # type: ignore[operator]
        if self._folder is not None:
            with suppress(OSError):
                self._folder.rmdir()


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
