"""A real daemon process over real ZeroMQ: jobs, events, strangers and nonsense."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import zmq

from discs import draw_disc, request_for
from keytween.config import Config
from keytween.images import read
from keytween.keys import KeyPair
from keytween.starter import DaemonProcess
from keytween_wire import PROTOCOL
from keytween_wire.client import Client
from keytween_wire.codec import decode, encode
from keytween_wire.connection import Connection
from keytween_wire.errors import (
    BadSetting,
    CheckpointUnusable,
    ConnectionFileUnsafe,
    DaemonNotRunning,
    DaemonUnreachable,
    DaemonWouldNotStart,
    JobIdTaken,
    KeyRefused,
    KeytweenError,
    MessageError,
    MessageTooLarge,
    ProtocolMismatch,
    TooFewKeyframes,
    UnknownEngine,
    UnknownJob,
    from_wire,
)
from keytween_wire.messages import (
    Diffusion,
    Done,
    Failed,
    FrameMade,
    FreeMemory,
    Hello,
    JobChanged,
    JobState,
    Limits,
    Ping,
    Prepare,
    Progressed,
    Stop,
    Submit,
    Watch,
)


def finish(client: Client, job_id: str) -> JobChanged:
    last = [r.message for r in client.events(job_id)][-1]
    assert isinstance(last, JobChanged)
    return last


# ---- the welcome


def test_the_welcome_says_what_there_is_to_choose_from(
    daemon: DaemonProcess, client: Client, config: Config
) -> None:
    welcome = client.hello()
    assert {engine.name for engine in welcome.engines} >= {"flow", "dissolve", "diffmorpher"}
    assert "toon" in [checkpoint.name for checkpoint in welcome.checkpoints if checkpoint.available]
    assert {checkpoint.name for checkpoint in welcome.checkpoints if checkpoint.pullable} >= {"sd15", "sdxl"}
    presets = {preset.name: preset.diffusion for preset in welcome.presets}
    assert presets == {name: Diffusion(**values) for name, values in Diffusion.PRESETS.items()}
    assert welcome.log == str(config.log)


def test_a_checkpoint_without_a_folder_and_a_name_is_refused(
    client: Client, keyframe_files: list[Path]
) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    named = replace(request, diffusion=Diffusion(checkpoint="nobody"))
    with pytest.raises(CheckpointUnusable, match=r"nobody.*toon"):
        client.submit(job_id, named, blobs)
    client.submit(job_id, replace(request, diffusion=Diffusion(checkpoint="toon")), blobs)
    assert finish(client, job_id).state is JobState.DONE


def test_an_idle_worker_frees_its_memory_when_asked_to(client: Client, keyframe_files: list[Path]) -> None:
    assert client.ask(FreeMemory()) == Done(0)
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    finish(client, job_id)
    assert client.ask(FreeMemory()) == Done(1)
    following, request, blobs = request_for(keyframe_files)
    client.submit(following, request, blobs)
    assert finish(client, following).state is JobState.DONE


def test_a_worker_gets_ready_before_there_is_a_job(
    client: Client, daemon: DaemonProcess, keyframe_files: list[Path]
) -> None:
    assert client.ask(Prepare()) == Done(1)
    assert client.ask(Prepare()) == Done(0)
    (worker,) = psutil.Process(daemon.process.pid).children()
    deadline = time.monotonic() + 20
    while not any("cv2" in part.path for part in worker.memory_maps()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, replace(request, engine="flow"), blobs)
    assert finish(client, job_id).state is JobState.DONE
    assert psutil.Process(daemon.process.pid).children() == [worker]


def test_a_quick_job_does_not_wait_for_one_that_wants_a_device(client: Client, tmp_path: Path) -> None:
    """`auto` with a checkpoint may diffuse, so it takes the device's place; here it flows, slowly."""
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + 90 * i, 300), size=(1920, 1080)) for i in (0, 1)]
    slow, request, blobs = request_for(files, in_betweens=200)
    request = replace(request, engine="auto", diffusion=Diffusion(checkpoint="toon"))
    client.submit(slow, request, blobs)
    quick, request, blobs = request_for(files, in_betweens=1)
    client.submit(quick, request, blobs)
    assert finish(client, quick).state is JobState.DONE
    assert client.jobs(slow)[0].state in (JobState.QUEUED, JobState.RUNNING)
    client.cancel(slow)


