"""Pictures in and out: what is read exactly, what is refused and by which name, what is written.

Long because one door has many refusals, and they share the builders of odd files at the top.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenImageIO
import pytest
from PIL import Image, ImageCms, ImageOps

from keytween import images, placing
from keytween.images import Picture, as_float, encode, is_pattern, like, read, sequence, sniff, write
from keytween_wire.errors import (
    BadSetting,
    NotAPicture,
    PictureAnimated,
    PictureColourUnknown,
    PictureDamaged,
    PictureEmpty,
    PictureError,
    PictureMislabelled,
    PictureMissing,
    PictureTooLarge,
    PictureUnwritable,
    SequenceEmpty,
)
from keytween_wire.messages import Colour

RGBA = np.random.default_rng(7).integers(0, 256, (40, 60, 4), dtype=np.uint8)
RGB = np.ascontiguousarray(RGBA[..., :3])


def pillow(array: np.ndarray, kind: str, **options: Any) -> bytes:
    """The bytes that Pillow makes of an array."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with these chunks behind its header."""
    data = pillow(RGBA, "PNG")
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


def with_oiio(path: Path, array: np.ndarray, kind: str, prepare: Callable[[Any], None] | None = None) -> Path:
    """A file that OpenImageIO writes from an array, its spec changed by `prepare`."""
    height, width, channels = array.shape
    spec = OpenImageIO.ImageSpec(width, height, channels, kind)
    if prepare:
        prepare(spec)
    writer = OpenImageIO.ImageOutput.create(str(path))
    assert writer is not None
    assert writer.open(str(path), spec), writer.geterror()
    assert writer.write_image(array)
    writer.close()
    return path


def attribute(name: str, value: object) -> Callable[[Any], None]:
    """Sets one attribute of a spec."""
    return lambda spec: spec.attribute(name, value)


def jpeg_with_exif(space: int, index: bytes = b"R98\0") -> bytes:
    """A JPEG whose Exif block names a colour space and an interoperability index, as cameras write them."""

    def directory(*entries: bytes) -> bytes:
        return struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"

    first = directory(struct.pack("<HHII", 0x8769, 4, 1, 26))
    exif = directory(struct.pack("<HHIHH", 0xA001, 3, 1, space, 0), struct.pack("<HHII", 0xA005, 4, 1, 56))
    interop = directory(struct.pack("<HHI4s", 1, 2, 4, index))
    return pillow(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + first + exif + interop)


def profile_of(primaries: tuple[float, ...], gamma: float, description: str) -> bytes:
    """A small ICC profile: nine D50 colorants, one gamma, a name."""
    xyz = [
        b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in primaries[n : n + 3]))
        for n in (0, 3, 6)
    ]
    name = description.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    bodies = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True))
    bodies |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"desc": desc + b"\0" * 79, b"wtpt": white}
    table, data = struct.pack(">I", len(bodies)), b""
    for signature, body in bodies.items():
        body += b"\0" * (-len(body) % 4)
        table += struct.pack(">4sII", signature, 132 + 12 * len(bodies) + len(data), len(body))
        data += body
    size = 128 + len(table) + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12
    head += b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


SRGB_COLORANTS = (0.4360, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7139)
P3_COLORANTS = (0.5151, 0.2412, -0.0011, 0.2919, 0.6922, 0.0419, 0.1572, 0.0666, 0.7841)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_lossless_eight_bit_pictures_are_read_exactly_even_under_a_zero_matte(
    kind: str, options: Any
) -> None:
    array = RGBA.copy()
    array[:10, :, 3] = 0
    picture = read(pillow(array, kind, **options))
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, array)
    assert picture.colour is Colour.SRGB
    assert picture.colour_source == "format"


def test_a_jpeg_is_read_as_eight_bit_srgb() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    picture = read(pillow(flat, "JPEG", quality=95), suffix=".jpeg")
    assert not picture.has_matte
    assert picture.size == (16, 16)
    assert np.abs(picture.pixels.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_pictures_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(3).integers(0, 65536, (9, 7, 4), dtype=np.uint16)
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), array)
    assert np.array_equal(read(path).pixels, array[..., [2, 1, 0, 3]])


