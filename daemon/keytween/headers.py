"""What a picture file says about itself before any pixel is decoded: format, size, frames, colour tag.

Pure functions over bytes. They exist beside OpenImageIO because some of its readers allocate the whole
canvas just to open a file, and because it reports sRGB for a PNG or JPEG whether or not the file says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

SRGB = "sRGB"
SCENE_LINEAR = "scene-linear"

SUFFIXES: dict[str, tuple[str, ...]] = {
    ".png": (".png", ".apng"),
    ".jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    ".tif": (".tif", ".tiff"),
    ".webp": (".webp",),
    ".exr": (".exr",),
}
"""The canonical suffix of each format, and every suffix that may stand for it."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_PARTS = 100_000
"""No header has so many chunks, segments or attributes; a file of nothing else would take minutes."""
_SLACK = 1 << 16
"""Bytes that packed pixels may take beside twice their own size: a packer that does not pack wastes less."""
_MOST_PAGES, _MOST_TAGS = 1000, 512
"""Directories of a TIFF may lie across each other, so that a small file has any number of both."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself; 0 or "" where the file is silent.

    `width` and `height` are as stored, before any orientation; OpenEXR's are those of the larger of its
    two windows, and its parts and colour are left to OpenImageIO. `colour` is SRGB, SCENE_LINEAR or the name
    of another space. `premultiplied` is a TIFF's word that its colours are multiplied by the matte.
    """

    suffix: str
    width: int = 0
    height: int = 0
    frames: int = 1
    channels: int = 0
    colour: str = ""
    premultiplied: bool = False


def sniff(data: bytes) -> str | None:
    """The canonical suffix of the format these bytes are in (".png" ...), None if it is none we read."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(_TIFF_MAGIC):
        return ".tif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    return ".exr" if data.startswith(b"v/1\x01") else None


def parse(data: bytes) -> Header:
    """The header of a file that `sniff` knows; ValueError where the header itself is cut or senseless."""
    readers = {".png": _png, ".jpg": _jpeg, ".tif": _tiff, ".webp": _webp, ".exr": _exr}
    try:
        return readers[sniff(data) or ""](data)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError("the header is cut short") from error


def _png(data: bytes) -> Header:
    facts: dict[bytes, bytes] = {}
    for kind, body in _png_chunks(data):
        facts.setdefault(kind, body)
        if kind == b"IDAT":
            break
    if b"IHDR" not in facts:
        raise ValueError("the header is missing")
    width, height = struct.unpack_from(">II", facts[b"IHDR"])
    if _png_packed(data) > _SLACK + 2 * _png_unpacked(facts[b"IHDR"]):
        # What is left over would be unpacked all the same, a thousand times its size.
        raise ValueError("there is far more behind it than the pixels that it promises")
    frames = struct.unpack_from(">I", facts[b"acTL"])[0] if b"acTL" in facts else 1
    return Header(".png", width, height, max(1, frames), colour=_png_colour(facts))


def _png_packed(data: bytes) -> int:
    """The bytes of packed pixels, as their chunks say."""
    position, packed = 8, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        packed += length if kind == b"IDAT" else 0
        position += 12 + length
    return packed


def _png_unpacked(head: bytes) -> int:
    """The bytes of its pixels with a filter for each line; an interlaced picture has some more."""
    width, height, depth, kind = struct.unpack_from(">IIBB", head)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 4)
    return height * (1 + (width * channels * depth + 7) // 8)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    for _ in range(_MOST_PARTS):
        if position >= len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        # Pixels are left where they are: only their place matters here.
        yield kind, b"" if kind == b"IDAT" else data[position + 8 : position + 8 + length]
        position += 12 + length
    raise ValueError("the header is senseless")


def _png_colour(facts: dict[bytes, bytes]) -> str:
    """The PNG specification's order: cICP, then an ICC profile (read elsewhere), sRGB, gAMA with cHRM."""
    if b"cICP" in facts:
        return _cicp_colour(facts[b"cICP"])
    if b"iCCP" in facts:
        return ""
    if b"sRGB" in facts:
        return SRGB
    if b"cHRM" in facts and not is_rec709([v / 1e5 for v in _white_last(facts[b"cHRM"])]):
        return "primaries other than Rec.709 (cHRM)"
    return _gamma_colour(struct.unpack(">I", facts[b"gAMA"])[0]) if b"gAMA" in facts else ""


def _white_last(body: bytes) -> tuple[int, ...]:
    values = struct.unpack_from(">8I", body)
    return values[2:] + values[:2]


def _cicp_colour(body: bytes) -> str:
    primaries, transfer = body[0], body[1]
    if primaries == 1 and transfer in (8, 13):
        return SRGB if transfer == 13 else SCENE_LINEAR
    return f"CICP {primaries}/{transfer}"


def _gamma_colour(gamma: int) -> str:
    # 45455 is what software without an sRGB chunk has always written to mean sRGB.
    if 45000 <= gamma <= 46000:
        return SRGB
    return SCENE_LINEAR if gamma == 100_000 else f"gamma {1e5 / gamma:.2g}" if gamma else ""


def is_rec709(chromaticities: list[float]) -> bool:
    """Whether eight numbers (x, y of red, green, blue, white) are Rec.709's, within 0.01."""
    wanted = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
    return all(abs(a - b) < 0.01 for a, b in zip(chromaticities, wanted, strict=True))