def test_each_device_has_a_worker_that_sees_no_other(
    config: Config, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = start_daemon(replace(config, devices="5, GPU-7"))
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300 + 90 * i, 300), size=(1280, 720)) for i in (0, 1)]
    with Client(daemon.connection) as client:
        client.hello()
        for _ in range(2):
            job_id, request, blobs = request_for(files, in_betweens=100)
            request = replace(request, engine="auto", diffusion=Diffusion(checkpoint="toon"))
            client.submit(job_id, request, blobs)
        deadline = time.monotonic() + 20
        while [job.state for job in client.jobs()] != [JobState.RUNNING] * 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = psutil.Process(daemon.process.pid).children()
        seen = {worker.environ().get("CUDA_VISIBLE_DEVICES") for worker in workers}
        assert seen == {"5", "GPU-7"}


# ---- jobs and events


def test_two_keyframes_become_in_betweens(client: Client, keyframe_files: list[Path]) -> None:
    job_id, request, blobs = request_for(keyframe_files, in_betweens=3)
    client.submit(job_id, request, blobs)
    received = list(client.events(job_id))
    frames = [r for r in received if isinstance(r.message, FrameMade)]
    assert [f.message.index for f in frames] == [0, 1, 2]
    assert [read(f.blobs[0]).pixels.shape for f in frames] == [(64, 96, 3)] * 3
    assert received[-1].message.state is JobState.DONE


def test_events_come_in_order_and_replay_since_n_without_frames_we_have(
    client: Client, keyframe_files: list[Path]
) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    first = [r.message for r in client.events(job_id)]
    numbers = [m.number for m in first]
    assert numbers == sorted(set(numbers))
    replayed = list(client.events(job_id, since=numbers[2], have=(0, 1, 2)))
    assert all(r.message.number > numbers[2] for r in replayed)
    kept = {m.number: m for m in first if not isinstance(m, Progressed)}
    assert [r.message for r in replayed] == [m for n, m in kept.items() if n > numbers[2]]
    frames = {r.message.index: r.blobs for r in replayed if isinstance(r.message, FrameMade)}
    assert {i for i, carried in frames.items() if carried} == frames.keys() - {0, 1, 2}


def test_a_slow_client_gets_no_more_than_its_credit(client: Client, keyframe_files: list[Path]) -> None:
    job_id, request, blobs = request_for(keyframe_files, in_betweens=9)
    client.submit(job_id, request, blobs)
    finish(client, job_id)
    client.post(Watch(job_id, credit=4))
    time.sleep(0.3)
    events = [r.message for r in client.poll(budget_s=1.0) if not isinstance(r.message, Done)]
    assert len(events) == 4


def test_sending_a_job_twice_is_the_same_as_once(client: Client, keyframe_files: list[Path]) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    client.submit(job_id, request, blobs)
    assert len(client.jobs()) == 1
    with pytest.raises(JobIdTaken):
        client.submit(job_id, replace(request, seed=9), blobs)


def test_a_cancelled_job_ends_and_the_next_one_works(client: Client, tmp_path: Path) -> None:
    big = [
        draw_disc(tmp_path / f"big{i}.png", centre=(200 + 90 * i, 300), size=(1280, 720)) for i in range(2)
    ]
    job_id, request, blobs = request_for(big, in_betweens=400)
    client.submit(job_id, request, blobs)
    for received in client.events(job_id):
        if isinstance(received.message, FrameMade):
            break
    client.cancel(job_id)
    assert finish(client, job_id).state is JobState.CANCELLED
    assert 0 < client.jobs(job_id)[0].frames_done < 400
    following, request, blobs = request_for(big, in_betweens=1)
    client.submit(following, request, blobs)
    assert finish(client, following).state is JobState.DONE


def test_a_waiting_job_can_be_cancelled(client: Client, keyframe_files: list[Path]) -> None:
    jobs = [request_for(keyframe_files, in_betweens=50) for _ in range(3)]
    for job_id, request, blobs in jobs:
        client.submit(job_id, request, blobs)
    client.cancel(jobs[2][0])
    assert finish(client, jobs[2][0]).state is JobState.CANCELLED
    assert finish(client, jobs[1][0]).state is JobState.DONE


def test_cleared_jobs_leave_no_files(client: Client, config: Config, keyframe_files: list[Path]) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    finish(client, job_id)
    assert client.clear() == 1
    assert client.jobs() == ()
    assert list((config.state / "jobs").iterdir()) == []
    with pytest.raises(UnknownJob):
        client.jobs(job_id)


def test_a_client_that_comes_back_finds_its_job(
    daemon: DaemonProcess, client: Client, keyframe_files: list[Path]
) -> None:
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    client.close()
    with Client(daemon.connection) as again:
        again.hello()
        assert finish(again, job_id).state is JobState.DONE


