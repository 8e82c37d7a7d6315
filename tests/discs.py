"""Small drawings and the requests that go with them."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from keytween_wire.messages import KeyframeImage, MorphRequest


def draw_disc(path: Path, *, centre: tuple[int, int], size: tuple[int, int] = (96, 64)) -> Path:
    """A red disc on a blue ground, 8-bit RGB."""
    y, x = np.mgrid[: size[1], : size[0]]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 14**2
    pixels = np.where(inside[..., None], (220, 60, 40), (190, 215, 240)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def request_for(
    paths: list[Path], *, in_betweens: int = 5, engine: str = "dissolve"
) -> tuple[str, MorphRequest, list[bytes]]:
    """A fresh job id, a request for these keyframes, and their blobs."""
    blobs = [path.read_bytes() for path in paths]
    images = tuple(
        KeyframeImage(MorphRequest.digest_of(blob), path.suffix, index, name=path.name)
        for index, (path, blob) in enumerate(zip(paths, blobs, strict=True))
    )
    steps = tuple((i + 1) / (in_betweens + 1) for i in range(in_betweens))
    request = MorphRequest(images, (steps,) * (len(paths) - 1), engine=engine)
    return uuid.uuid4().hex, request, blobs
