"""An engine for tests that dissolves, or misbehaves as the request's seed says; real processes load it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SEGFAULT, HANG, HOARD, MISTAKE, SLOW, STARVE, STARVE_ONCE = 11, 12, 13, 14, 15, 16, 17
TELL = 31
HOARD_MB = 900
"""How much more memory than usual `HOARD` takes."""

_ENGINE = f"""
import os, signal, time
from keytween.engines.dissolve import Dissolve
from keytween_wire.messages import EngineInfo

class Ordeal(Dissolve):
    info = EngineInfo("ordeal", "Dissolves, or misbehaves as the seed says.")
    lean = 0

    def make_do(self, lean):
        self.lean = lean

    def morph(self, request, keyframes, *, skip=frozenset()):
        print("libraries print what they like")
        if request.seed == {SEGFAULT}:
            os.kill(os.getpid(), signal.SIGSEGV)
        if request.seed == {HANG}:
            time.sleep(600)
        if request.seed == {HOARD}:
            hoard = bytearray({HOARD_MB} << 20)
            hoard[::4096] = b"x" * len(hoard[::4096])
            time.sleep(600)
        if request.seed == {STARVE} or (request.seed == {STARVE_ONCE} and not self.lean):
            raise MemoryError
        if request.seed == {MISTAKE}:
            raise RuntimeError("a mistake")
        if request.seed == {TELL}:
            raise RuntimeError(f"cannot draw {{request.diffusion.prompts}} of {{request.keyframes[0].name}}")
        for made in super().morph(request, keyframes, skip=skip):
            time.sleep(0.15 if request.seed == {SLOW} else 0)
            yield made
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `ordeal` an engine of every process that is started from now on; `folder` holds its package."""
    package = folder / "ordeal-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: ordeal\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[keytween.engines]\nordeal = ordeal_engine:Ordeal\n")
    (folder / "ordeal_engine.py").write_text(_ENGINE)
    others = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), others))))
