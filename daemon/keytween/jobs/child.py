"""A worker process as the daemon sees it: how it is started and ended, and what it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from keytween.jobs.link import LinkKeys
from keytween.logs import open_output


@dataclass(slots=True, eq=False)
class Child:
    """A worker process. Moments are of the monotonic clock.

    `identity` is its address on the link, empty until it is ready; `job_id` what it is at, `given_at` since
    when, `frame_at` when its last drawing was done; `abandoned_at` since when it is told to leave that, 0
    when it is not; `engine` what it is to open once it is ready.
    """

    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    identity: bytes = b""
    job_id: str = ""
    engine: str = ""
    given_at: float = 0.0
    frame_at: float = 0.0
    abandoned_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)

    @classmethod
    def start(
        cls, keys: LinkKeys, *, environment: Mapping[str, str], device: str, log_file: Path | None
    ) -> Child:
        """A new process; it says that it is ready over the link. What it prints goes beside the log."""
        output = open_output(log_file) if log_file else None
        told = {"keys": keys.as_json(), "log": str(log_file or ""), "device": device}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "keytween.jobs.worker"],
                stdin=subprocess.PIPE,
                stdout=output or subprocess.DEVNULL,
                stderr=output,
                env={**os.environ, **environment},
            )
        finally:
            if output:
                output.close()
        assert process.stdin is not None
        with suppress(OSError):  # it may be dead already: the next tick notices
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        return cls(process)

    @property
    def idle(self) -> bool:
        """Whether it is ready and has nothing to do."""
        return bool(self.identity) and not self.job_id

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self.process.poll()

    def end(self) -> None:
        """Kills it at once: a worker's files are whole or not there, so there is nothing to wait for."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
