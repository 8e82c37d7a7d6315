"""The one reader and writer of pictures (OpenImageIO lives here and nowhere else).

Pixels are kept as the file has them, with a straight matte. OpenEXR holds premultiplied colours: they are
divided by the matte on reading and multiplied again on writing. Where the matte is exactly 0, straight
form has no colour to hold, so the pixel is kept as it is: light without coverage (fire, glow) survives a
round trip through scene-linear pictures. An sRGB picture's colours under a zero matte are hidden paint,
not light, and become black in OpenEXR.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keytween import headers, icc, pixels
from keytween.pixels import Floats, Pixels
from keytween.placing import place
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

if TYPE_CHECKING:
    import OpenImageIO

_COLOURS = {headers.SRGB: Colour.SRGB, headers.SCENE_LINEAR: Colour.SCENE_LINEAR}
_NAMES = {
    "srgb_rec709_scene": Colour.SRGB,
    "srgb_rec709_display": Colour.SRGB,
    "srgb": Colour.SRGB,
    "lin_rec709_scene": Colour.SCENE_LINEAR,
    "lin_rec709": Colour.SCENE_LINEAR,
    "linear": Colour.SCENE_LINEAR,
    "linear rec.709": Colour.SCENE_LINEAR,
}
"""What files call the two spaces: the interoperability names, and OpenImageIO's and Blender's older ones."""

_READERS = {".png": "png", ".jpg": "jpeg", ".tif": "tiff", ".webp": "webp", ".exr": "openexr"}
_DTYPES = {"uint8": "uint8", "uint16": "uint16", "half": "half", "float": "float", "double": "float"}
_TIFF_MODELS = (0, 1, 2, 3, 6)
"""Grey, RGB, palette and YCbCr; not CMYK, Lab or a camera's mosaic."""

_LARGEST_TILE = 4096**2
"""A tile of so many pixels is still one, whatever the pixel budget."""

