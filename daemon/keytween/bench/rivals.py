"""Other flows, as plain engines to compare with: a flow each way, both keyframes warped, and a blend.

cv2's DIS and Farneback, scikit-image's TV-L1 and ILK. They are no product: only the bench opens them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from keytween import engines
from keytween.engines.base import Engine, Frame, Progress
from keytween.engines.dissolve import mix, premultiplied, straight, template, with_channels
from keytween.images import Picture, as_float, like
from keytween.report import display
from keytween_wire.errors import EngineUnavailable
from keytween_wire.messages import EngineInfo, MorphRequest

Array = NDArray[np.float32]
Grey = NDArray[np.uint8]
Matcher = Callable[[Grey, Grey], Array]
"""Two grey pictures (H, W) -> how far off, in pixels, each pixel of the first is in the second: (H, W, 2)."""

_GROUND, _LIGHT = 0.5, np.array([0.299, 0.587, 0.114], np.float32)


def dis(first: Grey, second: Grey) -> Array:
    """OpenCV's DIS at its medium preset."""
    nothing = np.zeros((*first.shape, 2), np.float32)
    return np.asarray(
        cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, nothing), np.float32
    )


def farneback(first: Grey, second: Grey) -> Array:
    """OpenCV's Farneback with the numbers of its documentation, and levels enough for large motion."""
    nothing = np.zeros((*first.shape, 2), np.float32)
    return np.asarray(
        cv2.calcOpticalFlowFarneback(first, second, nothing, 0.5, 5, 15, 3, 5, 1.2, 0), np.float32
    )


def tvl1(first: Grey, second: Grey) -> Array:
    """scikit-image's TV-L1 with its own settings."""
    from skimage.registration import optical_flow_tvl1

    down, across = optical_flow_tvl1(_unit(first), _unit(second))
    return np.stack([across, down], axis=2).astype(np.float32)


def ilk(first: Grey, second: Grey) -> Array:
    """scikit-image's iterative Lucas-Kanade, its window widened to 15 pixels to each side."""
    from skimage.registration import optical_flow_ilk

    down, across = optical_flow_ilk(_unit(first), _unit(second), radius=15)
    return np.stack([across, down], axis=2).astype(np.float32)


def _unit(grey: Grey) -> Array:
    return grey.astype(np.float32) / np.float32(255)


_RIVALS: dict[str, tuple[str, Matcher, str]] = {
    "dis": ("OpenCV's DIS flow, warped and blended.", dis, ""),
    "farneback": ("OpenCV's Farneback flow, warped and blended.", farneback, ""),
    "tvl1": ("scikit-image's TV-L1 flow, warped and blended.", tvl1, "skimage"),
    "ilk": ("scikit-image's iterative Lucas-Kanade flow, warped and blended.", ilk, "skimage"),
}
NAMES = tuple(_RIVALS)
FIX = "Install scikit-image: it comes with Keytween's extra `bench`."


def infos() -> tuple[EngineInfo, ...]:
    """Every rival, whether it can run here, and why not."""
    return tuple(_info(name) for name in _RIVALS)


def _info(name: str) -> EngineInfo:
    summary, _, needs = _RIVALS[name]
    info = EngineInfo(name, summary)
    if needs and find_spec(needs) is None:
        return replace(info, available=False, reason="scikit-image not installed")
    return info


def open_contender(name: str, *, fits: Path | None = None) -> Engine:
    """The rival of that name, or else the engine; UnknownEngine or EngineUnavailable as `open_engine`."""
    if name not in _RIVALS:
        return engines.open_engine(name, fits=fits)
    info = _info(name)
    if not info.available:
        raise EngineUnavailable(name=name, detail=info.reason, fix=FIX)
    return Rival(info, _RIVALS[name][1])


@dataclass(slots=True)
class Rival:
    """A flow as an engine: nothing is checked, hidden or filled."""

    info: EngineInfo
    matcher: Matcher

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        """Yields a Frame for every position that is not in `skip`; a pair is matched once for all of them."""
        index = 0
        for segment, positions in enumerate(request.positions):
            first, second = keyframes[segment], keyframes[segment + 1]
            wanted = [(index + i, p) for i, p in enumerate(positions) if index + i not in skip]
            index += len(positions)
            if not wanted:
                continue
            yield Progress("matching", segment + 1, len(request.positions))
            greys = _grey(first), _grey(second)
            ahead, back = self.matcher(*greys), self.matcher(greys[1], greys[0])
            for number, position in wanted:
                yield Progress("drawing", number + 1, request.total)
                yield Frame(number, _drawn(first, second, ahead, back, min(max(position, 0.0), 1.0)))


def _grey(picture: Picture) -> Grey:
    """What a flow sees: the light (H, W) over middle grey."""
    values = display(picture)
    seen = values[..., :3] * values[..., 3:] + _GROUND * (1 - values[..., 3:])
    return np.round(seen @ _LIGHT * 255).astype(np.uint8)


def _drawn(first: Picture, second: Picture, ahead: Array, back: Array, position: float) -> Picture:
    """Both keyframes fetched along their share of the flow, and blended."""
    channels = max(first.pixels.shape[2], second.pixels.shape[2])
    ends = [premultiplied(with_channels(as_float(picture), channels)) for picture in (first, second)]
    warped = _fetched(ends[0], -position * ahead), _fetched(ends[1], (position - 1) * back)
    return like(straight(mix(*warped, position)), template(first, second))


def _fetched(pixels: Array, offsets: Array) -> Array:
    """The pixels (H, W, C) taken from `offsets` (H, W, 2) beside each place."""
    y, x = np.indices(pixels.shape[:2], np.float32)
    fetched = cv2.remap(
        pixels, x + offsets[..., 0], y + offsets[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(fetched, np.float32)
