# SPDX-License-Identifier: Apache-2.0
"""Hours of mixed jobs, good and bad, against one daemon, and a thousand kills: `scripts/soak` runs it.

The daemon's memory, files and threads are looked at every few seconds, and are flat when the last quarter's
medians are where the second quarter's were: the first quarter is for what is loaded once.
"""

from __future__ import annotations

import argparse
import csv
import random
import socket
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import pytest

import ordeal
from discs import draw_disc, request_for
from figures import note
from havoc import Asked, Havoc
from keytween.config import Config, load
from keytween.engines import engine_infos
from keytween.starter import DaemonProcess, start
from keytween_wire.client import Client
from keytween_wire.messages import Diffusion, JobState
from trust import proc

EVERY_S = 5.0
TOON = Path(__file__).resolve().parents[1] / "daemon" / "keytween" / "toon" / "checkpoint"
MOST_GROWTH = {"memory_mb": 8.0, "files": 2.0, "threads": 1.0}
"""How much more the last quarter may have than the second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon holds at a moment; `ended` is how many jobs have ended so far."""

    seconds: float
    memory_mb: float
    files: int
    threads: int
    ended: int


class Soak:
    """Users of all kinds, one after the other, at random."""

    def __init__(self, folder: Path, config: Config, daemon: DaemonProcess, seed: int = 1) -> None:
        self.folder, self.config, self.daemon = folder, config, daemon
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.kinds = kinds(folder)
        self.client = Client(daemon.connection)
        self.client.hello()

    def turn(self) -> None:
        """One user more."""
        users: list[Callable[[], None]] = [self._waits] * 5
        users += [self._cancels, self._leaves, self._has_a_bad_picture, self._has_bad_luck, self._has_no_key]
        user = self.random.choice(users)
        user()
        self.done[user.__name__.strip("_").replace("_", " ")] += 1

    def _waits(self) -> None:
        kind = self.random.choice([*self.kinds])
        job_id = self._submit(self.kinds[kind])
        self._ended(job_id, JobState.DONE)

    def _cancels(self) -> None:
        job_id = self._submit(self.kinds["dissolve"])
        time.sleep(self.random.uniform(0, 0.3))
        self.client.cancel(job_id)
        self._ended(job_id, JobState.CANCELLED, JobState.DONE)

    def _leaves(self) -> None:
        """Asks for events and is gone."""
        with Client(self.daemon.connection) as client:
            client.hello()
            request, blobs = self.kinds["dissolve"]
            job_id = uuid.uuid4().hex
            client.submit(job_id, request, blobs)
            next(client.events(job_id))
        self._ended(job_id, JobState.DONE)

    def _has_a_bad_picture(self) -> None:
        request, blobs = self.kinds["dissolve"]
        damaged = blobs[0][: len(blobs[0]) // 2]
        first = replace(request.keyframes[0], digest=request.digest_of(damaged))
        request = replace(request, keyframes=(first, *request.keyframes[1:]))
        self._ended(self._submit((request, [damaged, *blobs[1:]])), JobState.FAILED)

    def _has_bad_luck(self) -> None:
        request, blobs = self.kinds["dissolve"]
        seed = self.random.choice([ordeal.MISTAKE, ordeal.STARVE, ordeal.STARVE_ONCE, ordeal.SEGFAULT])
        job_id = self._submit((replace(request, engine="ordeal", seed=seed), blobs))
        self._ended(job_id, JobState.DONE if seed == ordeal.STARVE_ONCE else JobState.FAILED)

    def _has_no_key(self) -> None:
        host, _, port = self.daemon.connection.endpoint.removeprefix("tcp://").rpartition(":")
        for _ in range(self.random.randint(1, 40)):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(self.random.randbytes(self.random.choice([0, 3, 64, 4096])))

    def _submit(self, asked: Asked) -> str:
        job_id = uuid.uuid4().hex
        self.client.submit(job_id, *asked)
        return job_id

    def _ended(self, job_id: str, *wanted: JobState) -> None:
        for _ in self.client.events(job_id):
            pass
        state = self.client.jobs(job_id)[0].state
        assert state in wanted, (job_id, state)
        self.states[state.value] += 1
        if sum(self.states.values()) % 50 == 0:
            self.client.clear()

    def sample(self, seconds: float) -> Sample:
        """What the daemon holds now."""
        pid = self.daemon.process.pid
        ended = sum(self.states.values())
        return Sample(seconds, proc.resident_mb(pid), proc.files(pid), proc.threads(pid), ended)


def kinds(folder: Path) -> dict[str, Asked]:
    """A small job for every engine that can run here."""
    files = [draw_disc(folder / f"k{i}.png", centre=(30 + 20 * i, 30)) for i in range(2)]
    found = {
        "dissolve": request_for(files, in_betweens=6)[1:],
        "flow": request_for(files, in_betweens=4, engine="flow")[1:],
    }
    if any(info.name == "diffmorpher" and info.available for info in engine_infos()):
        _, request, blobs = request_for(files, in_betweens=2, engine="diffmorpher")
        settings = Diffusion(str(TOON), steps=4, lora_steps=4, lora_rank=2)
        found["diffmorpher"] = (replace(request, diffusion=settings), blobs)
    return found


def soak(soaking: Soak, hours: float) -> list[Sample]:
    """Samples over so many hours; Ctrl-C ends it sooner."""
    began, last, samples = time.monotonic(), 0.0, list[Sample]()
    while time.monotonic() - began < hours * 3600:
        try:
            soaking.turn()
        except KeyboardInterrupt:
            break
        if time.monotonic() - began - last >= EVERY_S:
            last = time.monotonic() - began
            samples.append(soaking.sample(last))
            show(samples[-1], hours)
    print(file=sys.stderr)
    return samples


def show(sample: Sample, hours: float) -> None:
    """Where it is, on one line."""
    left = hours * 60 - sample.seconds / 60
    line = f"{sample.ended} jobs, {sample.memory_mb:.1f} MB, {sample.files} files, {sample.threads} threads"
    print(f"\r{line}, {left:.0f} min to go ", end="", file=sys.stderr, flush=True)


def growth(samples: list[Sample], name: str) -> float:
    """The last quarter's median less the second quarter's."""
    values = [float(getattr(sample, name)) for sample in samples]
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


def picture(samples: list[Sample]) -> str:
    """Memory, files and threads over time, as SVG; each from nothing to its highest."""
    lines: list[str] = []
    for row, (name, colour) in enumerate((("memory_mb", "#c33"), ("files", "#36c"), ("threads", "#2a2"))):
        values = [float(getattr(sample, name)) for sample in samples]
        top, end = max(values) or 1.0, samples[-1].seconds or 1.0
        pairs = zip(samples, values, strict=True)
        points = " ".join(f"{60 + 700 * s.seconds / end:.1f},{20 + 90 * (1 - v / top):.1f}" for s, v in pairs)
        label = f'<text x="60" y="12" fill="{colour}">{name}: at most {top:.1f}</text>'
        line = f'<polyline fill="none" stroke="{colour}" points="{points}"/>'
        lines.append(f'<g transform="translate(0,{row * 130})">{label}{line}</g>')
    style = 'xmlns="http://www.w3.org/2000/svg" width="800" height="400" font-family="sans-serif"'
    return f'<svg {style} font-size="12"><rect width="800" height="400" fill="#fff"/>{"".join(lines)}</svg>'


def judge(samples: list[Sample], soaking: Soak, output: Path) -> bool:
    """Keeps the samples and their picture, notes the figure; whether all was flat."""
    if len(samples) < 8:
        print(f"{len(samples)} samples are too few to judge by: soak for longer", file=sys.stderr)
        return False
    with (output / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Sample)])
        writer.writerows(astuple(sample) for sample in samples)
    (output / "soak.svg").write_text(picture(samples), "utf-8")
    found = {name: growth(samples, name) for name in MOST_GROWTH}
    minutes, users = samples[-1].seconds / 60, ", ".join(f"{n} × {who}" for who, n in soaking.done.items())
    changes = ", ".join(f"{name.replace('_mb', ' (MB)')} {value:+.1f}" for name, value in found.items())
    figure = f"{minutes:.0f} minutes, {samples[-1].ended} jobs ({users}): {changes}"
    note("6-soak", figure, "tests/soak.py")
    return all(found[name] <= most for name, most in MOST_GROWTH.items())