def test_float_tiff_is_scene_linear_and_exact(tmp_path: Path) -> None:
    array = np.linspace(-1, 40, 5 * 6 * 3, dtype=np.float32).reshape(5, 6, 3)
    picture = read(with_oiio(tmp_path / "light.tif", array, "float"))
    assert np.array_equal(picture.pixels, array)
    assert (picture.colour, picture.colour_source) == (Colour.SCENE_LINEAR, "format")


def test_an_associated_tiff_becomes_straight(tmp_path: Path) -> None:
    array = np.full((4, 4, 4), (64, 32, 16, 128), np.uint8)
    pixels = read(with_oiio(tmp_path / "a.tif", array, "uint8")).pixels
    assert pixels[0, 0].tolist() == [128, 64, 32, 128]


@pytest.mark.parametrize("kind", ["half", "float"])
def test_exr_becomes_straight_and_keeps_light_without_coverage(tmp_path: Path, kind: str) -> None:
    array = np.array([[[0.25, 0.5, 1.0, 0.5], [3.0, 2.0, 1.0, 0.0], [0.5, 0.25, 0.125, 1.0]]], np.float32)
    picture = read(with_oiio(tmp_path / "a.exr", array, kind))
    assert picture.pixels.dtype == (np.float16 if kind == "half" else np.float32)
    assert picture.pixels[0].tolist() == [[0.5, 1.0, 2.0, 0.5], [3.0, 2.0, 1.0, 0.0], [0.5, 0.25, 0.125, 1.0]]
    assert picture.colour is Colour.SCENE_LINEAR
    write(picture, tmp_path / "b.exr")
    assert np.array_equal(read(tmp_path / "b.exr").pixels, picture.pixels)


def test_a_half_exr_with_light_under_a_faint_matte_is_held_as_float(tmp_path: Path) -> None:
    array = np.array([[[100.0, 1.0, 0.0, 0.0009765625]]], np.float32)
    picture = read(with_oiio(tmp_path / "a.exr", array, "half"))
    assert picture.pixels.dtype == np.float32
    assert picture.pixels[0, 0, 0] == 102400.0
    write(picture, tmp_path / "b.exr", "exr-half")
    assert np.array_equal(read(tmp_path / "b.exr").pixels, picture.pixels)


def test_exr_channels_are_found_by_name_whatever_lies_beside_them(tmp_path: Path) -> None:
    array = np.random.default_rng(5).random((4, 5, 6), np.float32).astype(np.float16)

    def names(spec: Any) -> None:
        spec.channelnames = ("Z", "B", "depth.V", "R", "G", "normal.X")

    picture = read(with_oiio(tmp_path / "a.exr", array, "half", names))
    assert np.array_equal(picture.pixels, array[..., [3, 4, 1]])


def test_exr_without_red_green_and_blue_is_refused_by_naming_its_channels(tmp_path: Path) -> None:
    def names(spec: Any) -> None:
        spec.channelnames = ("ViewLayer.Combined.R", "ViewLayer.Combined.G", "ViewLayer.Combined.B")

    path = with_oiio(tmp_path / "a.exr", np.zeros((2, 2, 3), np.float32), "half", names)
    with pytest.raises(PictureError, match=r"ViewLayer\.Combined\.R"):
        read(path)


def test_exr_is_read_over_its_display_window(tmp_path: Path) -> None:
    def window(spec: Any) -> None:
        spec.x, spec.y, spec.full_width, spec.full_height = -1, 2, 4, 5

    array = np.ones((2, 3, 3), np.float32)
    pixels = read(with_oiio(tmp_path / "a.exr", array, "float", window)).pixels
    assert pixels.shape == (5, 4, 3)
    assert np.argwhere(pixels[..., 0]).tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_bilevel_and_palette_pictures_expand_to_colour(mode: str) -> None:
    source = Image.fromarray(RGB).quantize(16) if mode == "P" else Image.fromarray(RGBA).convert(mode)
    buffer = io.BytesIO()
    source.save(buffer, format="PNG")
    wanted = source.convert("RGBA" if mode == "LA" else "RGB")
    assert np.array_equal(read(buffer.getvalue()).pixels, np.asarray(wanted))