# ---- bad input: its own error each, and the next job works


def submit_bad(client: Client, files: list[Path]) -> KeytweenError:
    job_id, request, blobs = request_for(files)
    client.submit(job_id, request, blobs)
    changed = finish(client, job_id)
    assert changed.state is JobState.FAILED
    assert changed.error is not None
    return from_wire(changed.error.code, changed.error.values)


def test_bad_pictures_fail_by_name_and_the_next_job_works(
    client: Client, keyframe_files: list[Path], tmp_path: Path
) -> None:
    text, cut, other = tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "other.png"
    text.write_text("not a picture")
    cut.write_bytes(keyframe_files[0].read_bytes()[:-60])
    draw_disc(other, centre=(20, 20), size=(64, 64))
    codes = [submit_bad(client, [keyframe_files[0], bad]).code for bad in (text, cut, other)]
    assert codes == ["KT-102", "KT-103", "KT-108"]
    job_id, request, blobs = request_for(keyframe_files)
    client.submit(job_id, request, blobs)
    assert finish(client, job_id).state is JobState.DONE


def test_bad_requests_are_refused_at_once(client: Client, keyframe_files: list[Path]) -> None:
    _, request, blobs = request_for(keyframe_files)
    fresh = uuid.uuid4().hex
    with pytest.raises(UnknownEngine):
        client.submit(fresh, replace(request, engine="magic"), blobs)
    with pytest.raises(BadSetting):
        client.submit(fresh, replace(request, positions=((9.0,),)), blobs)
    with pytest.raises(BadSetting):
        client.submit("../../escape", request, blobs)
    with pytest.raises(MessageError):
        client.submit(fresh, request, [blobs[0], b"other"])
    with pytest.raises(TooFewKeyframes):
        client.ask(Submit(fresh, replace(request, keyframes=request.keyframes[:1], positions=())), blobs[:1])
    with pytest.raises(UnknownJob):
        client.cancel(fresh)
    with pytest.raises(UnknownJob):
        list(client.events(fresh))
    assert client.jobs() == ()


def test_an_oversize_message_is_refused_before_it_is_sent(client: Client) -> None:
    client.limits = Limits(blob_bytes=10)
    with pytest.raises(MessageTooLarge):
        client.post(Ping(), [b"x" * 11])
    assert client.ask(Ping()) == Done()


def test_an_oversize_message_that_is_sent_all_the_same_costs_only_its_sender(
    daemon: DaemonProcess, client: Client
) -> None:
    with raw_socket(daemon.connection) as socket:
        socket.send_multipart([*encode(Ping(), number=1), *[b""] * 65])
        assert socket.poll(10_000)
        failed = decode(socket.recv_multipart(), strict=False).message
        assert isinstance(failed, Failed)
        assert failed.error.code == "KT-400"
        socket.send_multipart([*encode(Ping(), number=1), bytes((256 << 20) + 1)])
        assert not socket.poll(500)
    assert client.ask(Ping()) == Done()


def raw_socket(connection: Connection) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.curve_serverkey = connection.server_key.encode()
    socket.curve_publickey = connection.client_key.encode()
    socket.curve_secretkey = connection.client_secret.encode()
    socket.connect(connection.endpoint)
    return socket


@pytest.mark.parametrize("frames", [[b""], [b"x", b"y"], [b"\x91" * 900, b""], [b"", b"", b""]], ids=range(4))
def test_nonsense_gets_one_clear_answer(daemon: DaemonProcess, frames: list[bytes]) -> None:
    with raw_socket(daemon.connection) as socket:
        socket.send_multipart(frames)
        assert socket.poll(10_000)
        answer = decode(socket.recv_multipart(), strict=False).message
        assert isinstance(answer, Failed)
        assert answer.error.code.startswith("KT-4")


def test_another_protocol_version_is_told_which_versions_there_are(
    daemon: DaemonProcess, client: Client
) -> None:
    with pytest.raises(ProtocolMismatch) as caught:
        client.ask(Hello(PROTOCOL + 1, PROTOCOL + 3, version="9.9"))
    assert str(PROTOCOL) in caught.value.message
    assert "9.9" in caught.value.advice
    with raw_socket(daemon.connection) as socket:
        socket.send_multipart(encode(Ping(), number=7, protocol=PROTOCOL + 1))
        assert socket.poll(10_000)
        answer = decode(socket.recv_multipart(), strict=False)
        assert isinstance(answer.message, Failed)
        assert (answer.message.error.code, answer.number) == ("KT-304", 7)


