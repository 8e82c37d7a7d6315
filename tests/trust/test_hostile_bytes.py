# SPDX-License-Identifier: Apache-2.0
"""Promise 9: hostile bytes. Bombs, ways out of a folder, links, devices' names, and who decodes pictures."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgpack
import numpy as np
import pytest
from PIL import Image

from discs import request_for
from figures import Measured
from keytween.config import Config
from keytween.jobs.folder import JobFolder, Order
from keytween.shots import conform, reading, unpack
from keytween.shots.planning import prepare
from keytween.shots.shot import check_id
from keytween.starter import DaemonProcess
from keytween_wire import codec
from keytween_wire.client import Client
from keytween_wire.errors import (
    BadSetting,
    KeyframeLost,
    MessageError,
    OutputUnwritable,
    ShotsUnreadable,
    UnknownJob,
)
from keytween_wire.messages import (
    Cancel,
    Clear,
    Done,
    JobState,
    ListJobs,
    Ping,
    Retry,
    Unwatch,
    Watch,
)

from . import jobs, proc

HEADER = msgpack.packb({"v": 1, "type": "list-jobs", "n": 7})
LIMIT = 1 << 20
"""Bytes of a message's body."""


# ---- messages


def nested(kind: bytes, depth: int) -> bytes:
    return b"\x81\xa6job_id" + kind * depth + b"\xc0"


