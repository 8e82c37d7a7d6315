"""Files made to take all memory or time, and names of files that are patterns made for the same."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenImageIO
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keytween import headers, icc, images, pixels
from keytween.images import is_pattern, read, sequence
from keytween_wire.errors import PictureDamaged, PictureError


def peak_megabytes(work: Callable[[], object]) -> float:
    """How much memory Python took for the work at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def woven_tiff(pages: int) -> bytes:
    """A small TIFF whose directories lie across each other, each with thousands of entries."""
    data = bytearray(b"II*\0\x08\0\0\0")
    for page in range(pages):
        start = 8 + 4 * page
        link = start + 2 + 12 * 0x1001
        data += b"\x01\x10" * max(0, (link + 4 - len(data) + 1) // 2)
        data[link : link + 4] = struct.pack("<I", start + 4)
    return bytes(data)


def test_a_tiff_of_woven_directories_takes_little() -> None:
    data = woven_tiff(2000)
    assert len(data) < 100_000
    assert peak_megabytes(lambda: headers.parse(data)) < 100


@pytest.mark.parametrize("place", [2**63, 2**64 - 1], ids=str)
def test_a_tiff_whose_directory_lies_beyond_all_memory_is_damaged(place: int) -> None:
    data = b"II+\0\x08\0\0\0" + struct.pack("<QQ", place, 1)
    with pytest.raises(ValueError, match="cut short"):
        headers.parse(data)
    with pytest.raises(PictureDamaged):
        read(data)


def test_a_camera_block_that_points_beyond_all_memory_does_no_harm() -> None:
    exif = b"Exif\0\0II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1)
    size = struct.pack(">HBHHB", 8, 8, 4, 6, 3)
    data = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + b"\xff\xc0" + size + b"\xff\xda"
    assert (headers.parse(data).width, headers.parse(data).colour) == (6, "")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0teXt\0\0\0\0" * 100_001,
        b"\xff\xd8" + b"\xff" * 100_003,
        b"\xff\xd8\xff" + b"\xd0\xff" * 100_001,
        b"v/1\x01\x02\0\0\0" + b"a\0b\0\0\0\0\0" * 100_001,
    ],
    ids=[".png", ".jpg", ".jpg markers", ".exr"],
)
def test_a_header_of_nothing_but_parts_is_senseless(data: bytes) -> None:
    with pytest.raises(ValueError, match="senseless"):
        headers.parse(data)


def test_a_png_that_promises_no_frame_has_one() -> None:
    chunk = b"\0\0\0\x08acTL" + b"\0" * 12
    data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 6, 4) + b"\x08\x02\0\0\0" + b"\0" * 4 + chunk
    assert headers.parse(data).frames == 1


def test_a_profile_whose_tags_are_all_of_it_takes_little() -> None:
    size = 1_000_000
    entries = b"".join(struct.pack(">4sII", b"%04d" % n, 0, size) for n in range(256))
    profile = b"\0" * 128 + struct.pack(">I", 256) + entries + b"\0" * size
    assert peak_megabytes(lambda: icc.space_of(profile)) < 20


def test_a_profile_with_an_endless_name_is_named_shortly() -> None:
    name = b"a" * 70_000
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name
    profile = b"\0" * 128 + struct.pack(">I4sII", 1, b"desc", 144, len(desc)) + desc
    assert icc.space_of(profile) == "a" * 100


def tiled(path: Path, claimed: int) -> bytes:
    """An OpenEXR picture of one small tile, whose header claims tiles of another size."""
    spec = OpenImageIO.ImageSpec(6, 4, 3, "half")
    spec.tile_width = spec.tile_height = 48
    writer = OpenImageIO.ImageOutput.create(str(path))
    assert writer.open(str(path), spec)
    assert writer.write_image(np.zeros((4, 6, 3), np.float32))
    writer.close()
    data = path.read_bytes()
    assert data.count(struct.pack("<II", 48, 48)) == 1
    return data.replace(struct.pack("<II", 48, 48), struct.pack("<II", claimed, claimed))


