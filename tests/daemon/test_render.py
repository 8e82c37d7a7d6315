"""render(): the request's drawings, estimates between them, and errors with a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from discs import draw_disc, request_for
from keytween.engines.base import Frame, Progress
from keytween.images import Picture
from keytween.render import Estimate, open_keyframes, render
from keytween_wire.errors import (
    BadSetting,
    EngineFailed,
    PictureSizesDiffer,
    PictureTooLarge,
    TooFewKeyframes,
)
from keytween_wire.messages import EngineInfo, MorphRequest


@dataclass
class Scripted:
    """An engine that does what the test says, through the real protocol."""

    info: EngineInfo = field(default_factory=lambda: EngineInfo("scripted", "for tests"))
    raises: Exception | None = None
    asked: list[MorphRequest] = field(default_factory=list)
    closed: bool = False

    def morph(
        self, request: MorphRequest, keyframes: Sequence[Picture], *, skip: frozenset[int] = frozenset()
    ) -> Iterator[Progress | Frame]:
        self.asked.append(request)
        try:
            for index in range(request.total):
                yield Progress("drawing", index, request.total)
                if index not in skip:
                    yield Frame(index, keyframes[0])
            if self.raises:
                raise self.raises
        finally:
            self.closed = True


@pytest.fixture
def request_and_pictures(keyframe_files: list[Path]) -> tuple[MorphRequest, list[Picture]]:
    _, request, blobs = request_for(keyframe_files, in_betweens=4)
    return request, open_keyframes(request, blobs)


Asked = tuple[MorphRequest, list[Picture]]


def test_every_drawing_comes_once_with_estimates_between(request_and_pictures: Asked) -> None:
    made = list(render(*request_and_pictures, Scripted()))
    assert [m.index for m in made if isinstance(m, Frame)] == [0, 1, 2, 3]
    estimates = [m.eta_s for m in made if isinstance(m, Estimate)]
    assert estimates[0] == -1
    assert all(eta >= 0 for eta in estimates[1:])


def test_finished_drawings_are_skipped(request_and_pictures: Asked) -> None:
    made = render(*request_and_pictures, Scripted(), skip=frozenset({0, 2}))
    assert [m.index for m in made if isinstance(m, Frame)] == [1, 3]


def test_closing_it_closes_the_engine(request_and_pictures: Asked) -> None:
    engine = Scripted()
    made = render(*request_and_pictures, engine)
    next(made)
    made.close()
    assert engine.closed


def test_an_engine_that_cannot_overshoot_is_asked_for_the_keyframe(request_and_pictures: Asked) -> None:
    request, pictures = request_and_pictures
    beyond = replace(request, positions=((-0.2, 0.5, 1.3),))
    stiff, springy = Scripted(), Scripted(EngineInfo("springy", "", overshoot=True))
    for engine in (stiff, springy):
        list(render(beyond, pictures, engine))
    assert stiff.asked[0].positions == ((0.0, 0.5, 1.0),)
    assert springy.asked[0].positions == beyond.positions


def test_what_an_engine_raises_by_mistake_is_named_and_chained(request_and_pictures: Asked) -> None:
    with pytest.raises(EngineFailed, match="scripted failed: ZeroDivisionError") as caught:
        list(render(*request_and_pictures, Scripted(raises=ZeroDivisionError("oops"))))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_ours_passes_as_it_is(request_and_pictures: Asked) -> None:
    with pytest.raises(PictureTooLarge):
        list(render(*request_and_pictures, Scripted(raises=PictureTooLarge(name="x"))))


def test_a_bad_request_is_refused_before_the_engine_starts(request_and_pictures: Asked) -> None:
    request, pictures = request_and_pictures
    engine = Scripted()
    for bad, error in (
        (replace(request, positions=((float("nan"),),)), BadSetting),
        (replace(request, positions=()), BadSetting),
        (replace(request, file_format="gif"), BadSetting),
        (replace(request, keyframes=request.keyframes[:1], positions=()), TooFewKeyframes),
    ):
        with pytest.raises(error):
            list(render(bad, pictures, engine))
    assert engine.asked == []


def test_keyframes_of_different_sizes_are_named(keyframe_files: list[Path], tmp_path: Path) -> None:
    other = draw_disc(tmp_path / "other.png", centre=(5, 5), size=(40, 64))
    _, request, blobs = request_for([keyframe_files[0], other])
    with pytest.raises(PictureSizesDiffer, match=r"key0.png is 96 x 64, other.png is 40 x 64"):
        open_keyframes(request, blobs)


def test_the_pixel_budget_is_kept(keyframe_files: list[Path]) -> None:
    _, request, blobs = request_for(keyframe_files)
    with pytest.raises(PictureTooLarge):
        open_keyframes(request, blobs, max_megapixels=0.001)


def test_the_named_engine_is_the_one_that_runs(request_and_pictures: Asked) -> None:
    request, pictures = request_and_pictures
    frames = [m for m in render(replace(request, positions=((0.5,),)), pictures) if isinstance(m, Frame)]
    middle = (pictures[0].pixels.astype(float) + pictures[1].pixels) / 2
    assert np.abs(frames[0].picture.pixels - middle).max() <= 1
