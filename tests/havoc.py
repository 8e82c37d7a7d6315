"""Jobs, a daemon, and someone who kills: what the kill tests and the soak share.

Whatever dies, and whenever: no job that was acknowledged is lost, no finished drawing is computed twice, no
half drawing is ever seen, and every drawing is the one that an undisturbed daemon makes.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from keytween.config import Config
from keytween.jobs.folder import JobFolder
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import JobInfo, JobState, MorphRequest
from trust.jobs import computed, finish

VICTIMS = ("daemon", "worker", "client")
LOADING = "loading the checkpoint"
_CLIENT = """
import sys
from keytween_wire.client import Client
from keytween_wire.connection import Connection
with Client(Connection.load()) as client:
    client.hello()
    for received in client.events(sys.argv[1]):
        print(type(received.message).__name__, flush=True)
"""

Asked = tuple[MorphRequest, list[bytes]]


@dataclass(slots=True)
class Killed:
    """One kill: of whom, and which engine was doing what."""

    victim: str
    doing: str


@dataclass(slots=True)
class Havoc:
    """Hands jobs of several kinds over, in turn, and kills; `kinds` says what is asked by each name.

    `turns` are names in the order that they are handed over in, again and again; without them, each in turn.
    With `deep` those who wait for the worker wait until its networks are loaded and it is at work with them.
    """

    config: Config
    begin: Callable[[Config], DaemonProcess]
    kinds: Mapping[str, Asked]
    turns: Sequence[str] = ()
    seed: int = 7
    longest_s: float = 0.5
    deep: bool = False
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    kills: list[Killed] = field(default_factory=list[Killed])
    daemon: DaemonProcess = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.daemon = self.begin(self.config)

    def round(self) -> None:
        """Hands a job over, waits a random moment, for the worker's part in most rounds, and kills one."""
        self.submit(self._next())
        if self._random.random() < 0.75:
            self._until_one_runs()
        time.sleep(self._random.uniform(0, self.longest_s))
        self.kill(VICTIMS[len(self.kills) % 3])
        self.look_at_frames([*self.accepted][-3:])

    def _next(self) -> str:
        turns = self.turns or list(self.kinds)
        return turns[len(self.accepted) % len(turns)]

    def submit(self, kind: str) -> str:
        """Hands over a job; only what was acknowledged counts. Its id."""
        request, blobs = self.kinds[kind]
        job_id = f"{self._random.getrandbits(128):032x}"
        with Client(self.daemon.connection) as client:
            client.hello()
            client.submit(job_id, request, blobs)
        self.accepted[job_id] = kind
        return job_id

    def kill(self, victim: str) -> None:
        """One kill -9. A worker is waited for: one that is not there yet cannot be killed."""
        if victim == "worker":
            self._until_one_runs()
        doing = self._doing()
        {"daemon": self._daemon, "worker": self._worker, "client": self._client}[victim]()
        self.kills.append(Killed(victim, doing))

    def _doing(self) -> str:
        """The engine and phase of the job that runs, of the newest where none does."""
        with Client(self.daemon.connection) as client:
            client.hello()
            jobs = client.jobs()
        job = next((job for job in jobs if job.state is JobState.RUNNING), jobs[0])
        if job.state is not JobState.RUNNING:
            return f"{self._engine(job.job_id)}: {'waiting' if job.state is JobState.QUEUED else 'done'}"
        drawn = "drawing" if job.frames_done else "beginning"
        return f"{self._engine(job.job_id)}: {job.phase or drawn}"

    def _engine(self, job_id: str) -> str:
        return self.kinds[self.accepted[job_id]][0].engine

    def _until_one_runs(self) -> None:
        deadline = time.monotonic() + 60
        with Client(self.daemon.connection) as client:
            client.hello()
            while not any(map(self._is_at_work, client.jobs())):
                assert time.monotonic() < deadline, "no worker takes the job"
                if all(job.state.ended for job in client.jobs()):
                    self.submit(self._next())
                time.sleep(0.01)

    def _is_at_work(self, job: JobInfo) -> bool:
        began = bool(job.frames_done) or job.phase not in ("", LOADING)
        return job.state is JobState.RUNNING and (began or not self.deep)

    def _daemon(self) -> None:
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon = self.begin(self.config)

    def _worker(self) -> None:
        for child in psutil.Process(self.daemon.process.pid).children():
            child.kill()

    def _client(self) -> None:
        watching = subprocess.Popen(
            [sys.executable, "-c", _CLIENT, [*self.accepted][-1]],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with watching:
            assert watching.stdout is not None
            watching.stdout.readline()
            watching.send_signal(signal.SIGKILL)

    # ---- what must hold

    def look_at_frames(self, job_ids: list[str]) -> None:
        """Whatever has a frame's name is whole, at any moment."""
        for job_id in job_ids:
            for path in JobFolder(self.config.state / "jobs", job_id).frames.glob("*"):
                digest = path.name.split("-")[1].split(".")[0]
                assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path

    def finish(self) -> int:
        """Waits for all jobs and looks at each; how many drawings there were."""
        expected: dict[str, dict[int, str]] = {}
        count = 0
        for job_id, kind in self.accepted.items():
            frames = self._frames(job_id)
            request = self.kinds[kind][0]
            assert sorted(frames) == list(range(sum(map(len, request.positions)))), (job_id, sorted(frames))
            expected.setdefault(kind, frames)
            assert frames == expected[kind], f"{kind} was drawn otherwise"
            counts = computed(self.config, job_id)
            assert max(counts.values()) == 1, (job_id, counts)
            count += len(frames)
        return count

    def _frames(self, job_id: str) -> dict[int, str]:
        """The digests of a job's drawings as a client gets them that asks from the beginning."""
        with Client(self.daemon.connection) as client:
            client.hello()
            frames, ended = finish(client, job_id)
        assert ended.state is JobState.DONE, ended
        return {index: hashlib.sha256(data).hexdigest() for index, data in frames.items()}

    def forget(self) -> None:
        """Clears the jobs that were looked at."""
        with Client(self.daemon.connection) as client:
            client.hello()
            client.clear()
        self.accepted.clear()

    def tally(self) -> str:
        """Who was killed, in what."""
        victims = Counter(kill.victim for kill in self.kills)
        doing = Counter(kill.doing for kill in self.kills).most_common()
        whom = ", ".join(f"{victims[name]} {name}s" for name in VICTIMS)
        return f"{len(self.kills)} kills ({whom}; " + ", ".join(f"{n} × {what}" for what, n in doing) + ")"
