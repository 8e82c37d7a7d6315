"""render(): a request and its keyframes become frames. The heart, short."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from keytween.engines import open_engine
from keytween.engines.base import Engine, Frame, Progress
from keytween.images import Picture, read
from keytween_wire.errors import EngineFailed, KeytweenError, PictureSizesDiffer
from keytween_wire.messages import MorphRequest


@dataclass(frozen=True, slots=True)
class Estimate:
    """Progress with the seconds that are still to go, -1 when nobody knows yet."""

    progress: Progress
    eta_s: float


@dataclass(slots=True)
class _Clock:
    """Estimates by frames once one is finished, before that by the steps of the phase."""

    total: int
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def estimate(self, progress: Progress) -> Estimate:
        share = self.done / self.total if self.total else 1.0
        elapsed = time.monotonic() - self.began
        return Estimate(progress, elapsed * (1 - share) / share if share > 0 else -1.0)


def open_keyframes(
    request: MorphRequest, blobs: Sequence[bytes], *, max_megapixels: float = 100.0
) -> list[Picture]:
    """The keyframes' pictures, all of one size; raises PictureError before any work is done."""
    pictures = [
        read(blob, name=image.name, suffix=image.suffix, colour=image.colour, max_megapixels=max_megapixels)
        for image, blob in zip(request.keyframes, blobs, strict=True)
    ]
    _check_sizes(request, pictures)
    return pictures


def _check_sizes(request: MorphRequest, pictures: Sequence[Picture]) -> None:
    names = [image.name or f"keyframe {i + 1}" for i, image in enumerate(request.keyframes)]
    sizes = ["{1} x {0}".format(*picture.pixels.shape[:2]) for picture in pictures]
    for name, size in zip(names, sizes, strict=True):
        if size != sizes[0]:
            raise PictureSizesDiffer(first=names[0], first_size=sizes[0], name=name, size=size)


def render(
    request: MorphRequest,
    keyframes: Sequence[Picture],
    engine: Engine | None = None,
    *,
    skip: frozenset[int] = frozenset(),
) -> Iterator[Estimate | Frame]:
    """Yields every drawing of the request that is not in `skip`, with estimates between them.

    Close the generator to cancel. Raises KeytweenError; what an engine raises by mistake becomes
    EngineFailed, chained to its cause.
    """
    request.check()
    engine = engine or open_engine(request.engine)
    asked = request if engine.info.overshoot else replace(request, positions=_within(request.positions))
    clock = _Clock(request.total - len(skip))
    try:
        for made in engine.morph(asked, keyframes, skip=skip):
            if isinstance(made, Frame):
                clock.done += 1
                yield made
            else:
                yield clock.estimate(made)
    except (KeytweenError, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise EngineFailed(name=engine.info.name, detail=detail) from error


def _within(positions: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """For an engine that cannot overshoot, the keyframe is as far as it goes."""
    return tuple(tuple(min(1.0, max(0.0, p)) for p in segment) for segment in positions)
