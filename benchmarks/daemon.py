"""The daemon's budgets: `python benchmarks/daemon.py`. Prints a table; asserts nothing.

Submit to accepted on loopback, a 1080p PNG frame from the worker's disk to the client, and how long
`keytween --help` takes. The machine's own price for an fsync stands beside them, since a job that is
acknowledged is on disk.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from keytween.config import load
from keytween.examples import examples
from keytween.images import Picture, encode
from keytween.starter import start
from keytween_wire.client import Client
from keytween_wire.messages import FrameMade, KeyframeImage, MorphRequest, Ping

ROUNDS = 60


def median_ms(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of a call in milliseconds."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def keyframe(width: int, height: int, seed: int) -> bytes:
    """A PNG with broad shapes and some grain, so that it compresses like a drawing with texture."""
    noise = np.random.default_rng(seed).integers(0, 8, (height, width, 3))
    shade = np.linspace(20, 220, width)[None, :, None] + noise
    return encode(Picture(shade.astype(np.uint8)))[0]


def request(blobs: list[bytes], positions: tuple[float, ...]) -> MorphRequest:
    """A request for the dissolve engine: the cheapest there is, so that the daemon itself is measured."""
    images = tuple(KeyframeImage(MorphRequest.digest_of(b), ".png") for b in blobs)
    return MorphRequest(images, (positions,) * (len(blobs) - 1), engine="dissolve")


def fsync_ms(folder: Path) -> float:
    """What one small write costs that is really on the disk."""
    with (folder / "probe").open("wb") as stream:

        def write() -> None:
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())

        return median_ms(write)


def delivery_ms(client: Client) -> tuple[float, int]:
    """A finished 1080p frame from disk to client: the median of a replay, and the frame's bytes."""
    blobs = [keyframe(1920, 1080, seed) for seed in (1, 2)]
    job_id = uuid.uuid4().hex
    client.submit(job_id, request(blobs, tuple(i / 13 for i in range(1, 13))), blobs)
    list(client.events(job_id))
    times, size, last = [], 0, time.perf_counter()
    for received in client.events(job_id):
        if isinstance(received.message, FrameMade):
            now = time.perf_counter()
            times.append((now - last) * 1000)
            last, size = now, received.message.size
    return statistics.median(times), size


def main() -> None:
    """Runs everything against a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="keytween-bench-") as name:
        folder = Path(name)
        daemon = start(replace(load(), state=folder / "state", connection=folder / "connection.json"))
        with Client(daemon.connection) as client:
            client.hello()
            drawings = [path.read_bytes() for path in examples()[0].keyframes]
            small = [keyframe(512, 512, seed) for seed in (1, 2)]
            large = [keyframe(1920, 1080, seed) for seed in (1, 2)]
            rows = [
                ("ping, loopback", median_ms(lambda: client.ask(Ping())), ""),
                ("one fsync on this disk", fsync_ms(folder), ""),
                ("submit to accepted, example drawings", submit_ms(client, drawings, ROUNDS), "budget 5 ms"),
                ("submit to accepted, 2 x 512², grainy", submit_ms(client, small, ROUNDS), ""),
                ("submit to accepted, 2 x 1080p, grainy", submit_ms(client, large, 10), ""),
            ]
            delivered, size = delivery_ms(client)
            rows.append((f"1080p frame to client ({size / 1e6:.1f} MB)", delivered, "budget 30 ms"))
        daemon.stop()
    helped = [sys.executable, "-m", "keytween.cli", "--help"]
    rows.append(
        (
            "keytween --help",
            median_ms(lambda: subprocess.run(helped, capture_output=True), 10),
            "budget 250 ms",
        )
    )
    for label, milliseconds, budget in rows:
        print(f"{label:40} {milliseconds:8.2f} ms   {budget}")


def submit_ms(client: Client, blobs: list[bytes], rounds: int) -> float:
    """From submit to accepted, one job at a time: the median. The jobs have nothing to draw."""
    times: list[float] = []
    for _ in range(rounds):
        job_id, asked = uuid.uuid4().hex, request(blobs, ())
        began = time.perf_counter()
        client.submit(job_id, asked, blobs)
        times.append((time.perf_counter() - began) * 1000)
        list(client.events(job_id))
    return statistics.median(times)


if __name__ == "__main__":
    main()
