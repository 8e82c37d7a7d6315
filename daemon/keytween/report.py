"""What a user looks at after a tween: contact sheet, preview film, evenness, and one HTML page of them.

Pillow (captions, thumbnails) and PyAV (film) live here and nowhere else; `report_page.py` is the page.
"""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keytween import images, pixels
from keytween.images import Picture
from keytween.report_page import FrameEntry, Pacing, Result, Section, Source, page
from keytween_wire.errors import BadSetting, OutputUnwritable, PictureSizesDiffer
from keytween_wire.messages import Colour

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "RMS",
    "Distance",
    "FrameEntry",
    "Pacing",
    "Result",
    "contact_sheet",
    "display",
    "evenness",
    "preview_mp4",
    "rms_difference",
    "strip",
    "write_report",
]

GROUND, INK, FAINT, ACCENT = (32, 34, 38), (240, 241, 243), (168, 172, 180), (255, 159, 28)
"""The sheet's own colours: it is a picture, and looks the same on a light and on a dark page."""
BOARD = (0.64, 0.72)
"""The checkerboard behind a matte, in display values."""
SQUARE = 10
GAP, FRAME, CAPTION_SIZE, LINE = 14, 4, 16, 21
STRIP_GAP = 4
"""The sheet's measures in pixels; captions are readable on the page, which shows it at about 3/4."""
FILM_EDGE = 1920
"""A preview's longest edge: every browser and every phone decodes it."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Distance:
    """A way to say how different two pictures of one size look, with the name the report calls it by."""

    name: str
    between: Callable[[Picture, Picture], float]


def rms_difference(first: Picture, second: Picture) -> float:
    """The root-mean-square difference of two pictures' display values, 0 (the same) to 1.

    A matte is seen over black and over white, half each, so paint that it hides does not count. Raises
    PictureSizesDiffer.
    """
    _check_same_size(first, second)
    difference = _weighed(first) - _weighed(second)
    over_black, over_white = difference[..., :3], difference[..., :3] - difference[..., 3:]
    squares = [float(np.mean(np.square(seen), dtype=np.float64)) for seen in (over_black, over_white)]
    return math.sqrt(sum(squares) / 2)


RMS = Distance("root-mean-square difference in display values", rms_difference)


def evenness(sources: Iterable[Source], *, distance: Distance = RMS) -> Pacing:
    """How evenly the pictures follow each other: the distances between neighbours and what comes of them.

    Give each drawing once, in the order it is shown. At most two pictures are in memory at a time.
    """
    pictures = (_load(source) for source in sources)
    steps = tuple(distance.between(first, second) for first, second in pairwise(pictures))
    return Pacing(distance.name, steps)


def _weighed(picture: Picture) -> NDArray[np.float32]:
    """Display values (H, W, 4) with the colours multiplied by the matte."""
    values = display(picture)
    return np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)


def contact_sheet(
    sources: Sequence[Source],
    captions: Sequence[str],
    *,
    keyframes: Collection[int] = (),
    cell: int = 236,
    width: int = 1280,
) -> Picture:
    """One picture of all of them in rows, captions below, those numbered in `keyframes` framed in orange.

    sRGB uint8 (H, W, 3). Pictures larger than `cell` pixels are scaled down to it, none is scaled up;
    rows wrap at `width` pixels. A caption may have several lines; too long ones are cut with an ellipsis.
    A matte shows a checkerboard. Raises BadSetting when there are no pictures or captions do not match.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not sources or len(captions) != len(sources):
        raise BadSetting(name="captions", value=len(captions), detail=f"there are {len(sources)} pictures")
    thumbnails = [_thumbnail(_load(source), cell) for source in sources]
    layout = _Layout.of(thumbnails, captions, width=width)
    sheet = Image.new("RGB", layout.size, GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(CAPTION_SIZE)
    for index, (thumbnail, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        left, top = layout.place(index, thumbnail.size)
        if index in keyframes:
            box = (
                left - FRAME,
                top - FRAME,
                left + thumbnail.width + FRAME - 1,
                top + thumbnail.height + FRAME - 1,
            )
            draw.rectangle(box, fill=ACCENT)
        sheet.paste(thumbnail, (left, top))
        _write_caption(draw, caption, layout.caption_place(index), font=font, width=layout.cell[0])
    return Picture(np.array(sheet), Colour.SRGB, "given")


def strip(sources: Sequence[Source | None], *, cell: int = 160, quality: int = 75) -> bytes:
    """A row of pictures as JPEG, each scaled down to `cell` pixels; None leaves its place empty.

    A matte shows a checkerboard. Raises BadSetting when there are no pictures.
    """
    from PIL import Image

    shown = [source and _thumbnail(_load(source), cell) for source in sources]
    size = next((image.size for image in shown if image), None)
    if size is None:
        raise BadSetting(name="strip", value=len(sources), detail="it needs a picture")
    row = Image.new("RGB", (len(shown) * (size[0] + STRIP_GAP) - STRIP_GAP, size[1]), GROUND)
    for number, image in enumerate(shown):
        if image:
            row.paste(image, (number * (size[0] + STRIP_GAP), 0))
    with io.BytesIO() as file:
        row.save(file, "JPEG", quality=quality, optimize=True)
        return file.getvalue()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are on a contact sheet, in pixels."""

    columns: int
    rows: int
    cell: tuple[int, int]
    lines: int

    @classmethod
    def of(cls, thumbnails: Sequence[Image.Image], captions: Sequence[str], *, width: int) -> _Layout:
        """As many columns as fit, then no more than its rows need: 8 pictures are 4 and 4, not 6 and 2."""
        cell = max(max(t.width for t in thumbnails), 96), max(t.height for t in thumbnails)
        fitting = max(1, (width - GAP) // (cell[0] + GAP))
        rows = math.ceil(len(thumbnails) / fitting)
        lines = max(caption.count("\n") + 1 for caption in captions)
        return cls(math.ceil(len(thumbnails) / rows), rows, cell, lines)

    @property
    def pitch(self) -> tuple[int, int]:
        return self.cell[0] + GAP, self.cell[1] + self.lines * LINE + FRAME + 6 + GAP

    @property
    def size(self) -> tuple[int, int]:
        return GAP + self.columns * self.pitch[0], GAP + self.rows * self.pitch[1]

    def place(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        """The top left corner of a picture: centred in its column, at the foot of its row."""
        row, column = divmod(index, self.columns)
        left = GAP + column * self.pitch[0] + (self.cell[0] - size[0]) // 2
        return left, GAP + row * self.pitch[1] + self.cell[1] - size[1]

    def caption_place(self, index: int) -> tuple[int, int]:
        """The top centre of a picture's caption."""
        row, column = divmod(index, self.columns)
        return GAP + column * self.pitch[0] + self.cell[0] // 2, (
            GAP + row * self.pitch[1] + self.cell[1] + FRAME + 4
        )


def _write_caption(
    draw: ImageDraw.ImageDraw, caption: str, at: tuple[int, int], *, font: Any, width: int
) -> None:
    for number, line in enumerate(caption.split("\n")):
        ink = INK if number == 0 else FAINT
        draw.text(
            (at[0], at[1] + number * LINE), _fitting(line, font, width), fill=ink, font=font, anchor="ma"
        )


def _fitting(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The line, cut with an ellipsis where it is wider than `width` pixels."""
    line = "".join(c if c.isprintable() else "?" for c in line)
    if font.getlength(line) <= width:
        return line
    kept = next((n for n in range(len(line), 0, -1) if font.getlength(line[:n] + "...") <= width), 0)
    return line[:kept].rstrip() + "..."


def _thumbnail(picture: Picture, cell: int) -> Image.Image:
    """The picture within `cell` x `cell`, over a checkerboard whose squares keep their size."""
    from PIL import Image

    values = np.rint(display(picture) * 255).astype(np.uint8)
    image = Image.fromarray(values if picture.has_matte else np.ascontiguousarray(values[..., :3]))
    scale = min(1.0, cell / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return Image.fromarray(_over_board(np.asarray(image, np.float32) / np.float32(255)))


def preview_mp4(
    frames: Iterable[Source], path: Path, *, fps: float = 24.0, holds: Iterable[int] | None = None
) -> Path:
    """Leaves an H.264 film that browsers play at `path`, whole or not at all.

    Each frame is shown for its number in `holds` (once if left out). Frames beyond 1920 pixels are scaled
    down, odd sizes are padded by a pixel, a matte shows a checkerboard, scene-linear is shown as sRGB.
    One picture is in memory at a time. Raises BadSetting, PictureSizesDiffer, OutputUnwritable.
    """
    import av
    from av.error import FFmpegError

    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise BadSetting(name="fps", value=fps, detail="it must be above 0, up to 1000")
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"}) as film:
            _encode(film, _same_size(frames), fps, holds)
        beside.replace(path)
    except (OSError, FFmpegError) as error:
        raise OutputUnwritable(name=path, detail=error.strerror or error) from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def _encode(
    film: OutputContainer, pictures: Iterator[Picture], fps: float, holds: Iterable[int] | None
) -> None:
    first = next(pictures, None)
    if first is None:
        raise BadSetting(name="frames", value=0, detail="a film needs at least one")
    stream: Any = None
    counts = iter(holds) if holds is not None else iter(lambda: 1, 0)
    shown = 0
    for picture, count in zip(chain([first], pictures), counts, strict=False):
        still = _film_still(picture)
        if stream is None:
            stream = _stream(film, still.shape, fps)
        for _ in range(count):
            film.mux(stream.encode(_video_frame(still, shown)))
            shown += 1
    film.mux(stream.encode(None))


def _stream(film: OutputContainer, shape: tuple[int, ...], fps: float) -> Any:
    """An H.264 stream that says how its colours are meant: players else guess by size, and shift hues."""
    rate = Fraction(fps).limit_denominator(1001)
    stream: Any = film.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
    stream.width, stream.height, stream.pix_fmt = shape[1], shape[0], "yuv420p"
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 13, 1
    return stream


def _video_frame(still: Bytes, index: int) -> VideoFrame:
    from av.video.frame import VideoFrame

    frame = VideoFrame.from_ndarray(still, format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts = index
    return frame


def _film_still(picture: Picture) -> Bytes:
    """What the film shows of a picture: sRGB (H, W, 3), both even, over a checkerboard."""
    still = _over_board(display(picture))
    if max(still.shape) > FILM_EDGE:
        still = np.asarray(_thumbnail(picture, FILM_EDGE))
    return np.pad(still, ((0, still.shape[0] % 2), (0, still.shape[1] % 2), (0, 0)), mode="edge")


def _same_size(frames: Iterable[Source]) -> Iterator[Picture]:
    first: Picture | None = None
    for picture in map(_load, frames):
        first = first or picture
        _check_same_size(first, picture)
        yield picture


def write_report(folder: Path, results: Sequence[Result], *, distance: Distance = RMS) -> Path:
    """Leaves `index.html` with every result's film, contact sheet, timing and table; gives its path.

    Beside it lie `tween-N.mp4` and `tween-N-sheet.png`, to which it links relatively; the folder is made.
    Raises BadSetting without results, OutputUnwritable, and what the pictures raise.
    """
    if not results or not all(result.frames for result in results):
        raise BadSetting(name="results", value=len(results), detail="each needs at least one frame")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sections = [_section(folder, n, result, distance) for n, result in enumerate(results, start=1)]
        index = folder / "index.html"
        index.write_text(page(sections, folder), encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
    return index


def _section(folder: Path, number: int, result: Result, distance: Distance) -> Section:
    sources = [entry.source for entry in result.frames]
    film, sheet = folder / f"tween-{number}.mp4", folder / f"tween-{number}-sheet.png"
    keyframes = {index for index, entry in enumerate(result.frames) if entry.keyframe}
    captions = [entry.caption for entry in result.frames]
    images.write(contact_sheet(sources, captions, keyframes=keyframes), sheet, "png8")
    preview_mp4(sources, film, fps=result.fps, holds=[entry.held for entry in result.frames])
    return Section(result, evenness(sources, distance=distance), film.name, sheet.name)


def _load(source: Source) -> Picture:
    return images.read(source) if isinstance(source, Path) else source


def _check_same_size(first: Picture, second: Picture) -> None:
    if first.size != second.size:
        sizes = ["{} x {}".format(*picture.size) for picture in (first, second)]
        raise PictureSizesDiffer(first="the first frame", first_size=sizes[0], name="another", size=sizes[1])


def display(picture: Picture) -> NDArray[np.float32]:
    """Display values, sRGB, 0..1 (H, W, 4), straight; without a matte channel 3 is 1. NaN is black."""
    values = images.as_float(picture)
    if picture.colour is Colour.SCENE_LINEAR:
        values[..., :3] = pixels.srgb_from_linear(values[..., :3])
    if not picture.has_matte:
        values = np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)
    return np.fmin(np.fmax(values, np.float32(0)), np.float32(1))


def _over_board(values: NDArray[np.float32]) -> Bytes:
    """Display values (H, W, 3 or 4) over a checkerboard, as bytes (H, W, 3)."""
    if values.shape[2] == 4:
        rows, columns = np.indices(values.shape[:2]) // SQUARE
        board = np.where((rows + columns) % 2 == 0, *map(np.float32, BOARD))[..., None]
        matte = values[..., 3:]
        values = values[..., :3] * matte + board * (1 - matte)
    return np.rint(values[..., :3] * 255).astype(np.uint8)
