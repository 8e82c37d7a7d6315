# SPDX-License-Identifier: Apache-2.0
"""The way to the package index as a test wants it: refused, slow or open. A proxy on this computer alone."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

REFUSED, SLOW, OPEN = "refused", "slow", "open"
SLOW_BYTES_S = 4 << 20
"""What one connection lets through in a second while the network is slow."""
CHUNK = 1 << 16


class _Proxy(socketserver.ThreadingTCPServer):
    """Listens on the loopback address; `switch` is the file that says what the network is like."""

    daemon_threads = True
    switch: Path


class _Call(socketserver.StreamRequestHandler):
    """One client: its request for a tunnel, and what goes through it."""

    server: _Proxy

    def handle(self) -> None:
        """Refuses, or connects and carries bytes both ways until one side is done."""
        request = self._request()
        if self._network() == REFUSED:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with suppress(OSError), self._connected(request) as far:
            threading.Thread(target=_carry, args=(self.connection, far), daemon=True).start()
            _carry(far, self.connection, pause=self._pause)

    def _request(self) -> bytes:
        lines = [self.rfile.readline(CHUNK)]
        while lines[-1].strip():
            lines.append(self.rfile.readline(CHUNK))
        return b"".join(lines)

    def _connected(self, request: bytes) -> socket.socket:
        """The far end: this machine's own proxy where it has one, else the host that was asked for."""
        own = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
        if own:
            parts = urlsplit(own)
            far = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
            far.sendall(request)
            return far
        host, _, port = request.split()[1].decode().rpartition(":")
        far = socket.create_connection((host, int(port)), timeout=60)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return far

    def _network(self) -> str:
        return self.server.switch.read_text().strip()

    def _pause(self, count: int) -> None:
        if self._network() == SLOW:
            time.sleep(count / SLOW_BYTES_S)


def _carry(
    source: socket.socket, target: socket.socket, pause: Callable[[int], None] = lambda count: None
) -> None:
    """Carries bytes one way until there are no more, or one of the two is gone."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
            pause(len(data))
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def network(folder: Path) -> Iterator[dict[str, str]]:
    """A network whose state stands in `folder/network`; gives the environment that leads uv and pip there."""
    switch = folder / "network"
    switch.write_text(OPEN)
    with _Proxy(("127.0.0.1", 0), _Call) as proxy:
        proxy.switch = switch
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        try:
            yield {"https_proxy": address, "HTTPS_PROXY": address} | _own_index() | _trusted(folder)
        finally:
            proxy.shutdown()


def _own_index() -> dict[str, str]:
    """The package index that this machine uses, if it names one."""
    names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _trusted(folder: Path) -> dict[str, str]:
    """A copy of the certificates that this machine trusts: its way to the index may have some of its own."""
    found = ssl.get_default_verify_paths().cafile
    if not found:
        return {}
    copy = folder / "certificates.pem"
    copy.write_bytes(Path(found).read_bytes())
    return {"SSL_CERT_FILE": str(copy), "PIP_CERT": str(copy)}
