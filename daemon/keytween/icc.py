"""Which of the two colour spaces an ICC profile describes, judged by its numbers rather than its name."""

from __future__ import annotations

import struct

from keytween.headers import SCENE_LINEAR, SRGB

_SRGB_COLORANTS = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139))
_WANTED = (b"desc", b"rXYZ", b"gXYZ", b"bXYZ", b"kTRC", b"gTRC")
_LONGEST_NAME = 100
_SRGB_HALF = 0.2140
"""What the sRGB curve makes of 0.5; gamma 2.2, its usual stand-in, makes 0.2176."""


def space_of(profile: bytes) -> str:
    """SRGB, SCENE_LINEAR, or the profile's own description where it is neither."""
    try:
        tags = _tags(profile)
        name = _description(tags.get(b"desc", b""))[:_LONGEST_NAME] or "an unnamed ICC profile"
        return _judge(tags, name)
    except (struct.error, IndexError, ValueError, OverflowError, ZeroDivisionError):
        return "an unreadable ICC profile"


def _tags(profile: bytes) -> dict[bytes, bytes]:
    count = min(256, struct.unpack_from(">I", profile, 128)[0])
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * n) for n in range(count))
    # Tags may lie across each other: 256 copies of a profile would take all the memory there is.
    return {name: profile[at : at + size] for name, at, size in entries if name in _WANTED}


def _judge(tags: dict[bytes, bytes], name: str) -> str:
    colorants = [tags.get(key) for key in (b"rXYZ", b"gXYZ", b"bXYZ")]
    curve = tags.get(b"kTRC") or tags.get(b"gTRC")
    if curve is None:
        return SRGB if name.startswith("sRGB") else name
    if b"kTRC" not in tags and not all(
        body and _near(_xyz(body), wanted) for body, wanted in zip(colorants, _SRGB_COLORANTS, strict=True)
    ):
        return name
    half = _at_half(curve)
    if abs(half - _SRGB_HALF) < 0.008:
        return SRGB
    return SCENE_LINEAR if abs(half - 0.5) < 0.005 else name


def _near(found: tuple[float, ...], wanted: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 0.01 for a, b in zip(found, wanted, strict=True))


def _xyz(body: bytes) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(">3i", body, 8))


def _at_half(curve: bytes) -> float:
    """What a tone curve makes of 0.5."""
    if curve[:4] == b"para":
        return _parametric_at_half(curve)
    count = struct.unpack_from(">I", curve, 8)[0]
    if count == 0:
        return 0.5
    if count == 1:
        return 0.5 ** (struct.unpack_from(">H", curve, 12)[0] / 256)
    low, high = (count - 1) // 2, count // 2
    pair = [struct.unpack_from(">H", curve, 12 + 2 * n)[0] for n in (low, high)]
    return sum(pair) / 2 / 65535


def _parametric_at_half(curve: bytes) -> float:
    kind = struct.unpack_from(">H", curve, 8)[0]
    count = (1, 3, 4, 5, 7)[kind]
    p = [value / 65536 for value in struct.unpack_from(f">{count}i", curve, 12)]
    if kind == 0:
        return 0.5 ** p[0]
    offset = {2: 3, 4: 5}.get(kind)
    return max(0.0, p[1] * 0.5 + p[2]) ** p[0] + (p[offset] if offset else 0.0)


def _description(body: bytes) -> str:
    if body[:4] == b"mluc":
        length, at = struct.unpack_from(">II", body, 20)
        return body[at : at + length].decode("utf-16-be", "replace").strip("\0 ")
    length = struct.unpack_from(">I", body, 8)[0] if len(body) >= 12 else 0
    return body[12 : 12 + length].decode("ascii", "replace").strip("\0 ")
