# SPDX-License-Identifier: Apache-2.0
"""The fuzzers' seeds and findings of a target, read again in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "tests" / "fuzz"


def replay(target: str, changes: int, folder: Path) -> str:
    """What `replay.py` prints of a target; fails with what it found."""
    path = os.pathsep.join(str(ROOT / part) for part in ("daemon", "shared", "tests/fuzz"))
    command = [sys.executable, str(FUZZ / "replay.py"), target, str(changes)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()
