# SPDX-License-Identifier: Apache-2.0
"""The connection file, the keys that may connect, and what the job store keeps of messages.

An input's first letter says which of them the rest is.
"""

from __future__ import annotations

import json
import random

import msgpack
import mutations
import zmq
from bounds import foreseen, scratch

from keytween import keys
from keytween.authorised import AuthorisedKeys
from keytween.jobs.store import JobStore
from keytween_wire.codec import pack_dataclass, unpack_dataclass
from keytween_wire.connection import Connection
from keytween_wire.errors import DaemonError
from keytween_wire.messages import ErrorInfo, FrameMade, JobChanged, MorphRequest, Progressed

LONGEST = 2048
ROWS = {b"0": MorphRequest, b"1": ErrorInfo, b"2": Progressed, b"3": JobChanged, b"4": FrameMade}
WORDS = (
    *(b'"endpoint": "tcp://127.0.0.1:40213"', b'"server_key": ', b'"client_key": ', b'"client_secret": '),
    *(
        b'"pid": ',
        b'"boot_id": ',
        b'"protocol": ',
        b'"version": ',
        b"\\ud800",
        b"\\u0000",
        b"null",
        b"[",
        b"1e999",
    ),
    *(b"tcp://", b"ipc://", b"inproc://", b"#" * 40, b"SQLite format 3\0"),
)
_CONTEXT = zmq.Context()


def one_input(data: bytes) -> None:
    """Reads the rest as what the first letter says."""
    kind, rest = data[:1], data[1:]
    if kind in ROWS:
        kept = foreseen(lambda: unpack_dataclass(ROWS[kind], rest))
        if kept is not None:
            assert pack_dataclass(unpack_dataclass(ROWS[kind], pack_dataclass(kept))) == pack_dataclass(kept)
    elif kind == b"k":
        _authorised(rest)
    elif kind == b"d":
        _store(rest)
    else:
        _connection(rest)


def _connection(data: bytes) -> None:
    file = scratch() / "connection.json"
    file.write_bytes(data)
    file.chmod(0o600)
    found = foreseen(lambda: Connection.load(file), DaemonError)
    if found is None:
        return
    assert isinstance(found.pid, int)
    assert f"{found.boot_id}{found.version}".encode() is not None
    # What a client does with it before anything goes out; nothing is connected here.
    with _CONTEXT.socket(zmq.DEALER) as socket:
        socket.curve_serverkey = found.server_key.encode()
        socket.curve_publickey = found.client_key.encode()
        socket.curve_secretkey = found.client_secret.encode()
    assert found.endpoint.startswith("tcp://")
    assert found.endpoint.isprintable()


def _authorised(data: bytes) -> None:
    (scratch() / "authorised_keys").write_bytes(data)
    (scratch() / "authorised_keys").chmod(0o600)
    allowed = keys.AllowList()
    for key in foreseen(AuthorisedKeys(scratch()).keys) or ():
        allowed.allow(keys.CLIENTS, key)
    answer = allowed.answer([b"1.0", b"1", keys.CLIENTS, b"127.0.0.1", b"", b"CURVE", b"\0" * 32])
    assert answer[2] == (b"200" if "0" * 40 in allowed.keys.get(keys.CLIENTS, ()) else b"400")


def _store(data: bytes) -> None:
    file = scratch() / "jobs.sqlite"
    for stale in scratch().glob("jobs.sqlite*"):
        stale.unlink()
    file.write_bytes(data)
    store = foreseen(lambda: JobStore(file), DaemonError)
    if store is not None:
        store.close()


def changed(data: bytes, rng: random.Random) -> bytes:
    """A connection file or a row with one value changed."""
    kind, rest = data[:1], data[1:]
    if kind in ROWS:
        tree = mutations.tree(msgpack.unpackb(rest, strict_map_key=False), ["job_id", "number", "error"], rng)
        return kind + msgpack.packb(tree, unicode_errors="surrogatepass")
    return kind + json.dumps(mutations.tree(json.loads(rest), ["pid", "endpoint", "more"], rng)).encode()
