"""What this machine computes with: processor cores, and GPUs by their driver's own program."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_QUERY = "name,driver_version,memory.total,memory.used,utilization.gpu"


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU: memory in MiB, `busy` in percent."""

    name: str
    driver: str
    total_mb: float
    used_mb: float
    busy: float

    @property
    def free_mb(self) -> float:
        """What is left of its memory."""
        return self.total_mb - self.used_mb


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU, in the driver's order; none where the driver's program is not there or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gpu for line in done.stdout.splitlines() if (gpu := _gpu(line)) is not None)


def _gpu(line: str) -> Gpu | None:
    # A name may hold commas.
    fields = [field.strip() for field in line.rsplit(",", 4)]
    try:
        return Gpu(fields[0], fields[1], *(float(field) for field in fields[2:5]))
    except (TypeError, ValueError, IndexError):
        return None


def visible() -> tuple[str, ...]:
    """The NVIDIA GPUs that a process here would see, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(part.strip() for part in chosen.split(",") if part.strip())
    return tuple(str(number) for number in range(len(gpus())))


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
