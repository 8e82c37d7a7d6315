# SPDX-License-Identifier: Apache-2.0
"""What a picture file says of itself before a pixel is decoded, and what an ICC profile describes."""

from __future__ import annotations

from keytween import headers, icc

LONGEST = 4096
WORDS = (
    *(b"IHDR", b"IDAT", b"acTL", b"cICP", b"iCCP", b"sRGB", b"cHRM", b"gAMA", b"Exif\0\0", b"VP8X", b"VP8L"),
    *(b"VP8 ", b"ANMF", b"RIFF", b"WEBP", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"v/1\x01", b"dataWindow"),
    *(b"displayWindow", b"box2i", b"desc", b"mluc", b"curv", b"para", b"kTRC", b"rXYZ", b"rTRC", b"\xff\xd8"),
    *(
        b"\xff\xe1",
        b"\xff\xc0",
        b"\xff\xda",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x87\x69",
        b"\xa0\x05",
    ),
)
LONGEST_NAME = 300


def one_input(data: bytes) -> None:
    """Reads the bytes as a picture's header and as a colour profile."""
    assert 0 < len(icc.space_of(data)) <= LONGEST_NAME
    suffix = headers.sniff(data)
    if suffix is None:
        return
    found = parsed(data)
    if isinstance(found, str):
        assert len(found) <= LONGEST_NAME
        return
    assert found.suffix == suffix
    assert min(found.width, found.height, found.channels) >= 0 < found.frames
    assert len(found.colour) <= LONGEST_NAME


def parsed(data: bytes) -> headers.Header | str:
    """What the file says, or what is said of one that makes no sense."""
    try:
        return headers.parse(data)
    except ValueError as error:
        return str(error)
