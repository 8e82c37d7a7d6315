"""A shot's frames as one film: mp4 for looking, or ProRes 4444 in mov for the cut."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from keytween import images
from keytween.images import Picture
from keytween.report import display, preview_mp4
from keytween_wire.errors import OutputUnwritable

SUFFIXES = {"mp4": ".mp4", "prores": ".mov"}


def rate_of(fps: float) -> Fraction:
    """The exact rate that a rounded one stands for: 23.976 is 24000/1001."""
    whole = round(fps)
    if whole and abs(fps - whole * 1000 / 1001) < 0.005 and abs(fps - whole) > 0.005:
        return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def write(kind: str, frames: Sequence[Path], path: Path, *, fps: float) -> Path:
    """Leaves the film at `path`, whole or not at all. Raises OutputUnwritable."""
    if kind == "mp4":
        return preview_mp4(frames, path, fps=float(rate_of(fps)))
    return _prores(frames, path, rate_of(fps))


def _prores(frames: Sequence[Path], path: Path, rate: Fraction) -> Path:
    import av
    from av.error import FFmpegError

    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with av.open(str(beside), "w", format="mov") as film:
            stream: Any = None
            for index, picture in enumerate(_pictures(frames)):
                values = _rgba(picture)
                if stream is None:
                    stream = _stream(film, values.shape, rate)
                film.mux(stream.encode(_frame(values, index)))
            if stream is not None:
                film.mux(stream.encode(None))
        beside.replace(path)
    except (OSError, FFmpegError) as error:
        raise OutputUnwritable(name=path, detail=error.strerror or error) from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def _pictures(frames: Iterable[Path]) -> Iterable[Picture]:
    """Each once it is needed; a held drawing is read again, since films are short and pictures large."""
    return (images.read(path, max_megapixels=most) for path, most in zip(frames, repeat(float("inf"))))


def _rgba(picture: Picture) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """What the film shows, with its matte: 16 bits, (H, W, 4), both even."""
    values = np.rint(display(picture) * 65535).astype(np.uint16)
    return np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)), mode="edge")


def _stream(film: Any, shape: tuple[int, ...], rate: Fraction) -> Any:
    """ProRes 4444 with 10 bits and a matte, its colours named as Rec.709."""
    stream = film.add_stream("prores_ks", rate=rate, options={"profile": "4", "vendor": "apl0"})
    stream.width, stream.height, stream.pix_fmt = shape[1], shape[0], "yuva444p10le"
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
    return stream


def _frame(values: np.ndarray[Any, np.dtype[np.uint16]], index: int) -> Any:
    from av.video.frame import VideoFrame

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgba64le")
    frame = frame.reformat(format="yuva444p10le", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts = index
    return frame
