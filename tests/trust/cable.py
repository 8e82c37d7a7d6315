"""A cable between client and daemon that can be pulled out: it passes bytes on until it is cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import replace

from keytween_wire.connection import Connection


class Cable:
    """Connect to `connection` instead of the daemon's own."""

    def __init__(self, daemon: Connection) -> None:
        host, _, port = daemon.endpoint.removeprefix("tcp://").rpartition(":")
        self._there = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.connection = replace(daemon, endpoint=f"tcp://127.0.0.1:{self._listening.getsockname()[1]}")
        self.plugged = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with suppress(OSError), near, socket.create_connection(self._there) as far:
            self.plugged += 1
            self._ends += [near, far]
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Ends every connection; the next ones work again."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut()
