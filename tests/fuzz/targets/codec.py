# SPDX-License-Identifier: Apache-2.0
"""Multipart messages: from clients to the daemon and back, and between the daemon and its workers.

An input is a kind, then frames, each behind its length in two bytes.
"""

from __future__ import annotations

import random

import msgpack
import mutations
from bounds import foreseen

from keytween.jobs import link
from keytween.jobs.store import JobStore
from keytween_wire import codec
from keytween_wire.messages import MESSAGES, Submit, Watch

LONGEST = 4096
WORDS = (
    *(msgpack.packb(name) for name in MESSAGES),
    *(msgpack.packb(name) for cls in MESSAGES.values() for name in cls.__dataclass_fields__),
    *(
        b"\xcf" + b"\xff" * 8,
        b"\xcb\x7f\xf8" + b"\0" * 6,
        b"\xc0",
        b"\xc3",
        b"\xc4\0",
        b"\xc7\0\x05",
        b"\xdf",
    ),
)
_STORE = JobStore(":memory:")


def one_input(data: bytes) -> None:
    """Reads the frames as a strict daemon, a lenient client or either end of the worker link does."""
    kind, frames = data[:1], parts(data[1:])
    assert isinstance(codec.number_of(frames), int)
    if kind == b"w":
        said = foreseen(lambda: link.hear(frames))
        if said is not None:
            assert codec.pack_dataclass(link.hear(link.say(said))) == codec.pack_dataclass(said)
        return
    received = foreseen(lambda: codec.decode(frames, strict=kind != b"c"))
    if received is not None:
        again = codec.decode(codec.encode(received.message, number=received.number))
        assert codec.pack_dataclass(again.message) == codec.pack_dataclass(received.message)
        _taken(received.message)


def _taken(message: object) -> None:
    """What the daemon does next with numbers and texts that came through."""
    if isinstance(message, Watch):
        _STORE.events(message.job_id, message.since, most=1)
    if isinstance(message, Submit):
        foreseen(message.request.check)
        foreseen(lambda: _STORE.known(message.job_id, message.request))


def parts(data: bytes) -> list[bytes]:
    """The frames of an input; the last one may be shorter than it says."""
    frames: list[bytes] = []
    while len(data) >= 2:
        length = int.from_bytes(data[:2], "big")
        frames.append(data[2 : 2 + length])
        data = data[2 + length :]
    return frames


def joined(kind: bytes, frames: list[bytes]) -> bytes:
    """The input that `parts` takes apart again."""
    return kind + b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)


def changed(data: bytes, rng: random.Random) -> bytes:
    """The input with one value of its header or body changed."""
    frames = parts(data[1:])
    words = [name for cls in MESSAGES.values() for name in cls.__dataclass_fields__]
    which = rng.choice([0, 1, 1, 1])
    tree = msgpack.unpackb(frames[which], strict_map_key=False, unicode_errors="surrogatepass")
    frames[which] = msgpack.packb(mutations.tree(tree, words, rng), unicode_errors="surrogatepass")
    return joined(data[:1], frames)
