"""CURVE keys, of one start or kept, and the list of those that open a door. All others are refused."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from keytween import private
from keytween_wire.connection import Connection
from keytween_wire.errors import BadSetting

CLIENTS = b"keytween-clients"
WORKERS = b"keytween-workers"
"""ZAP domains: a client's key opens no worker's door."""
SERVER_KEY, CLIENT_KEY = "server_key", "client_key"
"""The files of keys that outlive a start, in the state folder."""
_KEY_LENGTH = 40
_ALPHABET = frozenset(z85.Z85CHARS.decode())


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

    @classmethod
    def kept(cls, file: Path) -> KeyPair:
        """The pair whose secret the file holds, made at first use; raises FileUnsafe or BadSetting."""
        with suppress(FileExistsError):
            if not file.exists():
                private.write(cls._typed().secret + "\n", file, replace=False)
        private.refuse_others(file)
        secret = file.read_text("utf-8").strip()
        if not is_key(secret):
            raise BadSetting(name="key", value=file, detail="the file is damaged; delete it for a new key")
        return cls(zmq.curve_public(secret.encode()).decode(), secret)

    @classmethod
    def _typed(cls) -> KeyPair:
        """A fresh pair whose public key a command line does not take for an option."""
        while not (pair := cls.new()).public[0].isalnum():
            pass
        return pair


def is_key(text: str) -> bool:
    """Whether it can be a CURVE key in Z85."""
    return len(text) == _KEY_LENGTH and _ALPHABET.issuperset(text)


def check_key(text: str) -> None:
    """Raises BadSetting for what is no public key."""
    if not is_key(text):
        detail = f"a key has {_KEY_LENGTH} characters; put it in single quotes"
        raise BadSetting(name="KEY", value=text, detail=detail)


@dataclass(slots=True)
class AllowList:
    """The public keys that may connect, by ZAP domain."""

    keys: dict[bytes, set[str]] = field(default_factory=dict)

    def allow(self, domain: bytes, public: str) -> None:
        """Lets a key in."""
        self.keys.setdefault(domain, set()).add(public)

    def allow_only(self, domain: bytes, public: Iterable[str]) -> None:
        """Lets these keys in and no others."""
        self.keys[domain] = set(public)

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
