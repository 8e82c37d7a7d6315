# SPDX-License-Identifier: Apache-2.0
"""Promise 9: hostile bytes. Two clients say to a real daemon what they like, in sequences made by chance."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import msgpack
import zmq
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from discs import draw_disc
from figures import Measured
from keytween.config import Config
from keytween.starter import DaemonProcess
from keytween_wire import codec
from keytween_wire.connection import Connection
from keytween_wire.errors import KeytweenError
from keytween_wire.messages import (
    Accepted,
    Cancel,
    Clear,
    Done,
    Failed,
    FrameMade,
    Hello,
    JobChanged,
    Jobs,
    KeyframeImage,
    ListJobs,
    Message,
    MorphRequest,
    Ping,
    Prepare,
    Progressed,
    Retry,
    Stop,
    Submit,
    Unwatch,
    Watch,
)

from .chance import play

sys.path.append(str(Path(__file__).resolve().parents[1] / "fuzz"))
import mutations

ANSWER_WITHIN_S = 20.0
"""Far more than an answer takes, also on a machine that is busy."""
EVENTS = (JobChanged, Progressed, FrameMade)
PLAYED: Counter[str] = Counter()
IDS = [f"{number:032x}" for number in range(1, 7)]
HARM = ("fewer", "more", "other")
ASKED = ("watch", "unwatch", "cancel", "retry", "list", "clear", "clear all", "hello", "ping")
WORDS = ["job_id", "request", "keyframes", "positions", "engine", "seed", "since", "credit", "have", "n", "v"]


class Peer:
    """A client with a key that keeps to no rules: its socket, and what it still waits for."""

    def __init__(self, connection: Connection, first: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.curve_serverkey = connection.server_key.encode()
        self.socket.curve_publickey = connection.client_key.encode()
        self.socket.curve_secretkey = connection.client_secret.encode()
        self.socket.linger = 0
        self.socket.connect(connection.endpoint)
        self.numbers = count(first)
        self.said: list[list[bytes]] = []
        self.awaited: list[int] = []
        self.watched: set[str] = set()
        self.slowest = 0.0

    def close(self) -> None:
        self.socket.close()
        self.context.term()

    def frames(self, message: Message, blobs: tuple[bytes, ...] = ()) -> list[bytes]:
        return [*codec.encode(message, number=next(self.numbers)), *blobs]

    def send(self, frames: list[bytes]) -> None:
        """Says it; each message has one answer, under its own number."""
        understood = meant(frames)
        if isinstance(understood, Watch):
            self.watched.add(understood.job_id)
        self.said.append(frames)
        self.awaited.append(codec.number_of(frames))
        self.socket.send_multipart(frames)
        PLAYED["messages"] += 1

    def answers(self) -> list[Message]:
        """What is answered to all that was said and has no answer yet, in the order that it was said in."""
        found: list[Message] = []
        began = time.monotonic()
        while self.awaited:
            assert self.socket.poll(int(ANSWER_WITHIN_S * 1000)), f"no answer to {self.said[-1]!r:.300}"
            received = codec.decode(self.socket.recv_multipart())
            if self.is_event(received):
                continue
            assert received.number == self.awaited.pop(0), "another's answer, or out of order"
            found.append(received.message)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return found

    def is_event(self, received: codec.Received) -> bool:
        """Whether it is news of a job; nobody hears of one that it did not watch."""
        if not isinstance(received.message, EVENTS):
            return False
        assert received.number == 0
        assert received.message.job_id in self.watched
        PLAYED["events"] += 1
        return True

    def until_ended(self, job_id: str) -> None:
        """Waits for the event that a job has ended."""
        ended = False
        while not ended:
            assert self.socket.poll(int(ANSWER_WITHIN_S * 1000)), f"nothing more of {job_id}"
            received = codec.decode(self.socket.recv_multipart())
            assert self.is_event(received)
            message = received.message
            ended = isinstance(message, JobChanged) and message.job_id == job_id and message.state.ended


def meant(frames: list[bytes]) -> Message | None:
    """The message as the daemon understands it; None for what is no message."""
    try:
        return codec.decode(frames).message
    except KeytweenError:
        return None


class Machine(RuleBasedStateMachine):
    """What two clients may say to one daemon, valid or not, and what must hold whatever they say."""

    daemon: DaemonProcess
    blobs: tuple[bytes, bytes]

    @initialize()
    def begin(self) -> None:
        PLAYED["sequences"] += 1
        self.peers = [Peer(self.daemon.connection, 1), Peer(self.daemon.connection, 1_000_001)]
        self.jobs: set[str] = set()

    def teardown(self) -> None:
        if not hasattr(self, "peers"):
            return
        peer = self.peers[0]
        for job_id in self.jobs:
            peer.send(peer.frames(Cancel(job_id)))
        peer.send(peer.frames(Clear()))
        peer.answers()
        for each in self.peers:
            PLAYED["slowest ms"] = max(PLAYED["slowest ms"], round(each.slowest * 1000))
            each.close()

    def request(self, seed: int) -> MorphRequest:
        images = tuple(KeyframeImage(MorphRequest.digest_of(blob), ".png") for blob in self.blobs)
        return MorphRequest(images, ((0.5,),), engine="dissolve", seed=seed)

    # ---- one after the other

    def say(self, peer: Peer, *several: list[bytes]) -> None:
        """Says them all at once and takes in the answers, which tell what became of jobs."""
        spoken = [frames for frames in several if not isinstance(meant(frames), Stop)]
        for frames in spoken:
            peer.send(frames)
        for frames, answer in zip(spoken, peer.answers(), strict=True):
            self.note(frames, answer)

    def note(self, frames: list[bytes], answer: Message) -> None:
        """Only a submission makes a job, and only a clear ends one, and as many as it says."""
        message = meant(frames)
        PLAYED["refusals"] += isinstance(answer, Failed)
        if message is None:
            assert isinstance(answer, Failed), f"{answer} to {frames!r:.300}"
        elif isinstance(answer, Accepted):
            assert isinstance(message, Submit)
            assert answer.job.job_id == message.job_id
            assert answer.existing == (message.job_id in self.jobs)
            self.jobs.add(message.job_id)
        elif isinstance(answer, Jobs) and isinstance(message, ListJobs):
            named = {message.job_id} if message.job_id else self.jobs
            assert {job.job_id for job in answer.jobs} <= named
        elif isinstance(message, Clear) and isinstance(answer, Done):
            self.settle(message, answer.count)

    def settle(self, clear: Clear, gone: int) -> None:
        """Which ones were cleared depends on how far the worker was; how many were is what was said."""
        now = self.listed()
        left = self.jobs - now
        assert now <= self.jobs
        assert left <= ({clear.job_id} if clear.job_id else self.jobs)
        assert len(left) == gone
        self.jobs = now

    def listed(self) -> set[str]:
        observer = self.peers[1]
        observer.send(observer.frames(ListJobs()))
        (answer,) = observer.answers()
        assert isinstance(answer, Jobs)
        return {job.job_id for job in answer.jobs}

    # ---- what is said

    @rule(who=st.integers(0, 1), job_id=st.sampled_from(IDS), seed=st.integers(0, 1), twice=st.booleans())
    def submit(self, who: int, job_id: str, seed: int, twice: bool) -> None:
        peer = self.peers[who]
        frames = peer.frames(Submit(job_id, self.request(seed), "by chance"), self.blobs)
        self.say(peer, *([frames, frames] if twice else [frames]))

    @rule(
        who=st.integers(0, 1), job_id=st.sampled_from(IDS), harm=st.sampled_from(["fewer", "more", "other"])
    )
    def submit_with_other_pictures(self, who: int, job_id: str, harm: str) -> None:
        """Bytes that are not what was announced make no job."""
        peer = self.peers[who]
        blobs = {"fewer": self.blobs[:1], "more": (*self.blobs, b"x"), "other": (self.blobs[0], b"x")}[harm]
        self.say(peer, peer.frames(Submit(job_id, self.request(0)), blobs))

    @rule(
        who=st.integers(0, 1),
        job_id=st.sampled_from([*IDS, "", "../../etc", "A" * 32]),
        what=st.sampled_from(
            ["watch", "unwatch", "cancel", "retry", "list", "clear", "clear all", "hello", "ping"]
        ),
    )
    def ask(self, who: int, job_id: str, what: str) -> None:
        peer = self.peers[who]
        asked: dict[str, Callable[[], Message]] = {
            "watch": lambda: Watch(job_id, 0, 64, ()),
            "unwatch": lambda: Unwatch(job_id),
            "cancel": lambda: Cancel(job_id),
            "retry": lambda: Retry(job_id),
            "list": lambda: ListJobs(job_id),
            "clear": lambda: Clear(job_id),
            "clear all": Clear,
            "hello": lambda: Hello(1, 99, "chance", "0"),
            "ping": Ping,
        }
        self.say(peer, peer.frames(asked[what]()))

    @rule(who=st.integers(0, 1), job_id=st.sampled_from(IDS))
    def follow(self, who: int, job_id: str) -> None:
        """Whoever watches a job hears of its end, whatever was said before."""
        if job_id in self.jobs:
            self.say(self.peers[who], self.peers[who].frames(Watch(job_id, 0, 1024)))
            self.peers[who].until_ended(job_id)

    @rule()
    def get_ready(self) -> None:
        self.say(self.peers[0], self.peers[0].frames(Prepare()))

    @rule(who=st.integers(0, 1), by=st.integers(0, 1), which=st.integers(0, 10_000))
    def replay(self, who: int, by: int, which: int) -> None:
        """What was said before is said again, by the same client or by the other."""
        if self.peers[who].said:
            self.say(self.peers[by], self.peers[who].said[which % len(self.peers[who].said)])

    @rule(who=st.integers(0, 1), chance=st.integers(0, 2**32))
    def replay_out_of_order(self, who: int, chance: int) -> None:
        rng = random.Random(chance)
        said = self.peers[who].said
        batch = [frames for frames in rng.sample(said, min(5, len(said))) if not _clears(frames)]
        self.say(self.peers[who], *batch)

    @rule(who=st.integers(0, 1), chance=st.integers(0, 2**32), times=st.integers(1, 8))
    def mutate(self, who: int, chance: int, times: int) -> None:
        """Messages with a value, some bytes or a part changed."""
        rng = random.Random(chance)
        peer = self.peers[who]
        said = peer.said or [peer.frames(Submit(IDS[0], self.request(0)), self.blobs)]
        for _ in range(times):
            self.say(peer, mutated(rng.choice(said), rng))

    # ---- what is always so

    @invariant()
    def the_daemon_lives_and_has_the_jobs_that_it_acknowledged(self) -> None:
        assert self.daemon.process.poll() is None
        if hasattr(self, "peers"):
            assert self.listed() == self.jobs


def _clears(frames: list[bytes]) -> bool:
    return isinstance(meant(frames), Clear)


def mutated(frames: list[bytes], rng: random.Random) -> list[bytes]:
    """A message that was valid once, with its header, body or parts changed."""
    changed = list(frames)
    at = rng.randrange(len(changed))
    match rng.randrange(5):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, rng.choice(frames))
        case 2:
            changed[at] = mutations.any_of(changed[at], frames, (b"\xc0", b"\xdd\xff\xff\xff\xff"), rng)
        case 3:
            changed += [b"x"] * rng.choice((1, 63, 80))
        case _:
            changed = _other_value(changed, min(at, 1), rng)
    return changed or [b""]


def _other_value(frames: list[bytes], at: int, rng: random.Random) -> list[bytes]:
    try:
        tree = msgpack.unpackb(frames[at], strict_map_key=False, unicode_errors="surrogatepass")
        new = msgpack.packb(mutations.tree(tree, WORDS, rng), unicode_errors="surrogatepass")
    except (ValueError, OverflowError, TypeError, IndexError, UnicodeError, msgpack.UnpackException):
        return [*frames[:at], b"\xc1", *frames[at + 1 :]]
    return [*frames[:at], new, *frames[at + 1 :]]


def test_a_daemon_lives_whatever_its_clients_say(
    start_daemon: Callable[..., DaemonProcess], config: Config, tmp_path: Path, measured: Measured
) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(6 + i, 6), size=(16, 12)) for i in range(2)]
    Machine.blobs = (files[0].read_bytes(), files[1].read_bytes())
    Machine.daemon = start_daemon(replace(config, queued_jobs=5))
    PLAYED.clear()
    run_state_machine_as_test(Machine, settings=play(examples=25, steps=25))
    assert PLAYED["refusals"] > 50
    assert PLAYED["events"] > 0
    said = config.log.read_text("utf-8", "replace")
    assert "queue-stands" not in said
    assert "Traceback" not in said
    measured(
        "9-protocol",
        f"{PLAYED['sequences']} sequences by chance, {PLAYED['messages']} messages of two clients, "
        f"{PLAYED['refusals']} refused, every one answered, in {PLAYED['slowest ms']} ms at most; "
        "no job made or lost by any other message than its own",
    )
