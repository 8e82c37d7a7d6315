"""From picture files to a folder of numbered frames: what `keytween morph` and `keytween demo` do."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from keytween_wire.client import Client
from keytween_wire.easing import LINEAR, Easing
from keytween_wire.errors import (
    Cancelled,
    DiskFull,
    KeytweenError,
    NotAPicture,
    OutputUnwritable,
    PictureEmpty,
    PictureMissing,
    TooFewKeyframes,
    from_wire,
)
from keytween_wire.messages import (
    Colour,
    Diffusion,
    FrameMade,
    JobChanged,
    JobState,
    KeyframeImage,
    MorphRequest,
    Progressed,
)
from keytween_wire.timeline import Cel, Plan, plan, spaced

_NUMBERED = re.compile(r"\d{4,}\.[a-z]+")


@dataclass(frozen=True, slots=True)
class Step:
    """How far the work is: phase, step of so many, seconds to go (-1: unknown)."""

    phase: str
    step: int
    steps: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class FinishedDrawing:
    """An in-between: its index, its picture file's bytes and suffix, and what the engine says of it."""

    index: int
    data: bytes
    suffix: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Morph:
    """A request with everything that its frames need: the keyframes' files and the plan."""

    request: MorphRequest
    paths: tuple[Path, ...]
    blobs: tuple[bytes, ...]
    plan: Plan


def prepare(
    images: Sequence[str],
    *,
    in_betweens: int,
    exposure: int = 1,
    easing: Easing = LINEAR,
    engine: str = "auto",
    seed: int = 0,
    colour: Colour = Colour.AUTO,
    file_format: str = "auto",
    diffusion: Diffusion | None = None,
    path: str = "straight",
    effort: str = "full",
    max_megapixels: float = 100.0,
) -> Morph:
    """What to do for these pictures or number patterns, checked before any work is done."""
    from keytween.engines import choose
    from keytween.render import open_keyframes

    paths = _expand(images)
    if len(paths) < 2:
        raise TooFewKeyframes(count=len(paths))
    choose(engine)
    blobs = tuple(_read(file) for file in paths)
    keyframes = [
        replace(k, easing=easing) for k in spaced(len(paths), in_betweens=in_betweens, exposure=exposure)
    ]
    planned = plan(keyframes, exposure=exposure)
    request = MorphRequest(
        tuple(
            KeyframeImage(MorphRequest.digest_of(blob), file.suffix.lower(), key.frame, colour, str(file))
            for file, blob, key in zip(paths, blobs, keyframes, strict=True)
        ),
        planned.positions(len(paths) - 1),
        engine=engine,
        seed=seed,
        file_format=file_format,
        diffusion=diffusion or Diffusion(),
        path=path,
        effort=effort,
    )
    request.check()
    open_keyframes(request, blobs, max_megapixels=max_megapixels)
    return Morph(request, tuple(paths), blobs, planned)


def _expand(images: Sequence[str]) -> list[Path]:
    from keytween.images import is_pattern, sequence

    paths: list[Path] = []
    for image in images:
        paths += sequence(image) if is_pattern(image) else [Path(image)]
    return paths


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PictureMissing(name=path) from error
    except OSError as error:
        raise NotAPicture(name=path) from error
    if not data:
        raise PictureEmpty(name=path)
    return data


# ---- two ways to run it


def by_daemon(
    client: Client, morph: Morph, *, label: str = ""
) -> Generator[Step | FinishedDrawing, None, None]:
    """Runs it in the daemon, as Blender does; closing the generator cancels the job."""
    job_id = uuid.uuid4().hex
    client.submit(job_id, morph.request, morph.blobs, label=label)
    ended = False
    try:
        for received in client.events(job_id):
            match received.message:
                case FrameMade(index=index, suffix=suffix, note=note):
                    yield FinishedDrawing(index, received.blobs[0], suffix, note)
                case Progressed(phase=phase, step=step, steps=steps, eta_s=eta_s):
                    yield Step(phase, step, steps, eta_s)
                case JobChanged(state=state) as changed:
                    ended = state.ended
                    _raise_failure(changed)
                case _:
                    pass
    finally:
        if not ended:
            with suppress(KeytweenError):
                client.cancel(job_id)
    # The frames are ours now; the daemon need not keep them.
    client.clear(job_id)


