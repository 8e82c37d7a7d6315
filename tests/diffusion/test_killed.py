# SPDX-License-Identifier: Apache-2.0
"""kill -9 while the diffusion engine studies, looks at the pace and draws: the last ten of the hundred."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from discs import request_for
from figures import Measured
from havoc import LOADING, Havoc
from keytween.config import Config
from keytween.images import Picture, encode
from keytween.starter import DaemonProcess
from keytween_wire.messages import Diffusion

KILLS = int(os.environ.get("KEYTWEEN_TEST_DIFFUSION_KILLS", "10"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_whoever_is_killed(
    config: Config,
    start_daemon: Callable[..., DaemonProcess],
    tiny_sd: Path,
    drawings: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    measured: Measured,
) -> None:
    files = []
    for index, drawing in enumerate(drawings):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(encode(Picture(drawing))[0])
    _, request, blobs = request_for(files, in_betweens=4, engine="diffmorpher")
    settings = Diffusion(str(tiny_sd), steps=20, lora_steps=12, lora_rank=2, reschedule="full")
    kinds = {"diffmorpher": (replace(request, diffusion=settings), blobs)}
    # Whoever kills here is not the job's fault: it must not be given up after three times.
    havoc = Havoc(replace(config, max_attempts=50), start_daemon, kinds, longest_s=5.0, deep=True)
    while len(havoc.kills) < KILLS:
        havoc.round()
    drawn = havoc.finish()
    idle = ("waiting", "beginning", "done", LOADING)
    at_work = [kill.doing for kill in havoc.kills if not kill.doing.endswith(idle)]
    assert len(at_work) >= KILLS // 3, havoc.tally()
    measured("1-kill-diffusion", f"{havoc.tally()}: none of {len(havoc.accepted)} jobs lost")
    measured("2-twice-diffusion", f"{drawn} drawings: each computed once, and as undisturbed")