def kill(folder: Path, config: Config, begin: Callable[[Config], DaemonProcess], count: int) -> None:
    """So many random kills over all engines; raises AssertionError where something was lost."""
    jobs = drawings = 0
    asked = kinds(folder)
    turns = [turn for turn in ["dissolve"] * 6 + ["flow"] * 2 + ["diffmorpher"] if turn in asked]
    havoc = Havoc(replace(config, max_attempts=100), begin, asked, turns)
    for number in range(1, count + 1):
        havoc.round()
        if number % 50 == 0 or number == count:
            jobs, drawings = jobs + len(havoc.accepted), drawings + havoc.finish()
            havoc.forget()
        print(f"\r{number} of {count} kills, {jobs} jobs looked at ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    figure = f"{havoc.tally()}: none of {jobs} jobs lost, {drawings} drawings each computed once"
    note("1-thousand", figure, "tests/soak.py")


@contextmanager
def daemons() -> Iterator[Callable[[Config], DaemonProcess]]:
    """Starts daemons that are gone at the end."""
    started: list[DaemonProcess] = []

    def begin(config: Config) -> DaemonProcess:
        started.append(start(config))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.process.kill()
        daemon.process.wait()


def main() -> int:
    """Soaks, then kills."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=0.5, help="how long to soak (default: 0.5)")
    parser.add_argument("--kills", type=int, default=0, help="how often to kill -9 after that (default: 0)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(".cache/soak"), help="for samples and picture"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="keytween-soak-") as name, daemons() as begin:
        folder = Path(name)
        with pytest.MonkeyPatch.context() as patch:
            ordeal.install(folder / "packages", patch)
            for variable, file in (("STATE", "state"), ("CONNECTION", "c.json"), ("CONFIG", "keytween.toml")):
                patch.setenv(f"KEYTWEEN_{variable}", str(folder / file))
            flat = True
            if arguments.hours:
                soaking = Soak(folder, load(), begin(load()))
                flat = judge(soak(soaking, arguments.hours), soaking, arguments.output)
                soaking.client.close()
                soaking.daemon.stop()
            if arguments.kills:
                kill(folder, load(), begin, arguments.kills)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
