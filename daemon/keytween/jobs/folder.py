"""A job's folder: its keyframes, its frames. A file is whole or not there, and its name proves it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from keytween.jobs.job import check_job_id
from keytween_wire.codec import pack_dataclass, unpack_dataclass
from keytween_wire.errors import DiskFull, KeyframeLost, KeytweenError, MessageError, OutputUnwritable
from keytween_wire.messages import KeyframeImage, MorphRequest

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_FRAME = re.compile(r"(\d{5})-([0-9a-f]{64})(\.[a-z0-9]{1,5})")
_JOURNAL = re.compile(r"^(\d{1,5}) ([0-9a-f]{64})$", re.MULTILINE)
UNFINISHED = "unfinished-"
ORDER = "order.msgpack"
SPARE = 1 << 16
"""Bytes that a job takes beside its pictures: its order, its row, the folders themselves."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job was asked to do, beside its pictures: a store that is lost is made again from it."""

    request: MorphRequest
    engine: str
    device: bool = False
    label: str = ""
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A finished frame on disk: drawing `index`, the SHA-256 of its bytes, its suffix and size in bytes."""

    index: int
    digest: str
    suffix: str
    size: int

    @property
    def name(self) -> str:
        """The file's name, which holds the digest, so that a whole file can be told from any other."""
        return f"{self.index:05d}-{self.digest}{self.suffix}"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The files of one job below the daemon's `jobs` folder."""

    jobs: Path
    job_id: str

    def __post_init__(self) -> None:
        check_job_id(self.job_id)

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.jobs / self.job_id

    @property
    def frames(self) -> Path:
        """Where finished frames lie."""
        return self.path / "frames"

    @property
    def lock(self) -> Path:
        """Held by the one worker that computes this job."""
        return self.path / "job.lock"

    def keyframe(self, index: int, suffix: str) -> Path:
        """The file of a keyframe's bytes."""
        return self.path / f"keyframe-{index:03d}{suffix}"

    def create(self, order: Order, blobs: Sequence[bytes]) -> None:
        """Stores it all, whole or not at all; raises MessageError, DiskFull or OutputUnwritable."""
        _check_blobs(order.request, blobs)
        self._check_room(sum(map(len, blobs)))
        unfinished = self.jobs / f"{UNFINISHED}{self.job_id}"
        try:
            _remove(unfinished)
            (unfinished / "frames").mkdir(parents=True)
            for index, (image, blob) in enumerate(zip(order.request.keyframes, blobs, strict=True)):
                _write_durably(unfinished / f"keyframe-{index:03d}{image.suffix}", blob)
            _write_durably(unfinished / ORDER, pack_dataclass(order))
            # What is in the folder must be on disk before the folder has its name.
            sync_folder(unfinished)
            _remove(self.path)
            unfinished.rename(self.path)
            sync_folder(self.jobs)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise translate(error, self.jobs) from error

    def _check_room(self, size: int) -> None:
        """Raises DiskFull, which says how much is needed, where so many bytes have no room."""
        with suppress(OSError):
            free = shutil.disk_usage(self.jobs).free
            if free < size + SPARE:
                needed = f"at least {(size + SPARE) / 1e6:.1f} MB ({free / 1e6:.1f} MB are free)"
                raise DiskFull(name=self.jobs, needed=needed)

    def order(self) -> Order | None:
        """What the job was asked to do; None when nothing that can be read says so."""
        try:
            return unpack_dataclass(Order, (self.path / ORDER).read_bytes())
        except (OSError, MessageError):
            return None

    def keyframes(self, request: MorphRequest) -> list[bytes]:
        """The keyframes' bytes; raises KeyframeLost when they are not what was sent."""
        return [self._keyframe(index, image) for index, image in enumerate(request.keyframes)]

    def _keyframe(self, index: int, image: KeyframeImage) -> bytes:
        try:
            data = _read(self.keyframe(index, image.suffix))
        except OSError:
            data = b""
        if MorphRequest.digest_of(data) != image.digest:
            raise KeyframeLost(name=image.name or index + 1)
        return data

    def remove(self) -> None:
        """Forgets the job's files; what a link leads to stays."""
        remove(self.jobs, [self.job_id])

    def store(self, index: int, data: bytes, suffix: str) -> FrameFile:
        """Makes a frame visible under its digest, at once and on disk, and notes it in the journal.

        The journal is written last: it can lack a frame that a kill cut off, but never has one too many.
        Raises DiskFull or OutputUnwritable.
        """
        frame = FrameFile(index, hashlib.sha256(data).hexdigest(), suffix, len(data))
        unfinished = self.path / f"{UNFINISHED}{index:05d}-{os.getpid()}"
        try:
            _write_durably(unfinished, data)
            self._show(unfinished, frame)
            with self.journal.open("a", encoding="utf-8") as journal:
                journal.write(f"{index} {frame.digest}\n")
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise translate(error, self.frames) from error
        return frame

    def _show(self, unfinished: Path, frame: FrameFile) -> None:
        if not self.frames.is_dir():  # somebody deleted it
            self.frames.mkdir()
            sync_folder(self.path)
        unfinished.replace(self.frames / frame.name)
        sync_folder(self.frames)

    @property
    def journal(self) -> Path:
        """One line for each frame computed: drawing index and digest."""
        return self.path / "computed.log"

    def finished(self) -> dict[int, FrameFile]:
        """The frames that are whole, by index; anything else in the folder is swept away."""
        found = self.whole_frames()
        names = {frame.name for frame in found.values()}
        try:
            for path in self.path.glob(f"{UNFINISHED}*"):
                _remove(path)
            for path in self.frames.iterdir() if self.frames.is_dir() else ():
                if path.name not in names:
                    _remove(path)
        except OSError as error:
            raise translate(error, self.frames) from error
        return found

    def whole_frames(self) -> dict[int, FrameFile]:
        """The frames that are whole, by index; of two for one drawing, the one that was computed last."""
        found: dict[int, FrameFile] = {}
        latest = self.journaled()
        for path in sorted(self.frames.iterdir()) if self.frames.is_dir() else ():
            frame = _verify(path)
            if frame is not None and (frame.index not in found or latest.get(frame.index) == frame.digest):
                found[frame.index] = frame
        return found

    def journaled(self) -> dict[int, str]:
        """The digest of each drawing that was ever computed, by index; a line that was cut off is none."""
        try:
            text = self.journal.read_text("utf-8", errors="replace")
        except OSError:
            return {}
        return {int(found[1]): found[2] for found in _JOURNAL.finditer(text)}

    def read(self, frame: FrameFile) -> bytes | None:
        """The bytes of a finished frame, None when the file is gone or is not what its name says."""
        try:
            data = _read(self.frames / frame.name)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == frame.digest else None


