# SPDX-License-Identifier: Apache-2.0
"""Whole picture files. The decoders are foreign, native code: a crash there ends the process."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

import mutations
from bounds import foreseen, scratch

from keytween.images import Picture, encode, read
from keytween_wire.errors import PictureColourUnknown, PictureError
from keytween_wire.messages import Colour
from targets.headers import WORDS as HEADERS

LONGEST = 8192
WORDS = (
    *HEADERS,
    b"PLTE",
    b"tRNS",
    b"IEND",
    b"eXIf",
    b"zTXt",
    b"compression",
    b"channels",
    b"chlist",
    b"tiles",
)
BUDGET = 0.25
"""Megapixels."""


def one_input(data: bytes) -> None:
    """Reads the picture; one in a space that is not known once more, as sRGB."""
    scratch()
    picture = foreseen(lambda: _read(data), PictureError)
    if picture is not None:
        _check(picture)


def _read(data: bytes) -> Picture:
    try:
        return read(data, max_megapixels=BUDGET)
    except PictureColourUnknown:
        return read(data, colour=Colour.SRGB, max_megapixels=BUDGET)


def _check(picture: Picture) -> None:
    height, width, channels = picture.pixels.shape
    assert 0 < width * height <= BUDGET * 1e6
    assert channels in (3, 4)
    assert picture.pixels.dtype.name in ("uint8", "uint16", "float16", "float32")
    if width * height < 4096:
        encode(picture)


# ---- new inputs


def changed(data: bytes, rng: random.Random) -> bytes:
    """A PNG with something in one of its chunks changed, its checksums right again."""
    if not data.startswith(_PNG):
        raise ValueError("it is no PNG")
    chunks = list(_chunks(data))
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    if kind == b"IDAT" and rng.random() < 0.7:
        chunks[at] = kind, zlib.compress(mutations.any_of(zlib.decompress(body), (), (), rng))
    else:
        chunks[at] = kind, mutations.any_of(body, (), WORDS, rng)
    made = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return _PNG + b"".join(made)


_PNG = b"\x89PNG\r\n\x1a\n"


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