def test_a_small_exr_of_huge_tiles_is_refused_before_one_is_unpacked(tmp_path: Path) -> None:
    assert read(tiled(tmp_path / "a.exr", 48)).size == (6, 4)
    with pytest.raises(PictureError, match="its tiles are 262144 x 262144 pixels"):
        read(tiled(tmp_path / "a.exr", 1 << 18))


def test_a_decoder_without_memory_is_a_picture_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def starved(*_: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(images, "_decode", starved)
    with pytest.raises(PictureError, match="not enough memory"):
        read(tiled(tmp_path / "a.exr", 48))


def test_numbers_that_signal_and_numbers_without_end_are_passed_on_in_silence() -> None:
    strange = np.array([0x7F800001, 0x7F7FFFFF], np.uint32).view(np.float32)
    lit = np.array([[[strange[0], strange[1], 1, 0.5]]], np.float32)
    for found in (pixels.linear_from_srgb(strange), pixels.srgb_from_linear(strange), pixels.straight(lit)):
        assert np.isnan(found.flat[0])


# ---- patterns


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["*a" * 40 + "b", "%d1" * 40 + "b", "####" * 60 + "*" * 60 + "b"])
def test_a_pattern_of_many_stars_or_numbers_is_soon_answered(tmp_path: Path, pattern: str) -> None:
    (tmp_path / ("a1" * 60 + ".png")).touch()
    (tmp_path / ("1" * 200 + ".png")).touch()
    with pytest.raises(PictureError, match="No picture"):
        sequence(str(tmp_path / pattern))


@given(
    st.text("a1.", max_size=8),
    st.lists(st.sampled_from(["a", "1", ".", "#", "##", "*", "%d", "%02d"]), max_size=5),
)
def test_a_pattern_means_what_a_regular_expression_would(name: str, pattern: list[str]) -> None:
    # Two runs of ## are one of four.
    joined = "".join(pattern)
    expression = re.sub(r"#+|%0?(\d?)d|\*|.", _as_expression, joined)
    assert images._fits(name, images._parts(joined)) == bool(re.fullmatch(expression, name))


def _as_expression(hit: re.Match[str]) -> str:
    if hit[0] == "*":
        return ".*"
    if hit[0].startswith("%"):
        return f"[0-9]{{{int(hit[1] or 1)},}}"
    return f"[0-9]{{{len(hit[0])},}}" if hit[0].startswith("#") else re.escape(hit[0])


def test_a_pattern_may_ask_for_no_more_digits_than_a_name_has(tmp_path: Path) -> None:
    (tmp_path / ("1" * 40 + ".png")).touch()
    assert len(sequence(str(tmp_path / "%040d.png"))) == 1
    for pattern in ("%041d.png", "%0999d.png", "#" * 5000 + ".png"):
        with pytest.raises(PictureError):
            sequence(str(tmp_path / pattern))


def test_a_name_that_no_disk_takes_is_no_reason_to_stop(tmp_path: Path) -> None:
    assert is_pattern(str(tmp_path / ("a" * 300 + "#.png")))
    assert not is_pattern(str(tmp_path / ("a" * 300 + ".png")))


def test_superscripts_in_names_are_no_numbers(tmp_path: Path) -> None:
    for name in ("a1²2.png", "a1²10.png"):
        (tmp_path / name).touch()
    assert [path.name for path in sequence(str(tmp_path / "*.png"))] == ["a1²2.png", "a1²10.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("level", [0, 9])
def test_a_png_may_be_packed_badly_but_not_with_a_bomb_behind_its_pixels(mode: str, level: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (700, 300), np.uint8)
    picture = Image.fromarray(noise).convert(mode) if mode != "I;16" else Image.fromarray(noise.astype("u2"))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=level)
    assert read(buffer.getvalue()).size == (300, 700)
    whole = buffer.getvalue()
    at = whole.rindex(b"IEND") - 4
    more = bytes(3 << 20)
    surplus = struct.pack(">I", len(more)) + b"IDAT" + more + struct.pack(">I", zlib.crc32(b"IDAT" + more))
    with pytest.raises(PictureDamaged, match="far more behind it"):
        read(whole[:at] + surplus + whole[at:])