# ---- keys


def test_a_strangers_key_is_refused(daemon: DaemonProcess) -> None:
    stranger = KeyPair.new()
    connection = replace(daemon.connection, client_key=stranger.public, client_secret=stranger.secret)
    with Client(connection) as client, pytest.raises(KeyRefused):
        client.hello(timeout=5.0)


def test_a_listed_key_is_let_in(config: Config, start_daemon: Callable[..., DaemonProcess]) -> None:
    friend = KeyPair.new()
    config.state.mkdir(parents=True)
    (config.state / "authorised_keys").write_text(f"{friend.public}  # the other machine\n")
    daemon = start_daemon()
    with Client(replace(daemon.connection, client_key=friend.public, client_secret=friend.secret)) as client:
        assert client.hello().pid == daemon.process.pid


def test_a_peer_without_curve_gets_nothing(daemon: DaemonProcess, client: Client) -> None:
    plain = zmq.Context.instance().socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(daemon.connection.endpoint)
    plain.send_multipart(encode(Ping(), number=1))
    assert not plain.poll(700)
    plain.close()
    assert client.ask(Ping()) == Done()


def test_the_wrong_server_key_reaches_nobody(daemon: DaemonProcess) -> None:
    connection = replace(daemon.connection, server_key=KeyPair.new().public)
    with Client(connection) as client, pytest.raises(DaemonUnreachable):
        client.hello(timeout=1.0)


def test_the_connection_file_is_its_users_alone(daemon: DaemonProcess, config: Config) -> None:
    assert stat.S_IMODE(config.connection.stat().st_mode) == 0o600
    config.connection.chmod(0o644)
    with pytest.raises(ConnectionFileUnsafe):
        Connection.load(config.connection)


# ---- starting and stopping


def test_a_second_daemon_finds_the_first_and_says_so(daemon: DaemonProcess, config: Config) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "keytween.cli", "serve"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 5
    assert f"process {daemon.process.pid}" in second.stderr
    assert Connection.load(config.connection).pid == daemon.process.pid


def test_a_stopped_daemon_takes_its_connection_file_along(daemon: DaemonProcess, config: Config) -> None:
    assert daemon.stop() == 0
    with pytest.raises(DaemonNotRunning):
        Connection.load(config.connection)


def test_a_stale_connection_file_is_said_to_be_dead(daemon: DaemonProcess, config: Config) -> None:
    daemon.process.kill()
    daemon.process.wait()
    with Client(Connection.load(config.connection)) as client, pytest.raises(DaemonUnreachable):
        client.hello(timeout=1.0)


def test_stop_when_idle_finishes_the_queue_first(
    daemon: DaemonProcess, client: Client, keyframe_files: list[Path]
) -> None:
    job_id, request, blobs = request_for(keyframe_files, in_betweens=20)
    client.submit(job_id, request, blobs)
    client.ask(Stop(when_idle=True))
    assert finish(client, job_id).state is JobState.DONE
    assert daemon.process.wait(10) == 0


def test_an_orphan_finishes_its_queue_and_exits(
    start_daemon: Callable[..., DaemonProcess], keyframe_files: list[Path]
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    daemon = start_daemon(parent=parent.pid)
    with Client(daemon.connection) as client:
        client.hello()
        job_id, request, blobs = request_for(keyframe_files, in_betweens=100)
        client.submit(job_id, request, blobs)
        parent.kill()
        parent.wait()
        assert finish(client, job_id).state is JobState.DONE
    assert daemon.process.wait(10) == 0


def test_a_daemon_that_cannot_start_says_why(
    config: Config, start_daemon: Callable[..., DaemonProcess]
) -> None:
    start_daemon()
    with pytest.raises(DaemonWouldNotStart, match="KT-305"):
        start_daemon()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's libraries")
def test_the_daemon_never_imports_what_engines_need(daemon: DaemonProcess) -> None:
    maps = Path(f"/proc/{daemon.process.pid}/maps")
    loaded = maps.read_text()
    assert "libzmq" in loaded or "zmq" in loaded
    assert "cv2" not in loaded
    assert "torch" not in loaded
    assert "OpenImageIO" not in loaded


def test_nobody_is_there(config: Config) -> None:
    assert not config.connection.exists()
    with pytest.raises(DaemonNotRunning):
        Connection.load()
    assert os.environ["KEYTWEEN_CONNECTION"] == str(config.connection)