def _jpeg(data: bytes) -> Header:
    header = Header(".jpg")
    for marker, body in _jpeg_segments(data):
        if marker in _JPEG_SIZES:
            height, width, channels = struct.unpack_from(">HHB", body, 1)
            header = replace(header, width=width, height=height, channels=channels)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            header = replace(header, colour=_exif_colour(body[6:]))
    if not header.channels:
        raise ValueError("the header is missing")
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every segment before the first scan."""
    position = 2
    for _ in range(_MOST_PARTS):
        if position >= len(data):
            return
        if data[position] != 0xFF:
            raise ValueError("the header is senseless")
        marker = data[position + 1]
        if marker == 0xDA:
            return
        if marker == 0xFF or marker in _JPEG_ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = max(2, struct.unpack_from(">H", data, position + 2)[0])
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise ValueError("the header is senseless")


def _exif_colour(block: bytes) -> str:
    """Cameras write 1 for sRGB; Adobe RGB is 2, or 65535 with the interoperability index R03."""
    try:
        tags, _ = _directory(block, _layout(block))
        exif, _ = _directory(block, _layout(block), tags.get(0x8769, 0))
        interop, _ = _directory(block, _layout(block), exif.get(0xA005, 0))
    except (struct.error, ValueError, OverflowError):
        # A torn Exif block is common and the picture is none the worse for it.
        return ""
    space = exif.get(0xA001, 0)
    if space == 2 or interop.get(1, 0).to_bytes(8, "little")[:3] == b"R03":
        return "Adobe RGB"
    return SRGB if space == 1 else ""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one TIFF lays out its directories: classic or big, little- or big-endian."""

    order: str
    big: bool
    first: int


def _layout(data: bytes) -> _Layout:
    if not data.startswith(_TIFF_MAGIC):
        raise ValueError("the header is senseless")
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    first = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    return _Layout(order, big, first)


def _directory(data: bytes, layout: _Layout, offset: int | None = None) -> tuple[dict[int, int], int]:
    """The tags of one directory, each with its first value, and where the next directory is.

    Offset 0 is no directory. Text of up to four bytes is its bytes read as a little-endian number.
    """
    at = layout.first if offset is None else offset
    if at == 0:
        return {}, 0
    count = struct.unpack_from(layout.order + ("Q" if layout.big else "H"), data, at)[0]
    at += 8 if layout.big else 2
    size, value_at, link = (20, 12, "Q") if layout.big else (12, 8, "I")
    tags: dict[int, int] = {}
    for entry in range(at, at + size * min(count, _MOST_TAGS), size):
        tag, kind = struct.unpack_from(layout.order + "HH", data, entry)
        code = {1: "B", 3: "H", 16: "Q"}.get(kind, "I")
        order = "<" if kind == 2 else layout.order
        tags[tag] = struct.unpack_from(order + code, data, entry + value_at)[0]
    return tags, struct.unpack_from(layout.order + link, data, at + size * count)[0]


def _tiff(data: bytes) -> Header:
    layout = _layout(data)
    pages = list(_pages(data, layout))
    if not pages:
        raise ValueError("the header is missing")
    sizes = [(page.get(256, 0), page.get(257, 0)) for page in pages]
    same = sum(size == sizes[0] and not page.get(254, 0) & 1 for size, page in zip(sizes, pages, strict=True))
    first = pages[0]
    return Header(".tif", *sizes[0], max(1, same), first.get(277, 1), premultiplied=first.get(338) == 1)


def _pages(data: bytes, layout: _Layout) -> Iterator[dict[int, int]]:
    offset = layout.first
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        tags, offset = _directory(data, layout, offset)
        yield tags


def _webp(data: bytes) -> Header:
    header, frames, position = Header(".webp"), 0, 12
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8X", b"VP8L", b"VP8 ") and not header.width:
            width, height = _webp_size(kind, data[position + 8 : position + 18])
            header = replace(header, width=width, height=height)
        frames += kind == b"ANMF"
        position += 8 + length + length % 2
    if not header.width:
        raise ValueError("the header is missing")
    return replace(header, frames=max(1, frames))


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", body, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _exr(data: bytes) -> Header:
    windows: list[tuple[int, int]] = []
    for name, body in _exr_attributes(data):
        if name in (b"dataWindow", b"displayWindow"):
            left, top, right, bottom = struct.unpack_from("<4i", body)
            windows.append((right - left + 1, bottom - top + 1))
    if len(windows) < 2 or min(min(window) for window in windows) < 1:
        raise ValueError("the header is senseless")
    return Header(".exr", *max(windows, key=lambda window: window[0] * window[1]))


def _exr_attributes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The attributes of the first part: name, kind, size, value, until an empty name."""
    position = 8
    for _ in range(_MOST_PARTS):
        if not data[position]:
            return
        name_end = data.index(0, position)
        kind_end = data.index(0, name_end + 1)
        size = struct.unpack_from("<i", data, kind_end + 1)[0]
        yield data[position:name_end], data[kind_end + 5 : kind_end + 5 + size]
        position = kind_end + 5 + max(0, size)
    raise ValueError("the header is senseless")