def _raise_failure(changed: JobChanged) -> None:
    if changed.state is JobState.CANCELLED:
        raise Cancelled()
    if changed.state is JobState.FAILED:
        error = changed.error
        raise from_wire(error.code, error.values) if error else KeytweenError(detail="the job failed")


def in_process(
    morph: Morph, *, fits: Path | None = None, max_megapixels: float = 100.0
) -> Generator[Step | FinishedDrawing, None, None]:
    """Runs the same code here, without a daemon; closing the generator cancels."""
    from keytween.engines import open_engine
    from keytween.engines.base import Frame
    from keytween.images import encode
    from keytween.render import open_keyframes, render

    keyframes = open_keyframes(morph.request, morph.blobs, max_megapixels=max_megapixels)
    for made in render(morph.request, keyframes, open_engine(morph.request.engine, fits=fits)):
        if isinstance(made, Frame):
            data, suffix = encode(made.picture, morph.request.file_format)
            yield FinishedDrawing(made.index, data, suffix, made.note)
        else:
            yield Step(made.progress.phase, made.progress.step, made.progress.steps, made.eta_s)


# ---- numbered files


class FrameFolder:
    """Writes the frames of a plan as 0001.png and so on; a held drawing is one file under several names."""

    def __init__(self, folder: Path, morph: Morph, *, overwrite: bool = False) -> None:
        self.folder = folder
        self._morph = morph
        self.written: dict[int, Path] = {}
        self.notes: dict[str, None] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_empty(folder, overwrite)
        except OSError as error:
            raise OutputUnwritable(name=folder, detail=error.strerror or str(error)) from error

    def add(self, drawing: FinishedDrawing) -> None:
        """Writes a drawing for every timeline frame that shows it, and keeps its note for the report."""
        if drawing.note:
            self.notes[drawing.note] = None
        self._write(Cel(drawing=drawing.index), drawing.data, drawing.suffix)

    def add_keyframes(self, suffix: str) -> None:
        """Writes the keyframes: their own bytes where the format allows, else the same pixels."""
        for index, (path, blob) in enumerate(zip(self._morph.paths, self._morph.blobs, strict=True)):
            own = path.suffix.lower() == suffix
            data = blob if own else self._converted(index, blob)
            self._write(Cel(keyframe=index), data, suffix)

    def suffix(self) -> str:
        """The suffix of the frames: that of the drawings, or of the first keyframe where there are none."""
        drawn = next((p.suffix for p in self.written.values()), "")
        return drawn or self._morph.paths[0].suffix.lower()

    def _converted(self, index: int, blob: bytes) -> bytes:
        from keytween.images import encode, read

        image = self._morph.request.keyframes[index]
        picture = read(
            blob, name=image.name, suffix=image.suffix, colour=image.colour, max_megapixels=float("inf")
        )
        return encode(picture, self._morph.request.file_format)[0]

    def _write(self, cel: Cel, data: bytes, suffix: str) -> None:
        numbers = [i + 1 for i, shown in enumerate(self._morph.plan.cels) if shown == cel]
        try:
            first = self._replace(numbers[0], suffix, data)
            for number in numbers[1:]:
                self._repeat(first, number)
        except OSError as error:
            raise _translated(error, self.folder) from error

    def _replace(self, number: int, suffix: str, data: bytes) -> Path:
        path = self.folder / f"{number:04d}{suffix}"
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_bytes(data)
        unfinished.replace(path)
        self.written[number] = path
        return path

    def _repeat(self, first: Path, number: int) -> None:
        path = self.folder / f"{number:04d}{first.suffix}"
        path.unlink(missing_ok=True)
        try:
            os.link(first, path)
        except OSError:
            shutil.copyfile(first, path)
        self.written[number] = path


def _check_empty(folder: Path, overwrite: bool) -> None:
    frames = [p for p in folder.iterdir() if _NUMBERED.fullmatch(p.name)]
    if frames and not overwrite:
        detail = f"it holds frames already ({frames[0].name}); add --overwrite to replace them"
        raise OutputUnwritable(name=folder, detail=detail)
    for path in frames:
        path.unlink()


def _translated(error: OSError, folder: Path) -> KeytweenError:
    from keytween.jobs.folder import translate

    return translate(error, folder) if error.errno else DiskFull(name=folder)