BOMBS = {
    "lists in lists": nested(b"\x91", LIMIT - 100),
    "maps in maps": nested(b"\x81\xa1a", (LIMIT - 100) // 3),
    "a list of 4 billion": b"\x81\xa6job_id\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\x81\xa6job_id\xdf\xff\xff\xff\xff",
    "a whole map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "a text of 4 GB": b"\x81\xa6job_id\xdb\xff\xff\xff\xff" + b"a" * 1000,
    "bytes of 4 GB": b"\x81\xa6job_id\xc6\xff\xff\xff\xff" + b"a" * 1000,
    "an extension of 4 GB": b"\x81\xa6job_id\xc9\xff\xff\xff\xff\x05" + b"a" * 1000,
    "a moment in time": b"\x81\xa6job_id\xd7\xff" + b"\xff" * 8,
    "a million nothings": b"\x81\xa6job_id\xdd" + struct.pack(">I", LIMIT - 100) + b"\xc0" * (LIMIT - 100),
    "a million maps": b"\x81\xa6job_id\xdd" + struct.pack(">I", LIMIT - 100) + b"\x80" * (LIMIT - 100),
    "keys without end": b"\xde\xff\xff" + b"".join(msgpack.packb({f"{i:05}": 0})[1:] for i in range(65535)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_message_made_to_burst_is_refused_with_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            codec.decode([HEADER, BOMBS[name]])
        assert tracemalloc.get_traced_memory()[1] < 100 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not proc.THERE, reason="counts memory as Linux tells it")
def test_a_daemon_answers_every_bomb_and_gives_the_memory_back(
    daemon: DaemonProcess, client: Client, measured: Measured
) -> None:
    before = proc.resident_mb(daemon.process.pid)
    proc.forget_peak(daemon.process.pid)
    for bomb in BOMBS.values():
        client._socket.send_multipart([HEADER, bomb])
        assert client._socket.poll(20_000)
        answer = codec.decode(client._socket.recv_multipart())
        assert (answer.number, type(answer.message).__name__) == (7, "Failed")
    assert client.ask(Ping()) == Done()
    peak, after = (measure(daemon.process.pid) - before for measure in (proc.peak_mb, proc.resident_mb))
    assert peak < 200
    assert after < 40
    measured(
        "9-bombs",
        f"{len(BOMBS)} messages made to burst: all refused, {peak:.0f} MB at most, {after:.0f} MB kept",
    )


@pytest.mark.parametrize(
    "job_id", ["../../jobs", "..", "/etc/passwd", "A" * 32, "a" * 31 + "/", "\0" * 32, "con"]
)
def test_what_is_no_jobs_id_leads_nowhere(client: Client, config: Config, job_id: str) -> None:
    outside = config.state / "precious"
    outside.write_text("precious")
    for message in (Watch(job_id), Cancel(job_id), Clear(job_id), Retry(job_id), ListJobs(job_id)):
        with pytest.raises(UnknownJob):
            client.ask(message)
    assert client.ask(Unwatch(job_id)) == Done(0)
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("suffix", ["/../../x.png", ".png/", ".p\0g", ".png:x", "..", ".PNG", ""])
def test_a_keyframes_suffix_is_one_or_makes_no_job(
    client: Client, config: Config, keyframe_files: list[Path], suffix: str
) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    odd = replace(request, keyframes=tuple(replace(k, suffix=suffix) for k in request.keyframes))
    with pytest.raises(MessageError):
        client.submit(job_id, odd, blobs)
    assert client.jobs() == ()
    assert list((config.state / "jobs").iterdir()) == []


def test_a_keyframes_name_is_a_name_and_no_file(
    client: Client, config: Config, keyframe_files: list[Path], tmp_path: Path
) -> None:
    """It is what errors call the picture; nothing is read or written there."""
    target = tmp_path / "target.png"
    job_id, request, blobs = request_for(keyframe_files)
    named = replace(request, keyframes=tuple(replace(k, name=str(target)) for k in request.keyframes))
    client.submit(job_id, named, blobs)
    _, ended = jobs.finish(client, job_id)
    assert ended.state is JobState.DONE
    assert not target.exists()


# ---- links in the state folder


@pytest.fixture
def folder(tmp_path: Path, keyframe_files: list[Path]) -> JobFolder:
    job_id, request, blobs = request_for(keyframe_files)
    made = JobFolder(tmp_path / "jobs", job_id)
    made.create(Order(request, "dissolve"), blobs)
    return made


needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@needs_links
def test_a_link_among_frames_is_no_frame_and_what_it_leads_to_stays(
    folder: JobFolder, tmp_path: Path
) -> None:
    frame = folder.store(0, b"a drawing", ".png")
    file = folder.frames / frame.name
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"a drawing")
    for target in (outside, Path("/dev/zero"), tmp_path / "nowhere", file):
        file.unlink()
        file.symlink_to(target)
        assert folder.read(frame) is None
        assert folder.finished() == {}
        assert not file.is_symlink()
        folder.store(0, b"a drawing", ".png")
    assert outside.read_bytes() == b"a drawing"


@needs_links
def test_a_pipe_or_a_folder_among_frames_stops_nobody(folder: JobFolder) -> None:
    frame = folder.store(0, b"a drawing", ".png")
    file = folder.frames / frame.name
    file.unlink()
    os.mkfifo(file)
    assert folder.read(frame) is None
    assert folder.finished() == {}
    (folder.frames / frame.name / "inner").mkdir(parents=True)
    assert folder.read(frame) is None
    assert folder.finished() == {}
    assert list(folder.frames.iterdir()) == []


@needs_links
def test_a_keyframe_that_became_a_link_is_lost(folder: JobFolder, keyframe_files: list[Path]) -> None:
    order = folder.order()
    assert order is not None
    assert len(folder.keyframes(order.request)) == 2
    first = folder.keyframe(0, ".png")
    first.unlink()
    first.symlink_to(keyframe_files[0])
    with pytest.raises(KeyframeLost):
        folder.keyframes(order.request)


@needs_links
def test_a_jobs_folder_that_is_a_link_is_forgotten_and_replaced_alone(
    folder: JobFolder, tmp_path: Path, keyframe_files: list[Path]
) -> None:
    outside = tmp_path / "outside"
    (outside / "frames").mkdir(parents=True)
    (outside / "precious").write_text("precious")
    order = folder.order()
    assert order is not None
    folder.remove()
    for name in (folder.job_id, f"unfinished-{folder.job_id}"):
        (folder.jobs / name).symlink_to(outside)
    folder.create(order, [file.read_bytes() for file in keyframe_files])
    assert not folder.path.is_symlink()
    assert len(folder.keyframes(order.request)) == 2
    folder.remove()
    folder.path.symlink_to(outside)
    folder.remove()
    assert list(folder.jobs.iterdir()) == []
    assert sorted(path.name for path in outside.iterdir()) == ["frames", "precious"]


@needs_links
def test_a_daemon_tidies_up_links_without_following_them(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (config.state / "jobs").mkdir(parents=True)
    (config.state / "jobs" / ("ab" * 16)).symlink_to(outside)
    with Client(start_daemon().connection) as client:
        assert client.ask(Ping()) == Done()
    assert (outside / "precious").read_text() == "precious"


# ---- archives


SHOW = (Path(__file__).resolve().parents[1] / "fuzz" / "seeds" / "timelines" / "show.otio").read_bytes()


def archive(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in {"content.otio": SHOW, **members}.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return path


ASTRAY = ("media/con", "CON.png", "media/nul .png", "com¹.png", "lpt9", "a:b", "media/../.lock", "./a.png")
ASTRAY += ("media//a.png", "/etc/passwd", "\\\\host\\a.png")
OURS = (".lock", ".LOCK", ".unpacked.json", ".unpacked.json.")


@pytest.mark.parametrize("name", [*ASTRAY, *OURS])
def test_an_archives_names_are_plain_ones(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "show.otioz", {name: b"gotcha"})
    with pytest.raises(ShotsUnreadable, match="no plain file"):
        reading.read(source)
    assert [path.name for path in tmp_path.iterdir()] == ["show.otioz"]


def test_an_archive_that_unpacks_to_thousands_of_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "HARMLESS", 1 << 20)
    source = archive(tmp_path / "show.otioz", {})
    with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("media/a.png", bytes(100 << 20))
    assert source.stat().st_size < 1 << 20
    with pytest.raises(ShotsUnreadable, match="times its size"):
        reading.read(source)
    assert sum(path.stat().st_size for path in (tmp_path / "show-batch").rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_as_no_otioz_is_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(ShotsUnreadable, match="packed in a way"):
        reading.read(archive(tmp_path / "show.otioz", {"media/a.png": b"a"}, method=method))


def test_an_archive_that_is_damaged_halfway_is_unpacked_again_when_it_is_whole(tmp_path: Path) -> None:
    """What was there before must not pass for it."""
    source = archive(tmp_path / "show.otioz", {"media/a.png": b"first" * 100})
    foreseen(source)
    whole = source.read_bytes()
    unpacked = tmp_path / "show-batch" / "unpacked" / "media" / "a.png"
    assert unpacked.read_bytes() == b"first" * 100
    archive(source, {"media/a.png": b"other" * 101})
    source.write_bytes(source.read_bytes().replace(b"other", b"OTHER", 1))
    with pytest.raises(ShotsUnreadable):
        reading.read(source)
    source.write_bytes(whole)
    foreseen(source)
    assert unpacked.read_bytes() == b"first" * 100


def foreseen(source: Path) -> None:
    """Reads it; the seed's shots name pictures that are not there, which is no matter here."""
    reading.read(source)


@needs_links
def test_an_archive_is_not_unpacked_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "show-batch" / "unpacked").mkdir(parents=True)
    (tmp_path / "show-batch" / "unpacked" / "media").symlink_to(outside)
    with pytest.raises(OutputUnwritable, match="link"):
        reading.read(archive(tmp_path / "show.otioz", {"media/a.png": b"gotcha"}))
    assert list(outside.iterdir()) == []


def test_a_shots_name_in_a_timeline_leads_to_no_record_elsewhere(tmp_path: Path) -> None:
    said = json.loads(SHOW)
    text = json.dumps(said).replace('"shot": "one"', '"shot": "../../elsewhere"')
    assert text != json.dumps(said)
    source = tmp_path / "a" / "show.otio"
    source.parent.mkdir()
    source.write_text(text)
    record = {"schema": 1, "state": "done", "shot": "one", "frames": [], "files": []}
    (tmp_path / "a" / "elsewhere").mkdir()
    (tmp_path / "a" / "elsewhere" / "shot.json").write_text(json.dumps(record))
    batch = reading.read(source)
    assert [fault.shot for fault in batch.faults] == ["../../elsewhere"]
    batch.output.mkdir()
    written = conform.write(batch)
    assert written is not None
    assert written.parent == batch.output


# ---- names


DEVICES = ["con", "CON", "Nul", "aux.png", "prn.", "COM1", "lpt9.tar.gz", "com¹", "con .x", "CONIN$"]


@pytest.mark.parametrize(
    "name", [*DEVICES, "one.", "one ", " one", "one:two", "a\tb", "a\x7f", ".", "..", "x" * 256]
)
def test_a_shot_has_a_name_that_every_system_takes(name: str) -> None:
    with pytest.raises(BadSetting):
        check_id(name)


@pytest.mark.parametrize("name", ["console", "com", "com10", "nully", "a.con", "lpt", "éclair", "con-1"])
def test_a_name_that_is_nearly_a_devices_is_one_like_others(name: str) -> None:
    assert check_id(name) == name


PLACES = (
    "nul/{shot}.{frame}",
    "co{shot}/{frame}",
    "a/{shot}./{frame}",
    "a /{shot}{frame}",
    "AUX.{shot}.{frame}",
)


@pytest.mark.parametrize("frames", PLACES)
def test_frames_go_where_every_system_can_put_them(
    tmp_path: Path, keyframe_files: list[Path], config: Config, frames: str
) -> None:
    keys = ", ".join(json.dumps(str(file)) for file in keyframe_files)
    source = tmp_path / "shots.toml"
    source.write_text(f'frames = "{frames}"\n[[shot]]\nid = "n"\nkeyframes = [{keys}]\n', "utf-8")
    batch = reading.read(source)
    assert batch.faults == ()
    with pytest.raises(OutputUnwritable, match="Windows"):
        prepare(batch.shots[0], batch.output, config)


# ---- pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


MEGABYTES = 200


@cache
def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def picture(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    data = picture("PNG")
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def png_with_pixels(packed: bytes) -> bytes:
    data = picture("PNG")
    return data[: data.index(b"IDAT") - 4] + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def tiff_with_strip(packed: bytes) -> bytes:
    data = bytearray(picture("TIFF", compression="tiff_adobe_deflate"))
    at = struct.unpack_from("<I", data, 4)[0]
    (entries,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        if tag in (273, 279):
            struct.pack_into("<HHII", data, entry, tag, 4, 1, len(data) if tag == 273 else len(packed))
    return bytes(data) + packed


def exr_with_block(packed: bytes) -> bytes:
    """The seed with ZIP compression, its one block replaced; the table of offsets names its place."""
    seeds = Path(__file__).resolve().parents[1] / "fuzz" / "seeds" / "pictures"
    data = (seeds / "zip.exr").read_bytes()
    at = data.rindex(struct.pack("<ii", 0, len(data) - _last_block(data)))
    return data[: at + 4] + struct.pack("<i", len(packed)) + packed


def _last_block(data: bytes) -> int:
    """Where the block's bytes begin: behind its line's number and its length, which ends with the file."""
    places = range(len(data) - 1, 8, -1)
    return next(at for at in places if struct.unpack_from("<i", data, at - 4)[0] == len(data) - at)


PICTURE_BOMBS: dict[str, Callable[[], bytes]] = {
    "iCCP of 200 MB": lambda: png_with((b"iCCP", b"x\0\0" + zeros(MEGABYTES))),
    "zTXt of 200 MB": lambda: png_with((b"zTXt", b"Comment\0\0" + zeros(MEGABYTES))),
    "iTXt of 200 MB": lambda: png_with((b"iTXt", b"Comment\0\1\0\0\0" + zeros(MEGABYTES))),
    "30 zTXt of 7 MB": lambda: png_with(*[(b"zTXt", b"Comment\0\0" + zeros(7))] * 30),
    "IDAT of 200 MB": lambda: png_with_pixels(zeros(MEGABYTES)),
    "TIFF strip of 200 MB": lambda: tiff_with_strip(zeros(MEGABYTES)),
    "EXR block of 200 MB": lambda: exr_with_block(zeros(MEGABYTES)),
}
_MEASURE = """
import sys
from pathlib import Path
from keytween.images import read
from keytween_wire.errors import PictureError
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))
read(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")
before = peak()
try: said = read(Path(sys.argv[2])).size
except PictureError as error: said = error.code
print(peak() - before, said)
"""


@pytest.mark.skipif(not proc.THERE, reason="counts memory as Linux tells it")
def test_small_pictures_that_unpack_to_much_take_little(tmp_path: Path, measured: Measured) -> None:
    plain, sizes, taken = tmp_path / "plain.png", [], []
    plain.write_bytes(picture("PNG"))
    for name, make in PICTURE_BOMBS.items():
        file = tmp_path / f"bomb{'.tif' if 'TIFF' in name else '.exr' if 'EXR' in name else '.png'}"
        file.write_bytes(make())
        command = [sys.executable, "-c", _MEASURE, str(plain), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        megabytes, *said = done.stdout.split()
        assert int(megabytes) < 64, name
        assert "".join(said) in ("(6,4)", "KT-100", "KT-103"), name
        sizes.append(file.stat().st_size / 1e6)
        taken.append(int(megabytes))
    said = f"{len(taken)} pictures of {max(sizes):.1f} MB or less that unpack to {MEGABYTES}: {max(taken)} MB"
    measured("9-pictures", said)


# ---- who decodes


WATCHED = ("cv2", "OpenImageIO", "PIL", "av", "numpy", "skimage", "torch")
_WATCH = f"""
import os, sys
_place = os.environ["KEYTWEEN_TEST_IMPORTS"]
_role = next((r for r in ("worker", "serve") if any(r in a for a in sys.orig_argv)), "other")
def _note(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in {WATCHED!r}:
        name = arguments[0].partition(".")[0]
        handle = os.open(_place, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{{_role}} {{os.getpid()}} {{name}}\\n".encode())
        os.close(handle)
sys.addaudithook(_note)
if _role == "worker":
    import signal
    from keytween import images
    _decode = images._decode
    def _crash(path, header, asked):
        if header.height == {{height}}:
            os.kill(os.getpid(), signal.SIGSEGV)
        return _decode(path, header, asked)
    images._decode = _crash
"""
CRASHES = 13
"""A picture of this height crashes the decoder."""


@pytest.fixture
def imports(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes which process of a daemon imports what decodes; its workers' decoder crashes at will."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_WATCH.replace("{height}", str(CRASHES)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("KEYTWEEN_TEST_IMPORTS", str(tmp_path / "imports"))
    return tmp_path / "imports"


def hostile_files() -> dict[str, bytes]:
    """Pictures that lack their end, and some that are none."""
    seeds = Path(__file__).resolve().parents[1] / "fuzz" / "seeds" / "pictures"
    cut = {path.name: path.read_bytes()[:-9] for path in sorted(seeds.iterdir()) if path.suffix != ".tif"}
    text = png_with((b"zTXt", b"C\0\0" + zeros(7)))
    return {**cut, "text.png": text, "none.png": b"no picture", "empty.png": b""}


def test_no_picture_is_decoded_in_the_daemons_own_process(
    imports: Path,
    start_daemon: Callable[..., DaemonProcess],
    config: Config,
    tmp_path: Path,
    measured: Measured,
) -> None:
    daemon = start_daemon(replace(config, max_attempts=2))
    states = []
    with Client(daemon.connection) as client:
        client.hello()
        submitted = []
        for number, (name, data) in enumerate(hostile_files().items()):
            files = [tmp_path / f"{number}-{i}{Path(name).suffix}" for i in range(2)]
            for file in files:
                file.write_bytes(data)
            submitted.append(jobs.submit(client, files, in_betweens=1))
        for job_id in submitted:
            states.append(jobs.finish(client, job_id)[1].state)
        assert set(states) <= {JobState.DONE, JobState.FAILED}
        assert states.count(JobState.FAILED) > 5
        assert client.ask(Ping()) == Done()
        lines = [line.split() for line in imports.read_text().splitlines()]
        assert {name for role, _, name in lines if role == "worker"} >= {"OpenImageIO", "numpy"}
        assert {name for role, _, name in lines if role == "serve"} == set()
        assert str(daemon.process.pid) not in {pid for _, pid, _ in lines}
        if proc.THERE:
            mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text().lower()
            assert [name for name in WATCHED if f"/{name.lower()}" in mapped] == []
    refused = states.count(JobState.FAILED)
    measured(
        "9-decoder", f"{len(states)} hostile pictures: {refused} refused, none seen by the daemon itself"
    )


def test_a_decoder_that_crashes_takes_its_worker_along_and_nobody_else(
    imports: Path,
    start_daemon: Callable[..., DaemonProcess],
    config: Config,
    tmp_path: Path,
    keyframe_files: list[Path],
) -> None:
    daemon = start_daemon(replace(config, max_attempts=2))
    files = [tmp_path / f"crash{i}.png" for i in range(2)]
    for file in files:
        Image.fromarray(np.zeros((CRASHES, 20, 3), np.uint8)).save(file)
    with Client(daemon.connection) as client:
        client.hello()
        crashing = jobs.submit(client, files, in_betweens=1)
        following = jobs.submit(client, keyframe_files, in_betweens=1)
        _, ended = jobs.finish(client, crashing)
        assert (ended.state, ended.error and ended.error.code) == (JobState.FAILED, "KT-503")
        assert jobs.finish(client, following)[1].state is JobState.DONE
        assert client.hello().pid == daemon.process.pid
        assert client.jobs(crashing)[0].attempts == 2
