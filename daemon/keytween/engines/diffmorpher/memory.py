# SPDX-License-Identifier: Apache-2.0
"""When memory runs short: settings that take less of it, what was wanted and free, and waiting for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from keytween_wire.errors import OutOfMemory

WAIT_S, QUIET, MOST_WAITS = 0.25, 4, 40
"""Memory is looked at so often, has come back once it grows no more so often, and is waited for no longer."""
GROWTH = 1.01
"""What is less more than that is another program's, coming and going."""


@dataclass(frozen=True, slots=True)
class Thrift:
    """Settings that take less memory and more time. Drawings stay the same, save for rounding.

    `halves` drawings in a chunk, down to 1 with `singly`; `apart` studies keyframes one by one; `recompute`
    computes a study's intermediate results twice rather than keeping them; `queries` is for how many places
    of one drawing attention is computed at once, 0 for all of all; with `alone`, only the network at work
    lies in the device's memory.
    """

    halves: bool = False
    singly: bool = False
    apart: bool = False
    recompute: bool = False
    queries: int = 0
    alone: bool = False

    def chunk(self, usual: int) -> int:
        """How many drawings are denoised together, where it usually is so many."""
        return 1 if self.singly else max(1, usual // 2) if self.halves else usual

    def sentence(self, chunk: int, usual: int) -> str:
        """What a drawing's note says of how it was made; empty where it was made as usual."""
        if self == PLENTY and chunk >= usual:
            return ""
        said = [f"{chunk} drawings at a time" if chunk > 1 else "one drawing at a time"]
        said += ["keyframes studied one by one"] if self.apart else []
        said += ["attention in parts"] if self.queries else []
        said += ["one network on the device at a time"] if self.alone else []
        return f"Memory ran short, so this was made with less: {', '.join(said)}."


PLENTY = Thrift()
LEVELS = (
    PLENTY,
    Thrift(halves=True, apart=True, recompute=True, queries=4096),
    Thrift(singly=True, apart=True, recompute=True, queries=1024, alone=True),
)
"""By how often memory has run out for a request."""


def thrift(lean: int) -> Thrift:
    """The settings after memory ran out `lean` times, at least 0."""
    return LEVELS[min(lean, len(LEVELS) - 1)]


# ---- numbers

_WANTED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SAID = ("DefaultCPUAllocator", "not enough memory", "out of memory", "_STATUS_ALLOC_FAILED")
"""What allocators without an exception of their own say: the processor's, MPS's, cuBLAS's and cuDNN's."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the device or the processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _SAID)


@contextmanager
def naming(doing: str, device: torch.device) -> Iterator[None]:
    """Makes a shortage inside it OutOfMemory, with what was wanted and free while `doing`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise OutOfMemory(detail=numbers(error, doing, device)) from error


def numbers(error: BaseException, doing: str, device: torch.device) -> str:
    """A shortage's numbers as a part of a sentence: wanted where the allocator says so, free, total."""
    wanted = _WANTED.search(str(error))
    more = ""
    if wanted:
        more = f"{_gb(float(wanted[1]) * _UNITS[wanted[2][0].lower()])} more were wanted and "
    free, total = room(device)
    held = f", {_gb(torch.cuda.memory_allocated(device))} held by this tween" if device.type == "cuda" else ""
    return f"{doing}, {more}{_gb(free)} of {_gb(total)} were free{held}"


def room(device: torch.device) -> tuple[int, int]:
    """How many bytes of the device's memory are free, and how many there are."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e9:.2g} GB"


# ---- waiting


def coming_back(free: Callable[[], int]) -> Iterator[int]:
    """Waits until `free` bytes grow no more, and no longer than ten seconds; yields after each look.

    A driver gives back the memory of a process some time after that process has ended.
    """
    most, quiet = 0, 0
    for look in range(1, MOST_WAITS + 1):
        now = free()
        quiet = quiet + 1 if now <= most * GROWTH else 0
        if quiet == QUIET:
            return
        most = max(most, now)
        yield look
        time.sleep(WAIT_S)
