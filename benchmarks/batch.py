"""What a batch costs: `python benchmarks/batch.py`. Prints a table; asserts nothing.

Throughput of many small shots against single shots, one core each, times the cores; memory of all processes
over the run; and with `--kills 20`, a batch that is killed so often at random, beside one that is not: shots
done twice, shots lost, and frames that differ. `flow` may differ in the last bit from run to run, because
OpenCV's arithmetic depends on where memory lies; `dissolve` may not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from keytween.images import Picture, write
from keytween.shots.pool import cores


def draw_keyframes(folder: Path, *, size: int, count: int) -> None:
    """Keyframes of a disc in many places, with some grain: no two of them alike."""
    rows, columns = np.mgrid[:size, :size]
    for number in range(count):
        chance = np.random.default_rng(number)
        x, y = chance.integers(size // 4, 3 * size // 4, 2)
        inside = (columns - x) ** 2 + (rows - y) ** 2 < (size // 6) ** 2
        ground = 180 + chance.integers(0, 8, (size, size, 1))
        picture = np.where(inside[..., None], (210, 70, 50), ground).astype(np.uint8)
        write(Picture(np.ascontiguousarray(picture)), folder / f"key.{number:04d}.png")


def shots_file(folder: Path, *, shots: int, keyframes: int, engine: str) -> Path:
    """A file of that many shots of five drawings, each between another pair of keyframes."""
    rows = "".join(
        f'[[shot]]\nid = "s{n:03d}"\nkeyframes = ["key.{n % keyframes:04d}.png", '
        f'"key.{(n * 7 + 1 + n // keyframes) % keyframes:04d}.png"]\n'
        for n in range(shots)
    )
    path = folder / "shots.toml"
    path.write_text(f'[defaults]\nengine = "{engine}"\nin_betweens = 5\n{rows}')
    return path


def batch(source: Path, output: Path, *more: str) -> list[str]:
    """The command line of a batch."""
    return [sys.executable, "-m", "keytween.cli", "batch", str(source), "-o", str(output), "--json", *more]


def records(output: Path) -> Iterator[dict[str, Any]]:
    """The records of an output."""
    for path in sorted((output / "results").glob("*/result.json")):
        yield json.loads(path.read_text("utf-8"))


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident_mb(pid: int) -> float:
    """What a process and all below it hold."""
    total = 0
    for process in family(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 1e6


def watched(command: list[str]) -> tuple[dict[str, Any], float, list[float]]:
    """Runs a batch; gives its summary, its seconds, and its memory in MB four times a second."""
    held: list[float] = []
    began = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.PIPE)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            held.append(resident_mb(running.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = running.communicate()
    over.set()
    watcher.join()
    return json.loads(said), time.perf_counter() - began, held


def throughput(source: Path, folder: Path, *, shots: int, singles: int) -> None:
    """All shots as one batch, against runs of one shot after the other, one run on each core at once."""
    alone: list[float] = []
    summary, seconds, held = {}, 0.0, [0.0]
    for part in range(2):
        # Half before and half after, so that a load which comes and goes touches both.
        if part == 1:
            summary, seconds, held = watched(batch(source, folder / "all"))
        numbers = range(part, shots, max(1, 2 * shots // singles))
        alone += singly(source, folder / f"single{part}", numbers)
    single = statistics.mean(alone)
    rate, possible = shots / seconds, cores() / single
    print(f"{shots} shots, {summary['done']} done, {summary['failed']} failed, in {seconds:.1f} s")
    print(
        f"  a single shot, with as many beside it as there are cores: {single:.2f} s (mean of {len(alone)})"
    )
    print(
        f"  {rate:.3f} shots a second, {possible:.3f} singly on {cores()} cores: share {rate / possible:.2f}"
    )
    busy = sum(record["seconds"] for record in records(folder / "all")) / (cores() * seconds)
    print(f"  processes were at a shot for {busy:.3f} of the time, from the first to the last")
    third = len(held) // 3
    middle, last = statistics.mean(held[third : 2 * third]), statistics.mean(held[2 * third : -4])
    print(
        f"  memory of all processes: {middle:.0f} MB in the middle third, {last:.0f} MB in the last, ", end=""
    )
    print(f"{max(held):.0f} MB at most")


def singly(source: Path, output: Path, numbers: Sequence[int]) -> list[float]:
    """The seconds of these shots, made one after the other in a warm process for each core."""
    running = []
    for core in range(cores()):
        chosen = [f"--only=s{n:03d}" for n in numbers[core :: cores()]]
        command = batch(source, output / str(core), "--jobs", "1", *chosen)
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_core()))
    for process in running:
        process.wait()
    return [record["seconds"] for core in range(cores()) for record in records(output / str(core))]


def one_core() -> dict[str, str]:
    """The environment in which libraries use one thread, as they do in each of a batch's processes."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}


def killed(source: Path, folder: Path, *, kills: int) -> None:
    """A batch that is killed at random against one that is not."""
    began = time.perf_counter()
    subprocess.run(batch(source, folder / "calm"), check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    chance = random.Random(1)
    done: dict[str, float] = {}
    again = counted = 0
    while counted < kills:
        running = subprocess.Popen(batch(source, folder / "killed"), stdout=subprocess.DEVNULL)
        try:
            running.wait(timeout=chance.uniform(0.5, 0.5 + 1.6 * whole / kills))
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            counted += 1
        now = {r["shot"]: r["ended"] for r in records(folder / "killed") if r["state"] == "done"}
        again += sum(now.get(shot) != ended for shot, ended in done.items())
        done = now
        if len(done) == sum(1 for _ in records(folder / "calm")):
            break
    subprocess.run(batch(source, folder / "killed"), check=True, stdout=subprocess.DEVNULL)
    calm = {r["shot"]: [f["sha256"] for f in r["frames"]] for r in records(folder / "calm")}
    after = {
        r["shot"]: [f["sha256"] for f in r["frames"]] for r in records(folder / "killed") if "frames" in r
    }
    frames = sum(len(found) for found in calm.values())
    other = sum(a != b for shot in calm for a, b in zip(calm[shot], after.get(shot, ()), strict=False))
    print(
        f"{counted} kills of a batch of {len(calm)} shots: {len(calm) - len(after)} lost, {again} done twice,"
    )
    print(f"  {other} of {frames} frames differ from a run without kills")


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument(
        "--singles", type=int, default=20, help="shots that are made one by one for comparison"
    )
    parser.add_argument("--engine", default="flow")
    parser.add_argument("--size", type=int, default=256, help="side of the keyframes in pixels")
    parser.add_argument("--kills", type=int, default=0, help="kill a batch so often, instead of timing one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keytween-") as name:
        folder = Path(name)
        os.environ.setdefault("KEYTWEEN_STATE", str(folder / "state"))
        keyframes = 40
        draw_keyframes(folder, size=options.size, count=keyframes)
        source = shots_file(folder, shots=options.shots, keyframes=keyframes, engine=options.engine)
        if options.kills:
            killed(source, folder, kills=options.kills)
        else:
            throughput(source, folder, shots=options.shots, singles=options.singles)


if __name__ == "__main__":
    main()
