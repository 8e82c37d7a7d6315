"""CURVE keys and the allow-list. Whoever is not on the list is refused, also when nobody answers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from keytween_wire.connection import Connection

CLIENTS = b"keytween-clients"
WORKERS = b"keytween-workers"
"""ZAP domains: a client's key opens no worker's door."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair in Z85 text."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> KeyPair:
        """A fresh pair."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


@dataclass(slots=True)
class AllowList:
    """The public keys that may connect, by ZAP domain."""

    keys: dict[bytes, set[str]] = field(default_factory=dict)

    def allow(self, domain: bytes, public: str) -> None:
        """Lets a key in."""
        self.keys.setdefault(domain, set()).add(public)

    def answer(self, request: Sequence[bytes]) -> list[bytes]:
        """The reply to a ZAP 1.0 request (rfc.zeromq.org/spec/27): 200 for a listed CURVE key, else 400."""
        version, number, domain, _address, _identity, mechanism, *credentials = request
        known = self.keys.get(domain, set())
        admitted = (
            version == b"1.0"
            and mechanism == b"CURVE"
            and len(credentials) == 1
            and z85.encode(credentials[0]).decode() in known
        )
        status = (b"200", b"OK") if admitted else (b"400", b"Unknown key")
        return [b"1.0", number, *status, b"", b""]


def authorised_keys(folder: Path) -> set[str]:
    """The further client keys listed in `authorised_keys`: a Z85 key begins a line, a remark may follow."""
    path = folder / "authorised_keys"
    if not path.is_file():
        return set()
    # Z85 uses '#' itself, so it cannot begin a remark; remarks may be in any encoding.
    words = (line.split() for line in path.read_text("utf-8", errors="replace").splitlines())
    return {word[0] for word in words if word and len(word[0]) == 40}


def new_connection(endpoint: str, server: KeyPair, client: KeyPair) -> Connection:
    """The connection that this start of the daemon offers."""
    return Connection(
        endpoint=endpoint,
        server_key=server.public,
        client_key=client.public,
        client_secret=client.secret,
        pid=os.getpid(),
        boot_id=uuid.uuid4().hex,
    )
