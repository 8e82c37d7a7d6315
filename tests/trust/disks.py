# SPDX-License-Identifier: Apache-2.0
"""Small disks that fill up or may only be read: file systems in memory, mounted for one test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        """Bytes."""
        seen = os.statvfs(self.path)
        return seen.f_bavail * seen.f_frsize

    def fill(self, *, but: int = 0) -> None:
        """Leaves so many bytes free, or what is free already."""
        with self._ballast.open("ab") as file:
            while (left := self.free - but) > 0:
                file.write(bytes(min(left, 1 << 20)))
                file.flush()

    def make_room(self) -> None:
        """What `fill` took is free again."""
        self._ballast.unlink()

    def remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.path))


@contextmanager
def mounted(path: Path, *, size: str) -> Iterator[Disk]:
    """A disk of that size (`4m`), which is gone afterwards with all that is on it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
            pytest.fail("mounting a small disk needs root on Linux")
        pytest.skip("mounting a small disk needs root on Linux")
    path.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
