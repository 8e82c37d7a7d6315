"""How much memory this process has held at most, counted anew for each shot where the system lets us."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")


def forget() -> None:
    """Counts from now on; on systems without that, the count goes on from the process's start."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return


def peak_bytes() -> int | None:
    """The most that was held since `forget`; None where the system does not say."""
    if _STATUS.is_file():
        most = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(most.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
