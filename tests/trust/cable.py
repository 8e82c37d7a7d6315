"""A cable between client and daemon, which can be long or pulled out: it passes bytes on until it is cut."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from keytween_wire.connection import Connection


class Cable:
    """Connect to `connection` instead of the daemon's own.

    `delay_s` is how long each byte is under way, `far_end` the place that the daemon is reached from.
    """

    def __init__(
        self,
        daemon: Connection,
        *,
        delay_s: float = 0.0,
        far_end: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._delay_s, self._far_end = delay_s, far_end
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
        with suppress(OSError), near, self._reach() as far:
            self.plugged += 1
            self._ends += [near, far]
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()

    def _reach(self) -> socket.socket:
        with self._far_end():
            return socket.create_connection(self._there)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        arriving = threading.Thread(target=self._arrive, args=(under_way, target), daemon=True)
        arriving.start()
        with suppress(OSError):
            while data := source.recv(65536):
                under_way.put((time.monotonic() + self._delay_s, data))
        under_way.put((0.0, b""))
        arriving.join()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _arrive(self, under_way: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
        with suppress(OSError):
            while True:
                due, data = under_way.get()
                if not data:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                target.sendall(data)

    def cut(self) -> None:
        """Ends every connection; the next ones work again."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut()