def remove(jobs: Path, job_ids: Iterable[str]) -> None:
    """Forgets the files of jobs; half of them never look like a job, whenever the power fails."""
    gone = [(jobs / job_id, jobs / f"{UNFINISHED}{job_id}") for job_id in job_ids]
    for path, unfinished in gone:
        _remove(unfinished)
        with suppress(OSError):
            path.rename(unfinished)
    with suppress(OSError):
        sync_folder(jobs)
    for path, unfinished in gone:
        _remove(unfinished)
        _remove(path)


def translate(error: OSError, folder: Path) -> KeytweenError:
    """The error of a disk in the artist's words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(name=folder)
    return OutputUnwritable(name=folder, detail=error.strerror or str(error))


def _check_blobs(request: MorphRequest, blobs: Sequence[bytes]) -> None:
    if len(blobs) != len(request.keyframes):
        raise MessageError(detail=f"it names {len(request.keyframes)} keyframes but carries {len(blobs)}")
    for image, blob in zip(request.keyframes, blobs, strict=True):
        if not _SUFFIX.fullmatch(image.suffix):
            raise MessageError(detail=f"{image.suffix!r} is not a file suffix")
        if MorphRequest.digest_of(blob) != image.digest:
            raise MessageError(detail=f"the bytes of {image.name or 'a keyframe'} are not what was announced")


def _verify(path: Path) -> FrameFile | None:
    match = _FRAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        data = _read(path)
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != match[2]:
        return None
    return FrameFile(int(match[1]), match[2], match[3], len(data))


def _read(path: Path) -> bytes:
    """The bytes of a plain file; OSError for a link or a device, which might lead anywhere and never end."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return path.read_bytes()


def _remove(path: Path) -> None:
    """Removes a file, or a folder with all in it; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """What was renamed, made or deleted in a folder is so after a power loss too."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