def test_a_transparent_palette_colour_becomes_the_matte() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).quantize(4).save(buffer, format="PNG", transparency=1)
    picture = read(buffer.getvalue())
    assert picture.has_matte
    assert set(np.unique(picture.pixels[..., 3])) == {0, 255}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = (255, 0, 0)
    corner[8:, :8] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x112] = orientation
    for kind in ("PNG", "JPEG", "TIFF"):
        data = pillow(corner, kind, exif=exif)
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
        assert np.abs(read(data).pixels - wanted).max() <= (40 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    "name", ["walk é 日本 01.png", "what?x=1.png", "100% [1] #2.png", "no suffix", "odd.backup"]
)
def test_unusual_file_names_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pillow(RGBA, "PNG"))
    assert np.array_equal(read(path).pixels, RGBA)


@pytest.mark.parametrize(
    ("chunks", "colour", "source"),
    [
        ([], Colour.SRGB, "format"),
        ([(b"sRGB", b"\0")], Colour.SRGB, "file"),
        ([(b"gAMA", struct.pack(">I", 45455))], Colour.SRGB, "file"),
        ([(b"gAMA", struct.pack(">I", 100000))], Colour.SCENE_LINEAR, "file"),
        ([(b"cICP", bytes([1, 13, 0, 1]))], Colour.SRGB, "file"),
        ([(b"cICP", bytes([1, 8, 0, 1]))], Colour.SCENE_LINEAR, "file"),
    ],
)
def test_png_tags_name_the_colour(chunks: list[tuple[bytes, bytes]], colour: Colour, source: str) -> None:
    picture = read(png_with(*chunks))
    assert (picture.colour, picture.colour_source) == (colour, source)
    assert np.array_equal(picture.pixels, RGBA)


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([(b"cICP", bytes([9, 16, 0, 1]))], "CICP 9/16"),
        ([(b"gAMA", struct.pack(">I", 55556))], r"gamma 1\.8"),
        (
            [
                (b"gAMA", struct.pack(">I", 45455)),
                (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
            ],
            "primaries",
        ),
    ],
)
def test_a_png_in_another_space_is_refused_unless_told(chunks: list[tuple[bytes, bytes]], named: str) -> None:
    with pytest.raises(PictureColourUnknown, match=named):
        read(png_with(*chunks))
    told = read(png_with(*chunks), colour=Colour.SCENE_LINEAR)
    assert (told.colour, told.colour_source) == (Colour.SCENE_LINEAR, "given")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_embedded_srgb_profile_is_known(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read(pillow(RGB, kind, icc_profile=profile))
    assert (picture.colour, picture.colour_source) == (Colour.SRGB, "file")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_embedded_profile_of_another_space_is_refused_by_name(kind: str) -> None:
    profile = profile_of(P3_COLORANTS, 2.2, "Display P3")
    with pytest.raises(PictureColourUnknown, match="Display P3"):
        read(pillow(RGB, kind, icc_profile=profile))


def test_a_profile_is_judged_by_its_numbers_not_its_name() -> None:
    for gamma, colour in ((2.2, Colour.SRGB), (1.0, Colour.SCENE_LINEAR)):
        profile = profile_of(SRGB_COLORANTS, gamma, "My scanner")
        assert read(pillow(RGB, "PNG", icc_profile=profile)).colour is colour
    with pytest.raises(PictureColourUnknown, match="sRGB, they said"):
        read(pillow(RGB, "PNG", icc_profile=profile_of(SRGB_COLORANTS, 1.8, "sRGB, they said")))


def test_a_torn_profile_is_refused_as_unreadable() -> None:
    with pytest.raises(PictureColourUnknown):
        read(pillow(RGB, "JPEG", icc_profile=profile_of(SRGB_COLORANTS, 2.2, "x")[:150]))


@pytest.mark.parametrize(("space", "source"), [(1, "file"), (65535, "format")])
def test_ordinary_camera_jpegs_are_srgb(space: int, source: str) -> None:
    picture = read(jpeg_with_exif(space=space))
    assert (picture.colour, picture.colour_source) == (Colour.SRGB, source)


def test_a_torn_exif_block_does_no_harm() -> None:
    assert read(pillow(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\0\0junk")).colour_source == "format"


@pytest.mark.parametrize("values", [{"space": 2}, {"space": 65535, "index": b"R03\0"}])
def test_a_camera_jpeg_in_adobe_rgb_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(PictureColourUnknown, match="Adobe RGB"):
        read(jpeg_with_exif(**values))


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("srgb_rec709_scene", Colour.SRGB),
        ("sRGB", Colour.SRGB),
        ("lin_rec709_scene", Colour.SCENE_LINEAR),
        ("Linear", Colour.SCENE_LINEAR),
        ("lin_rec709", Colour.SCENE_LINEAR),
    ],
)
def test_an_exr_tag_names_the_colour(tmp_path: Path, name: str, colour: Colour) -> None:
    tagged = attribute("oiio:ColorSpace", name)
    picture = read(with_oiio(tmp_path / "a.exr", np.ones((2, 2, 3), np.float32), "half", tagged))
    assert (picture.colour, picture.colour_source) == (colour, "file")


def test_an_acescg_exr_is_refused_by_tag_and_by_primaries(tmp_path: Path) -> None:
    ones = np.ones((2, 2, 3), np.float32)
    with pytest.raises(PictureColourUnknown, match="lin_ap1_scene"):
        read(with_oiio(tmp_path / "a.exr", ones, "half", attribute("oiio:ColorSpace", "ACEScg")))

    def primaries(spec: Any) -> None:
        ap1 = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)
        spec.attribute("chromaticities", "float[8]", ap1)

    with pytest.raises(PictureColourUnknown, match="chromaticities"):
        read(with_oiio(tmp_path / "b.exr", ones, "half", primaries))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_picture_is_named_damaged(kind: str, share: float) -> None:
    data = pillow(RGB, kind)
    with pytest.raises(PictureDamaged) as caught:
        read(data[: max(16, int(len(data) * share))], name="walk 7")
    assert "walk 7" in caught.value.message
    assert "keytween-" not in caught.value.message


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_exr_is_named_damaged(tmp_path: Path, share: float) -> None:
    array = np.random.default_rng(2).random((64, 64, 4), np.float32)
    data = with_oiio(tmp_path / "a.exr", array, "half").read_bytes()
    with pytest.raises(PictureDamaged) as caught:
        read(data[: int(len(data) * share)])
    assert "keytween-" not in caught.value.message


