"""A job's files: whole or not there, and proved by their names."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

import pytest

from keytween.jobs.folder import JobFolder, Order, translate
from keytween_wire.errors import BadSetting, DiskFull, MessageError, OutputUnwritable
from keytween_wire.messages import KeyframeImage, MorphRequest

BLOBS = [b"first picture", b"second picture"]


def request(*, suffix: str = ".png", blobs: list[bytes] = BLOBS) -> MorphRequest:
    return MorphRequest(tuple(KeyframeImage(MorphRequest.digest_of(b), suffix) for b in blobs), ((0.5,),))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path, uuid.uuid4().hex)
    made.create(Order(request(), "dissolve"), BLOBS)
    return made


def test_keyframes_are_kept_byte_for_byte(folder: JobFolder) -> None:
    assert [folder.keyframe(i, ".png").read_bytes() for i in range(2)] == BLOBS


def test_making_a_folder_twice_is_the_same_as_once(folder: JobFolder) -> None:
    folder.create(Order(request(), "dissolve"), BLOBS)
    assert folder.keyframe(1, ".png").read_bytes() == BLOBS[1]
    assert [p.name for p in folder.jobs.iterdir()] == [folder.job_id]


def test_a_stored_frame_is_found_again_with_its_digest(folder: JobFolder) -> None:
    frame = folder.store(3, b"pixels", ".png")
    assert folder.finished() == {3: frame}
    assert folder.read(frame) == b"pixels"
    assert folder.journal.read_text() == f"3 {frame.digest}\n"


def test_a_half_written_frame_is_swept_away_and_never_counted(folder: JobFolder) -> None:
    frame = folder.store(0, b"pixels", ".png")
    (folder.path / "unfinished-00001-99").write_bytes(b"pix")
    (folder.frames / frame.name.replace("00000", "00002")).write_bytes(b"pix")
    (folder.frames / "0001.png").write_bytes(b"pix")
    assert folder.finished() == {0: frame}
    assert [p.name for p in folder.frames.iterdir()] == [frame.name]
    assert not list(folder.path.glob("unfinished-*"))


def test_a_damaged_frame_reads_as_none(folder: JobFolder) -> None:
    frame = folder.store(0, b"pixels", ".png")
    (folder.frames / frame.name).write_bytes(b"pixelz")
    assert folder.read(frame) is None
    assert folder.finished() == {}


@pytest.mark.parametrize("suffix", ["", "png", "./../x", ".PNG", ".p/g", ".toolong"])
def test_a_suffix_that_could_leave_the_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(MessageError):
        JobFolder(tmp_path, "a" * 32).create(Order(request(suffix=suffix), "dissolve"), BLOBS)
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_not_what_was_announced_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MessageError, match="not what was announced"):
        JobFolder(tmp_path, "a" * 32).create(Order(request(), "dissolve"), [BLOBS[0], b"other"])
    with pytest.raises(MessageError, match="names 2 keyframes but carries 1"):
        JobFolder(tmp_path, "a" * 32).create(Order(request(), "dissolve"), BLOBS[:1])


def test_a_job_id_that_is_no_uuid_never_becomes_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadSetting):
        JobFolder(tmp_path, "../outside")


def test_a_place_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file where the folder should be")
    with pytest.raises(OutputUnwritable):
        JobFolder(tmp_path / "jobs", "a" * 32).create(Order(request(), "dissolve"), BLOBS)


def test_a_full_disk_has_its_own_error() -> None:
    assert isinstance(translate(OSError(errno.ENOSPC, "full"), Path("/x")), DiskFull)
    assert isinstance(translate(OSError(errno.EROFS, "read-only"), Path("/x")), OutputUnwritable)