_AUTO = {"uint8": "png8", "uint16": "png16", "float16": "exr-half", "float32": "exr-float"}
_WIDTHS = {"png8": "uint8", "png16": "uint16", "exr-half": "half", "exr-float": "float"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels as the file has them.

    `pixels` is (H, W, C), C 3 or 4, channel 3 being the straight matte; dtype uint8, uint16, float16 or
    float32; `colour` is SRGB or SCENE_LINEAR, never AUTO; `colour_source` says how that was known:
    "given", "file" or "format".
    """

    pixels: NDArray[np.generic]
    colour: Colour = Colour.SRGB
    colour_source: str = "format"

    @property
    def has_matte(self) -> bool:
        """Whether channel 3 is a matte."""
        return self.pixels.shape[2] == 4

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the caller of `read` wants, for the steps that need to know."""

    shown: str
    colour: Colour
    max_megapixels: float


def sniff(data: bytes) -> str | None:
    """The canonical suffix of the format these bytes are in (".png" ...), None if it is none we read."""
    return headers.sniff(data)


def read(
    source: Path | bytes,
    *,
    name: str = "",
    suffix: str = "",
    colour: Colour = Colour.AUTO,
    max_megapixels: float = 100.0,
) -> Picture:
    """The picture in a file, or in a file's bytes: upright, grey and palettes expanded, matte straight.

    `name` is what errors call it (the path if left out); `suffix` is what it claims to be (the path's own
    if left out; an unfamiliar suffix claims nothing). An OpenEXR file gives its display window. A half
    file whose straight colours leave half's range is held as float32. Raises the PictureError family,
    PictureTooLarge from the header alone.
    """
    shown = name or (str(source) if isinstance(source, Path) else "(unnamed)")
    asked = _Asked(shown, colour, max_megapixels)
    data = _load(source, shown) if isinstance(source, Path) else source
    claimed = suffix or (source.suffix if isinstance(source, Path) else "")
    header = _header(data, claimed, asked)
    try:
        with _on_disk(source, data, header.suffix) as path:
            return _decode(path, header, asked)
    except UnicodeDecodeError as error:
        # OpenImageIO quotes what it finds in a torn header as if it were text.
        raise PictureDamaged(name=shown, detail="its header is garbled") from error
    except OSError as error:
        detail = f"there is no room to unpack it ({error.strerror or error})"
        raise PictureError(name=shown, detail=detail) from error
    except MemoryError as error:
        raise PictureError(name=shown, detail="there is not enough memory to unpack it") from error


def _load(path: Path, shown: str) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if head and headers.sniff(head) is None:
                raise NotAPicture(name=shown)
            return head + file.read()
    except FileNotFoundError as error:
        raise PictureMissing(name=shown) from error
    except OSError as error:
        raise PictureError(name=shown, detail=error.strerror or str(error)) from error


def _header(data: bytes, claimed: str, asked: _Asked) -> headers.Header:
    """The header, once everything that it alone can give away has been checked."""
    found = headers.sniff(data)
    if not data:
        raise PictureEmpty(name=asked.shown)
    if found is None:
        raise NotAPicture(name=asked.shown)
    claims = [own for own, others in headers.SUFFIXES.items() if claimed.lower() in others]
    if claims and found not in claims:
        raise PictureMislabelled(name=asked.shown, suffix=claimed, found=_READERS[found].upper())
    try:
        header = headers.parse(data)
    except ValueError as error:
        raise PictureDamaged(name=asked.shown, detail=error) from error
    if header.frames > 1:
        raise PictureAnimated(name=asked.shown, count=header.frames)
    if header.suffix == ".jpg" and header.channels == 4:
        raise PictureError(name=asked.shown, detail="it is CMYK, made for print")
    _check_size(header.width, header.height, asked)
    return header


def _check_size(width: int, height: int, asked: _Asked) -> None:
    if width * height > asked.max_megapixels * 1e6:
        limit = f"{asked.max_megapixels:g}"
        raise PictureTooLarge(name=asked.shown, width=width, height=height, limit_megapixels=limit)


@contextlib.contextmanager
def _on_disk(source: Path | bytes, data: bytes, suffix: str) -> Iterator[str]:
    """A path that OpenImageIO can open: it offers Python no reader over memory.

    It chooses its reader by suffix and takes what follows a `?` for options, so a file whose name would
    mislead it is copied too.
    """
    if (
        isinstance(source, Path)
        and source.suffix.lower() in headers.SUFFIXES[suffix]
        and "?" not in str(source)
    ):
        yield str(source)
        return
    with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
        copy = Path(folder) / f"picture{suffix}"
        copy.write_bytes(data)
        yield str(copy)


@functools.cache
def _oiio() -> Any:
    """OpenImageIO with its own limits lifted: ours are checked first, and answer in the artist's words."""
    import OpenImageIO

    OpenImageIO.attribute("limits:imagesize_MB", 1 << 30)
    OpenImageIO.attribute("limits:channels", 1024)
    return OpenImageIO


def _decode(path: str, header: headers.Header, asked: _Asked) -> Picture:
    oiio = _oiio()
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    reader = oiio.ImageInput.open(path, config)
    if reader is None:
        raise PictureDamaged(name=asked.shown, detail=_tidy(oiio.geterror(), path))
    try:
        if reader.format_name() != _READERS[header.suffix]:
            raise PictureDamaged(name=asked.shown, detail="the header cannot be read")
        spec = reader.spec()
        _check_spec(spec, header, asked)
        chosen = _channels(spec, asked)
        pixel_type = _pixel_type(spec, chosen, asked)
        colour, colour_source = _colour(spec, header, pixel_type, asked)
        stored = _stored(reader, chosen, pixel_type)
    except OSError as error:
        raise PictureDamaged(name=asked.shown, detail=_tidy(str(error), path)) from error
    finally:
        reader.close()
    return Picture(_finished(stored, spec, header), colour, colour_source)


def _tidy(complaint: str, path: str) -> str:
    """The first line of OpenImageIO's complaint, without the path that it worked on."""
    first = (complaint.strip().splitlines() or ["the pixels cannot be read"])[0]
    for named in (path, Path(path).name):
        first = re.sub(r'\s*\(?"?' + re.escape(named) + r'"?\)?:?', "", first)
    return first.strip(" :.")


def _check_spec(spec: OpenImageIO.ImageSpec, header: headers.Header, asked: _Asked) -> None:
    """Refuses what only OpenImageIO knows of: parts of OpenEXR, odd kinds of pixels."""
    _check_size(spec.width, spec.height, asked)
    count = spec.get_int_attribute("oiio:subimages", 1)
    if header.suffix == ".exr" and count > 1:
        raise PictureAnimated(name=asked.shown, count=count)
    if spec.deep or spec.depth > 1:
        raise PictureError(name=asked.shown, detail="it holds deep or volume data")
    # A tile is unpacked whole, however little of it the picture needs, and a strip of a TIFF with all its
    # channels: both are part of the pixel budget.
    if spec.tile_width * spec.tile_height > max(_LARGEST_TILE, asked.max_megapixels * 1e6):
        detail = f"its tiles are {spec.tile_width} x {spec.tile_height} pixels"
        raise PictureError(name=asked.shown, detail=detail)
    channels = max(header.channels, spec.nchannels if header.suffix == ".tif" else 0)
    if channels > 16:
        raise PictureError(name=asked.shown, detail=f"it has {channels} channels")
    if spec.get_int_attribute("tiff:PhotometricInterpretation", 2) not in _TIFF_MODELS:
        kind = spec.get_string_attribute("tiff:ColorSpace") or "neither RGB nor grey"
        raise PictureError(name=asked.shown, detail=f"it is {kind}")


def _channels(spec: OpenImageIO.ImageSpec, asked: _Asked) -> list[int]:
    """Where red, green, blue and, if there is one, the matte are among the file's channels."""
    names = list(spec.channelnames)
    matte = [names.index("A")] if "A" in names else []
    if {"R", "G", "B"} <= set(names):
        return [names.index(name) for name in "RGB"] + matte
    if "Y" in names and "RY" not in names:
        return [names.index("Y")] * 3 + matte
    found = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    raise PictureError(name=asked.shown, detail=f"it has no channels R, G and B, but {found}")


def _pixel_type(spec: OpenImageIO.ImageSpec, chosen: list[int], asked: _Asked) -> str:
    """The narrowest of our four pixel types that holds the chosen channels."""
    formats = spec.channelformats
    types = {str(formats[n]) for n in chosen} if formats else {str(spec.format)}
    unknown = types - set(_DTYPES)
    if unknown:
        raise PictureError(
            name=asked.shown, detail=f"its pixels are of the kind {', '.join(sorted(unknown))}"
        )
    return _DTYPES[types.pop()] if len(types) == 1 else "float"


def _colour(
    spec: OpenImageIO.ImageSpec, header: headers.Header, pixel_type: str, asked: _Asked
) -> tuple[Colour, str]:
    """The colour space and how it is known: as given, as the file says, or as its format implies."""
    if asked.colour is not Colour.AUTO:
        return asked.colour, "given"
    tag = _exr_tag(spec) if header.suffix == ".exr" else header.colour
    profile = spec.getattribute("ICCProfile")
    # A profile outweighs a camera's Exif word; of a PNG's own tags only cICP is read beside one, and it wins.
    if profile is not None and (header.suffix != ".png" or not tag):
        tag = icc.space_of(np.asarray(profile, np.uint8).tobytes())
    if not tag:
        linear = header.suffix == ".exr" or pixel_type in ("half", "float")
        return (Colour.SCENE_LINEAR if linear else Colour.SRGB), "format"
    colour = _COLOURS.get(tag) or _NAMES.get(tag.lower())
    if colour is None:
        raise PictureColourUnknown(name=asked.shown, colour=tag)
    return colour, "file"


def _exr_tag(spec: OpenImageIO.ImageSpec) -> str:
    tag = spec.get_string_attribute("colorInteropID") or spec.get_string_attribute("oiio:ColorSpace")
    if tag and tag != "unknown":
        return tag
    primaries = spec.getattribute("chromaticities")
    if primaries is None:
        return ""
    known = headers.is_rec709([float(value) for value in primaries])
    return headers.SCENE_LINEAR if known else "primaries other than Rec.709 (chromaticities)"


def _stored(reader: Any, chosen: list[int], pixel_type: str) -> Pixels:
    """The chosen channels as the file holds them; OSError with OpenImageIO's complaint if it cannot."""
    low, high = min(chosen), max(chosen) + 1
    stored = reader.read_image(0, 0, low, high, pixel_type)
    complaint: str = reader.geterror()
    if stored is None or (complaint and not _harmless(complaint)):
        raise OSError(complaint)
    wanted = [channel - low for channel in chosen]
    return stored if wanted == list(range(high - low)) else stored[..., wanted]


def _harmless(complaint: str) -> bool:
    """Some cameras leave bytes between a JPEG's segments; all the pixels are there."""
    return "extraneous bytes" in complaint and "remature" not in complaint


def _finished(stored: Pixels, spec: OpenImageIO.ImageSpec, header: headers.Header) -> Pixels:
    """From the file's way of holding pixels to ours: the display window, straight and upright."""
    exr = header.suffix == ".exr"
    if exr:
        offset = (spec.x - spec.full_x, spec.y - spec.full_y)
        stored = pixels.in_window(stored, offset, (spec.full_width, spec.full_height))
    if (exr or header.premultiplied) and stored.shape[2] == 4:
        stored = pixels.straight(stored)
    return pixels.upright(stored, spec.get_int_attribute("Orientation", 1))


def as_float(picture: Picture) -> Floats:
    """The pixels as float32 (H, W, C): 0..1 from whole numbers, as they are from floats."""
    return pixels.unit(picture.pixels)


def like(array: NDArray[np.floating], template: Picture) -> Picture:
    """A picture of `array` (H, W, C) with the template's dtype and colour; the inverse of `as_float`.

    Whole numbers are rounded to nearest and clamped, half is clamped to its range; NaN becomes 0 in whole
    numbers.
    """
    quantised = pixels.quantised(np.asarray(array, np.float32), template.pixels.dtype)
    return Picture(quantised, template.colour, template.colour_source)


def encode(picture: Picture, file_format: str = "auto") -> tuple[bytes, str]:
    """The bytes of a file of the picture, and the suffix that fits them.

    `file_format` is "png8", "png16", "exr-half", "exr-float", or "auto" for the picture's own depth. PNG is
    always sRGB with a straight matte, clamped to 0..1; OpenEXR is always scene-linear, premultiplied. Raises
    BadSetting for another format, PictureUnwritable where there is no room to work in.
    """
    chosen = _AUTO[picture.pixels.dtype.name] if file_format == "auto" else file_format
    if chosen not in _WIDTHS:
        raise BadSetting(name="file format", value=file_format, detail=f"choose one of {', '.join(_WIDTHS)}")
    if chosen.startswith("png"):
        return _encoded(_for_png(picture, np.dtype(_WIDTHS[chosen])), chosen, ".png"), ".png"
    return _encoded(_for_exr(picture, chosen), chosen, ".exr"), ".exr"


def _for_png(picture: Picture, dtype: np.dtype[Any]) -> Pixels:
    if picture.colour is Colour.SRGB and picture.pixels.dtype == dtype:
        return picture.pixels
    values = as_float(picture)
    if picture.colour is Colour.SCENE_LINEAR:
        values[..., :3] = pixels.srgb_from_linear(values[..., :3])
    return pixels.quantised(values, dtype)


def _for_exr(picture: Picture, chosen: str) -> Pixels:
    linear = picture.colour is Colour.SCENE_LINEAR
    opaque = not picture.has_matte or bool((picture.pixels[..., 3] == 1).all())
    if linear and opaque and chosen == _AUTO[picture.pixels.dtype.name]:
        return picture.pixels
    values = as_float(picture)
    if not linear:
        values[..., :3] = pixels.linear_colours(picture.pixels[..., :3])
    if picture.has_matte:
        # Light without coverage exists in scene-linear pictures alone: see the top of the file.
        values = pixels.premultiplied(values, keep_light=linear)
    return pixels.quantised(values, np.dtype(np.float16)) if chosen == "exr-half" else values


def _encoded(array: Pixels, chosen: str, suffix: str) -> bytes:
    try:
        with tempfile.TemporaryDirectory(prefix="keytween-") as folder:
            path = Path(folder) / f"picture{suffix}"
            _save(np.ascontiguousarray(array), chosen, path)
            return path.read_bytes()
    except OSError as error:
        raise PictureUnwritable(name=tempfile.gettempdir(), detail=error.strerror or error) from error


def _save(array: Pixels, chosen: str, path: Path) -> None:
    oiio = _oiio()
    height, width, channels = array.shape
    spec = oiio.ImageSpec(width, height, channels, _WIDTHS[chosen])
    for key, value in (_PNG_SETTINGS if path.suffix == ".png" else _EXR_SETTINGS).items():
        spec.attribute(key, value)
    writer = oiio.ImageOutput.create(str(path))
    if not (writer.open(str(path), spec) and writer.write_image(array) and writer.close()):
        raise PictureUnwritable(name=path.name, detail=_tidy(writer.geterror(), str(path)))


_PNG_SETTINGS: dict[str, str | int] = {
    "oiio:ColorSpace": "srgb_rec709_scene",
    "oiio:UnassociatedAlpha": 1,
    # Frames are made by the hundred: this is 5 to 10 times as fast as the default and seldom a fifth larger.
    "png:compressionLevel": 1,
    "png:filter": 16,
    "compression": "rle",
}
_EXR_SETTINGS: dict[str, str | int] = {"oiio:ColorSpace": "lin_rec709_scene", "compression": "zip"}


def write(picture: Picture, path: Path, file_format: str = "auto") -> None:
    """Leaves the picture at `path`, whole or not at all; the formats are those of `encode`.

    Raises PictureUnwritable, also where the path's suffix does not fit the format.
    """
    data, suffix = encode(picture, file_format)
    if path.suffix.lower() not in headers.SUFFIXES[suffix]:
        raise PictureUnwritable(name=path, detail=f"its suffix does not fit {suffix} data")
    try:
        place(data, path)
    except OSError as error:
        raise PictureUnwritable(name=path, detail=error.strerror or error) from error


_NUMBER = re.compile(r"#+|%(?:0([0-9]{1,3}))?d|\*")


def is_pattern(text: str) -> bool:
    """Whether the text names a sequence (`walk.####.png`, `walk.%04d.png`, `walk.*.png`), not one file."""
    return _NUMBER.search(Path(text).name) is not None and not os.path.exists(text)


def sequence(pattern: str) -> list[Path]:
    """The files that a number pattern matches, in the order of their numbers; SequenceEmpty if none.

    `####` and `%04d` stand for a number of four digits or more, `*` for anything; only the file's name may
    hold them. Hidden files are left out unless the pattern's name starts with a dot.
    """
    folder, name = Path(pattern).parent, Path(pattern).name
    parts = _parts(name)
    try:
        found = [path for path in folder.iterdir() if _fits(path.name, parts) and path.is_file()]
    except OSError:
        found = []
    if not name.startswith("."):
        found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise SequenceEmpty(name=pattern)
    return sorted(found, key=lambda path: _natural(path.name))


_DIGIT, _DIGITS, _ANYTHING = "digit", "any digits", "anything"
_LONGEST_NAME = 256


def _parts(name: str) -> list[str]:
    """A pattern as a list of letters, single digits, and what may be as long as it likes."""
    parts: list[str] = []
    at = 0
    for hit in _NUMBER.finditer(name):
        digits = len(hit[0]) if hit[0].startswith("#") else int(hit[1] or 1)
        parts += name[at : hit.start()]
        parts += [_ANYTHING] if hit[0] == "*" else [_DIGIT] * min(digits, _LONGEST_NAME) + [_DIGITS]
        at = hit.end()
    return [*parts, *name[at:]]


def _fits(name: str, parts: list[str]) -> bool:
    """Whether a name is one of the pattern's.

    All ways are followed at once, a letter at a time: where a pattern has many stars, a regular expression
    would try them one after the other for longer than anybody lives.
    """
    places = _onward({0}, parts)
    for letter in name:
        taken = {at for at in places if at < len(parts) and _takes(parts[at], letter)}
        places = _onward({at if parts[at] in (_DIGITS, _ANYTHING) else at + 1 for at in taken}, parts)
    return len(parts) in places


def _onward(places: set[int], parts: list[str]) -> set[int]:
    """The places, and those that are reached from them by leaving out what may be of no length."""
    found: set[int] = set()
    for at in places:
        found.add(at)
        while at < len(parts) and parts[at] in (_DIGITS, _ANYTHING):
            at += 1
            found.add(at)
    return found


def _takes(part: str, letter: str) -> bool:
    if part in (_DIGIT, _DIGITS):
        return letter in "0123456789"
    return part in (_ANYTHING, letter)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which 9 comes before 10; the name itself settles what is left."""
    # Every second piece is a number; what else counts as a digit, such as a superscript, is none to int().
    pieces = enumerate(re.split(r"([0-9]+)", name))
    return [(int(piece), "") if at % 2 else (-1, piece) for at, piece in pieces] + [(-1, name)]