def test_torn_bytes_raise_nothing_but_picture_errors(tmp_path: Path) -> None:
    seeds = [pillow(RGB[:16, :16].copy(), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP")]
    seeds.append(with_oiio(tmp_path / "a.exr", np.ones((16, 16, 4), np.float32), "half").read_bytes())
    rng = np.random.default_rng(11)
    messages: list[str] = []
    for turn in range(500):
        data = bytearray(seeds[turn % 5])
        for at in rng.integers(4, min(len(data), 400), 3):
            data[at] = rng.integers(256)
        try:
            read(bytes(data), name="torn")
        except PictureError as error:
            messages.append(error.message)
    assert messages
    assert not [message for message in messages if "keytween-" in message]


def test_an_exr_with_garbled_text_in_its_header_is_named_damaged(tmp_path: Path) -> None:
    data = with_oiio(tmp_path / "a.exr", np.ones((4, 4, 3), np.float32), "half").read_bytes()
    with pytest.raises(PictureDamaged):
        read(data.replace(b"chlist", b"ch\xff\xfest"))


def test_a_progressive_jpeg_that_lacks_its_end_is_named_damaged() -> None:
    with pytest.raises(PictureDamaged):
        read(pillow(RGB, "JPEG", progressive=True)[:-4])


def test_an_empty_file_is_named_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(PictureEmpty, match=r"a\.png"):
        read(path)
    with pytest.raises(PictureEmpty):
        read(b"")


def test_a_missing_file_is_named_missing(tmp_path: Path) -> None:
    with pytest.raises(PictureMissing, match="nowhere"):
        read(tmp_path / "nowhere.png")


def test_a_folder_is_refused_as_unusable(tmp_path: Path) -> None:
    with pytest.raises(PictureError):
        read(tmp_path)


def test_bytes_that_are_no_picture_are_named_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(b"Dear diary, today I drew a walk cycle.")
    with pytest.raises(NotAPicture, match=r"notes\.png"):
        read(path)
    with pytest.raises(NotAPicture):
        read(pillow(RGB, "GIF"))


def test_png_bytes_named_jpg_are_mislabelled(tmp_path: Path) -> None:
    path = tmp_path / "walk.JPG"
    path.write_bytes(pillow(RGB, "PNG"))
    with pytest.raises(PictureMislabelled, match="PNG"):
        read(path)
    with pytest.raises(PictureMislabelled):
        read(pillow(RGB, "TIFF"), suffix=".png")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_with_their_number(kind: str) -> None:
    more = [Image.fromarray(RGBA[::-1]), Image.fromarray(255 - RGBA)]
    with pytest.raises(PictureAnimated, match="3 frames"):
        read(pillow(RGBA, kind, save_all=True, append_images=more))


def test_a_tiff_with_a_smaller_second_page_is_one_picture() -> None:
    data = pillow(RGBA, "TIFF", save_all=True, append_images=[Image.fromarray(RGBA[::4, ::4].copy())])
    assert np.array_equal(read(data).pixels, RGBA)


def test_an_exr_of_several_parts_is_refused_with_their_number(tmp_path: Path) -> None:
    path = str(tmp_path / "parts.exr")
    specs = [OpenImageIO.ImageSpec(4, 4, 3, "half") for _ in range(2)]
    for number, spec in enumerate(specs):
        spec.attribute("oiio:subimagename", f"part{number}")
    writer = OpenImageIO.ImageOutput.create(path)
    assert writer is not None
    assert writer.open(path, specs)
    writer.write_image(np.zeros((4, 4, 3), np.float32))
    writer.open(path, specs[1], "AppendSubimage")
    writer.write_image(np.zeros((4, 4, 3), np.float32))
    writer.close()
    with pytest.raises(PictureAnimated, match="2 frames"):
        read(Path(path))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_refused_clearly(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGBA, "RGBA").convert("RGB").convert("CMYK").save(buffer, format=kind)
    with pytest.raises(PictureError, match="CMYK"):
        read(buffer.getvalue())


def bomb() -> bytes:
    """A few kilobytes of PNG that promise 30000 x 30000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 6, 0, 0, 0)
    body = zlib.compress(b"\0" * 2_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_png_bomb_is_refused_from_its_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("the pixels were asked for"))
    data = bomb()
    assert len(data) < 4096
    tracemalloc.start()
    try:
        with pytest.raises(PictureTooLarge, match="30000 x 30000"):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def with_size(kind: str, width: int, height: int, folder: Path) -> bytes:
    """A small file whose header promises another size."""
    if kind == "JPEG":
        data = pillow(RGB, "JPEG")
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    if kind == "WEBP":
        data = pillow(RGB, "WEBP", lossless=True)
        at = data.index(b"VP8L") + 9
        bits = struct.unpack_from("<I", data, at)[0] & 0xF0000000
        return data[:at] + struct.pack("<I", bits | width - 1 | (height - 1) << 14) + data[at + 4 :]
    if kind == "TIFF":
        data = bytearray(pillow(RGB, "TIFF"))
        at, order = struct.unpack_from("<I", data, 4)[0], "<HHII"
        for entry in range(at + 2, at + 26, 12):
            tag = struct.unpack_from("<H", data, entry)[0]
            struct.pack_into(order, data, entry, tag, 4, 1, {256: width, 257: height}[tag])
        return bytes(data)
    data = with_oiio(folder / "a.exr", np.zeros((4, 4, 3), np.float32), "half").read_bytes()
    for name in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
        at = data.index(name) + len(name) + 4
        data = data[:at] + struct.pack("<4i", 0, 0, width - 1, height - 1) + data[at + 16 :]
    return data


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "EXR"])
@pytest.mark.parametrize("size", [(16000, 16000), (16383, 6200)])
def test_every_format_is_held_to_the_pixel_budget(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(PictureTooLarge, match=f"{size[0]} x {size[1]}"):
        read(with_size(kind, *size, tmp_path))


@pytest.mark.parametrize("kind", ["TIFF", "EXR"])
def test_an_absurd_size_is_too_large_rather_than_damaged(tmp_path: Path, kind: str) -> None:
    with pytest.raises(PictureTooLarge):
        read(with_size(kind, 2_000_000, 2_000_000, tmp_path))


def test_a_raised_pixel_budget_lets_the_picture_in() -> None:
    data = pillow(RGB, "PNG")
    with pytest.raises(PictureTooLarge, match=r"0\.001 megapixels"):
        read(data, max_megapixels=0.001)
    assert read(data, max_megapixels=0.0024).size == (60, 40)


def test_sniff_gives_the_canonical_suffix() -> None:
    kinds = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "GIF": None}
    assert {kind: sniff(pillow(RGB, kind)) for kind in kinds} == kinds
    assert sniff(b"") is None
    assert sniff(b"\x76\x2f\x31\x01" + b"\0" * 4) == ".exr"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_png_round_trips_are_bit_exact_even_under_a_zero_matte(
    tmp_path: Path, dtype: Any, channels: int
) -> None:
    array = np.random.default_rng(9).integers(0, np.iinfo(dtype).max + 1, (31, 17, channels)).astype(dtype)
    if channels == 4:
        array[:9, :, 3] = 0
    write(Picture(array), tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert picture.pixels.dtype == dtype
    assert np.array_equal(picture.pixels, array)
    assert (picture.colour, picture.colour_source) == (Colour.SRGB, "file")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_opaque_exr_round_trips_are_bit_exact(tmp_path: Path, dtype: Any) -> None:
    array = np.random.default_rng(9).normal(0, 5, (8, 9, 3)).astype(dtype)
    write(Picture(array, Colour.SCENE_LINEAR), tmp_path / "a.exr")
    picture = read(tmp_path / "a.exr")
    assert picture.pixels.dtype == dtype
    assert np.array_equal(picture.pixels, array)
    assert (picture.colour, picture.colour_source) == (Colour.SCENE_LINEAR, "file")


def test_srgb_survives_the_way_through_a_scene_linear_exr(tmp_path: Path) -> None:
    array = RGBA.copy()
    array[..., 3] |= 0x80
    for file_format in ("exr-half", "exr-float"):
        write(Picture(array), tmp_path / "a.exr", file_format)
        write(read(tmp_path / "a.exr"), tmp_path / "b.png", "png8")
        assert np.abs(read(tmp_path / "b.png").pixels.astype(int) - array).max() <= (
            file_format == "exr-half"
        )


def test_exr_holds_scene_linear_premultiplied_values(tmp_path: Path) -> None:
    array = np.array([[[188, 255, 0, 255], [255, 255, 255, 51], [255, 255, 255, 0]]], np.uint8)
    write(Picture(array), tmp_path / "a.exr", "exr-float")
    reader = OpenImageIO.ImageInput.open(str(tmp_path / "a.exr"))
    assert reader is not None
    stored = reader.read_image("float")
    wanted = [[0.5028865, 1, 0, 1], [0.2, 0.2, 0.2, 0.2], [0, 0, 0, 0]]
    np.testing.assert_allclose(stored[0], wanted, atol=1e-6)


def test_eight_and_sixteen_bit_pngs_convert_into_each_other(tmp_path: Path) -> None:
    write(Picture(RGBA), tmp_path / "a.png", "png16")
    wide = read(tmp_path / "a.png")
    assert np.array_equal(wide.pixels, RGBA.astype(np.uint16) * 257)
    write(wide, tmp_path / "b.png", "png8")
    assert np.array_equal(read(tmp_path / "b.png").pixels, RGBA)


def test_encode_gives_the_suffix_that_fits() -> None:
    wanted = {np.uint8: ".png", np.uint16: ".png", np.float16: ".exr", np.float32: ".exr"}
    for dtype, suffix in wanted.items():
        data, given = encode(Picture(np.zeros((2, 3, 3), dtype)))
        assert given == suffix == sniff(data)
    with pytest.raises(BadSetting):
        encode(Picture(RGB), "gif")


def test_a_view_of_an_array_is_written_as_it_looks(tmp_path: Path) -> None:
    write(Picture(RGBA[::-1, ::2]), tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png").pixels, RGBA[::-1, ::2])


def test_writing_replaces_whole_files_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "walk é 01.png"
    path.write_bytes(b"old")
    write(Picture(RGB), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(read(path).pixels, RGB)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(placing.os, "fsync", full)
    with pytest.raises(PictureUnwritable, match="No space left"):
        write(Picture(RGB), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureUnwritable, match="gone"):
        write(Picture(RGB), tmp_path / "gone" / "a.png")
    with pytest.raises(PictureUnwritable, match="suffix"):
        write(Picture(RGB), tmp_path / "a.exr", "png8")


def test_a_lack_of_temporary_space_is_a_picture_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(images.tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(PictureError, match="no room"):
        read(pillow(RGB, "PNG"))
    with pytest.raises(PictureUnwritable):
        encode(Picture(RGB))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_whole_number_survives_the_way_through_floats(dtype: Any) -> None:
    full = np.iinfo(dtype).max
    array = np.arange(full + 1, dtype=dtype).reshape(-1, 64, 1).repeat(3, axis=2)
    values = as_float(Picture(array))
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0.0, 1.0)
    assert np.array_equal(like(values, Picture(array)).pixels, array)


def test_like_rounds_clamps_and_keeps_the_colour() -> None:
    template = Picture(RGB, Colour.SCENE_LINEAR, "given")
    made = like(np.array([[[-1.0, 0.4999 / 255, 0.5001 / 255], [2.0, np.nan, np.inf]]]), template)
    assert made.pixels.tolist() == [[[0, 0, 1], [255, 0, 255]]]
    assert (made.colour, made.colour_source) == (Colour.SCENE_LINEAR, "given")


def test_like_keeps_half_in_range_and_floats_as_they_are() -> None:
    array = np.array([[[-2.0, 1e6, 0.5]]], np.float32)
    assert like(array, Picture(np.zeros((1, 1, 3), np.float16))).pixels.tolist() == [[[-2.0, 65504.0, 0.5]]]
    assert np.array_equal(like(array, Picture(array)).pixels, array)


def test_as_float_gives_memory_of_its_own() -> None:
    array = np.zeros((2, 2, 3), np.float32)
    as_float(Picture(array))[:] = 1
    assert not array.any()


def test_number_patterns_are_told_from_names(tmp_path: Path) -> None:
    assert all(
        is_pattern(text) for text in ("walk.####.png", "a/walk.%04d.png", "walk.*.png", "w#.png", "%d.png")
    )
    assert not any(is_pattern(text) for text in ("walk.0001.png", "a*/walk.png", "100%.png"))
    (tmp_path / "take #2.png").write_bytes(b"")
    assert not is_pattern(str(tmp_path / "take #2.png"))


def test_sequences_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10, 100, 12345):
        (tmp_path / f"walk.{number:04d}.png").touch()
    (tmp_path / "walk.12.png").touch()
    (tmp_path / "walk.0001.jpg").touch()
    (tmp_path / ".walk.0002.png").touch()
    for pattern in ("walk.####.png", "walk.%04d.png"):
        names = [path.name for path in sequence(str(tmp_path / pattern))]
        assert names == [f"walk.{number:04d}.png" for number in (1, 2, 10, 100, 12345)]
    assert [path.name for path in sequence(str(tmp_path / "*.png"))][2:4] == ["walk.0010.png", "walk.12.png"]


def test_a_folder_with_brackets_and_spaces_holds_sequences(tmp_path: Path) -> None:
    folder = tmp_path / "shot [1] é*"
    folder.mkdir()
    (folder / "w(1).7.png").touch()
    assert sequence(str(folder / "w(1).#.png")) == [folder / "w(1).7.png"]


def test_a_pattern_without_files_is_named_empty(tmp_path: Path) -> None:
    for pattern in (tmp_path / "walk.####.png", tmp_path / "gone" / "walk.*.png"):
        with pytest.raises(SequenceEmpty, match="walk"):
            sequence(str(pattern))
