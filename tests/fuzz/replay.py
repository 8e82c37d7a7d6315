# SPDX-License-Identifier: Apache-2.0
"""Replays a target's seeds and findings, and so many changes of each: `replay.py TARGET [CHANGES]`.

Needs no atheris. The changes are the same ones every time. An input may take as long and as much memory as
under the fuzzer; a finding ends the process, and standard error names the input.
"""

from __future__ import annotations

import faulthandler
import random
import sys
from importlib import import_module
from pathlib import Path

import bounds
import mutations

SEEDS = Path(__file__).resolve().parent / "seeds"
MOST_GROWTH = 512
"""Megabytes, as in `drive.py`."""
MOST_SECONDS = 10


def main() -> None:
    """Reads each input once, and prints how many there were and what they took."""
    name, changes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    target = import_module(f"targets.{name}")
    bounds.stay_inside()
    before, count = peak_mb(), 0
    seeds = {path.name: path.read_bytes() for path in sorted((SEEDS / name).iterdir())}
    for seed, data in seeds.items():
        rng = random.Random(f"{name} {seed}")
        for number in range(changes + 1):
            read(
                target,
                change(target, data, list(seeds.values()), rng) if number else data,
                f"{seed} {number}",
            )
            count += 1
    grown = peak_mb() - before
    assert grown < MOST_GROWTH, f"{grown} MB"
    print(f"{count} inputs, {grown} MB")


def read(target: object, data: bytes, called: str) -> None:
    """Hands the input to the target; where that takes too long, the process ends with a traceback."""
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
    try:
        target.one_input(data)  # type: ignore[attr-defined]
    except BaseException:
        print(f"FOUND by {called}: {data[:400]!r}", file=sys.stderr)
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


def change(target: object, data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A new input as the fuzzer would make it: one that means something, or one that is changed blindly."""
    if hasattr(target, "changed") and rng.random() < 0.7:
        try:
            return target.changed(data, rng)[: target.LONGEST]  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001  what is no longer such a file can only be changed blindly
            pass
    return mutations.any_of(data, others, target.WORDS, rng)[: target.LONGEST]  # type: ignore[attr-defined]


def peak_mb() -> int:
    """The most memory this process has had, in MB; 0 where no system tells."""
    status = Path("/proc/self/status")
    # Not getrusage: it counts the process that started this one.
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    faulthandler.enable()
    main()
