"""What Linux tells of a process: its memory at most, its files, its threads."""

from __future__ import annotations

import os
from pathlib import Path

THERE = Path("/proc/self/clear_refs").exists()


def forget_peak(pid: int) -> None:
    """From now on `peak_mb` counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most memory that the process had resident since `forget_peak`, in MB."""
    return _status(pid, "VmHWM") / 1024


def resident_mb(pid: int) -> float:
    """What it has now, in MB."""
    return _status(pid, "VmRSS") / 1024


def files(pid: int) -> int:
    """How many files and sockets it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many threads it has."""
    return int(_status(pid, "Threads"))


def _status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    raise LookupError(name)
