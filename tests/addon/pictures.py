"""Pictures with known numbers, written and read without Blender where that is possible."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def gradient(height: int = 24, width: int = 32) -> Numbers:
    """A picture whose colours and matte all differ, 0..1 and straight: a matte along both sides."""
    y, x = np.mgrid[:height, :width]
    red, green = x / (width - 1), y / (height - 1)
    matte = 0.25 + 0.75 * (x + y) / (width + height - 2)
    return np.stack([red, green, 1 - red, matte], axis=-1)


def write_png(path: Path, numbers: Numbers, *, bits: int) -> Path:
    """Straight numbers 0..1 as PNG with 8 or 16 bits and a matte."""
    height, width, _ = numbers.shape
    whole = np.round(numbers * (2**bits - 1)).astype(">u2" if bits == 16 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in whole)
    head = struct.pack(">IIBBBBB", width, height, bits, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


def read_png(path: Path) -> tuple[Numbers, int]:
    """The whole numbers in an RGBA PNG, and how many bits they have."""
    data = path.read_bytes()
    place, packed, head = 8, b"", b""
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + size]
        head, packed = (body if kind == b"IHDR" else head), packed + (body if kind == b"IDAT" else b"")
        place += size + 12
    width, height, bits, kind_of_colour = struct.unpack(">IIBB", head[:10])
    assert kind_of_colour == 6
    step = bits // 2
    rows = np.frombuffer(zlib.decompress(packed), "u1").reshape(height, width * step + 1)
    whole = np.zeros((height + 1, width * step), np.uint8)
    for index, row in enumerate(rows):
        whole[index + 1] = _unfiltered(row[0], row[1:], whole[index], step)
    return whole[1:].copy().view(">u2" if bits == 16 else "u1").reshape(height, width, 4).astype(float), bits


def _unfiltered(kind: int, row: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], step: int) -> Numbers:
    """A row of bytes without PNG's filter."""
    if kind in (0, 2):
        return row + (above if kind == 2 else 0)
    found = np.zeros(len(row) + step, np.int64)
    for index, value in enumerate(row):
        left, up = found[index], int(above[index])
        corner = int(above[index - step]) if index >= step else 0
        found[index + step] = (int(value) + _guess(kind, int(left), up, corner)) % 256
    return found[step:]


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 3:
        return (left + up) // 2
    near = [abs(left + up - corner - value) for value in (left, up, corner)]
    return (left, up, corner)[near.index(min(near))]


def write_exr(path: Path, numbers: Numbers, *, half: bool = True) -> Path:
    """Premultiplied scene-linear numbers as OpenEXR without compression."""
    height, width, _ = numbers.shape
    kind, code = ("<f2", 1) if half else ("<f4", 2)
    names = "ABGR"
    channels = b"".join(name.encode() + b"\0" + struct.pack("<iB3xii", code, 0, 1, 1) for name in names)
    box = struct.pack("<iiii", 0, 0, width - 1, height - 1)
    header = b"".join(
        _attribute(name, kind_of, value)
        for name, kind_of, value in (
            ("channels", "chlist", channels + b"\0"),
            ("compression", "compression", b"\0"),
            ("dataWindow", "box2i", box),
            ("displayWindow", "box2i", box),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<ff", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
        )
    )
    start = struct.pack("<II", 20000630, 2) + header + b"\0"
    planes = [numbers[..., "RGBA".index(name)].astype(kind) for name in names]
    lines = [
        struct.pack("<ii", y, sum(p[y].nbytes for p in planes)) + b"".join(p[y].tobytes() for p in planes)
        for y in range(height)
    ]
    offsets = np.cumsum([len(start) + 8 * height, *(len(line) for line in lines[:-1])]).astype("<u8")
    path.write_bytes(start + offsets.tobytes() + b"".join(lines))
    return path


def _attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def read_exr(path: Path) -> Numbers:
    """The numbers in an OpenEXR file, as they are: Blender reads it, and is told not to touch them."""
    import bpy

    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    image.alpha_mode = "CHANNEL_PACKED"
    image.reload()
    try:
        width, height = image.size
        flat = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(flat)
        return flat.reshape(height, width, 4)[::-1].astype(float)
    finally:
        bpy.data.images.remove(image)
